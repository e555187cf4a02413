"""Means of metrics that do not come in every step."""

import math
from unittest import mock

import pytest
import torch
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.training.meters import Meter


def scalars(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_a_metric_of_some_steps_is_the_mean_over_these() -> None:
    meter = Meter()
    meter.add(scalars(a=1), "main", 1, weight=1)
    meter.add(scalars(a=3), "main", 2, weight=1)
    meter.add(scalars(r1=2), "penalty", 2, weight=1)
    assert meter.means() == {"a": 2, "r1": 2}
    meter.add(scalars(g=1), "generator", 3, weight=1)
    meter.add(scalars(d=100), "discriminator", 3, weight=1)
    assert meter.means() == {"g": 1, "d": 100}
    assert meter.means() == {}


def test_the_order_of_names_does_not_matter() -> None:
    meter = Meter()
    meter.add(scalars(a=1, b=10), "main", 1, weight=0.75)
    meter.add(scalars(b=50, a=5), "main", 1, weight=0.25)
    assert meter.means() == {"a": 2, "b": 20}


def test_a_metric_may_come_on_some_ranks_only() -> None:
    meter = Meter()
    meter.add(scalars(a=2), "main", 1, weight=0.25)
    other = {"a": (6.0 * 0.75, 0.75), "rare": (3.0, 0.5)}
    with mock.patch("genlab.training.meters.gather", lambda own: [own, other]):
        assert meter.means() == {"a": 5, "rare": 6}


def test_a_name_that_means_two_things_is_refused() -> None:
    meter = Meter()
    meter.add(scalars(loss=1), "generator", 1, weight=1)
    meter.means()
    with pytest.raises(ConfigError, match="discriminator: generator has a metric 'loss' too; give one of them another"):
        meter.add(scalars(loss=1), "discriminator", 2, weight=1)


def test_what_the_loop_logs_itself_is_no_name_of_a_metric() -> None:
    with pytest.raises(ConfigError, match="main: the training loop has a metric 'learning_rate' too"):
        Meter({"learning_rate"}).add(scalars(learning_rate=1), "main", 1, weight=1)


@pytest.mark.parametrize("value", [1.0, torch.ones(2)])
def test_what_is_no_scalar_tensor_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"main: metric 'a' must be a scalar tensor; it is a (float|tensor of shape)"):
        Meter().add({"a": value}, "main", 1, weight=1)  # type: ignore[dict-item]


def test_the_first_step_and_all_names_that_are_not_finite_are_known() -> None:
    meter = Meter()
    meter.add(scalars(a=1, b=1), "main", 1, weight=1)
    meter.add(scalars(b=math.nan, a=1), "main", 2, weight=1)
    meter.add(scalars(late=math.inf), "penalty", 2, weight=1)
    meter.add(scalars(a=math.inf, b=1), "main", 3, weight=1)
    assert not all(map(math.isfinite, meter.means().values()))
    assert meter.first_not_finite() == (2, "b, late")
