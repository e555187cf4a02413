"""Progress of a long command: a bar on a terminal, a plain line now and then in a log; both with rate and time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_EVERY = 10.0
"""Seconds between two lines in a log."""


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show how much of ``total`` is done, how fast, and the time left; yields the function to call with each amount
    newly done (from any thread).

    Args:
        what: what is being done, as in ``ingest``.
        total: how many there are to do.
        unit: of what, as in ``images``.
    """
    console = Console()
    if console.is_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
        with Progress(*columns, console=console, speed_estimate_period=60) as bar:
            task = bar.add_task(what, total=total)
            yield lambda amount: bar.advance(task, amount)
        return
    lock, done = Lock(), 0
    begin = last = time.monotonic()

    def advance(amount: int) -> None:
        nonlocal done, last
        with lock:
            done += amount
            now = time.monotonic()
            if now - last >= LINE_EVERY:
                last = now
                print(progress_line(what, done, total, unit, now - begin), flush=True)

    yield advance


def progress_line(what: str, done: int, total: int, unit: str, seconds: float) -> str:
    """One line of a log: ``ingest: 1,200 of 5,000 images, 240 images/s, 0:00:16 left``."""
    rate = done / seconds
    left = round((total - done) / rate) if rate else 0
    clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
    return f"{what}: {done:,} of {total:,} {unit}, {rate_text(rate)} {unit}/s, {clock} left"


def rate_text(rate: float) -> str:
    """A number of things a second, to the first decimal below ten: ``1,140`` or ``4.4``."""
    return f"{rate:,.{1 if rate < 10 else 0}f}"


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        super().__init__()

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed or 0.0
        return Text(f"{self._unit}, {rate_text(rate)}/s")
