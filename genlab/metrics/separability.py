"""Linear separability (Karras et al. 2019, CVPR, arXiv:1812.04948, section 4.2): do planes tell attributes apart?"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.metrics.intervals import Interval, mean_interval

PENALTY = 1.0
"""C of the support vector machines, as in the authors' code."""
MOST_STEPS = 100
"""Newton steps that a fit may take; it takes about ten."""


@dataclass(frozen=True)
class Separability:
    """How well planes tell attributes apart."""

    value: float
    """exp(Σ H(Y|X)): from 1, where planes tell each attribute Y, to at most 2 to the number of attributes."""
    interval: Interval | None
    """Confidence interval of 95%, over draws of the points, with the planes as they are; ``None`` where points are
    too few."""


def separability(points: Tensor, attributes: Tensor) -> Separability:
    """Return exp(Σ H(Y|X)): what is not known of each attribute Y, in nats, of points whose side X of a plane is known.

    The plane of an attribute is that of a linear support vector machine. Unlike in the paper, the side of a point is
    that of a plane which was fitted without it: two planes are fitted, each to every second point, and tell the sides
    of the others. So few points in many dimensions, which a plane always separates, do not look separable.

    The entropies are those of the shares found; the interval is that of the mean of Σ −log p(y|x) over points.

    Args:
        points: in random order, float [N, D], N >= 2.
        attributes: whether each point has each of K attributes, bool [N, K].
    """
    points = points.double()
    halves = [torch.arange(first, len(points), 2, device=points.device) for first in (0, 1)]
    surprise = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    for has in attributes.T:
        side = torch.zeros_like(has)
        for fitted, left in (halves, halves[::-1]):
            weights, bias = fit_plane(points[fitted], has[fitted])
            side[left] = points[left] @ weights + bias > 0
        surprise += _surprise(has, side)
    interval = mean_interval(surprise)
    return Separability(
        math.exp(float(surprise.mean())), None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))
    )


def fit_plane(points: Tensor, positive: Tensor, penalty: float = PENALTY) -> tuple[Tensor, float]:
    """Fit a linear support vector machine with squared hinge loss.

    It minimises (|w|² + b²) / 2 + C Σ max(0, 1 − y (w·x + b))², with y = ±1, as scikit-learn's ``LinearSVC`` does by
    default, by Newton's method on the points within the margin (Keerthi & DeCoste 2005, JMLR).

    Args:
        points: x, float64 [N, D].
        positive: whether y is 1, bool [N].
        penalty: C.

    Returns:
        w, float64 [D], and b; a point is taken as positive where w·x + b > 0.
    """
    inputs = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    target = torch.where(positive, 1.0, -1.0).to(points)
    plane = torch.zeros_like(inputs[0])
    identity = torch.eye(len(plane), dtype=points.dtype, device=points.device)

    def loss(plane: Tensor) -> float:
        hinge = (1 - target * (inputs @ plane)).clamp(min=0)
        return float(plane.square().sum() / 2 + penalty * hinge.square().sum())

    lowest = loss(plane)
    for _ in range(MOST_STEPS):
        within = target * (inputs @ plane) < 1
        x, y = inputs[within], target[within]
        step = torch.linalg.solve(identity + 2 * penalty * x.T @ x, 2 * penalty * x.T @ y) - plane
        size, value = 1.0, loss(plane + step)
        while value > lowest and size > 1e-6:
            size /= 2
            value = loss(plane + size * step)
        if not value < lowest * (1 - 1e-12):
            break
        plane, lowest = plane + size * step, value
    return plane[:-1], float(plane[-1])


def _surprise(has: Tensor, side: Tensor) -> Tensor:
    """Return −log p(y|x) of each point, [N], by the shares p of points; its mean is H(Y|X)."""
    cell = 2 * side.long() + has.long()
    counts = cell.bincount(minlength=4).double()
    return (counts.view(2, 2).sum(1).repeat_interleave(2) / counts).log()[cell]
