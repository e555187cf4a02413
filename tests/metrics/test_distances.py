"""FID and KID against the libraries whose numbers are the reference's, closed forms, and repeated draws."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_mmd

from genlab.metrics.distances import (
    frechet_distance,
    frechet_standard_error,
    kernel_distance,
    squared_mmd,
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


def test_the_bootstrap_tells_how_much_the_frechet_distance_varies_from_draw_to_draw() -> None:
    draws = [frechet_distance(features(300, seed=2 * n), features(300, seed=2 * n + 1, shift=0.5)) for n in range(60)]
    errors = [
        frechet_standard_error(features(300, seed=2 * n), features(300, seed=2 * n + 1, shift=0.5), 0) for n in range(5)
    ]
    assert np.mean(errors) == pytest.approx(np.std(draws), rel=0.35)


def test_the_mmd_is_torch_fidelitys() -> None:
    one, other = (features(50, seed=seed, shift=seed / 5).double() for seed in (1, 2))
    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None}
    theirs = kernel_mmd(one.numpy(), other.numpy(), **options, kid_kernel_poly_coef0=1)
    assert squared_mmd(one, other) == pytest.approx(theirs, rel=1e-9)


def test_the_kernel_distance_is_unbiased_and_grows_with_the_distance() -> None:
    same = [
        kernel_distance(features(200, seed=2 * n), features(200, seed=2 * n + 1), n, subsets=10).mean for n in range(20)
    ]
    assert min(same) < 0 < max(same)
    assert abs(np.mean(same)) < 3 * np.std(same) / len(same) ** 0.5
    near, far = (kernel_distance(features(200), features(200, seed=1, shift=shift), 0).mean for shift in (0.3, 0.6))
    assert max(same) < near < far


def test_the_kernel_distances_standard_error_is_its_spread_from_draw_to_draw() -> None:
    found = [
        kernel_distance(features(200, seed=2 * n), features(200, seed=2 * n + 1, shift=0.5), n, subsets=40, rows=50)
        for n in range(60)
    ]
    assert found[0].rows == 50
    assert np.mean([one.standard_error for one in found]) == pytest.approx(
        np.std([one.mean for one in found]), rel=0.35
    )


def test_subsets_are_drawn_from_the_seed_and_fit_small_sets() -> None:
    one, other = features(30), features(40, seed=1)
    first = kernel_distance(one, other, seed=5, subsets=10)
    assert first == kernel_distance(one, other, seed=5, subsets=10)
    assert first != kernel_distance(one, other, seed=6, subsets=10)
    assert first.rows == 15
