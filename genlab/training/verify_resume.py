"""``genlab verify-resume CONFIG``: is a run that is killed and started again the same as one that was not?

A short run is trained twice, unbroken and killed (SIGKILL) at random steps: a worker, or the driver, or with
``--workers 0`` the one process there is. The killed one is started again each time. Then every metric and every bit of
the last checkpoint are compared.
"""

import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro
from annotated_types import Ge

from genlab.config import override
from genlab.errors import ConfigError, RunError, run_command
from genlab.recipes.recipe import Batches, Step, recipe_type
from genlab.storage import locate, write_atomic
from genlab.training.command import read_options
from genlab.training.launch import launch
from genlab.training.plan import Plan
from genlab.training.session import Session
from genlab.training.verify import Helper, first_difference, storage_for

PROG = "genlab verify-resume"
LOOK_SECONDS = 0.1
DRIVER = -1
"""The victim that is the driver, not one of the ranks."""


@dataclass(frozen=True)
class ResumeOptions:
    """Prove that a killed run resumes exactly: train a short run unbroken, and the same one killed (SIGKILL) at random
    steps and started again; compare every metric and every bit of the last checkpoint. Exit status 0: equal, 1: not.

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
    """What the steps and victims are drawn from."""
    storage: str | None = None
    """Folder or URL that the two runs are left in. By default a temporary one, which one machine's workers share."""


@dataclass(frozen=True)
class Death:
    """A process to be killed as it begins a step."""

    step: int
    """Index of the step, from 0."""
    victim: int
    """A rank, or :data:`DRIVER`."""

    @property
    def name(self) -> str:
        """Name of the file that says it has happened."""
        return f"step-{self.step:08d}-{'driver' if self.victim == DRIVER else f'rank-{self.victim}'}"


@dataclass(frozen=True)
class Reaper:
    """Makes ranks die when their time comes; each death leaves a file in ``folder``, and happens once."""

    deaths: tuple[Death, ...]
    folder: str

    def __call__(self, plan: Plan, session: Session) -> None:
        """Lie in wait in this worker: its recipe's steps will end it."""
        recipe = recipe_type(plan.family)
        whole_step = recipe.step

        def step_or_die(this: Any, batches: Batches, step: Step) -> Any:
            for death in self.deaths:
                if death.step == step.index and session.rank == max(death.victim, 0) and not self.happened(death):
                    write_atomic(locate(self.folder) / death.name, b"")
                    if death.victim != DRIVER:
                        os.kill(os.getpid(), signal.SIGKILL)
                    signal.pause()  # until the driver, and this worker with it, is killed by whoever reads that file
            return whole_step(this, batches, step)

        setattr(recipe, "step", step_or_die)  # noqa: B010

    def happened(self, death: Death) -> bool:
        """Whether ``death`` is over."""
        return (locate(self.folder) / death.name).exists()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""

    def command() -> bool:
        options, load = read_options(ResumeOptions, arguments, PROG)
        family, config = load(options.config)
        return verify_resume(family, config, options)

    equal: list[bool] = []
    run_command(lambda: equal.append(command()))
    sys.exit(0 if equal[0] else 1)


def verify_resume(family: str, config: Any, options: ResumeOptions) -> bool:
    """Train both runs, print what came of it, and return whether they are equal.

    Raises:
        ConfigError: when there are more kills than steps.
        RunError: when a run failed of itself.
    """
    if options.kills >= options.steps:
        raise ConfigError(f"--kills {options.kills}: a run of {options.steps} steps can be killed at fewer")
    workers = config.run.workers if options.workers is None else options.workers
    with storage_for(options.storage) as storage, TemporaryDirectory(prefix="genlab-verify-logs-") as logs:
        changes = {
            "run.storage": storage,
            "run.workers": workers,
            "run.steps": options.steps,
            "run.log_every": 1,
            "run.checkpoint_every": max(1, options.steps // 5),
            "run.figures_every": max(1, options.steps // 2),
            "run.keep": 2,
            "run.max_failures": options.kills,
        }
        plans = {name: override(config, {**changes, "run.name": name}) for name in ("unbroken", "killed")}
        for name in plans:
            if (locate(storage) / name).exists():
                raise ConfigError(f"--storage {storage}: holds {name!r} of an earlier verification; choose another")
        deaths = _draw(options, workers)
        print(f"{PROG} {family}: {options.steps} steps, {_where(workers)}, in {storage}", flush=True)
        unbroken = Helper(Path(logs) / "unbroken.log", launch, family, plans["unbroken"])
        unbroken.process.join()
        if unbroken.process.exitcode:
            raise unbroken.failure()
        print("unbroken: done", flush=True)
        reaper = Reaper(deaths, str(locate(storage) / "deaths"))
        _train_and_kill(family, plans["killed"], reaper, Path(logs))
        difference, compared = first_difference(locate(storage) / "unbroken", locate(storage) / "killed")
    if difference:
        print(f"FAIL: the runs differ, first in {difference}")
        return False
    print(f"PASS: equal bit for bit: {compared}")
    return True


def _draw(options: ResumeOptions, workers: int) -> tuple[Death, ...]:
    """When whom: random steps; every other time a random worker, else the driver. Without Ray there is one process."""
    random_ = random.Random(options.seed)
    steps = sorted(random_.sample(range(1, options.steps), options.kills))
    return tuple(
        Death(step, DRIVER if workers and number % 2 else random_.randrange(max(workers, 1)))
        for number, step in enumerate(steps)
    )


def _train_and_kill(family: str, config: Any, reaper: Reaper, logs: Path) -> None:
    attempts = 0
    told: set[Death] = set()
    driver: Helper | None = None
    try:
        while driver is None or driver.process.exitcode != 0:
            if driver is None or driver.process.exitcode == -signal.SIGKILL:
                attempts += 1
                driver = Helper(logs / f"killed-{attempts}.log", launch, family, config, reaper)
            elif driver.process.exitcode:
                raise driver.failure()
            driver.process.join(LOOK_SECONDS)
            for death in reaper.deaths:
                if death not in told and reaper.happened(death):
                    told.add(death)
                    if death.victim == DRIVER:
                        driver.kill()
                    whom = "the driver" if death.victim == DRIVER else f"worker {death.victim}"
                    print(f"killed: {whom} at step {death.step}", flush=True)
    finally:
        if driver is not None:
            driver.kill()
    if len(told) < len(reaper.deaths):
        raise RunError(f"only {len(told)} of {len(reaper.deaths)} kills took place: the run ended before its steps did")
    print(f"killed: done, after {len(told)} kills and {attempts} starts", flush=True)


def _where(workers: int) -> str:
    return f"{workers} Ray Train worker(s)" if workers else "one process without Ray"
