"""FID and KID against the libraries whose numbers are the reference's, closed forms, and repeated draws."""

from collections.abc import Iterable
from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_mmd

from genlab.metrics.distances import (
    Distance,
    FeaturePair,
    frechet_distance,
    kernel_distance,
    mean_kernel_distance,
    root_trace,
    unbiased_frechet_distance,
)


def features(rows: int, size: int = 12, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Correlated and skewed, as features are; float32 [rows, size]."""
    mix = torch.randn(size, size, generator=torch.Generator().manual_seed(99)) / size**0.5
    noise = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    return (noise @ mix + shift).relu()


@pytest.mark.parametrize(("rows", "dead"), [(400, 0), (400, 2), (8, 0)])
def test_the_frechet_distance_is_torch_fidelitys(rows: int, dead: int) -> None:
    """Also with fewer rows than features, and with features that are never active, where covariances are singular."""
    one, other = features(rows, seed=1), features(rows + 1, seed=2, shift=0.3)
    for side in (one, other):
        side[:, :dead] = 0
    theirs = fid_statistics_to_metric(
        *(fid_features_to_statistics(side.double()) for side in (one, other)), verbose=False
    )["frechet_inception_distance"]
    assert frechet_distance(one, other) == pytest.approx(theirs, abs=1e-6)


def test_the_frechet_distance_is_that_of_scipys_matrix_root() -> None:
    one, other = (features(300, seed=seed, shift=seed / 5).double() for seed in (1, 2))
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    expected = float((one.mean(0) - other.mean(0)).square().sum()) + np.trace(covariances[0] + covariances[1])
    root = sqrtm(covariances[0] @ covariances[1])
    assert frechet_distance(one, other) == pytest.approx(expected - 2 * np.trace(root).real, rel=1e-9)


def test_normal_distributions_with_independent_features_have_a_closed_form() -> None:
    def normal(mean: list[float], variance: list[float]) -> Tensor:
        """Four rows with this mean and these variances."""
        away = torch.diag((torch.tensor(variance).double() * 3 / 2).sqrt())
        return torch.tensor(mean).double() + torch.cat([away, -away])

    one, other = normal([1, 2], [4, 9]), normal([0, 4], [1, 16])
    assert frechet_distance(one, other) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 4) ** 2)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("size", [3, 24])
def test_the_root_of_populations_has_a_closed_form_where_both_have_as_many_rows(size: int) -> None:
    """2n Σ (λ^½ − ξ^½), ξ being the eigenvalues of diag(λ) less the outer product of λ^½ by n (Tiomoko & Couillet)."""
    roots = torch.linspace(-8, 4, size, dtype=torch.float64).exp()
    shrunk = torch.linalg.eigvalsh(roots.square().diag() - torch.outer(roots, roots) / (2 * size))
    expected = 4 * size * float((roots - shrunk.clamp(min=0).sqrt()).sum())
    assert root_trace(roots.square(), 2 * size, 2 * size) == pytest.approx(expected, rel=1e-9)
    assert expected > 1.02 * float(roots.sum())
    many = root_trace(roots.square(), 10**7, 10**8)
    assert many == pytest.approx(float(roots.sum()), rel=1e-5), "many rows leave nothing to correct"


def test_the_unbiased_frechet_distance_is_what_frechet_distances_tend_to() -> None:
    """Of unequal numbers of rows too, and with features that are never active; of equal distributions it is 0."""
    endless = frechet_distance(features(200_000, seed=1), features(200_000, seed=2, shift=0.3))
    one, other = features(600, seed=3), features(100, seed=4, shift=0.3)
    found = unbiased_frechet_distance(one, other)
    assert found.interval[0] < endless < found.interval[1]
    assert found.value < frechet_distance(one, other)
    assert unbiased_frechet_distance(other, one).value == pytest.approx(found.value, rel=1e-6)
    dead = [torch.cat([side, torch.zeros(len(side), 2)], 1) for side in (one, other)]
    assert unbiased_frechet_distance(*dead).value == pytest.approx(found.value, rel=1e-6)
    same = unbiased_frechet_distance(features(100, seed=5), features(300, seed=6))
    assert same.interval[0] < 0 < same.interval[1]


def test_the_kernel_distance_is_torch_fidelitys() -> None:
    one, other = (features(50, seed=seed, shift=seed / 5).double() for seed in (1, 2))
    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None}
    theirs = kernel_mmd(one.numpy(), other.numpy(), **options, kid_kernel_poly_coef0=1)
    assert kernel_distance(one, other).value == pytest.approx(theirs, rel=1e-9)


def test_the_kernel_distance_is_over_all_pairs_of_sets_that_differ_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = features(9).double(), features(23, seed=1, shift=0.2).double()

    def mean(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
        return float(np.mean([(float(x @ y) / 12 + 1) ** 3 for x, y in pairs]))

    whole, within = kernel_distance(one, other), mean(combinations(one, 2)) + mean(combinations(other, 2))
    assert whole.value == pytest.approx(within - 2 * mean(product(one, other)), rel=1e-9)
    monkeypatch.setattr("genlab.metrics.distances.KERNEL_VALUES_AT_ONCE", 60)
    parts = kernel_distance(one, other)
    assert parts.value == pytest.approx(whole.value, rel=1e-9), "whatever is held at a time"
    assert parts.interval == pytest.approx(whole.interval, rel=1e-9)


def test_the_kernel_distance_is_unbiased_and_grows_with_the_distance() -> None:
    same = [kernel_distance(features(200, seed=2 * n), features(200, seed=2 * n + 1)).value for n in range(20)]
    assert min(same) < 0 < max(same)
    assert abs(np.mean(same)) < 3 * np.std(same) / len(same) ** 0.5
    near, far = (kernel_distance(features(200), features(200, seed=1, shift=shift)).value for shift in (0.3, 0.6))
    assert max(same) < near < far


def width(distance: Distance) -> float:
    return distance.interval[1] - distance.interval[0]


def test_distances_that_share_no_image_are_independent() -> None:
    """And of two that are the same, the mean is as uncertain as one."""
    one, other = features(40), features(60, seed=1, shift=0.3)
    distance = kernel_distance(one, other)
    first = FeaturePair(one, torch.arange(40), other, torch.arange(60))
    same = mean_kernel_distance(first, first)
    assert (same.value, *same.interval) == pytest.approx((distance.value, *distance.interval))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = mean_kernel_distance(first, FeaturePair(one[order], order, other, torch.arange(60)))
    assert shuffled.interval == pytest.approx(same.interval), "rows are found by their images"
    apart = mean_kernel_distance(first, FeaturePair(one, torch.arange(40) + 40, other, torch.arange(60) + 60))
    assert width(apart) == pytest.approx(width(distance) / 2**0.5, rel=0.15)
