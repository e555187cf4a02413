"""``genlab ledger RUN``: what a run used of cores or GPUs, and what of that was lost, by cause."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Ge
from rich.console import Console

from genlab.cli.rows import print_rows
from genlab.core.config import parse
from genlab.core.errors import RunError, run_command
from genlab.core.text import counted, number_text
from genlab.reports.ledger import loss_rows
from genlab.reports.run import RunRecord
from genlab.training.ledger import read_ledger


@dataclass(frozen=True)
class LedgerConfig:
    """Print what a run used of cores or GPUs, and what of that was lost, by cause.

    Hours are counted from when the first worker of each group has loaded the code to the end of that group, and between
    groups of one driver.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory or s3:// URL of a run, finished or not."""
    price: Annotated[float, Ge(0)] | None = None
    """What a core, or a GPU with its share of the machine, costs for an hour: then costs are printed, too."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab ledger``."""
    run_command(lambda: show_ledger(parse(LedgerConfig, arguments, prog="genlab ledger")))


def show_ledger(config: LedgerConfig) -> None:
    """Print the ledger of a run.

    Raises:
        RunError: it is not the directory of a run, or of one that has no ledger.
    """
    record = RunRecord.read(config.run)
    ledger = read_ledger(record.directory)
    if not ledger.entries:
        raise RunError(f"{record.directory}: no ledger; of an earlier genlab, or before its first step")
    images, attempts = counted(record.images, "image"), counted(len(ledger.entries), "attempt")
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{record.directory}: {counted(record.step, 'step')}, {images}, {attempts}", markup=False)
    print_rows(console, loss_rows(ledger))
    of_thousand = 1000 * ledger.hours / record.images_of_its_own
    console.print(f"for 1,000 images: {number_text(of_thousand)} {ledger.device}-hours")
    if config.price is not None:
        in_all, lost, for_images = (number_text(one * config.price) for one in (ledger.hours, ledger.lost, of_thousand))
        console.print(
            f"at {config.price:g} for an hour: {in_all} in all, of which {lost} lost; {for_images} for 1,000 images"
        )
