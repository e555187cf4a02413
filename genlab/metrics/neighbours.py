"""How far classes lie apart among points, by the 1-nearest-neighbour rule (Cover & Hart 1967)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.metrics.intervals import Interval, proportion_interval

DISTANCES_AT_ONCE = 2**24
"""Held at a time: 64 MiB of float32."""


@dataclass(frozen=True)
class NeighbourAccuracy:
    """A share of points, in [0, 1]."""

    value: float
    interval: Interval
    """Of 95%, over draws of the points."""


def nearest_neighbour_accuracy(points: Tensor, labels: Tensor) -> NeighbourAccuracy:
    """Leave-one-out accuracy of the 1-nearest-neighbour rule: the share of points whose nearest other has their class.

    Two points that are each other's nearest are right or wrong together. A share m of points in such pairs makes the
    variance 1 + m times the binomial one, and Wilson's interval is taken of as many fewer points; m is 0.62 in a plane
    and falls with the dimension.

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
    """The other point that is nearest to each by Euclidean distance, the first of equally near ones.

    Args:
        points: float [N, D], N >= 2.

    Returns:
        int64 [N], numbers of points.
    """
    rows = max(1, DISTANCES_AT_ONCE // len(points))
    nearest = []
    for first in range(0, len(points), rows):
        # By differences: a matrix product loses small distances far from the origin.
        distances = torch.cdist(points[first : first + rows], points, compute_mode="donot_use_mm_for_euclid_dist")
        distances.diagonal(first).fill_(math.inf)  # to the points themselves
        nearest.append(distances.argmin(1))
    return torch.cat(nearest)
