"""A run's progress on standard output: a bar on a terminal, a line every 15 s elsewhere, such as in a job's log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from genlab.core.progress import Pace, ProgressDisplay, rate_text

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
    """Epochs done."""
    images_per_second: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return one line for a log."""
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"epoch {self.epoch:.2f}  {rate_text(self.images_per_second)} images/s  {metrics}"


class RunConsole:
    """Prints one run's messages and shows its progress; a context manager."""

    def __init__(self) -> None:
        self._display = ProgressDisplay(
            TextColumn("step {task.completed:,}/{task.total:,}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            line_seconds=LINE_SECONDS,
        )

    def __enter__(self) -> "RunConsole":
        self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.__exit__(kind, error, trace)

    def say(self, message: str) -> None:
        """Print a line above the progress bar."""
        self._display.say(message)

    def show(self, update: ProgressUpdate) -> None:
        """Move the bar, or print a line if :data:`LINE_SECONDS` have passed since the last one or the run is done."""

        def line(pace: Pace) -> str:
            left = f", {pace.seconds_left / 60:.1f} min left" if pace.seconds_left else ""
            return f"step {update.step}/{update.steps} ({update.step / update.steps:.0%}{left})  {update}"

        self._display.update(update.step, update.steps, line, text=str(update), at_once=update.step == update.steps)
