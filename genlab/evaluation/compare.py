"""Evaluations side by side, ranked only where they measured the same thing."""

import dataclasses
from collections.abc import Mapping, Sequence

from genlab.evaluation.measurements import Evaluation, Figure

HASH_SHOWN = 12
ARROWS = {"lower": "↓", "higher": "↑"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure of every evaluation."""

    title: str
    figures: tuple[Figure | None, ...]
    """``None`` where an evaluation does not have it."""
    best: int | None
    """The column that is better than every other, beyond its interval; ``None`` when there is none such."""
    note: str
    """Why the figures are not ranked, if so."""


def compare(evaluations: Sequence[Evaluation]) -> list[Row]:
    """The figures of evaluations, row by row."""
    names = dict.fromkeys(name for evaluation in evaluations for name in evaluation.figures)
    return [_row(tuple(evaluation.figures.get(name) for evaluation in evaluations)) for name in names]


def passport_differences(figures: Sequence[Figure]) -> dict[str, list[str]]:
    """What the passports of figures do not agree in: for each name, what each says."""
    names = dict.fromkeys(name for figure in figures for name in figure.passport)
    said = {name: [_shown(figure.passport.get(name)) for figure in figures] for name in names}
    return {
        name: values
        for name, values in said.items()
        if any(figure.passport.get(name) != figures[0].passport.get(name) for figure in figures)
    }


def passports(figures: Mapping[str, Figure]) -> list[str]:
    """What figures were measured with: a line for what all of them share, then one for what some have besides."""
    shared = set.intersection(*(set(figure.passport.items()) for figure in figures.values()))
    lines = {_line(dict(sorted(shared))): "all"}
    for name, figure in figures.items():
        own = {key: value for key, value in figure.passport.items() if (key, value) not in shared}
        if own:
            lines[_line(own)] = f"{lines[_line(own)]}, {name}" if _line(own) in lines else name
    return [f"{who}: {line}" for line, who in lines.items()]


def _row(figures: tuple[Figure | None, ...]) -> Row:
    there = [figure for figure in figures if figure is not None]
    better = next((figure.better for figure in there if figure.better), None)
    title = there[0].title + (f", {there[0].unit}" if there[0].unit else "")
    if better:
        title += f" {ARROWS[better]}"
    if len(there) < 2 or not better:
        return Row(title, figures, None, "")
    if differences := passport_differences(there):
        said = "; ".join(f"{name} ({', '.join(values)})" for name, values in differences.items())
        return Row(title, figures, None, f"not ranked, the passports differ in {said}")
    if cautions := dict.fromkeys(figure.caution for figure in there if figure.caution):
        return Row(title, figures, None, f"not ranked: {'; '.join(cautions)}")
    return Row(title, figures, _best(figures, better == "lower"), "")


def _best(figures: Sequence[Figure | None], lower: bool) -> int | None:
    sign = 1 if lower else -1
    known = {column: figure for column, figure in enumerate(figures) if figure is not None and figure.interval}
    if any(figure is not None and column not in known for column, figure in enumerate(figures)):
        return None
    # Ends of the intervals, from the better one to the worse.
    ends = {column: sorted(sign * end for end in figure.interval or ()) for column, figure in known.items()}
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


def _line(passport: Mapping[str, str | int | float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in passport.items())
