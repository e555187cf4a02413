"""95% intervals of measured figures."""

import math

from torch import Tensor

Z = 1.959963984540054
"""The 97.5% quantile of a standard normal."""

Interval = tuple[float, float]


def normal_interval(value: float, standard_error: float) -> Interval:
    """``value`` ± 1.96 standard errors."""
    return value - Z * standard_error, value + Z * standard_error


def mean_interval(values: Tensor) -> Interval:
    """The interval of a mean of independent values, [N], by the standard error of N values."""
    values = values.double()
    return normal_interval(float(values.mean()), float(values.std() / math.sqrt(len(values))))


def proportion_interval(hits: float, count: float) -> Interval:
    """Wilson's interval (1927) of a binomial share ``hits / count``; inside [0, 1], also at its ends.

    Both are whole numbers, unless they stand for fewer independent trials than were made.
    """
    share, z2 = hits / count, Z**2 / count
    middle = share + z2 / 2
    half = Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return (middle - half) / (1 + z2), (middle + half) / (1 + z2)
