"""Intervals hold the truth: of 100 draws at 95%, 90 to 99 do, at the fewest images that have one and at ten times that.

Features are correlated and skewed, as those of a network are: 16 and 64 of them, of equal distributions and of others.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.evaluation.features import measure_distances
from genlab.metrics.copies import nearer_share
from genlab.metrics.distances import FeaturePair, frechet_distance, kernel_distance, mean_kernel_distance
from genlab.metrics.intervals import FEWEST, Interval, mean_interval, proportion_interval
from genlab.metrics.neighbours import nearest_neighbour_accuracy
from genlab.metrics.path_length import path_length
from genlab.metrics.precision_recall import precision_recall
from genlab.metrics.separability import separability
from tests.evaluation.support import Levels

DRAWS, MORE_DRAWS = 100, 400
SIZES = (FEWEST, 10 * FEWEST)
FEATURES = (16, pytest.param(64, marks=pytest.mark.reliability))


def covered(intervals: Sequence[Interval | None], truth: float) -> float:
    """Return how many of a hundred intervals hold ``truth``."""
    return 100 * sum(low <= truth <= high for low, high in filter(None, intervals)) / len(intervals)


def mixing(size: int, seed: int = 99) -> Tensor:
    """Rows that make features of independent noise; float64 [size, size]."""
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / size**0.5


def skewed(rows: int, size: int, generator: torch.Generator) -> Tensor:
    """Independent noise of mean 0 and variance 1, float64 [rows, size], exponential."""
    return torch.empty(rows, size, dtype=torch.float64).exponential_(generator=generator) - 1


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize(
    ("draw", "mean"),
    [(torch.randn, 0.0), (lambda *shape, generator: -torch.rand(shape, generator=generator).log(), 1.0)],
    ids=["normal", "exponential"],
)
def test_means(draw: Callable[..., Tensor], mean: float, count: int) -> None:
    values = draw(DRAWS, count, generator=torch.Generator().manual_seed(0))
    assert 90 <= covered([mean_interval(one) for one in values], mean) <= 99
    assert mean_interval(values[0, : FEWEST - 1]) is None
    assert mean_interval(torch.full((count,), math.inf)) is None


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.96])
def test_shares(share: float, count: int) -> None:
    hits = torch.rand(DRAWS, count, generator=torch.Generator().manual_seed(0)).lt(share).sum(1).tolist()
    assert 90 <= covered([proportion_interval(hit, count) for hit in hits], share) <= 99


@pytest.mark.slow
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("size", FEATURES)
def test_nearest_neighbours(size: int, count: int) -> None:
    """Of two classes that overlap."""
    generator, found = torch.Generator().manual_seed(2), []
    for _ in range(MORE_DRAWS):
        labels = torch.randint(2, (count,), generator=generator)
        points = torch.randn(count, size, generator=generator) + 0.5 * labels[:, None]
        found.append(nearest_neighbour_accuracy(points, labels))
    truth = float(np.mean([one.value for one in found]))
    assert 90 <= covered([one.interval for one in found], truth) <= 99
    assert nearest_neighbour_accuracy(points[: FEWEST - 1], labels[: FEWEST - 1]).interval is None


@pytest.mark.slow
@pytest.mark.parametrize("factor", [2, 20])
@pytest.mark.parametrize("apart", [0.0, 0.3])
@pytest.mark.parametrize("size", FEATURES)
def test_frechet_distances(size: int, apart: float, factor: int) -> None:
    """The plain FID of equal distributions lies above 0 in each draw."""
    count = max(FEWEST, factor * size)
    generator, mix, extractor = torch.Generator().manual_seed(3), mixing(size), Levels()
    extractor.dimension = size
    # Far more exactly than any draw: rows whose mean is 0 and whose covariance is the identity.
    away = math.sqrt((2 * size - 1) / 2) * torch.eye(size, dtype=torch.float64)
    exact = torch.cat([away, -away])
    truth = frechet_distance(exact @ mix, (1 + apart) * exact @ mix + apart)
    found = []
    for seed in range(DRAWS):
        one, other = (skewed(count, size, generator) @ mix for _ in range(2))
        found.append(measure_distances(extractor, one, {}, (1 + apart) * other + apart, seed))
    assert 90 <= covered([one["fid_infinity"].interval for one in found], truth) <= 99
    values = [one["fid_infinity"].value for one in found]
    assert abs(np.mean(values) - truth) < np.std(values) / 2
    assert min(one["fid"].value for one in found) > truth or apart


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(FEWEST, FEWEST), (FEWEST, 10 * FEWEST), (10 * FEWEST, 10 * FEWEST)])
@pytest.mark.parametrize("apart", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("size", FEATURES)
def test_kernel_distances(size: int, apart: float, sizes: tuple[int, int]) -> None:
    generator, mix = torch.Generator().manual_seed(1), mixing(size)
    found = [
        kernel_distance(
            (skewed(sizes[0], size, generator) @ mix).relu(), (skewed(sizes[1], size, generator) @ mix + apart).relu()
        )
        for _ in range(MORE_DRAWS)
    ]
    truth = float(np.mean([one.value for one in found])) if apart else 0.0
    assert 90 <= covered([one.interval for one in found], truth) <= 99


@pytest.mark.slow
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("drawn", [1.0, 0.6])
@pytest.mark.parametrize("apart", [0.0, 0.3])
@pytest.mark.parametrize("size", FEATURES)
def test_means_of_kernel_distances_that_share_images(size: int, apart: float, drawn: float, count: int) -> None:
    """A translation has the content of its source, so an image moves both distances the same way."""
    generator, mix = torch.Generator().manual_seed(1), mixing(size)
    found = []
    for _ in range(MORE_DRAWS):
        a, b = ((skewed(round(count / drawn), size, generator) @ mix).relu() for _ in range(2))
        rows = torch.arange(len(a))
        part = [torch.randperm(len(a), generator=generator)[:count] for _ in range(2)]
        translated = [side[chosen] + apart for side, chosen in ((a, part[0]), (b, part[1]))]
        found.append(
            mean_kernel_distance(
                FeaturePair(translated[0], part[0], b, rows), FeaturePair(a, rows, translated[1], part[1])
            )
        )
    truth = float(np.mean([one.value for one in found])) if apart else 0.0
    assert 90 <= covered([one.interval for one in found], truth) <= 99


@pytest.mark.slow
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("apart", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", FEATURES)
def test_precision_and_recall(size: int, apart: float, count: int) -> None:
    """Of the values that are expected of as many rows."""
    generator, mix = torch.Generator().manual_seed(4), mixing(size)
    found = [
        precision_recall(skewed(count, size, generator) @ mix, skewed(count, size, generator) @ mix + apart)
        for _ in range(MORE_DRAWS)
    ]
    for shares in ([one.precision for one in found], [one.recall for one in found]):
        truth = float(np.mean([one.value for one in shares]))
        assert 90 <= covered([one.interval for one in shares], truth) <= 99


@pytest.mark.parametrize("count", SIZES)
def test_path_lengths(count: int) -> None:
    """Of the mean without the outer hundredths: where so few steps have none, of the plain mean."""
    generator = torch.Generator().manual_seed(5)
    found = [
        path_length(torch.empty(count, dtype=torch.float64).exponential_(generator=generator), 1.0)
        for _ in range(MORE_DRAWS)
    ]
    truth = float(np.mean([one.value for one in found]))
    assert 90 <= covered([one.interval for one in found], truth) <= 99


@pytest.mark.slow
@pytest.mark.parametrize("count", [10 * FEWEST, 40 * FEWEST])
def test_separability(count: int) -> None:
    """Of two attributes that a plane tells in part."""
    generator, found = torch.Generator().manual_seed(6), []
    for _ in range(MORE_DRAWS // 2):
        points = torch.randn(count, 4, generator=generator, dtype=torch.float64)
        attributes = points[:, :2] + torch.randn(count, 2, generator=generator, dtype=torch.float64) > 0.5
        found.append(separability(points, attributes))
    truth = float(np.mean([one.value for one in found]))
    assert 90 <= covered([one.interval for one in found], truth) <= 99


@pytest.mark.parametrize("counts", [(FEWEST, FEWEST), (FEWEST, 10 * FEWEST), (10 * FEWEST, 10 * FEWEST)])
@pytest.mark.parametrize("shrunk", [1.0, 0.6, 0.2])
def test_shares_of_nearer_images(shrunk: float, counts: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(7)
    found = [
        nearer_share(shrunk * skewed(counts[0], 1, generator)[:, 0] + shrunk, skewed(counts[1], 1, generator)[:, 0] + 1)
        for _ in range(MORE_DRAWS)
    ]
    truth = 1 / (1 + shrunk)  # of two exponential distributions
    assert 90 <= covered([one.interval for one in found], truth) <= 99
