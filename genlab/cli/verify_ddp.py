"""``genlab verify-ddp CONFIG``: prove that results do not depend on the number of workers."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Ge

from genlab.cli.family_options import read_options
from genlab.core.errors import run_command
from genlab.proofs.verify_ddp import verify_ddp

PROG = "genlab verify-ddp"


@dataclass(frozen=True)
class DDPOptions:
    """Prove that results do not depend on the number of workers: train the same global batches on 1, 2, ... workers in
    float64 and compare parameters and metrics, and compare the workers' bits in the real setting. All on the CPU, with
    gloo. Exit status 0: they agree, 1: not.

    Options of the family follow with their dotted names: genlab verify-ddp cyclegan --data.a DIR --data.b DIR
    """

    config: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
    """A run or its config.json, or the name of a family."""
    workers: Annotated[int, Ge(2)] = 2
    """Largest number of workers; all smaller ones are run as well."""
    steps: Annotated[int, Ge(1)] = 4
    """Steps of each run."""
    storage: str | None = None
    """Folder or URL for the runs, which stay there. By default a temporary folder."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab verify-ddp``."""

    def command() -> bool:
        options, load = read_options(DDPOptions, arguments, PROG)
        family, config = load(options.config)
        return verify_ddp(family, config, workers=options.workers, steps=options.steps, storage=options.storage)

    agree: list[bool] = []
    run_command(lambda: agree.append(command()))
    sys.exit(0 if agree[0] else 1)
