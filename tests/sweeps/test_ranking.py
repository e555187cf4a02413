"""The order of points, the differences that are none, and the Pareto front."""

from dataclasses import dataclass
from typing import Any, cast

import pytest
from scipy.stats import t

from genlab.sweeps.ranking import PointResult, by_point, p_values, pareto_front, ranked
from genlab.sweeps.trials import Outcome, Trial


@dataclass(frozen=True)
class OfPoint:
    """As much of a trial as a ranking reads."""

    point: dict[str, Any]
    origin: None = None


def result(name: str, *values: float, **others: list[float]) -> PointResult:
    columns = {"loss": list(values), **others}
    trial = cast("Trial", OfPoint({"option": name}))
    rows = range(max(map(len, columns.values())))
    metrics = [{metric: column[row] for metric, column in columns.items() if row < len(column)} for row in rows]
    return PointResult(trial.point, tuple(Outcome(trial, one) for one in metrics))


def names(points: list[PointResult]) -> str:
    return "".join(point.point["option"] for point in points)


def test_points_are_ranked_by_the_mean_over_their_seeds() -> None:
    points = [result("a", 3.0, 5.0), result("b"), result("c", 1.0, 9.0), result("d", 3.0, 3.0)]
    assert names(ranked(points, "loss", "min")) == "dacb", "those without the metric come last"
    assert names(ranked(points, "loss", "max")) == "cadb"
    outcomes = [outcome for point in points for outcome in point.outcomes]
    assert names(by_point(outcomes[::-1])) == "dca"
    assert points[2].best("loss", "min").metrics["loss"] == 1


def test_a_mean_has_students_interval_from_two_seeds_on() -> None:
    low, high = t.interval(0.95, 2, 2.0, (1 / 3) ** 0.5)
    assert result("a", 1.0, 2.0, 3.0).interval("loss") == pytest.approx((low, high), rel=1e-3)
    assert result("a", 1.0).interval("loss") is None


def test_differences_within_the_scatter_of_seeds_are_none() -> None:
    points = [result("a", 1.0, 1.1, 0.9), result("b", 1.05, 1.2, 0.95), result("c", 5.0, 5.1, 4.9), result("d", 9.0)]
    first, near, far, single = p_values(points, "loss")
    assert first is None
    assert single is None, "one seed says nothing"
    assert near is not None
    assert far is not None
    assert far < 0.05 < near


def test_the_front_has_the_points_that_no_other_beats() -> None:
    points = [
        result("a", 1.0, rate=[9.0]),
        result("b", 2.0, rate=[9.0]),
        result("c", 3.0, rate=[1.0]),
        result("d", 2.0, rate=[3.0]),
        result("e", 0.0),
    ]
    assert names(pareto_front(points, {"loss": "min", "rate": "min"})) == "acd"
    assert names(pareto_front(points, {"loss": "min", "rate": "max"})) == "a"
    assert names(pareto_front(points, {"loss": "min"})) == "e"
