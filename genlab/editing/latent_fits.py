"""Ways to find directions in the latent spaces of a generator with styles, as functions of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PENALTY = 1.0
"""Weight of the squared coefficients of a fit, whose inputs have variance 1 and are one row a sample."""
LEAST_VARIANCE = 1e-6
"""Variances of w along its principal axes below this share of the largest count as this share."""
LEAST_LEFT = 0.05
"""The share of a direction's length that must be left when others are projected out of it."""
BALANCE = 0.0025
"""How much the length of a direction counts, beside the sum over all axes of what it does to other attributes."""


@dataclass(frozen=True)
class Whitening:
    """The coordinates of w in which samples have mean 0 and unit covariance."""

    mean: Tensor
    """float64 [D]"""
    root: Tensor
    """Square root of the covariance, symmetric: float64 [D, D]."""
    inverse_root: Tensor
    """Its inverse, float64 [D, D]."""

    @staticmethod
    def of(w: Tensor) -> "Whitening":
        """Return the whitening of samples, float64 [N, D]."""
        mean = w.mean(0)
        variances, axes = torch.linalg.eigh((w - mean).T @ (w - mean) / max(1, len(w) - 1))
        deviations = variances.clamp(min=LEAST_VARIANCE * float(variances.max())).sqrt()
        return Whitening(mean, axes * deviations @ axes.T, axes / deviations @ axes.T)

    def whiten(self, w: Tensor) -> Tensor:
        """Return float64 [N, D] in these coordinates."""
        return (w - self.mean) @ self.inverse_root

    def length(self, vectors: Tensor) -> Tensor:
        """Return the Mahalanobis length of differences of w, float64 [..., D]: [...]."""
        return (vectors @ self.inverse_root).norm(dim=-1)


def fit_linear(inputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Fit values as linear functions of inputs by ridge regression.

    Args:
        inputs: of mean about 0 and variance about 1, float64 [N, D].
        values: float64 [N, A].

    Returns:
        The coefficients, [D, A], and the values at inputs of 0, [A].
    """
    centre, mean = inputs.mean(0), values.mean(0)
    x = inputs - centre
    gram = x.T @ x + PENALTY * torch.eye(x.shape[1], dtype=x.dtype)
    coefficients = torch.linalg.solve(gram, x.T @ (values - mean))
    return coefficients, mean - centre @ coefficients


def fitted_without(inputs: Tensor, values: Tensor) -> Tensor:
    """Return what a linear fit says of each sample that was fitted without it, [N, A].

    One fit is of every second sample, and tells the values of the others, and the other way round. The arguments are
    those of :func:`fit_linear`.
    """
    halves = [torch.arange(first, len(inputs), 2) for first in (0, 1)]
    told = torch.empty_like(values)
    for fitted, left in (halves, halves[::-1]):
        coefficients, offset = fit_linear(inputs[fitted], values[fitted])
        told[left] = inputs[left] @ coefficients + offset
    return told


def project_out(normal: Tensor, others: Tensor) -> Tensor | None:
    """Return the unit vector nearest to ``normal`` along which other linear functions stay the same.

    It is InterFaceGAN's conditional manipulation (Shen et al. 2020, CVPR, arXiv:1907.10786, section 3.2).

    Args:
        normal: coefficients of the function that shall change, float64 [D].
        others: coefficients of those that shall not, float64 [D, B]; B may be 0.

    Returns:
        float64 [D]; ``None`` where less than a twentieth of ``normal`` is left, so that nothing tells it from others.
    """
    left = normal
    if others.shape[1]:
        # The axes of one attribute's classes depend on each other: what noise alone tells apart is no direction.
        axes, sizes, _ = torch.linalg.svd(others / others.norm(dim=0), full_matrices=False)
        span = axes[:, sizes > LEAST_LEFT * sizes[0]]
        left = normal - span @ (span.T @ normal)
    length = float(left.norm())
    if not length > LEAST_LEFT * float(normal.norm()):
        return None
    return left / length


def undisturbing(gradients: Tensor, others: Tensor) -> Tensor | None:
    """Return the unit vector along which one function changes most, for how much others change, sample by sample.

    Where others change with w otherwise at each sample, projecting out their linear fits keeps them on average over
    samples, and moves them at each to this side or that. Here v maximises the square of the mean of ``gradients`` · v,
    over the mean of the squares of ``others`` · v and of the length of v: the mean gradient with the others' second
    moments divided out, of which projecting out is the case where they have the same gradients at all samples.

    Args:
        gradients: of the function that shall change, by w in coordinates of unit covariance, float64 [N, D].
        others: those of B functions that shall not, each divided by the deviation of its values: float64 [N, B, D]; B
            may be 0.

    Returns:
        float64 [D]; ``None`` where the mean gradient is 0.
    """
    size = gradients.shape[1]
    moments = torch.einsum("nbd,nbe->de", others, others) / len(others)
    balance = BALANCE * float(moments.trace()) or 1.0
    direction = torch.linalg.solve(moments + balance * torch.eye(size, dtype=moments.dtype), gradients.mean(0))
    length = float(direction.norm())
    return direction / length if length else None


def affine_weights(layers: Sequence[torch.nn.Module], size: int, like: Tensor) -> Tensor:
    """Return the weights of affine layers from w to styles, joined: float64 [D, S], S styles in all.

    Args:
        layers: each maps [N, D] to [N, S_i].
        size: D.
        like: a tensor of the dtype and device that they take.
    """
    with torch.inference_mode():
        zero, ones = torch.zeros(1, size).to(like), torch.eye(size).to(like)
        return torch.cat([(layer(ones) - layer(zero)).double().cpu() for layer in layers], dim=1)


def sefa_directions(weights: Tensor, count: int) -> Tensor:
    """Return the directions that change styles most, in closed form (Shen & Zhou 2021, CVPR, arXiv:2007.06600).

    Args:
        weights: of the layers from w to styles, float64 [D, S]; each style's are scaled to length 1, as the authors do.
        count: number of directions.

    Returns:
        Unit vectors of W, the strongest first: float64 [count, D], fewer where D is smaller.
    """
    scaled = weights / weights.norm(dim=0).clamp(min=torch.finfo(weights.dtype).tiny)
    _, vectors = torch.linalg.eigh(scaled @ scaled.T)
    return vectors.flip(1).T[:count]


def channel_relevance(styles: Tensor, exemplars: Tensor) -> Tensor:
    """Return how characteristic each channel is of exemplars (Wu et al. 2021, CVPR, arXiv:2011.12799, section 4).

    It is |mean| / deviation over the exemplars of (style − mean of all) / deviation of all.

    Args:
        styles: of samples, float64 [N, S].
        exemplars: the numbers of those samples that show an attribute most, int64 [E], E >= 2.

    Returns:
        float64 [S]; 0 for channels that do not vary.
    """
    mean, deviation = styles.mean(0), styles.std(0)
    varies = deviation > 0
    differences = (styles[exemplars] - mean) / torch.where(varies, deviation, 1.0)
    spread = differences.std(0)
    relevance = differences.mean(0).abs() / spread.clamp(min=torch.finfo(styles.dtype).tiny)
    return torch.where(varies & (spread > 0), relevance, 0.0)
