"""Distances between two sets of images by their features: FID and KID, computed in float64."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FID_RESAMPLES = 30
"""Number of bootstrap resamples: the standard error is then known to about an eighth of itself."""
KID_SUBSETS = 100
"""Number of random subsets, as in Bińkowski et al. 2018 and in torch-fidelity."""
KID_SUBSET_ROWS = 1000
"""Number of rows of each set in a subset, as in Bińkowski et al. 2018 and in torch-fidelity."""


@dataclass(frozen=True)
class KernelDistance:
    """A kernel distance (KID) over random subsets."""

    mean: float
    """Mean over the subsets."""
    spread: float
    """Standard deviation over the subsets."""
    standard_error: float
    """Standard error of ``mean`` as an estimate from all N rows, by the delete-d jackknife (Shao & Wu 1989) over
    subsets. Where the two sets hardly differ it is too large rather than too small."""
    rows: int
    """Number of rows of each set in a subset."""


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Return the squared Fréchet distance of two normal distributions (Dowson & Landau 1982), the FID of features.

    It is |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) (Heusel et al. 2017, NeurIPS), with unbiased covariances (N − 1). If a
    set has no more rows than features, the trace of the root is the sum of the singular values of XYᵀ, an N x M matrix,
    with Σ₁ = XᵀX and Σ₂ = YᵀY. Else it is taken from the eigenvalues of Lᵀ Σ₂ L with Σ₁ = L Lᵀ, which is symmetric. So
    nothing becomes complex when a covariance is singular.

    Args:
        one: features, [N, D], N >= 2.
        other: features, [M, D], M >= 2.
    """
    (mean_x, x), (mean_y, y) = _mean_and_root(one), _mean_and_root(other)
    if min(len(x), len(y)) <= x.shape[1]:
        cross = torch.linalg.svdvals(x @ y.T).sum()
    else:
        covariance = x.T @ x
        root, failed = torch.linalg.cholesky_ex(covariance)
        if failed:  # singular; this takes eighty times as long
            values, vectors = torch.linalg.eigh(covariance)
            root = vectors * values.clamp(min=0).sqrt()
        product = root.T @ (y.T @ y) @ root
        cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    return float((mean_x - mean_y).square().sum() + x.square().sum() + y.square().sum() - 2 * cross)


def _mean_and_root(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [D] of features [N, D], and X [N, D] such that XᵀX is their covariance; float64."""
    features = features.double()
    mean = features.mean(0)
    return mean, (features - mean) / (len(features) - 1) ** 0.5


def frechet_standard_error(one: Tensor, other: Tensor, seed: int, resamples: int = FID_RESAMPLES) -> float:
    """Return the bootstrap's standard error (Efron 1979) of :func:`frechet_distance`, resampling rows of both sets.

    The percentiles of the resamples would not make an interval: the distance grows as distinct rows become fewer, so
    all resamples lie above the distance itself.

    Args:
        one: features, [N, D].
        other: features, [M, D].
        seed: seed of the draws.
        resamples: number of resamples.
    """
    generator = torch.Generator().manual_seed(seed)

    def resampled(features: Tensor) -> Tensor:
        rows = torch.randint(len(features), (len(features),), generator=generator)
        return features[rows.to(features.device)]

    return float(np.std([frechet_distance(resampled(one), resampled(other)) for _ in range(resamples)], ddof=1))


def kernel_distance(
    one: Tensor, other: Tensor, seed: int, subsets: int = KID_SUBSETS, rows: int = KID_SUBSET_ROWS
) -> KernelDistance:
    """Return the unbiased MMD² with the kernel (x·y/D + 1)³ over random subsets: KID, on Inception features.

    The definition is that of Bińkowski et al. 2018, ICLR. An unbiased estimate may be below zero.

    Args:
        one: features, [N, D], N >= 4.
        other: features, [M, D], M >= 4.
        seed: seed of the draws.
        subsets: number of subsets, each drawn from both sets without replacement.
        rows: number of rows of each set in a subset; at most half of the smaller set.
    """
    fewest = min(len(one), len(other))
    rows = min(rows, fewest // 2)
    random = np.random.default_rng(seed)

    def draw(features: Tensor) -> Tensor:
        chosen = torch.from_numpy(random.choice(len(features), rows, replace=False))
        return features[chosen.to(features.device)].double()

    values = [squared_mmd(draw(one), draw(other)) for _ in range(subsets)]
    spread = float(np.std(values, ddof=1))
    return KernelDistance(float(np.mean(values)), spread, spread * (rows / (fewest - rows)) ** 0.5, rows)


def squared_mmd(one: Tensor, other: Tensor) -> float:
    """Return the unbiased estimate of MMD² (Gretton et al. 2012, eq. 3) with KID's kernel; float64 [N, D], [M, D]."""

    def within(features: Tensor) -> Tensor:
        kernel, count = _kernel(features, features), len(features)
        return (kernel.sum() - kernel.trace()) / (count * (count - 1))

    return float(within(one) + within(other) - 2 * _kernel(one, other).mean())


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.T / one.shape[1] + 1) ** 3
