"""Trials that are stopped early: their rungs, Ray Tune's schedulers, and the record of who was stopped."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from genlab.core.storage import locate
from genlab.evaluation.checkpoint_evaluations import read_evaluations
from genlab.sweeps.space import Asha, Median, Space
from genlab.sweeps.trials import NUMBER, Trial, record_stop, result_of, stop_of, stopped_images
from genlab.training.checkpoints import Checkpoints
from genlab.training.plan import Plan
from genlab.training.rung import Rung
from genlab.training.tracking import METRICS, read_metrics

IMAGES = "images"
RUNG = "rung"
"""The step of a rung, in what a trial reports to Ray Tune there."""


def reporter(plan: Plan, until: int | None = None) -> Callable[[Rung], bool]:
    """Return a function that reports a rung of a trial's run to Ray Tune, and says whether the run is to stop there.

    It is called in the trial's process. Ray Tune has decided when its report returns.

    Args:
        plan: the run.
        until: the step of the rung at which it waits for others, whatever Ray Tune says; ``None``: at none.
    """

    def report(rung: Rung) -> bool:
        if stop_of(plan) != rung.step:
            tune.report({**rung.metrics, RUNG: rung.step, IMAGES: rung.images})
        return rung.step in (stop_of(plan), until)

    return report


def measured_steps(plan: Plan, metric: str) -> dict[int, float]:
    """Return the values of a metric of held-out rows that a run has measured, by step."""
    kind, _, name = metric.partition("/")
    directory = locate(plan.directory)
    lines = read_metrics(directory / METRICS)
    values = {line["step"]: line[name] for line in lines if line["kind"] == kind and name in line}
    return values | {one.step: one.better[name] for one in read_evaluations(directory) if name in one.better}


@dataclass(frozen=True)
class _Named:
    """All that a scheduler of Ray Tune's needs to know of a trial."""

    trial_id: str


class RungScheduler(FIFOScheduler):
    """Has a scheduler of Ray Tune's decide, at rungs, which trials stop.

    A decision is written to the trial's run before the trial learns of it, so that it holds whatever happens; the run
    then ends by itself, at its checkpoint. A sweep that goes on tells the scheduler what earlier trials reported, which
    stands in their metrics.

    Args:
        space: the space, with a scheduler and one metric.
        trials: the trials, by number; more may come.
    """

    def __init__(self, space: Space, trials: Sequence[Trial]) -> None:
        super().__init__()
        ((self._by, mode),) = space.objectives.items()
        self._trials = trials
        self._seen: set[tuple[str, int]] = set()
        self._asha = space.scheduler if isinstance(space.scheduler, Asha) else None
        self._schedulers: list[Any] = []
        if isinstance(space.scheduler, Asha):
            # Ray Tune's own brackets are drawn from a global generator: a trial would change its own after a restart.
            self._schedulers = [
                AsyncHyperBandScheduler(
                    time_attr=IMAGES,
                    metric=self._by,
                    mode=mode,
                    max_t=sys.maxsize,  # A trial ends by itself.
                    grace_period=math.ceil(space.scheduler.grace * space.scheduler.reduction**bracket),
                    reduction_factor=space.scheduler.reduction,
                )
                for bracket in range(space.scheduler.brackets)
            ]
        elif isinstance(space.scheduler, Median):
            # An infinite time slice: with another the rule pauses trials while there are few to compare with.
            self._schedulers = [
                MedianStoppingRule(
                    time_attr=IMAGES,
                    metric=self._by,
                    mode=mode,
                    grace_period=space.scheduler.grace,
                    min_time_slice=math.inf,  # type: ignore[arg-type]
                )
            ]
        for trial in trials:
            self._replay(trial)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Make a trial known to the scheduler."""
        super().on_trial_add(tune_controller, trial)
        mine = self._trial(trial)
        self._scheduler(mine).on_trial_add(None, _Named(mine.name))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Have the scheduler decide at a rung; the decision goes to the run's directory."""
        if RUNG in result and self._by in result:
            rung = Rung(result[RUNG], result[IMAGES], {self._by: result[self._by]})
            mine = self._trial(trial)
            if self._stops(mine, rung.images, rung.metrics[self._by]):
                record_stop(mine.plan, rung)
        decision: str = TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Tell the scheduler how a trial ended that was not stopped."""
        self._complete(self._trial(trial))

    def _scheduler(self, trial: Trial) -> Any:
        """Return the scheduler of Ray Tune's that decides on a trial."""
        bracket = self._asha.bracket(trial.name, trial.images) if self._asha else 0
        return self._schedulers[bracket]

    def _trial(self, trial: Any) -> Trial:
        """Return the trial that is Ray Tune's ``trial``."""
        return self._trials[trial.config[NUMBER]]

    def _replay(self, trial: Trial) -> None:
        """Tell the scheduler what a trial reported earlier, but for a rung that it will report again."""
        saved = Checkpoints(locate(trial.plan.directory) / "checkpoints", keep=1).steps()
        passed = math.inf if result_of(trial) is not None else max(saved, default=0)
        values = measured_steps(trial.plan, self._by)
        reached = [step for step in trial.plan.rungs if step in values and step < passed]
        if reached:
            self._scheduler(trial).on_trial_add(None, _Named(trial.name))
            for step in reached:
                images = step * trial.plan.run.batch
                if self._asha:
                    self._stops(trial, images, values[step])
                else:  # As a trial that ends, by which the rule decides nothing: who came first is not known.
                    self._seen.add((trial.name, images))
                    found = {IMAGES: images, self._by: values[step]}
                    self._scheduler(trial).on_trial_complete(None, _Named(trial.name), found)
            self._complete(trial)

    def _stops(self, trial: Trial, images: int, value: float) -> bool:
        """Tell the scheduler what a trial reached, once; return whether it is to stop."""
        if (trial.name, images) in self._seen:
            return False
        self._seen.add((trial.name, images))
        found = {IMAGES: images, self._by: value}
        decision = self._scheduler(trial).on_trial_result(None, _Named(trial.name), found)
        return bool(decision == TrialScheduler.STOP)

    def _complete(self, trial: Trial) -> None:
        metrics = result_of(trial)
        if metrics is not None and self._by in metrics and stopped_images(trial.plan) is None:
            found = {IMAGES: trial.images, self._by: metrics[self._by]}
            self._scheduler(trial).on_trial_complete(None, _Named(trial.name), found)
