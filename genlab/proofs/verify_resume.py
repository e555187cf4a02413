"""The proof of ``genlab verify-resume CONFIG``: a run that is killed and resumed equals one that is not.

A short run is trained twice. The first runs to its end; the second is killed (SIGKILL) at random steps and resumed
each time. The killed process is a worker or the driver, or with ``--workers 0`` the only process. Then every metric and
every bit of the last checkpoint are compared.
"""

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from genlab.core.config import override
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import exists, is_folder, locate, write_atomic
from genlab.core.text import counted
from genlab.proofs.compare_runs import LoggedProcess, first_difference, storage_for
from genlab.recipes.recipe import Batches, Metrics, Phase, StepContext, recipe_type
from genlab.training.launch import launch
from genlab.training.plan import Plan
from genlab.training.session import Session

Loss = Callable[[Batches, StepContext], tuple[Tensor, Metrics]]

POLL_SECONDS = 0.1
DRIVER = -1
"""Value of :attr:`Kill.target` for the driver, which is not one of the ranks."""


@dataclass(frozen=True)
class Kill:
    """The kill of one process at the beginning of a step."""

    step: int
    """Index of the step, from 0."""
    target: int
    """The process: a rank, or :data:`DRIVER`."""

    @property
    def name(self) -> str:
        """Name of the file that is written when the kill takes place."""
        return f"step-{self.step:08d}-{'driver' if self.target == DRIVER else f'rank-{self.target}'}"


@dataclass(frozen=True)
class KillSchedule:
    """The kills of a run; a function that :func:`genlab.training.launch.launch` takes as its ``prepare``.

    Each kill writes a file into ``folder``, so that it does not take place again when the run is resumed.
    """

    kills: tuple[Kill, ...]
    folder: str

    def __call__(self, plan: Plan, session: Session) -> None:
        """Have each step of this worker's recipe first carry out the kills that are due."""
        recipe = recipe_type(plan.family)
        phases = recipe.phases

        def kill_if_due(step: StepContext) -> None:
            for kill in self.kills:
                if kill.step == step.index and session.rank == max(kill.target, 0) and not self.done(kill):
                    write_atomic(locate(self.folder) / kill.name, b"")
                    if kill.target != DRIVER:
                        os.kill(os.getpid(), signal.SIGKILL)
                    signal.pause()  # until verify-resume sees the file and kills the driver, and so this worker

        def phases_with_kills(this: Any) -> list[Phase]:
            # Any of them may be the first of a step: the others may come in some steps only.
            return [replace(phase, loss=partial(kill_or_compute, phase.loss)) for phase in phases(this)]

        def kill_or_compute(loss: Loss, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
            kill_if_due(step)
            return loss(batches, step)

        setattr(recipe, "phases", phases_with_kills)  # noqa: B010

    def done(self, kill: Kill) -> bool:
        """Return whether ``kill`` has taken place."""
        return exists(locate(self.folder) / kill.name)


def verify_resume(
    family: str, config: Any, *, workers: int | None, steps: int, kills: int, seed: int, storage: str | None
) -> bool:
    """Train both runs, print the result, and return whether they are equal.

    Args:
        family: the model family.
        config: the family's config.
        workers: Ray Train workers; 0 for one process without Ray, ``None`` for as many as the config says.
        steps: steps of the run.
        kills: how often it is killed.
        seed: seed of the choice of steps and processes.
        storage: folder or URL that the runs are left in; ``None`` for a temporary one.

    Raises:
        ConfigError: when there are more kills than steps.
        RunError: when a run failed for another reason than a kill.
    """
    if kills >= steps:
        raise ConfigError(f"--kills {kills}: a run of {steps} steps can be killed at fewer")
    workers = config.run.workers if workers is None else workers
    with storage_for(storage) as folder, TemporaryDirectory(prefix="genlab-verify-logs-") as logs:
        changes = {
            "run.storage": folder,
            "run.workers": workers,
            "run.steps": steps,
            "run.log_every": 1,
            "run.checkpoint_every": max(1, steps // 5),
            "run.figures_every": max(1, steps // 2),
            "run.keep": 2,
            "run.max_failures": kills,
        }
        plans = {name: override(config, {**changes, "run.name": name}) for name in ("unbroken", "killed")}
        for name in plans:
            if is_folder(locate(folder) / name):
                raise ConfigError(f"--storage {folder}: holds {name!r} of an earlier verification; choose another")
        schedule = KillSchedule(_choose_kills(steps, kills, seed, workers), str(locate(folder) / "kills"))
        print(f"genlab verify-resume {family}: {steps} steps, {_where(workers)}, in {folder}", flush=True)
        unbroken = LoggedProcess(Path(logs) / "unbroken.log", launch, family, plans["unbroken"])
        unbroken.process.join()
        if unbroken.process.exitcode:
            raise unbroken.failure()
        print("unbroken: done", flush=True)
        _train_and_kill(family, plans["killed"], schedule, Path(logs))
        difference, compared = first_difference(locate(folder) / "unbroken", locate(folder) / "killed")
    if difference:
        print(f"FAIL: the runs differ, first in {difference}")
        return False
    print(f"PASS: equal bit for bit: {compared}")
    return True


def _choose_kills(steps: int, kills: int, seed: int, workers: int) -> tuple[Kill, ...]:
    """Choose random steps. In every other one the driver is killed, else a random worker; without Ray the process."""
    generator = random.Random(seed)
    chosen = sorted(generator.sample(range(1, steps), kills))
    return tuple(
        Kill(step, DRIVER if workers and number % 2 else generator.randrange(max(workers, 1)))
        for number, step in enumerate(chosen)
    )


def _train_and_kill(family: str, config: Any, schedule: KillSchedule, logs: Path) -> None:
    """Start the run, and again after each kill, until it ends; kill the driver where that is due."""
    attempts = 0
    reported: set[Kill] = set()
    driver: LoggedProcess | None = None
    try:
        while driver is None or driver.process.exitcode != 0:
            if driver is None or driver.process.exitcode == -signal.SIGKILL:
                attempts += 1
                driver = LoggedProcess(logs / f"killed-{attempts}.log", launch, family, config, schedule)
            elif driver.process.exitcode:
                raise driver.failure()
            driver.process.join(POLL_SECONDS)
            for kill in schedule.kills:
                if kill not in reported and schedule.done(kill):
                    reported.add(kill)
                    if kill.target == DRIVER:
                        driver.kill()
                    target = "the driver" if kill.target == DRIVER else f"worker {kill.target}"
                    print(f"killed: {target} at step {kill.step}", flush=True)
    finally:
        if driver is not None:
            driver.kill()
    if len(reported) < len(schedule.kills):
        raise RunError(
            f"only {len(reported)} of {len(schedule.kills)} kills took place: the run ended before the other steps"
        )
    print(f"killed: done, after {counted(len(reported), 'kill')} and {counted(attempts, 'start')}", flush=True)


def _where(workers: int) -> str:
    return counted(workers, "Ray Train worker") if workers else "one process without Ray"
