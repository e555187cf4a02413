"""The table of a sweep's points, as text: for the terminal and for the page."""

from collections.abc import Sequence

from genlab.core.text import counted
from genlab.evaluation.measurements import Measurement
from genlab.sweeps.ranking import LEVEL, PointResult, p_values
from genlab.sweeps.space import Pbt, Space
from genlab.sweeps.trials import Trial, ancestry, shown, values_text


def columns(space: Space, points: Sequence[PointResult]) -> tuple[str, ...]:
    """Return the heads of the columns: what varies, the metrics, and what is said of each point."""
    if isinstance(space.scheduler, Pbt):
        return (*varied(points), *space.objectives, "from", "against the best", "run")
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
    several, options, population = len(space.objectives) > 1, varied(points), isinstance(space.scheduler, Pbt)
    found = []
    for point, p_value in zip(points, p_values(points, metric), strict=True):
        if several:
            verdict = "front" if point in front else ""
        elif point is points[0]:
            verdict = "the best"
        elif point.stopped:
            verdict = f"{'replaced' if population else 'stopped'} at {counted(point.stopped, 'image')}"
        elif p_value is None:
            verdict = "?"
        else:
            verdict = "worse" if p_value < LEVEL else f"no difference (p = {p_value:.2f})"
        trial = point.best(metric, mode).trial
        faults = [outcome.error for outcome in point.outcomes if outcome.error]
        found.append(
            (
                *(shown(point.point.get(name, "")) for name in options),
                *(figure(point, name) for name in space.objectives),
                str(trial.origin or "") if population else str(len(point.values(metric))),
                faults[0] if faults else verdict,
                trial.name,
            )
        )
    return found


def note(space: Space, points: Sequence[PointResult]) -> str:
    """Return what the intervals and verdicts of the table mean, in a sentence."""
    if isinstance(space.scheduler, Pbt):
        return (
            "one population: which differences are chance is not known; --run.seed 1 --run.name OTHER trains a second"
        )
    if max((len(point.outcomes) for point in points), default=1) == 1:
        return "one seed each: which differences are chance is not known; --sweep.seeds 3 repeats each point"
    return f"± is half of the 95% interval of the mean over seeds; a difference is one from p = {LEVEL} down"


def lineage(trial: Trial, trials: Sequence[Trial]) -> list[str]:
    """Return how a trial came about that branched off others: a line for each, the first one first; else nothing.

    Args:
        trial: the trial.
        trials: all of the sweep.
    """
    if trial.origin is None:
        return []
    return [f"to {counted(end, 'image')}: {one.name}, {values_text(one.point)}" for one, end in ancestry(trial, trials)]


def varied(points: Sequence[PointResult]) -> list[str]:
    """Return the names of the options that vary; some may vary in some points only."""
    return list(dict.fromkeys(name for point in points for name in point.point))


def figure(point: PointResult, metric: str) -> str:
    """Return the mean of a metric, with half of its interval where there is one."""
    interval = point.interval(metric)
    return str(Measurement(metric, point.mean(metric), {}, interval=interval)) if point.values(metric) else "–"


def point_text(point: PointResult) -> str:
    """Return a point in words."""
    return values_text(point.point)
