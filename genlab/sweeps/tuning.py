"""Trials under Ray Tune, side by side."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher
from upath import UPath

from genlab.core.config import override
from genlab.core.text import counted
from genlab.reports.report import make_report
from genlab.sweeps.trials import Trial, result_of
from genlab.training.console import RunConsole
from genlab.training.plan import Plan, finished_step, owned, start_or_resume
from genlab.training.ray.driver import fit, side_by_side

DRIVER: dict[str, int | float] = {"memory": 1}
"""What is reserved for the driver of a trial, which hardly computes: a byte, since Tune wants something reserved. Even
a hundredth of a CPU would be missing for a worker, on a node whose CPUs are all taken."""
SECONDS_PER_HOUR = 3600


def run_trials(
    trials: Sequence[Trial], of: int, hours: float | None, folder: UPath, callbacks: Sequence[tune.Callback]
) -> dict[str, str]:
    """Train trials side by side on the cluster that this process is connected to, and write their reports.

    Args:
        trials: the trials.
        of: how many trials the sweep has, with those that have ended. It decides the threads of each, so that trials
            compute with the same number when the sweep goes on.
        hours: after how many hours no further trial starts; ``None``: all start.
        folder: the sweep's folder, for Ray Tune's own files.
        callbacks: they are told of the trials, each by its number in ``trials``, the ``trial`` of its config.

    Returns:
        Why trials failed, in one line each, by their names.

    Raises:
        ClusterError: when a trial does not fit on the cluster.
    """
    threads, together = side_by_side(trials[0].plan.run, of)
    at_a_time = counted(min(together, len(trials)), "trial")
    print(f"{at_a_time} at a time, {counted(threads, 'thread')} a worker", flush=True)
    plans = [
        dataclasses.replace(trial.plan, config=override(trial.plan.config, {"run.threads": threads}))
        for trial in trials
    ]
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, plans=plans), tune.PlacementGroupFactory([DRIVER])),
        tune_config=tune.TuneConfig(
            search_alg=Queue(len(plans), hours),
            num_samples=len(plans),
            max_concurrent_trials=together,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0, callbacks=list(callbacks)),
    )
    faults = {}
    grid = tuner.fit()
    for result in (grid[number] for number in range(len(grid))):
        if result.error is not None:
            trial = trials[(result.config or {})["trial"]]
            faults[trial.name] = str(result.error).strip().splitlines()[-1]
    return faults


def _trial(parameters: dict[str, Any], plans: list[Plan]) -> None:
    """Train one plan and write its report; runs in a process of Tune's."""
    plan = plans[parameters["trial"]]
    with owned(plan, "give the sweep another name") as mine:
        start_or_resume(mine)
        if finished_step(mine) is None:
            with RunConsole() as console:
                fit(mine, console, callbacks=[TuneReportCallback()])
    make_report(plan.directory)
    tune.report(result_of(Trial({}, plan)) or {})


class Queue(Searcher):
    """Gives trials out in their order, to whatever is free.

    Args:
        count: number of trials.
        hours: after how many hours no more are given out.
    """

    def __init__(self, count: int, hours: float | None) -> None:
        super().__init__()
        self._count = count
        self._next = 0
        self._end = None if hours is None else time.monotonic() + hours * SECONDS_PER_HOUR

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's number, or that there is none."""
        if self._next == self._count or (self._end is not None and time.monotonic() > self._end):
            return Searcher.FINISHED
        self._next += 1
        return {"trial": self._next - 1}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the order does not depend on results."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a sweep that is started again asks the runs how far they are."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as :meth:`save`."""
