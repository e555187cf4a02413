"""``genlab verify-resume CONFIG``: prove that a killed run resumes bit for bit."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Ge

from genlab.cli.family_options import read_options
from genlab.core.errors import run_command
from genlab.proofs.verify_resume import verify_resume

PROG = "genlab verify-resume"


@dataclass(frozen=True)
class ResumeOptions:
    """Prove that a killed run resumes exactly: train a short run to its end, and the same one killed (SIGKILL) at
    random steps and resumed; compare every metric and every bit of the last checkpoint. Exit status 0: equal, 1: not.

    Options of the family follow with their dotted names: genlab verify-resume vae --data.images DIR --run.batch 64
    """

    config: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
    """A run or its config.json, or the name of a family."""
    workers: Annotated[int, Ge(0)] | None = None
    """Ray Train workers; 0 trains in one process without Ray. By default as the config says."""
    steps: Annotated[int, Ge(2)] = 24
    """Steps of the run."""
    kills: Annotated[int, Ge(1)] = 3
    """How often it is killed."""
    seed: int = 0
    """Seed of the choice of steps and processes."""
    storage: str | None = None
    """Folder or URL for the two runs, which stay there. By default a temporary folder, for workers of one machine."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab verify-resume``."""

    def command() -> bool:
        options, load = read_options(ResumeOptions, arguments, PROG)
        family, config = load(options.config)
        return verify_resume(
            family,
            config,
            workers=options.workers,
            steps=options.steps,
            kills=options.kills,
            seed=options.seed,
            storage=options.storage,
        )

    equal: list[bool] = []
    run_command(lambda: equal.append(command()))
    sys.exit(0 if equal[0] else 1)
