"""Rows of text as a table on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_rows(console: Console, rows: Sequence[Sequence[str]], *, numbers: bool = True) -> None:
    """Print rows, the head first; columns after the first are aligned to the right if they hold ``numbers``."""
    head, *body = rows
    table = Table(show_edge=False)
    for number, name in enumerate(head):
        table.add_column(Text(name), justify="right" if number and numbers else "left")
    for row in body:
        table.add_row(*map(Text, row))
    console.print(table)
