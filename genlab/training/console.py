"""A run's progress on standard output: a bar on a terminal, a line every 15 s elsewhere, such as in a job's log."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from genlab.core.progress import rate_text

LINE_SECONDS = 15.0
"""Least time between two lines where there is no terminal."""


@dataclass(frozen=True)
class ProgressUpdate:
    """The progress of a run."""

    step: int
    """Steps done."""
    steps: int
    """Steps of the whole run."""
    epoch: float
    images_per_second: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return one line for a log."""
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"epoch {self.epoch:.2f}  {rate_text(self.images_per_second)} images/s  {metrics}"


class RunConsole:
    """Prints one run's messages and shows its progress; a context manager."""

    def __init__(self) -> None:
        self._rich = Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._first: tuple[float, int] | None = None
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("step {task.completed:,}/{task.total:,}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=self._rich,
            )
            self._task = self._bar.add_task("", total=None, visible=False)

    def __enter__(self) -> "RunConsole":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, message: str) -> None:
        """Print a line above the progress bar."""
        self._rich.print(message, markup=False)
        sys.stdout.flush()

    def show(self, update: ProgressUpdate) -> None:
        """Move the bar, or print a line if :data:`LINE_SECONDS` have passed since the last one or the run is done."""
        now = time.monotonic()
        self._first = self._first or (now, update.step)
        if self._bar:
            self._bar.update(
                self._task, completed=update.step, total=update.steps, description=str(update), visible=True
            )
        elif now - self._last_line >= LINE_SECONDS or update.step == update.steps:
            self._last_line = now
            since, begun = self._first
            left = (now - since) * (update.steps - update.step) / (update.step - begun) if update.step > begun else None
            eta = f", {left / 60:.1f} min left" if left else ""
            self.say(f"step {update.step}/{update.steps} ({update.step / update.steps:.0%}{eta})  {update}")
