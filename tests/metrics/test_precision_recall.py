"""Precision and recall against a naive loop, torch-fidelity and cases whose result is known."""

import math

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import calculate_precision_recall_full

from genlab.metrics.precision_recall import precision_recall


def features(rows: int, size: int = 6, seed: int = 0, shift: float = 0.0) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) + shift


def naive(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """The share of points that lie in a ball around a centre, by the words of the definition."""
    near, rows, hits = points.tolist(), centres.tolist(), 0
    radii = [
        sorted(math.dist(row, other) for number, other in enumerate(rows) if number != own)[neighbours - 1]
        for own, row in enumerate(rows)
    ]
    for point in near:
        hits += any(math.dist(point, row) <= radius for row, radius in zip(rows, radii, strict=True))
    return hits / len(near)


@pytest.mark.parametrize("held", [1, 500, 2**22])
@pytest.mark.parametrize(("rows", "neighbours"), [(4, 3), (60, 1), (60, 3), (60, 5)])
def test_they_are_those_of_a_naive_loop(rows: int, neighbours: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is held at a time, and far from the origin."""
    monkeypatch.setattr("genlab.metrics.precision_recall.DISTANCES_AT_ONCE", held)
    real, generated = features(rows, seed=1, shift=100), features(rows, seed=2, shift=100.4)
    found = precision_recall(real, generated, neighbours)
    assert found.precision.value == naive(generated, real, neighbours)
    assert found.recall.value == naive(real, generated, neighbours)


def test_they_are_torch_fidelitys() -> None:
    real, generated = features(300, 64, seed=1), 0.8 * features(300, 64, seed=2, shift=0.1)
    found = precision_recall(real, generated)
    precision, recall = calculate_precision_recall_full(generated.double(), real.double(), neighborhood=3)
    assert (found.precision.value, found.recall.value) == pytest.approx((precision, recall), abs=1e-6)
    assert 0 < recall < precision < 1


def test_equal_sets_lie_within_each_other_even_where_rows_repeat() -> None:
    real = features(40, seed=1, shift=1000)
    real[10:20] = real[10]
    found = precision_recall(real, real[torch.randperm(40, generator=torch.Generator().manual_seed(0))])
    assert (found.precision.value, found.recall.value) == (1, 1)


def test_a_model_of_one_image_is_precise_and_recalls_nothing() -> None:
    real = features(100, seed=1)
    found = precision_recall(real, real[:1].expand(100, -1))
    assert found.precision.value == 1
    assert found.recall.value == 0.01, "the one image"


def test_sets_apart_have_neither_and_the_interval_says_how_little_that_shows() -> None:
    found = precision_recall(features(50, seed=1), features(50, seed=2, shift=20))
    for share in (found.precision, found.recall):
        assert share.value == 0
        assert share.interval is not None
        assert share.interval[0] == pytest.approx(0, abs=1e-9)
        assert 0.05 < share.interval[1] < 0.15


def test_few_rows_have_no_interval_and_other_numbers_are_refused() -> None:
    assert precision_recall(features(24), features(24, seed=1)).precision.interval is None
    interval = precision_recall(features(25), features(25, seed=1)).recall.interval
    assert interval is not None
    assert 0 <= interval[0] < interval[1] <= 1
    for one, other in ((30, 31), (3, 3)):
        with pytest.raises(ValueError, match=f"{one} and {other} rows: both must be of one number above 3"):
            precision_recall(features(one), features(other))
