"""Nearest neighbours, and the separation of classes by the 1-nearest-neighbour rule (Cover & Hart 1967)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.metrics.intervals import FEWEST, Interval, proportion_interval

DISTANCES_AT_ONCE = 2**24
"""Number of distances that are held at a time: 64 MiB of float32."""
ROWS_AT_ONCE = 2**12
"""Number of rows that :func:`nearest_among` looks at, and compares with as many, at a time: 128 MiB of distances."""


@dataclass(frozen=True)
class NeighbourAccuracy:
    """Accuracy of the 1-nearest-neighbour rule."""

    value: float
    """Share of points, in [0, 1]."""
    interval: Interval | None
    """Confidence interval of 95%, over draws of the points; ``None`` where they are too few."""


def nearest_neighbour_accuracy(points: Tensor, labels: Tensor) -> NeighbourAccuracy:
    """Return the leave-one-out accuracy: the share of points whose nearest neighbour has the same class.

    Whether two points are right depends on each other where they share a point: where they are each other's nearest, or
    one point is the nearest of both. The variance sums over all such pairs (Fafchamps & Gubert 2007); if it is k times
    the binomial one, Wilson's interval is that of k times fewer points. With a share m of points in pairs of each
    other's nearest, k is 1 + m at least.

    Args:
        points: float [N, D], N >= 2.
        labels: int64 [N].
    """
    nearest = nearest_neighbours(points)
    right = labels[nearest] == labels
    mutual = nearest[nearest] == torch.arange(len(nearest), device=nearest.device)
    hits, count = int(right.count_nonzero()), len(points)
    inflation = 1 + int(mutual.count_nonzero()) / count
    if 0 < hits < count:
        apart = right.double() - hits / count
        at_point = apart.index_add(0, nearest, apart)  # of a point itself, and of those whose nearest it is
        # A point shares two points with itself, and so do each other's nearest: both are counted twice in the sum.
        shared = at_point.square().sum() - apart.square().sum() - (apart * apart[nearest])[mutual].sum()
        inflation = max(inflation, float(shared / apart.square().sum()))
    interval = proportion_interval(hits / inflation, count / inflation) if count >= FEWEST else None
    return NeighbourAccuracy(hits / count, interval)


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


def nearest_among(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest of ``others`` to each point by Euclidean distance, in float64 and in blocks.

    Args:
        points: float [N, D].
        others: float [M, D], M >= 1.

    Returns:
        Indices into ``others``, int64 [N], and the distances, float64 [N], exactly 0 between equal rows.
    """
    centre = others.mean(0).double()  # rounding is least around it
    least = torch.full((len(points),), math.inf, dtype=torch.float64, device=points.device)
    nearest = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for first in range(0, len(others), ROWS_AT_ONCE):
        some = others[first : first + ROWS_AT_ONCE].double() - centre
        for begin in range(0, len(points), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            squared, place = squared_distances(points[part].double() - centre, some).min(1)
            nearer = squared < least[part]
            least[part] = torch.where(nearer, squared, least[part])
            nearest[part] = torch.where(nearer, first + place, nearest[part])
    distances = [
        (points[begin : begin + ROWS_AT_ONCE].double() - others[nearest[begin : begin + ROWS_AT_ONCE]].double()).norm(
            dim=1
        )
        for begin in range(0, len(points), ROWS_AT_ONCE)
    ]
    return nearest, torch.cat(distances)


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared distances of rows of ``one``, [N, D], and ``other``, [M, D]: [N, M].

    They are taken by a matrix product, and those of near rows are off by the rounding of their squared norms.
    """
    norms = one.square().sum(1)[:, None] + other.square().sum(1)
    return torch.addmm(norms, one, other.T, alpha=-2)
