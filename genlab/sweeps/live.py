"""How far a sweep is: the state and place of its trials, the best so far, and the time that is left."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from genlab.core.text import counted
from genlab.sweeps.space import Mode

ROWS = 12
"""The most trials in the table: those that run, then the best, then those that failed."""


@dataclass
class Progress:
    """A trial that has started."""

    name: str
    label: str
    """Its point and seed."""
    started: float
    """When it started, on the clock of :class:`Status`."""
    state: Literal["runs", "waits", "ended", "failed"] = "runs"
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last that it reported."""


class Status:
    """How far a sweep is.

    Args:
        objectives: whether the lowest or the highest is the best, by metric; places are by the first.
        trials: how many trials there are to train, at most; where trials wait at rungs, how many times one is trained.
        before: the best value of the first metric among trials that had ended before; NaN where none had.
        clock: tells the time in seconds.
        population: whether trials wait at rungs and make way for others, so that the number of all is not known.
    """

    def __init__(
        self,
        objectives: Mapping[str, Mode],
        trials: int,
        before: float = math.nan,
        clock: Callable[[], float] = time.monotonic,
        population: bool = False,
    ) -> None:
        self.objectives = objectives
        self._metric, self._mode = next(iter(objectives.items()))
        self._trials = trials
        self._before = before
        self._clock = clock
        self._population = population
        self._begun = 0
        self._seconds: list[float] = []  # For each time that a trial was trained to its end or to a rung.
        self._started: dict[str, Progress] = {}
        self._side_by_side = 1

    def starts(self, name: str, label: str) -> None:
        """Note that a trial starts."""
        before = self._started.get(name)
        self._started[name] = Progress(name, label, self._clock())
        self._begun += before is None or before.state == "waits"  # else its process ended, and it starts again
        self._side_by_side = max(self._side_by_side, len(self._of("runs")))

    def knows(self, name: str) -> bool:
        """Return whether a trial has started before."""
        return name in self._started

    def waits(self, name: str) -> None:
        """Note that a trial has come to a rung, where it waits for others."""
        self._seconds.append(self._clock() - self._started[name].started)
        self._started[name].state = "waits"

    def reports(self, name: str, metrics: Mapping[str, float]) -> bool:
        """Note what a trial was last measured at; return whether that is new."""
        before = self._started[name].metrics
        self._started[name].metrics = metrics
        return metrics != before

    def ends(self, name: str, *, failed: bool = False) -> None:
        """Note that a trial is over."""
        one = self._started[name]
        if one.state == "runs" and not failed:
            self._seconds.append(self._clock() - one.started)
        one.state = "failed" if failed else "ended"

    @property
    def seconds_left(self) -> float | None:
        """The time until all have ended, if those to come take as long as those that ended; ``None`` before any has."""
        if not self._seconds:
            return None
        each = sum(self._seconds) / len(self._seconds)
        running = [max(0.0, each - (self._clock() - one.started)) for one in self._of("runs")]
        to_come = self._trials - self._begun
        return max([(sum(running) + to_come * each) / self._side_by_side, *running])

    def __str__(self) -> str:
        """Return a line: how many have ended, the best so far, the time left."""
        ended = len(self._of("ended"))
        of_all = counted(ended, "trial") if self._population else f"{ended} of {counted(self._trials, 'trial')}"
        parts = [f"{of_all} ended"]
        for state, verb in (("failed", "failed"), ("waits", "at a rung")):
            parts += [f"{len(found)} {verb}"] if (found := self._of(state)) else []
        best = self._best()
        if best:
            parts.append(f"best so far: {best}")
        if self.seconds_left is not None:
            parts.append(f"about {timedelta(seconds=round(self.seconds_left))} left")
        return "; ".join(parts)

    def table(self) -> Table:
        """Return the table of the trials that run, of the best, and of those that failed."""
        found = Table(title=str(self), title_justify="left")
        for column in ("trial", "point", "state", "place", *self.objectives):
            found.add_column(column, overflow="fold")
        places = {one.name: str(place) for place, one in enumerate(self._ranked(), 1)}
        shown = (*self._of("runs"), *self._of("waits"), *self._ranked(), *self._of("failed"))
        order = dict.fromkeys(one.name for one in shown)
        for one in [self._started[name] for name in order][:ROWS]:
            figures = [f"{one.metrics[metric]:.5g}" if metric in one.metrics else "" for metric in self.objectives]
            found.add_row(*map(Text, (one.name, one.label, one.state, places.get(one.name, ""), *figures)))
        return found

    def _of(self, state: str) -> list[Progress]:
        return [one for one in self._started.values() if one.state == state]

    def _ranked(self) -> list[Progress]:
        measured = [one for one in self._started.values() if math.isfinite(one.metrics.get(self._metric, math.nan))]
        return sorted(measured, key=lambda one: one.metrics[self._metric], reverse=self._mode == "max")

    def _best(self) -> str:
        ranked = self._ranked()
        value = ranked[0].metrics[self._metric] if ranked else math.nan
        if math.isfinite(self._before) and not (value < self._before if self._mode == "min" else value > self._before):
            return f"{self._metric} {self._before:.5g}, of a trial that had ended before"
        return f"{self._metric} {value:.5g}, {ranked[0].name} ({ranked[0].label})" if ranked else ""


class Display:
    """Shows a status: a table that stays in place on a terminal, else a line for each event; a context manager.

    Args:
        status: the status.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self._live: Live | None = None
        if sys.stdout.isatty():
            # Trials print, too: what they say appears above the table.
            self._live = Live(get_renderable=status.table, console=Console(), refresh_per_second=1)

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print the line of an event where there is no table to show it."""
        if self._live is None:
            print(line, flush=True)
