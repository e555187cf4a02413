"""A run's ledger as a table: hours used, and hours lost by cause."""

from genlab.core.text import number_text
from genlab.training.ledger import CAUSES, Ledger


def loss_rows(ledger: Ledger) -> list[tuple[str, ...]]:
    """Return the rows of the table, its head first: what, how often, steps done again, hours, and their share."""
    total = ledger.hours
    start = ledger.entries[0].starting

    def row(what: str, times: str, steps: str, hours: float) -> tuple[str, ...]:
        return what, times, steps, number_text(hours), f"{hours / total:.1%}" if total else ""

    rows: list[tuple[str, ...]] = [("", "times", "steps again", f"{ledger.device}-hours", "share")]
    rows.append(row("first start", "", "", start))
    rows.append(row("steps that count", "", "", total - start - ledger.lost))
    for cause, losses in ledger.losses.items():
        rows.append(row(f"lost by: {CAUSES[cause]}", f"{losses.times:,}", f"{losses.steps:,}", losses.hours))
    if ledger.waited > 0:
        rows.append(row("of these hours, between groups of workers", "", "", ledger.waited))
    return [*rows, row("all", "", "", total)]
