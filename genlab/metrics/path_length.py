"""Perceptual path length (Karras et al. 2019, CVPR, arXiv:1812.04948, section 4.1): how smoothly images change."""

import math
from dataclasses import dataclass

from torch import Tensor

from genlab.metrics.intervals import FEWEST, Interval, student_interval

EPSILON = 1e-4
"""Length of a step, as a share of the way between two latent vectors."""
DISCARDED = 0.01
"""Share of the steps that are left out at each end, the shortest and the longest, as in the authors' code."""


@dataclass(frozen=True)
class PathLength:
    """The mean length of ways between images."""

    value: float
    """Mean perceptual distance of a step, divided by the square of its length; NaN where a distance is not finite."""
    interval: Interval | None
    """Confidence interval of 95%, over draws of the steps; ``None`` where they are too few, or not all finite."""


def path_length(distances: Tensor, epsilon: float = EPSILON) -> PathLength:
    """Return the mean of d / ε² over steps, but for the shortest and the longest.

    The interval is that of a trimmed mean, from the variance of the winsorised values (Yuen 1974).

    Args:
        distances: d, the perceptual distance of the two images of each step, [N], N >= 1; it grows with the square of
            a small difference of images.
        epsilon: ε, the length of a step.
    """
    lengths = (distances.double() / epsilon**2).sort().values
    count = len(lengths)
    if not lengths.isfinite().all():
        return PathLength(math.nan, None)
    left_out = math.floor(DISCARDED * (count - 1))
    kept = lengths[left_out : count - left_out]
    value = float(kept.mean())
    if len(kept) < FEWEST:
        return PathLength(value, None)
    winsorised = lengths.clamp(kept[0], kept[-1])
    variance = float((count - 1) * winsorised.var() / (len(kept) * (len(kept) - 1)))
    return PathLength(value, student_interval(value, math.sqrt(variance), len(kept) - 1))
