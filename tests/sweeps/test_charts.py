"""Charts of a sweep: their scales, and where they show points."""

import math
from typing import Any, cast

import pytest
from matplotlib.figure import Figure
from ray import tune

from genlab.imaging.charts import render
from genlab.sweeps import charts
from genlab.sweeps.charts import Scale
from genlab.sweeps.ranking import PointResult, pareto_front
from genlab.sweeps.space import Space
from genlab.sweeps.trials import Outcome, Trial


def test_a_log_uniform_option_has_a_logarithmic_axis_with_round_numbers() -> None:
    scale = Scale.of(tune.loguniform(0.1, 100), [0.2, 20.0, 2.0])
    assert scale.log
    assert scale.share(2.0) == pytest.approx(0.5)
    assert list(scale.ticks.values()) == ["0.3", "1", "3", "10"]
    assert not Scale.of(tune.uniform(0, 1), [0.2, 0.4]).log


@pytest.mark.parametrize(
    ("values", "seen", "labels"),
    [
        ([8, 2, 4], [2, 8], ["2", "8"]),
        (["b", "a"], ["a", "b"], ["b", "a"]),
        ([[32, 64], [8]], [[8], [32, 64]], ["[32, 64]", "[8]"]),
        ([None, True], [True, None], ["None", "True"]),
    ],
)
def test_values_of_a_list_lie_side_by_side(values: Any, seen: Any, labels: list[str]) -> None:
    scale = Scale.of(values, seen)
    assert list(scale.ticks.values()) == labels
    assert [scale.share(value) for value in scale.values or ()] == [0, 1]


def test_an_option_that_had_one_value_lies_in_the_middle() -> None:
    assert Scale.of(tune.loguniform(0.1, 100), [3.0]).share(3.0) == 0.5
    assert math.isclose(Scale.of([1], [1]).share(1), 0.5)


BETA, RATE, LACK = "objective.beta", "val/kl", "val/reconstruction"
BY_BETA = {0.0: (293.1, 74.5), 0.5: (31.2, 78.9), 1.0: (22.0, 86.8), 2.0: (14.3, 99.9), 4.0: (8.2, 121.0)}
"""KL and reconstruction of a VAE by β, all on the front: an end of it is far from the rest."""
OFF_THE_FRONT = (9000.0, 122.0)


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The charts that were drawn, as matplotlib has them."""
    found: list[Figure] = []

    def kept(drawing: Figure) -> Any:
        found.append(drawing)
        return render(drawing)

    monkeypatch.setattr(charts, "render", kept)
    return found


def measured(beta: float, *seeds: dict[str, float]) -> PointResult:
    point = {BETA: beta}
    return PointResult(point, tuple(Outcome(Trial(point, cast("Any", None)), metrics) for metrics in seeds))


def rates_and_lacks() -> tuple[Space, list[PointResult]]:
    """The points of a sweep of two seeds, the last of which is not on the front."""
    space = Space("vae", {BETA: [*BY_BETA, 8.0]}, [RATE, LACK], ["min", "min"], seeds=2)
    pairs = BY_BETA | {8.0: OFF_THE_FRONT}
    points = [
        measured(beta, {RATE: rate - 0.1, LACK: lack}, {RATE: rate + 0.1, LACK: lack})
        for beta, (rate, lack) in pairs.items()
    ]
    return space, points


def test_all_of_the_front_is_drawn_where_it_lies_and_others_beyond_the_axis_are_triangles(
    drawings: list[Figure],
) -> None:
    space, points = rates_and_lacks()
    charts.trade_off_chart(RATE, LACK, space.objectives, points, pareto_front(points, space.objectives))
    [axis] = drawings[0].axes
    low, high = axis.get_xlim()
    drawn = {}
    for bars in axis.containers:
        line, caps, _ = cast("Any", bars)
        drawn[float(line.get_xdata()[0]), float(line.get_ydata()[0])] = (line.get_marker(), bool(caps))
    assert {pair: drawn.pop(pair) for pair in BY_BETA.values()} == dict.fromkeys(BY_BETA.values(), ("o", True))
    assert list(drawn.values()) == [(">", False)], "an interval about a place where the point does not lie is none"
    [far] = drawn
    assert low < min(x for x, _ in BY_BETA.values()) < max(x for x, _ in BY_BETA.values()) <= far[0] < high


def test_parallel_axes_show_the_front_and_mark_what_lies_beyond(drawings: list[Figure]) -> None:
    space, points = rates_and_lacks()
    charts.parallel_chart(space, points, points[0])
    [axis] = drawings[0].axes
    rates = [float(cast("Any", line.get_ydata())[1]) for line in axis.lines if len(cast("Any", line.get_xdata())) == 3]
    assert sum(height == 1.0 for height in rates) == 2, "of the front only the last lies at the end of its axis"
    beyond = [line for line in axis.lines if line.get_marker() in ("^", "v")]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in cast("Any", beyond)] == [(1, 1.0)]
    assert {"293.1", "8.2"} <= {text.get_text() for text in axis.texts}


@pytest.mark.parametrize(("values", "span"), [([1, 1, 1, 0.9, 0.5], (0.5, 1)), ([1, 0.9, 0.8, 0.7, -50], (0.7, 1))])
def test_differences_show_where_most_trials_share_the_best_value(
    values: list[float], span: tuple[float, float], drawings: list[Figure]
) -> None:
    space = Space("vae", {BETA: list(range(len(values)))}, RATE, "max")
    points = [measured(float(number), {RATE: value}) for number, value in enumerate(values)]
    charts.parameter_chart(space, BETA, RATE, points, points[0])
    [axis] = drawings[0].axes
    assert [float(cast("Any", line.get_ydata())[0]) for line in axis.lines] == [max(span[0], one) for one in values]
    low, high = axis.get_ylim()
    assert low < span[0] < span[1] < high
