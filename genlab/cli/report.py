"""``genlab report RUN``: write the HTML report of a run, finished or not."""

import dataclasses
from collections.abc import Sequence

import tyro
from rich.console import Console
from rich.table import Table as RichTable

from genlab.core import config
from genlab.core.errors import run_command
from genlab.reports.page import Table
from genlab.reports.report import compose, write


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Write the HTML report of a run."""

    run: tyro.conf.Positional[str]
    """The run directory, or its s3:// URL."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab report``."""

    def command() -> None:
        options = config.parse(ReportConfig, arguments, prog="genlab report")
        report = compose(options.run)
        file = write(report)
        console = Console(soft_wrap=True, highlight=False)
        for note in report.notes:
            console.print(note, markup=False)
        for table in (table for section in report.model_report.sections for table in section.tables):
            console.print(_terminal(table))
        console.print(f"report: {file}", markup=False)

    run_command(command)


def _terminal(table: Table) -> RichTable:
    drawn = RichTable(title=table.caption, title_justify="left")
    for number, column in enumerate(table.columns):
        drawn.add_column(column, justify="right" if number and table.numbers else "left")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn
