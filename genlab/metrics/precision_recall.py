"""Precision and recall of generated images by their features (Kynkäänniemi et al. 2019, NeurIPS, arXiv:1904.06991)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.metrics.intervals import FEWEST, Interval, Z, proportion_interval, student_quantile
from genlab.metrics.neighbours import squared_distances

NEIGHBOURS = 3
"""The neighbours that reach out around each image, as in the paper."""
GROUPS = 16
"""Number of groups of rows that the jackknife leaves out in turn."""
DISTANCES_AT_ONCE = 2**22
"""Number of distances that are held at a time: 32 MiB of float64."""
ROUNDING = 1e-12
"""Squared distances below this share of the largest squared norm are what rounding leaves of equal features."""


@dataclass(frozen=True)
class Covered:
    """The share of one set of images that lies within another."""

    value: float
    """In [0, 1]."""
    interval: Interval | None
    """Confidence interval of 95%, over draws of both sets; ``None`` where they are too small."""


@dataclass(frozen=True)
class PrecisionRecall:
    """How far two sets of images lie within each other."""

    precision: Covered
    """Of the generated images: how often one looks like a real one."""
    recall: Covered
    """Of the real images: how often one looks like a generated one."""


def precision_recall(real: Tensor, generated: Tensor, neighbours: int = NEIGHBOURS) -> PrecisionRecall:
    """Return improved precision and recall.

    A set is said to fill the balls around each of its rows that reach to the row's k-th nearest other row. Precision is
    the share of generated rows in a ball of a real row, recall the share of real rows in a ball of a generated one; a
    row on the surface lies within. Both depend on the number of rows, since balls shrink as rows become many.

    The value changes with the rows whose balls cover, and with those that are covered. The variance of both together is
    half that of the jackknife over :data:`GROUPS` groups of rows (Quenouille 1956), which counts what pairs of groups
    contribute twice (Efron & Stein 1981), and here that is nearly all: which row lies in whose ball. If it is c times
    the binomial variance, Wilson's interval is that of c times fewer rows. It is one of the value that is expected of
    as many rows.

    All is computed in float64, in blocks: besides the features, memory does not grow with the square of N.

    Args:
        real: features in random order, [N, D], N > k.
        generated: features in random order, [N, D].
        neighbours: k, at least 1.

    Raises:
        ValueError: the sets differ in size, or are too small.
    """
    if len(real) != len(generated) or len(real) <= neighbours:
        raise ValueError(f"{len(real)} and {len(generated)} rows: both must be of one number above {neighbours}")
    centre = real.double().mean(0)  # rounding is least around it
    sides = real.double() - centre, generated.double() - centre
    floor = ROUNDING * max(float(side.square().sum(1).max()) for side in sides)
    radii = _radii(sides[0], neighbours, floor), _radii(sides[1], neighbours, floor)
    # Whether each row is in a ball of the other side: among all rows, and without each group, as radii are.
    of_generated, of_real = (torch.zeros_like(one, dtype=torch.bool) for one in radii)
    step = max(1, DISTANCES_AT_ONCE // len(real))
    for first in range(0, len(generated), step):
        rows = slice(first, first + step)
        squared = squared_distances(sides[1][rows], sides[0]).clamp_(min=floor)
        _mark(of_generated[:, rows], squared, radii[0])
        _mark(of_real, squared.T, radii[1][:, rows])
    return PrecisionRecall(precision=_covered(of_generated), recall=_covered(of_real))


def _mark(within: Tensor, squared: Tensor, radii: Tensor) -> None:
    """Mark the points that lie in a ball, by their squared distances to centres.

    Args:
        within: which points do, bool [1 + GROUPS, points], to add to.
        squared: [points, centres].
        radii: squared radii of the balls around the centres, [1 + GROUPS, centres], see :func:`_radii`.
    """
    point, centre = (squared <= radii.amax(0)).nonzero(as_tuple=True)  # few: the rest is of these alone
    which, found = (squared[point, centre] <= radii[:, centre]).nonzero(as_tuple=True)
    within[which, point[found]] = True


def _radii(features: Tensor, neighbours: int, floor: float) -> Tensor:
    """Return the squared distance of each row to its k-th nearest other row: [1 + GROUPS, N].

    The first is among all rows, the others are without each group; it is -1 for the rows of the group itself.
    """
    count, rows = len(features), torch.arange(len(features), device=features.device)
    nearest = features.new_full((count, GROUPS, neighbours), math.inf)  # of each group
    for group in range(min(GROUPS, count)):
        others = features[group::GROUPS]
        step, kept = max(1, DISTANCES_AT_ONCE // len(others)), min(neighbours, len(others))
        for first in range(0, count, step):
            squared = squared_distances(features[first : first + step], others).clamp_(min=floor)
            own = rows[first : first + step][rows[first : first + step] % GROUPS == group]
            squared[own - first, own // GROUPS] = math.inf
            nearest[first : first + step, group, :kept] = squared.topk(kept, largest=False).values
    radii = [nearest.flatten(1).kthvalue(neighbours).values]
    for group in range(GROUPS):
        others = torch.cat([nearest[:, :group], nearest[:, group + 1 :]], dim=1)
        radius = others.flatten(1).kthvalue(neighbours).values
        radius[group::GROUPS] = -1
        radii.append(radius)
    return torch.stack(radii)


def _covered(within: Tensor) -> Covered:
    """Return the share of points in a ball: of all of them, and without each group, bool [1 + GROUPS, N]."""
    count = within.shape[1]
    hits = int(within[0].count_nonzero())
    if count < FEWEST:
        return Covered(hits / count, None)
    group = torch.arange(count, device=within.device) % GROUPS
    without = torch.stack([within[1 + left_out, group != left_out].double().mean() for left_out in range(GROUPS)])
    variance, binomial = float((GROUPS - 1) ** 2 / GROUPS * without.var()) / 2, hits * (count - hits) / count**3
    inflation = max(1.0, variance / binomial) if binomial else 1.0
    inflation *= (student_quantile(GROUPS - 1) / Z) ** 2  # the variance itself is an estimate
    return Covered(hits / count, proportion_interval(hits / inflation, count / inflation))
