"""``genlab report RUN``: write the HTML report of a run, finished or not."""

import dataclasses
from collections.abc import Sequence

import tyro
from rich.console import Console

from genlab.cli.rows import print_rows
from genlab.core import config
from genlab.core.errors import run_command
from genlab.core.storage import writing
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
        with writing(report.run.directory):
            file = write(report)
        console = Console(soft_wrap=True, highlight=False)
        for note in report.notes:
            console.print(note, markup=False)
        for table in (table for section in report.model_report.sections for table in section.tables):
            console.print(table.caption, markup=False)
            print_rows(console, [table.columns, *table.rows], numbers=table.numbers)
        console.print(f"report: {file}", markup=False)

    run_command(command)
