"""Separation of classes by the 1-nearest-neighbour rule (Cover & Hart 1967)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.metrics.intervals import Interval, proportion_interval

DISTANCES_AT_ONCE = 2**24
"""Number of distances that are held at a time: 64 MiB of float32."""


@dataclass(frozen=True)
class NeighbourAccuracy:
    """Accuracy of the 1-nearest-neighbour rule."""

    value: float
    """Share of points, in [0, 1]."""
    interval: Interval
    """Confidence interval of 95%, over draws of the points."""


def nearest_neighbour_accuracy(points: Tensor, labels: Tensor) -> NeighbourAccuracy:
    """Return the leave-one-out accuracy: the share of points whose nearest neighbour has the same class.

    Two points that are each other's nearest are right or wrong together. If a share m of points is in such pairs, the
    variance is 1 + m times the binomial one, and Wilson's interval is that of 1 + m times fewer points. In a plane m is
    0.62; it falls with the dimension.

    Args:
        points: float [N, D], N >= 2.
        labels: int64 [N].
    """
    nearest = nearest_neighbours(points)
    right = int(torch.count_nonzero(labels[nearest] == labels))
    mutual = int(torch.count_nonzero(nearest[nearest] == torch.arange(len(nearest), device=nearest.device)))
    inflation = 1 + mutual / len(points)
    return NeighbourAccuracy(right / len(points), proportion_interval(right / inflation, len(points) / inflation))


def nearest_neighbours(points: Tensor) -> Tensor:
    """Return the nearest other point of each point by Euclidean distance; of equally near ones, the first.

    Args:
        points: float [N, D], N >= 2.

    Returns:
        Indices of points, int64 [N].
    """
    rows = max(1, DISTANCES_AT_ONCE // len(points))
    nearest = []
    for first in range(0, len(points), rows):
        # By differences: a matrix product loses small distances far from the origin.
        distances = torch.cdist(points[first : first + rows], points, compute_mode="donot_use_mm_for_euclid_dist")
        distances.diagonal(first).fill_(math.inf)  # to the points themselves
        nearest.append(distances.argmin(1))
    return torch.cat(nearest)
