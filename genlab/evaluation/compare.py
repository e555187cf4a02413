"""Comparison of evaluations: measurements side by side, ranked only where their settings are equal.

Two measurements that are means over the same images are compared image by image, which is much sharper than two
intervals: how hard an image is moves both. Others are compared by their intervals, as if they were independent.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from genlab.evaluation.measurements import ROUNDING, Evaluation, Measurement
from genlab.metrics.intervals import Z, holm, mean_interval, normal_interval, normal_p_value, paired_p_value

HASH_SHOWN = 12
ARROWS = {"lower": "↓", "higher": "↑"}
LEVEL = 0.05
"""Probability, at most, that a comparison of evaluations says of any two equal models that one is better."""
NO_INTERVAL = "not ranked: without an interval"


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement of every evaluation."""

    title: str
    measurements: tuple[Measurement | None, ...]
    """The measurement in each evaluation; ``None`` where an evaluation does not have it."""
    best: int | None
    """Number of the column that is better than every other, beyond chance; ``None`` where there is none."""
    note: str
    """Reason why the measurements are not ranked; empty if they are, or if models cannot be ranked by them."""
    difference: Measurement | None = None
    """Of two evaluations that are ranked: the second less the first."""
    paired: bool = False
    """Whether all of them are compared image by image."""


def compare(evaluations: Sequence[Evaluation]) -> list[Row]:
    """Put the measurements of evaluations side by side, row by row.

    One is better than another where a test of their difference says so at :data:`LEVEL`: Student's paired test where
    both have the values of the same images, else the normal test of two independent estimates. The p-values of all
    pairs of columns in all ranked rows are adjusted together (Holm 1979).
    """
    names = dict.fromkeys(name for evaluation in evaluations for name in evaluation.measurements)
    rows = [_row(tuple(evaluation.measurements.get(name) for evaluation in evaluations)) for name in names]
    ranked = [number for number, row in enumerate(rows) if _is_ranked(row)]
    tests = {
        (number, first, second): _p_value(one, other)
        for number in ranked
        for (first, one), (second, other) in itertools.combinations(_present(rows[number]).items(), 2)
    }
    significant = {test for test, p in zip(tests, holm(list(tests.values())), strict=True) if p < LEVEL}
    for number in ranked:
        rows[number] = _ranked(rows[number], {(one, other) for row, one, other in significant if row == number})
    return rows


def settings_differences(measurements: Sequence[Measurement]) -> dict[str, list[str]]:
    """Find the settings in which measurements differ: for each of them by name, what every measurement has, as text.

    Those of :data:`~genlab.evaluation.measurements.ROUNDING` are left out.
    """
    names = dict.fromkeys(name for measurement in measurements for name in measurement.settings if name not in ROUNDING)
    shown = {name: [_shown(measurement.settings.get(name)) for measurement in measurements] for name in names}
    return {
        name: values
        for name, values in shown.items()
        if any(measurement.settings.get(name) != measurements[0].settings.get(name) for measurement in measurements)
    }


def settings_lines(measurements: Mapping[str, Measurement]) -> list[str]:
    """Describe the settings of measurements: a line for those that all share, then one for each set of others."""
    shared = set.intersection(*(set(measurement.settings.items()) for measurement in measurements.values()))
    lines = {_line(dict(sorted(shared))): "all"}
    for name, measurement in measurements.items():
        own = {key: value for key, value in measurement.settings.items() if (key, value) not in shared}
        if own:
            lines[_line(own)] = f"{lines[_line(own)]}, {name}" if _line(own) in lines else name
    return [f"{names}: {line}" for line, names in lines.items()]


def _row(measurements: tuple[Measurement | None, ...]) -> Row:
    """Put a measurement of all evaluations in a row, and say why it is not ranked if it is not."""
    present = [measurement for measurement in measurements if measurement is not None]
    better = next((measurement.better for measurement in present if measurement.better), None)
    title = present[0].title + (f", {present[0].unit}" if present[0].unit else "")
    if better:
        title += f" {ARROWS[better]}"
    if len(present) < 2 or not better:
        return Row(title, measurements, None, "")
    if differences := settings_differences(present):
        listed = "; ".join(f"{name} ({', '.join(values)})" for name, values in differences.items())
        return Row(title, measurements, None, f"not ranked, the settings differ in {listed}")
    if cautions := dict.fromkeys(measurement.caution for measurement in present if measurement.caution):
        return Row(title, measurements, None, f"not ranked: {'; '.join(cautions)}")
    if any(measurement.interval is None for measurement in present):
        return Row(title, measurements, None, NO_INTERVAL)
    return Row(title, measurements, None, "")


def _present(row: Row) -> dict[int, Measurement]:
    return {column: measurement for column, measurement in enumerate(row.measurements) if measurement is not None}


def _is_ranked(row: Row) -> bool:
    present = _present(row)
    return len(present) > 1 and not row.note and any(measurement.better for measurement in present.values())


def _ranked(row: Row, significant: set[tuple[int, int]]) -> Row:
    """Mark the best column of a row, and state the difference of two.

    Args:
        row: a row of measurements that can be ranked.
        significant: pairs of columns, the first one first, that differ beyond chance.
    """
    present = _present(row)
    sign = next(1 if measurement.better == "lower" else -1 for measurement in present.values() if measurement.better)
    best = min(present, key=lambda column: sign * present[column].value)
    beaten = all((min(best, other), max(best, other)) in significant for other in present if other != best)
    paired = all(_differences(one, other) is not None for one, other in itertools.combinations(present.values(), 2))
    difference = _difference(*present.values()) if len(row.measurements) == 2 else None
    return dataclasses.replace(row, best=best if beaten else None, difference=difference, paired=paired)


def _differences(one: Measurement, other: Measurement) -> Tensor | None:
    """Return ``other`` less ``one`` image by image, [N]; ``None`` where the values of the same images are not known.

    Measurements of equal settings are of the same images in one order.
    """
    if one.values is None or other.values is None or one.values.shape != other.values.shape:
        return None
    differences = other.values.double() - one.values.double()
    return differences if mean_interval(differences) else None


def _p_value(one: Measurement, other: Measurement) -> float:
    """Return the p-value of the hypothesis that two measurements estimate the same number."""
    differences = _differences(one, other)
    if differences is not None:
        return paired_p_value(differences)
    error, distance = _independent_error(one, other), other.value - one.value
    return normal_p_value(distance / error) if error else float(distance == 0)


def _difference(one: Measurement, other: Measurement) -> Measurement:
    differences, value = _differences(one, other), other.value - one.value
    interval = normal_interval(value, _independent_error(one, other))
    if differences is not None:
        interval = mean_interval(differences) or interval
    return dataclasses.replace(other, value=value, interval=interval, values=None)


def _independent_error(one: Measurement, other: Measurement) -> float:
    """Return the standard error of the difference of two independent measurements."""
    return math.hypot(one.half_width or 0.0, other.half_width or 0.0) / Z


def _shown(value: str | int | float | None) -> str:
    match value:
        case None:
            return "none"
        case str() if len(value) == 64 and set(value) <= set("0123456789abcdef"):
            return value[:HASH_SHOWN]
        case int() | float():
            return f"{value:,}"
    return value


def _line(settings: Mapping[str, str | int | float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in settings.items())
