"""The table of a sweep's points, as text: for the terminal and for the page."""

from collections.abc import Sequence
from typing import Any

from genlab.core.text import counted
from genlab.evaluation.measurements import Measurement
from genlab.sweeps.ranking import LEVEL, PointResult, p_values
from genlab.sweeps.space import Space


def columns(space: Space, points: Sequence[PointResult]) -> tuple[str, ...]:
    """Return the heads of the columns: what varies, the metrics, and what is said of each point."""
    verdict = "front" if len(space.objectives) > 1 else "against the best"
    return (*varied(points), *space.objectives, "seeds", verdict, "best run")


def rows(space: Space, points: Sequence[PointResult], front: Sequence[PointResult]) -> list[tuple[str, ...]]:
    """Return the row of each point.

    Args:
        space: the space.
        points: the points in their order, the best first.
        front: those of the Pareto front.
    """
    metric, mode = next(iter(space.objectives.items()))
    several, options = len(space.objectives) > 1, varied(points)
    found = []
    for point, p_value in zip(points, p_values(points, metric), strict=True):
        if several:
            verdict = "front" if point in front else ""
        elif point is points[0]:
            verdict = "the best"
        elif point.stopped:
            verdict = f"stopped at {counted(point.stopped, 'image')}"
        elif p_value is None:
            verdict = "?"
        else:
            verdict = "worse" if p_value < LEVEL else f"no difference (p = {p_value:.2f})"
        faults = [outcome.error for outcome in point.outcomes if outcome.error]
        found.append(
            (
                *(shown(point.point.get(name, "")) for name in options),
                *(figure(point, name) for name in space.objectives),
                str(len(point.values(metric))),
                faults[0] if faults else verdict,
                point.best(metric, mode).trial.name,
            )
        )
    return found


def note(points: Sequence[PointResult]) -> str:
    """Return what the intervals and verdicts of the table mean, in a sentence."""
    if max((len(point.outcomes) for point in points), default=1) == 1:
        return "one seed each: which differences are chance is not known; --sweep.seeds 3 repeats each point"
    return f"± is half of the 95% interval of the mean over seeds; a difference is one from p = {LEVEL} down"


def varied(points: Sequence[PointResult]) -> list[str]:
    """Return the names of the options that vary; some may vary in some points only."""
    return list(dict.fromkeys(name for point in points for name in point.point))


def figure(point: PointResult, metric: str) -> str:
    """Return the mean of a metric, with half of its interval where there is one."""
    interval = point.interval(metric)
    return str(Measurement(metric, point.mean(metric), {}, interval=interval)) if point.values(metric) else "–"


def shown(value: Any) -> str:
    """Return a value of an option, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def point_text(point: PointResult) -> str:
    """Return a point in words."""
    return ", ".join(f"{name} = {shown(value)}" for name, value in point.point.items())
