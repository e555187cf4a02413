"""The order of a sweep's points: means over seeds with intervals, differences beyond chance, and the Pareto front."""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genlab.metrics.intervals import Interval, holm, student_interval, welch_p_value
from genlab.sweeps.space import Mode
from genlab.sweeps.trials import Outcome

LEVEL = 0.05
"""A difference is said to be one where its p-value, adjusted for the number of points, is below this."""


@dataclass(frozen=True)
class PointResult:
    """One point of the space, with the trials of all its seeds."""

    point: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    @property
    def stopped(self) -> int | None:
        """Images that had been seen when its trial was stopped; ``None`` of a point that was trained to the end."""
        return next((outcome.stopped for outcome in self.outcomes if outcome.stopped), None)

    def values(self, metric: str) -> list[float]:
        """Return the metric of each trial that has it."""
        found = (outcome.metrics.get(metric, math.nan) for outcome in self.outcomes)
        return [value for value in found if math.isfinite(value)]

    def mean(self, metric: str) -> float:
        """Return the mean over the seeds; NaN where no trial has the metric."""
        values = self.values(metric)
        return statistics.fmean(values) if values else math.nan

    def interval(self, metric: str) -> Interval | None:
        """Return Student's 95% interval of the mean over all seeds there could be; ``None`` of fewer than two."""
        values = self.values(metric)
        if len(values) < 2:
            return None
        error = statistics.stdev(values) / math.sqrt(len(values))
        return student_interval(statistics.fmean(values), error, len(values) - 1)

    def best(self, metric: str, mode: Mode) -> Outcome:
        """Return the trial whose metric is best."""
        return min(self.outcomes, key=lambda outcome: _cost(outcome.metrics.get(metric, math.nan), mode))


def by_point(outcomes: Sequence[Outcome]) -> list[PointResult]:
    """Gather the trials of each point, in the order in which the points come.

    A trial that branched off another is a point of its own: it is not one of its options alone.
    """
    points: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        trial = outcome.trial
        points.setdefault(trial.name if trial.origin else repr(trial.point), []).append(outcome)
    return [PointResult(found[0].trial.point, tuple(found)) for found in points.values()]


def ranked(points: Sequence[PointResult], metric: str, mode: Mode) -> list[PointResult]:
    """Return the points by their means, the best first; after them those that were stopped, the latest first.

    Points without the metric come last.
    """

    def key(point: PointResult) -> tuple[bool, int, float]:
        cost = _cost(point.mean(metric), mode)
        return math.isinf(cost), -(point.stopped or sys.maxsize), cost

    return sorted(points, key=key)


def p_values(points: Sequence[PointResult], metric: str) -> list[float | None]:
    """Compare each point with the first by Welch's test over seeds, adjusted by Holm for the number of points.

    Args:
        points: the points in their order, the best first.
        metric: the metric.

    Returns:
        The adjusted p-value of each point; ``None`` for the first, and where either has fewer than two seeds.
    """
    if not points:
        return []
    first = points[0].values(metric)
    raw = [
        welch_p_value(first, values) if len(first) > 1 and len(values := point.values(metric)) > 1 else None
        for point in points[1:]
    ]
    adjusted = iter(holm([value for value in raw if value is not None]))
    return [None, *(None if value is None else next(adjusted) for value in raw)]


def pareto_front(points: Sequence[PointResult], objectives: Mapping[str, Mode]) -> list[PointResult]:
    """Return the points that no other beats: none is at least as good in all metrics and better in one.

    Args:
        points: the points; those that lack a metric are left out.
        objectives: the direction of each metric.
    """
    costs = {
        id(point): [_cost(point.mean(metric), mode) for metric, mode in objectives.items()]
        for point in points
        if all(point.values(metric) for metric in objectives)
    }

    def beaten(mine: Sequence[float]) -> bool:
        return any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in costs.values())

    return [point for point in points if id(point) in costs and not beaten(costs[id(point)])]


def _cost(value: float, mode: Mode) -> float:
    """Return a number that is lower the better a metric is, infinite where there is none."""
    if not math.isfinite(value):
        return math.inf
    return value if mode == "min" else -value
