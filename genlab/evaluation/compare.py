"""Comparison of evaluations: measurements side by side, ranked only where their settings are equal."""

import dataclasses
from collections.abc import Mapping, Sequence

from genlab.evaluation.measurements import Evaluation, Measurement

HASH_SHOWN = 12
ARROWS = {"lower": "↓", "higher": "↑"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement of every evaluation."""

    title: str
    measurements: tuple[Measurement | None, ...]
    """The measurement in each evaluation; ``None`` where an evaluation does not have it."""
    best: int | None
    """Number of the column that is better than every other, beyond the intervals; ``None`` where there is none."""
    note: str
    """Reason why the measurements are not ranked; empty if they are, or if models cannot be ranked by them."""


def compare(evaluations: Sequence[Evaluation]) -> list[Row]:
    """Put the measurements of evaluations side by side, row by row."""
    names = dict.fromkeys(name for evaluation in evaluations for name in evaluation.measurements)
    return [_row(tuple(evaluation.measurements.get(name) for evaluation in evaluations)) for name in names]


def settings_differences(measurements: Sequence[Measurement]) -> dict[str, list[str]]:
    """Find the settings in which measurements differ: for each of them by name, what every measurement has, as text."""
    names = dict.fromkeys(name for measurement in measurements for name in measurement.settings)
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
    return Row(title, measurements, _best(measurements, better == "lower"), "")


def _best(measurements: Sequence[Measurement | None], lower: bool) -> int | None:
    sign = 1 if lower else -1
    present = {column: one for column, one in enumerate(measurements) if one is not None}
    if not all(one.interval for one in present.values()):
        return None
    # Ends of the intervals, from the better one to the worse.
    ends = {column: sorted(sign * end for end in one.interval or ()) for column, one in present.items()}
    best = min(ends, key=lambda column: ends[column][0])
    return best if all(ends[best][1] < ends[other][0] for other in ends if other != best) else None


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
