"""``genlab verify-resume CONFIG``: is a run that is killed and started again the same as one that was not?

A short run is trained twice, unbroken and killed (SIGKILL) at random steps: a worker, or the driver, or with
``--workers 0`` the one process there is. The killed one is started again each time. Then every metric and every bit of
the last checkpoint are compared.
"""

import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from genlab.core.config import override
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate, write_atomic
from genlab.proofs.compare_runs import Helper, first_difference, storage_for
from genlab.recipes.recipe import Batches, StepContext, recipe_type
from genlab.training.launch import launch
from genlab.training.plan import Plan
from genlab.training.session import Session

LOOK_SECONDS = 0.1
DRIVER = -1
"""The victim that is the driver, not one of the ranks."""


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

        def step_or_die(this: Any, batches: Batches, step: StepContext) -> Any:
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


def verify_resume(
    family: str, config: Any, *, workers: int | None, steps: int, kills: int, seed: int, storage: str | None
) -> bool:
    """Train both runs, print what came of it, and return whether they are equal.

    Args:
        family: the model family.
        config: the family's config.
        workers: Ray Train workers; 0 for one process without Ray, ``None`` for as many as the config says.
        steps: steps of the run.
        kills: how often it is killed.
        seed: of the draw of steps and processes to kill.
        storage: folder or URL that the runs are left in; ``None`` for a temporary one.

    Raises:
        ConfigError: when there are more kills than steps.
        RunError: when a run failed of itself.
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
            if (locate(folder) / name).exists():
                raise ConfigError(f"--storage {folder}: holds {name!r} of an earlier verification; choose another")
        deaths = _draw(steps, kills, seed, workers)
        print(f"genlab verify-resume {family}: {steps} steps, {_where(workers)}, in {folder}", flush=True)
        unbroken = Helper(Path(logs) / "unbroken.log", launch, family, plans["unbroken"])
        unbroken.process.join()
        if unbroken.process.exitcode:
            raise unbroken.failure()
        print("unbroken: done", flush=True)
        reaper = Reaper(deaths, str(locate(folder) / "deaths"))
        _train_and_kill(family, plans["killed"], reaper, Path(logs))
        difference, compared = first_difference(locate(folder) / "unbroken", locate(folder) / "killed")
    if difference:
        print(f"FAIL: the runs differ, first in {difference}")
        return False
    print(f"PASS: equal bit for bit: {compared}")
    return True


def _draw(steps: int, kills: int, seed: int, workers: int) -> tuple[Death, ...]:
    """When whom: random steps; every other time a random worker, else the driver. Without Ray there is one process."""
    generator = random.Random(seed)
    chosen = sorted(generator.sample(range(1, steps), kills))
    return tuple(
        Death(step, DRIVER if workers and number % 2 else generator.randrange(max(workers, 1)))
        for number, step in enumerate(chosen)
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
