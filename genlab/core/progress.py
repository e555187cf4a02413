"""Progress of a long command: a bar on a terminal, a line now and then in a log; both with rate and time left."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_SECONDS = 10.0
"""Least time between two lines in a log."""


class Pace(NamedTuple):
    """How fast a task has gone on since it began."""

    rate: float
    """Units a second; 0 where none was done yet."""
    seconds_left: float | None
    """The time left at this rate; ``None`` where none was done yet."""


class ProgressDisplay:
    """Shows the progress of one task: a bar on a terminal, a line now and then in a log; a context manager.

    Args:
        columns: columns of the bar; the texts of :meth:`update` are the task's ``description``.
        line_seconds: least time between two lines in a log.
    """

    def __init__(self, *columns: ProgressColumn, line_seconds: float = LINE_SECONDS) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._line_seconds = line_seconds
        self._first: tuple[float, int] | None = None
        self._last_line = -math.inf
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            self._bar = Progress(*columns, console=self._console, speed_estimate_period=60)
            self._task = self._bar.add_task("", total=None, visible=False)

    def __enter__(self) -> "ProgressDisplay":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, message: str) -> None:
        """Print a line, above the bar where there is one."""
        self._console.print(message, markup=False)
        sys.stdout.flush()

    def begin(self, done: int, total: int) -> None:
        """Show the bar, and count rate and time from now on; the first line comes after ``line_seconds``.

        Without this call, they count from the first :meth:`update`, whose line is printed at once.
        """
        self._last_line = time.monotonic()
        self._first = (self._last_line, done)
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, visible=True)

    def update(
        self, done: int, total: int, line: Callable[[Pace], str], *, text: str = "", at_once: bool = False
    ) -> None:
        """Move the bar, or print a line if ``line_seconds`` have passed since the last one.

        Args:
            done: units done so far.
            total: units of the whole task.
            line: makes the line of a log.
            text: shown beside the bar.
            at_once: print the line however little time has passed.
        """
        now = time.monotonic()
        self._first = self._first or (now, done)
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, description=text, visible=True)
        elif at_once or now - self._last_line >= self._line_seconds:
            self._last_line = now
            since, begun = self._first
            self.say(line(pace_of(done - begun, total - done, now - since)))


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show how much of ``total`` is done, how fast, and the time left.

    Args:
        what: what is being done, as in ``ingest``.
        total: how many units there are to do.
        unit: the plural of the unit's name, as in ``images``.

    Yields:
        The function to call with each number of units newly done, from any thread.
    """
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    lock, done = Lock(), 0
    with ProgressDisplay(*columns) as display:
        display.begin(0, total)

        def advance(amount: int) -> None:
            nonlocal done
            with lock:
                done += amount
                display.update(done, total, lambda pace: progress_line(what, done, total, unit, pace))

        yield advance


def pace_of(done: int, rest: int, seconds: float) -> Pace:
    """Return the pace of a task of which ``done`` units took ``seconds``, and which has ``rest`` units left."""
    rate = done / seconds if done else 0.0
    return Pace(rate, rest / rate if rate else None)


def progress_line(what: str, done: int, total: int, unit: str, pace: Pace) -> str:
    """Return one line of a log: ``ingest: 1,200 of 5,000 images, 240 images/s, 0:00:16 left``."""
    left = round(pace.seconds_left or 0)
    clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
    return f"{what}: {done:,} of {total:,} {unit}, {rate_text(pace.rate)} {unit}/s, {clock} left"


def rate_text(rate: float) -> str:
    """Return a number of units a second, with one decimal below ten: ``1,140`` or ``4.4``."""
    return f"{rate:,.{1 if rate < 10 else 0}f}"


class _Rate(ProgressColumn):
    """Column of a bar that shows the units done a second."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        super().__init__()

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed or 0.0
        return Text(f"{self._unit}, {rate_text(rate)}/s")
