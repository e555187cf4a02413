"""``genlab compare A.json B.json ...``: put evaluations side by side."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genlab.core.config import parse
from genlab.core.errors import ConfigError, run_command
from genlab.evaluation.compare import LEVEL, Row, compare
from genlab.evaluation.measurements import Evaluation


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Put evaluations side by side."""

    evaluations: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Files that `genlab evaluate` wrote, two or more; or the runs or models themselves, for their
    evaluation.json."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab compare``."""

    def command() -> None:
        paths = parse(CompareConfig, arguments, prog="genlab compare").evaluations
        if len(paths) < 2:
            raise ConfigError("evaluations: give at least two; `genlab evaluate RUN` writes one")
        evaluations = [Evaluation.load(path) for path in paths]
        show(compare(evaluations), _names(evaluations, paths))

    run_command(command)


def show(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Print the table, and under it what it means and why rows are not ranked."""
    table = Table(show_edge=False)
    table.add_column("measurement")
    for name in names:
        table.add_column(Text(name), justify="right")
    if len(names) == 2:
        table.add_column("difference", justify="right")
    notes: dict[str, int] = {}
    for row in rows:
        mark = f" [{notes.setdefault(row.note, len(notes) + 1)}]" if row.note else ""
        cells = [
            Text("–" if measurement is None else f"{measurement}{' *' if column == row.best else ''}")
            for column, measurement in enumerate(row.measurements)
        ]
        if len(names) == 2:
            cells.append(Text(f"{row.difference}{' =' if row.paired else ''}" if row.difference else ""))
        table.add_row(Text(row.title + mark), *cells)
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print("↓ lower is better, ↑ higher. ± is half of the 95% interval.")
    if len(names) == 2:
        console.print("= the second less the first, image by image")
    console.print(
        f"* better than the others: p < {LEVEL:.0%} after Holm's correction for all comparisons of this table"
    )
    for note, number in notes.items():
        console.print(f"[{number}] {note}", markup=False)


def _names(evaluations: Sequence[Evaluation], paths: Sequence[str]) -> list[str]:
    counts = Counter(evaluation.name for evaluation in evaluations)
    return [
        evaluation.name if counts[evaluation.name] == 1 else path
        for evaluation, path in zip(evaluations, paths, strict=True)
    ]
