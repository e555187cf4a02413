"""Scales of a sweep's charts."""

import math
from typing import Any

import pytest
from ray import tune

from genlab.sweeps.charts import Scale


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
