"""Confidence intervals of 95%, and tests of differences."""

import math
from collections.abc import Sequence

from torch import Tensor

Z = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""
FEWEST = 25
"""The fewest independent images that give an interval: with fewer, one of a skewed measure covers too seldom."""

FEWEST_FREEDOM = 10
"""The fewest degrees of freedom for which expansions of Student's t distribution are right to 0.1%."""
SMALL_QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""The 97.5% quantiles of Student's t distribution with 1 to 9 degrees of freedom."""

Interval = tuple[float, float]
"""Lower and upper end."""


def normal_interval(value: float, standard_error: float) -> Interval:
    """Return the interval ``value`` ± 1.96 standard errors."""
    return value - Z * standard_error, value + Z * standard_error


def student_quantile(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t distribution with ``freedom`` degrees of freedom, at least 1.

    From 10 on it is an expansion in 1 / ``freedom`` (Abramowitz & Stegun 1964, 26.7.5), right to 0.1%.
    """
    if freedom < FEWEST_FREEDOM:
        return SMALL_QUANTILES[freedom - 1]
    terms = (
        Z,
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def student_interval(value: float, standard_error: float, freedom: int) -> Interval:
    """Return the interval of Student's t distribution with ``freedom`` degrees of freedom, at least 1."""
    half = standard_error * student_quantile(freedom)
    return value - half, value + half


def mean_interval(values: Tensor) -> Interval | None:
    """Return Student's interval of the mean of N independent values, [N].

    Returns:
        ``None`` where N is below :data:`FEWEST`, or a value is not finite.
    """
    values = values.double()
    if len(values) < FEWEST or not values.isfinite().all():
        return None
    return student_interval(float(values.mean()), float(values.std() / math.sqrt(len(values))), len(values) - 1)


def proportion_interval(hits: float, count: float) -> Interval:
    """Return the score interval of Wilson 1927 for a binomial proportion ``hits / count``; it lies inside [0, 1].

    Both are whole numbers, unless they stand for fewer independent trials than were made. Give no interval of fewer
    than :data:`FEWEST` images.
    """
    share, z2 = hits / count, Z**2 / count
    middle = share + z2 / 2
    half = Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return (middle - half) / (1 + z2), (middle + half) / (1 + z2)


def normal_p_value(deviate: float) -> float:
    """Return the probability that a standard normal variable lies at least as far from 0 as ``deviate``."""
    return math.erfc(abs(deviate) / math.sqrt(2))


def student_p_value(statistic: float, freedom: int) -> float:
    """Return the probability that Student's t lies at least as far from 0 as ``statistic``.

    With fewer than 10 degrees of freedom it is a finite series (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4), else
    computed by algorithm 395 of Hill 1970, CACM, whose relative error is below 0.1% where the result is above 1e-12.

    Args:
        statistic: value of t, finite or infinite.
        freedom: degrees of freedom, at least 1.
    """
    if freedom < FEWEST_FREEDOM:
        return _small_student_p_value(statistic, freedom)
    shifted = freedom - 0.5
    scale, y = 48 * shifted**2, shifted * math.log1p(statistic**2 / freedom)
    if math.isinf(y):
        return 0.0
    correction = (((-0.4 * y - 3.3) * y - 24) * y - 85.5) / (0.8 * y**2 + 100 + scale) + y + 3
    return normal_p_value((correction / scale + 1) * math.sqrt(y))


def _small_student_p_value(statistic: float, freedom: int) -> float:
    """Return the p-value of few degrees of freedom, by the series in the cosine of arctan(t / sqrt(freedom))."""
    angle = math.atan(abs(statistic) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    first = 1 if freedom % 2 == 0 else 2  # the series has even powers of the cosine, or odd ones
    term = total = 1.0 if freedom % 2 == 0 else cosine
    for factor in range(first, freedom - 2, 2):
        term *= factor / (factor + 1) * cosine**2
        total += term
    if freedom % 2 == 0:
        return max(0.0, 1 - sine * total)
    return max(0.0, 1 - 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0)))


def welch_p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the p-value of Welch's test that two samples, of at least two values each, have one mean.

    The degrees of freedom are rounded down, which makes it a little too large.
    """
    errors = [_variance(values) / len(values) for values in (one, other)]
    difference = sum(one) / len(one) - sum(other) / len(other)
    if not sum(errors):
        return float(difference == 0)
    freedom = sum(errors) ** 2 / sum(
        error**2 / (len(values) - 1) for error, values in zip(errors, (one, other), strict=True)
    )
    return student_p_value(difference / math.sqrt(sum(errors)), max(1, math.floor(freedom)))


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def paired_p_value(differences: Tensor) -> float:
    """Return the p-value of Student's paired test that the mean of N independent differences, [N], is 0."""
    differences = differences.double()
    mean, deviation = float(differences.mean()), float(differences.std())
    if deviation == 0:
        return float(mean == 0)
    return student_p_value(mean / deviation * math.sqrt(len(differences)), len(differences) - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests so that they may be compared with one level (Holm 1979).

    The probability that any true hypothesis is rejected at a level is then at most that level, however the tests
    depend on each other.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for done, test in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - done) * p_values[test]))
        adjusted[test] = largest
    return adjusted
