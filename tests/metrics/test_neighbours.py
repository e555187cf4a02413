"""Nearest neighbours against a naive search, and their accuracy over repeated draws."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.metrics.neighbours import nearest_among, nearest_neighbour_accuracy, nearest_neighbours


def classes(count: int, seed: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """Points of ten classes that overlap in a plane, and their labels."""
    centres = spread * torch.randn(10, 2, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=generator)
    return centres[labels] + torch.randn(count, 2, generator=generator), labels


def naive(points: Tensor) -> list[int]:
    rows = points.tolist()
    return [
        min((other for other in range(len(rows)) if other != row), key=lambda other: math.dist(rows[row], rows[other]))
        for row in range(len(rows))
    ]


@pytest.mark.parametrize("held", [1, 1000, 2**24])
@pytest.mark.parametrize(("size", "shift"), [(1, 0.0), (2, 100.0), (16, 0.0)])
def test_the_nearest_is_that_of_a_naive_search(
    size: int, shift: float, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is held at a time, and also far from the origin, where squared norms would swallow the distances."""
    monkeypatch.setattr("genlab.metrics.neighbours.DISTANCES_AT_ONCE", held)
    points = shift + torch.randn(150, size, generator=torch.Generator().manual_seed(0))
    points[7] = points[3]  # no point is its own neighbour, and one of two equal points is the other's
    assert nearest_neighbours(points).tolist() == naive(points)


def test_the_accuracy_is_the_share_whose_nearest_other_has_their_class() -> None:
    points = torch.tensor([[0.0], [1.0], [1.5], [10.0], [12.0]])
    found = nearest_neighbour_accuracy(points, torch.tensor([0, 0, 1, 1, 1]))
    assert found.value == 3 / 5
    assert nearest_neighbour_accuracy(points, torch.full((5,), 3)).value == 1
    points, labels = classes(200, seed=0)
    expected = np.mean([labels[row] == labels[other] for row, other in enumerate(naive(points))])
    assert nearest_neighbour_accuracy(points, labels).value == pytest.approx(float(expected))


def test_the_interval_covers_the_mean_over_draws_nineteen_times_in_twenty() -> None:
    """The binomial one does so 86 times in a hundred."""
    draws = [nearest_neighbour_accuracy(*classes(300, seed)) for seed in range(400)]
    truth = np.mean([draw.value for draw in draws])
    covered = np.mean([low < truth < high for low, high in (draw.interval for draw in draws if draw.interval)])
    assert 0.9 < covered < 0.99


@pytest.mark.parametrize("held", [7, 2**12])
def test_the_nearest_of_others_is_that_of_a_naive_search(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlab.metrics.neighbours.ROWS_AT_ONCE", held)
    generator = torch.Generator().manual_seed(0)
    points, others = (1000 + torch.randn(count, 3, generator=generator) for count in (40, 60))
    points[5] = others[9]
    nearest, distances = nearest_among(points, others)
    every = torch.cdist(points.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert nearest.tolist() == every.argmin(1).tolist()
    torch.testing.assert_close(distances, every.min(1).values)
    assert distances[5] == 0
