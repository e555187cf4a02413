"""Confidence intervals of 95%."""

import math

from torch import Tensor

Z = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""

Interval = tuple[float, float]
"""Lower and upper end."""


def normal_interval(value: float, standard_error: float) -> Interval:
    """Return the interval ``value`` ± 1.96 standard errors."""
    return value - Z * standard_error, value + Z * standard_error


def mean_interval(values: Tensor) -> Interval:
    """Return the interval of the mean of N independent values, [N], from their standard error."""
    values = values.double()
    return normal_interval(float(values.mean()), float(values.std() / math.sqrt(len(values))))


def proportion_interval(hits: float, count: float) -> Interval:
    """Return the score interval of Wilson 1927 for a binomial proportion ``hits / count``; it lies inside [0, 1].

    Both are whole numbers, unless they stand for fewer independent trials than were made.
    """
    share, z2 = hits / count, Z**2 / count
    middle = share + z2 / 2
    half = Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return (middle - half) / (1 + z2), (middle + half) / (1 + z2)
