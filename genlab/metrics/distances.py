"""Distances between two sets of images by their features: FID and KID, computed in float64."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.metrics.intervals import Interval, student_interval, student_quantile

FRECHET_GROUPS = 16
"""Number of groups of rows that the jackknife of :func:`unbiased_frechet_distance` leaves out in turn."""
ROWS_PER_FEATURE = 2
"""How many rows of each set :func:`unbiased_frechet_distance` needs, in numbers of features."""
CONTOUR_NODES = 256
"""Number of nodes of the contour integral: the result is then right to 1e-10 of itself."""
KERNEL_VALUES_AT_ONCE = 2**22
"""Number of values of the kernel that are held at a time: 32 MiB."""
FEWEST_ROWS = 4
"""The fewest rows of each set that a kernel distance can be estimated from, with its interval."""


@dataclass(frozen=True)
class Distance:
    """An unbiased estimate of a squared distance between two distributions; it may be below zero."""

    value: float
    interval: Interval
    """Confidence interval of 95%."""


@dataclass(frozen=True)
class FeaturePair:
    """Two sets of features that are compared, and which images their rows show."""

    one: Tensor
    """Features, [N, D]."""
    one_images: Tensor
    """Number of the image that each row shows, int64 [N], all different. A translation shows its source image."""
    other: Tensor
    """Features, [M, D]."""
    other_images: Tensor
    """The same of ``other``, int64 [M]."""


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Return the squared Fréchet distance of two normal distributions (Dowson & Landau 1982), the FID of features.

    It is |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) (Heusel et al. 2017, NeurIPS), with unbiased covariances (N − 1). If a
    set has no more rows than features, the trace of the root is the sum of the singular values of XYᵀ, an N x M matrix,
    with Σ₁ = XᵀX and Σ₂ = YᵀY. Else it is taken from the eigenvalues of Lᵀ Σ₂ L with Σ₁ = L Lᵀ, which is symmetric. So
    nothing becomes complex when a covariance is singular. The value is too large by about 1/N, see
    :func:`unbiased_frechet_distance`.

    Args:
        one: features, [N, D], N >= 2.
        other: features, [M, D], M >= 2.
    """
    (mean_x, x), (mean_y, y) = _mean_and_root(one), _mean_and_root(other)
    if min(len(x), len(y)) <= x.shape[1]:
        root = torch.linalg.svdvals(x @ y.T).sum()
    else:
        root = _product_eigenvalues(x.T @ x, y.T @ y).sqrt().sum()
    return float((mean_x - mean_y).square().sum() + x.square().sum() + y.square().sum() - 2 * root)


def _mean_and_root(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [D] of features [N, D], and X [N, D] such that XᵀX is their covariance; float64."""
    features = features.double()
    mean = features.mean(0)
    return mean, (features - mean) / (len(features) - 1) ** 0.5


def _product_eigenvalues(one: Tensor, other: Tensor) -> Tensor:
    """Return the eigenvalues of the product of two covariances, [D, D] each: [D], ascending, none below zero."""
    root, failed = torch.linalg.cholesky_ex(one)
    if failed:  # singular; this takes eighty times as long
        values, vectors = torch.linalg.eigh(one)
        root = vectors * values.clamp(min=0).sqrt()
    product = root.T @ other @ root
    return torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0)


def unbiased_frechet_distance(one: Tensor, other: Tensor) -> Distance:
    """Estimate the squared Fréchet distance of the distributions that features are drawn from: FID of endless images.

    :func:`frechet_distance` is too large by a term of order D²/N. Here the mean's part and the trace of each covariance
    are taken without bias; the trace of the root is that of random matrix theory (Tiomoko & Couillet 2019, EUSIPCO),
    right where D and N are both large, whatever their ratio. What is left, of order D/N, is removed by the jackknife
    over groups of rows (Quenouille 1956).

    The jackknife's variance counts what pairs of groups contribute twice (Efron & Stein 1981). That contribution, which
    is all there is where the distributions are equal, is estimated by leaving out two groups at a time, and counted
    once.

    Args:
        one: features in random order, [N, D], N >= 2 D and N >= 16.
        other: features in random order, [M, D], M >= 2 D and M >= 16.
    """
    x, y, count = _Sums.of(one), _Sums.of(other), FRECHET_GROUPS
    groups = [(_Sums.of(one[first::count]), _Sums.of(other[first::count])) for first in range(count)]
    whole = _consistent_frechet_distance(x, y)
    without = [_consistent_frechet_distance(x - group[0], y - group[1]) for group in groups]
    neighbours = [(number, (number + 1) % count) for number in range(count)]
    interactions = [
        whole
        - without[i]
        - without[j]
        + _consistent_frechet_distance(x - groups[i][0] - groups[j][0], y - groups[i][1] - groups[j][1])
        for i, j in neighbours
    ]
    left_out = torch.tensor(without, dtype=torch.float64)
    twice = (count - 1) ** 2 / count * float(left_out.var())
    # The mean square of an interaction is 2 (1 + 8 / (G − 2)) / (G (G − 1)) times the variance of a mean over pairs.
    squared = float(torch.tensor(interactions, dtype=torch.float64).square().mean())
    pairs = squared * count * (count - 1) / (2 * (1 + 8 / (count - 2)))
    # Where pairs are all there is, they are estimated twice.
    variance = max(twice - pairs, (twice / 2 + pairs) / 2)
    value = count * whole - (count - 1) * float(left_out.mean())
    return Distance(value, student_interval(value, math.sqrt(variance), count - 1))


@dataclass(frozen=True)
class _Sums:
    """Sums over rows of features, from which those of a part can be taken away."""

    rows: int
    total: Tensor
    """[D]."""
    squares: Tensor
    """Sum of the outer products of rows, [D, D]."""

    @staticmethod
    def of(features: Tensor) -> "_Sums":
        features = features.double()
        return _Sums(len(features), features.sum(0), features.T @ features)

    def __sub__(self, part: "_Sums") -> "_Sums":
        return _Sums(self.rows - part.rows, self.total - part.total, self.squares - part.squares)

    @property
    def mean(self) -> Tensor:
        return self.total / self.rows

    @property
    def covariance(self) -> Tensor:
        return (self.squares - torch.outer(self.total, self.total) / self.rows) / (self.rows - 1)


def _consistent_frechet_distance(one: _Sums, other: _Sums) -> float:
    """Estimate the squared Fréchet distance, consistently where features and rows both become many."""
    covariance_x, covariance_y = one.covariance, other.covariance
    trace_x, trace_y = float(covariance_x.trace()), float(covariance_y.trace())
    means = float((one.mean - other.mean).square().sum()) - trace_x / one.rows - trace_y / other.rows
    root = root_trace(_product_eigenvalues(covariance_x, covariance_y), one.rows - 1, other.rows - 1)
    return means + trace_x + trace_y - 2 * root


def root_trace(eigenvalues: Tensor, n: int, m: int) -> float:
    """Estimate tr (Σ₁ Σ₂)^½ of populations from the eigenvalues λ of the product of two sample covariances.

    With u(x) = Σ λ / (x − λ) it is the contour integral −1/(2πi) ∮ 2 (x / ((1 + u/n) (1 + u/m)))^½ u'(x) dx around all
    λ and all zeros of the denominator (Tiomoko & Couillet 2019; for n = m it is 2n Σ (λ^½ − ξ^½), ξ being those
    zeros). The contour is an ellipse in log x, on which the trapezoidal rule converges geometrically.

    Args:
        eigenvalues: λ, float64 [D], ascending; those that are zero take no part.
        n: degrees of freedom of the first covariance, more than the positive λ.
        m: the same of the second.
    """
    eigenvalues = eigenvalues[eigenvalues > 1e-12 * eigenvalues[-1]].cpu()
    if not len(eigenvalues):
        return 0.0
    # The zeros lie between neighbouring λ, but for the first, which is at least λ₁ (1 − D / n).
    first = math.log(float(eigenvalues[0]) * (1 - len(eigenvalues) / min(n, m))) - 0.5
    last = math.log(float(eigenvalues[-1])) + 0.5
    quarter = (last - first) / 4
    radius = 1 / quarter + math.hypot(1 / quarter, 1)  # the half height of the ellipse is then 2, below π
    # Of the upper half: the integrand of the lower half is its conjugate, with the opposite sign.
    angles = (torch.arange(CONTOUR_NODES // 2, dtype=torch.float64) + 0.5) * (2 * math.pi / CONTOUR_NODES)
    turn = torch.polar(torch.ones_like(angles), angles)
    logarithm = (first + last) / 2 + quarter * (radius * turn + turn.conj() / radius)
    step = 1j * quarter * (radius * turn - turn.conj() / radius) * (2 * math.pi / CONTOUR_NODES)
    x = logarithm.exp()
    parts = eigenvalues / (x[:, None] - eigenvalues)
    u, slope = parts.sum(1), -(parts / (x[:, None] - eigenvalues)).sum(1)
    integrand = 2 * (logarithm / 2).exp() / ((1 + u / n).sqrt() * (1 + u / m).sqrt()) * slope * x * step
    return -float(integrand.sum().imag) / math.pi


def kernel_distance(one: Tensor, other: Tensor) -> Distance:
    """Return the unbiased MMD² with the kernel (x·y/D + 1)³ of two sets of features: KID, on Inception features.

    The definition is that of Bińkowski et al. 2018, ICLR. The estimate is the U-statistic over all pairs of rows
    (Gretton et al. 2012, eq. 3), not a mean over subsets, and the sets may differ in size. Its variance is that of
    Hoeffding's decomposition (1948): terms of single rows, and of pairs of rows, which alone are left where the
    distributions are equal. Each is estimated without bias, see :func:`_moments` and :func:`_score_interval`.

    Args:
        one: features, [N, D], N >= 4.
        other: features, [M, D], M >= 4.
    """
    value, moments = _moments([one], [other])
    sizes = len(one), len(other)
    return Distance(value, _score_interval(value, moments * _weights(sizes, sizes, sizes), min(sizes) - 1))


def mean_kernel_distance(first: FeaturePair, second: FeaturePair) -> Distance:
    """Return the mean of two kernel distances that share images, such as those of both directions of a translator.

    Its interval takes into account that an image which both distances use, as a source in one and as a reference
    in the other, moves both.

    Args:
        first: ``one`` shows images of the same domain as that of ``second``, and so does ``other``; at least 4 rows
            each.
        second: its images have the numbers that they have in ``first``.
    """
    shared_one = _shared(first.one_images, second.one_images)
    shared_other = _shared(first.other_images, second.other_images)
    distances = [_moments([pair.one], [pair.other]) for pair in (first, second)]
    sizes = [(len(pair.one), len(pair.other)) for pair in (first, second)]
    terms = sum(
        (moments * _weights(size, size, size) for (_, moments), size in zip(distances, sizes, strict=True)),
        torch.zeros(5, dtype=torch.float64),
    )
    overlap = len(shared_one[0]), len(shared_other[0])
    if min(overlap) >= FEWEST_ROWS:
        pairs = [
            (pair.one[rows_one], pair.other[rows_other])
            for pair, rows_one, rows_other in zip((first, second), shared_one, shared_other, strict=True)
        ]
        # Var(S + T) = Var(S) + Var(T) + 2 Cov(S, T), term by term, where S + T is the statistic of the summed kernels.
        both = _moments([one for one, _ in pairs], [other for _, other in pairs])[1]
        alone = [
            moments if size == overlap else _moments([one], [other])[1]
            for (_, moments), size, (one, other) in zip(distances, sizes, pairs, strict=True)
        ]
        terms = terms + (both - alone[0] - alone[1]) * _weights(sizes[0], sizes[1], overlap)
    value, freedom = sum(value for value, _ in distances) / 2, min(min(size) for size in sizes) - 1
    return Distance(value, _score_interval(value, terms / 4, freedom))


def _shared(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places in ``one`` [N] and in ``other`` [M] of the numbers that are in both, in one order."""
    in_one, in_other = torch.isin(one, other).nonzero()[:, 0], torch.isin(other, one).nonzero()[:, 0]
    return in_one[one[in_one].argsort()], in_other[other[in_other].argsort()]


def _score_interval(value: float, terms: Tensor, freedom: int) -> Interval:
    """Return the distances that a kernel distance is not too far from for its variance if they were true.

    As in Wilson's interval of a proportion, the variance is that at the distance in question, and not at the estimate:
    that one is small where the estimate is small by chance. It is the terms of pairs, plus those of single rows, which
    are 0 at the distance 0 and grow in proportion to it if what differs stays the same. Their slope is at most √8 times
    the root of the terms of pairs, since one eigenvalue is at most the root of the sum of squares of all.

    Args:
        value: the estimate.
        terms: of its variance, in the order of :func:`_moments`, [5].
        freedom: degrees of freedom.
    """
    quantile = student_quantile(freedom)
    single, pairs = float(terms[:2].sum()), max(float(terms[2:].sum()), 1e-300)
    spread = math.sqrt(pairs)
    # Where the estimate is near 0 the slope is not known: terms of single rows are then half those of pairs, at least.
    near = max(value, spread)
    slope = min(max(single, pairs / 2 * spread / near) / near, math.sqrt(8) * spread)
    middle = value + quantile**2 * slope / 2
    half = quantile * math.sqrt(max(slope * value + pairs + (quantile * slope / 2) ** 2, 0.0))
    low = middle - half if value > quantile * spread else value - quantile * spread
    return low, middle + half if value > -quantile * spread else value + quantile * spread


def _weights(first: tuple[int, int], second: tuple[int, int], shared: tuple[int, int]) -> Tensor:
    """Return the factors of :func:`_moments` in the covariance of two kernel distances: float64 [5].

    Args:
        first: number of rows of each set of the first distance.
        second: the same of the second distance.
        shared: how many images the first sets of both share, and how many the second sets.
    """
    single = [both / (rows * others) for rows, others, both in zip(first, second, shared, strict=True)]
    within = [
        both * (both - 1) / (rows * (rows - 1) * others * (others - 1))
        for rows, others, both in zip(first, second, shared, strict=True)
    ]
    factors = [4 * single[0], 4 * single[1], 2 * within[0], 2 * within[1], 4 * single[0] * single[1]]
    return torch.tensor(factors, dtype=torch.float64)


def _moments(one: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[float, Tensor]:
    """Estimate MMD² and the moments that its variance is made of.

    With several features of each row the statistic is the sum of their MMD², which is that of the sum of kernels.

    Args:
        one: features of N rows, [N, D] each, N >= 4.
        other: as many features of M other rows, [M, D] each, M >= 4.

    Returns:
        The sum of MMD², and float64 [5]: the variance, over rows of ``one``, of half the influence of a row; the same
        of ``other``; and the second moments of the doubly centred kernel between rows of ``one``, between rows of
        ``other``, and across. All are unbiased. Kernels within a set are U-centred (Székely & Rizzo 2014).
    """
    x, y = [features.double() for features in one], [features.double() for features in other]
    n, m = len(x[0]), len(y[0])
    # A constant added to the kernel changes nothing; without it less is lost to rounding.
    constant = sum(float(_kernel(u.mean(0, keepdim=True), v.mean(0, keepdim=True))) for u, v in zip(x, y, strict=True))
    within_x, within_y = (_within(features, constant) for features in (x, y))
    rows, columns, squares = _kernel_sums(x, y, constant)
    total = rows.sum()
    across = squares - rows.square().sum() / m - columns.square().sum() / n + total.square() / (n * m)
    across = across / ((n - 1) * (m - 1))
    value = within_x.mean + within_y.mean - 2 * total / (n * m)
    influence_x = (within_x.rows - rows / m).var() - within_x.moment / (n - 2) - across / m
    influence_y = (within_y.rows - columns / n).var() - within_y.moment / (m - 2) - across / n
    return float(value), torch.stack([influence_x, influence_y, within_x.moment, within_y.moment, across]).cpu()


@dataclass(frozen=True)
class _Within:
    """Statistics of the kernel between different rows of a set of N."""

    mean: Tensor
    """Mean over pairs."""
    rows: Tensor
    """Sum over the other rows, by N − 2, [N]."""
    moment: Tensor
    """Second moment of the U-centred kernel, without bias."""


def _within(features: Sequence[Tensor], constant: float) -> _Within:
    rows, _, squares = _kernel_sums(features, features, constant)
    count, total = len(rows), rows.sum()
    centred = squares - 2 * rows.square().sum() / (count - 2) + total.square() / ((count - 1) * (count - 2))
    return _Within(total / (count * (count - 1)), rows / (count - 2), centred / (count * (count - 3)))


def _kernel_sums(one: Sequence[Tensor], other: Sequence[Tensor], constant: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the kernel less a constant over the rows of ``other``, [N], over those of ``one``, [M], and its squares.

    Where ``one`` is ``other``, pairs of a row with itself are left out.
    """
    count = max(1, KERNEL_VALUES_AT_ONCE // len(other[0]))
    rows, columns, squares = [], torch.zeros_like(other[0][:, 0]), torch.zeros_like(other[0][0, 0])
    for first in range(0, len(one[0]), count):
        kernel = torch.stack([_kernel(u[first : first + count], v) for u, v in zip(one, other, strict=True)]).sum(0)
        kernel -= constant
        if one is other:
            kernel.diagonal(first).zero_()
        rows.append(kernel.sum(1))
        columns += kernel.sum(0)
        squares += kernel.square().sum()
    return torch.cat(rows), columns, squares


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.T / one.shape[1] + 1) ** 3
