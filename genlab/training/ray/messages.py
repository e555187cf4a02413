"""Messages from a run's workers to its driver. Imports nothing heavy: its actor starts before all others."""

import time
from collections.abc import Callable

from genlab.core.errors import GenlabError
from genlab.training.console import ProgressUpdate
from genlab.training.notices import Notice
from genlab.training.rung import Rung

SILENCE_SECONDS = 15.0
"""Time without a question for notices, of which rank 0 asks one a second, after which it is taken for dead."""


class RunMessages:
    """A Ray actor that keeps the messages of rank 0 until the driver fetches them. It lives as long as the driver.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._messages: list[str] = []
        self._update: ProgressUpdate | None = None
        self._fault: GenlabError | None = None
        self._rung: Rung | None = None
        self._stops: bool | None = None
        self._nodes: tuple[str, ...] = ()
        self._asked = clock()
        self._notice: Notice | None = None
        self._preempted: str | None = None

    def say(self, message: str) -> None:
        """Add a message for the user."""
        self._messages.append(message)

    def show(self, update: ProgressUpdate) -> GenlabError | None:
        """Replace the run's progress, and return what :meth:`fault` does."""
        self._update = update
        return self._fault

    def fail(self, fault: GenlabError) -> None:
        """Keep the first fault that only the user can put right."""
        self._fault = self._fault or fault

    def fault(self) -> GenlabError | None:
        """Return the first fault given to :meth:`fail`; ``None`` when there was none."""
        return self._fault

    def reach(self, rung: Rung) -> None:
        """Keep the rung that the run has reached, until the driver has fetched it and answered."""
        self._rung, self._stops = rung, None

    def answer(self, stops: bool) -> None:
        """Keep the driver's answer: whether the run stops at the rung."""
        self._stops = stops

    def answered(self) -> tuple[bool | None, GenlabError | None]:
        """Return the driver's answer, ``None`` while there is none; and what :meth:`fault` does."""
        return self._stops, self._fault

    def listen(self, nodes: tuple[str, ...]) -> None:
        """Keep the ID of the node of each worker that listens for notices; none when they stop to.

        A notice that some node goes away was for the workers before these.
        """
        self._nodes = nodes
        self._asked = self._clock()
        if nodes:
            self._preempted = None
            if self._notice and not self._notice.ends:
                self._notice = None

    def notify(self, notice: Notice) -> None:
        """Keep a notice for the workers; one by which the run ends is not replaced."""
        if self._notice is None or not self._notice.ends:
            self._notice = notice

    def notice(self) -> Notice | None:
        """Return the notice for the workers, if any. Asked by rank 0 as long as it listens."""
        self._asked = self._clock()
        return self._notice

    def preempt(self, message: str) -> None:
        """Keep what the workers said as they ended after a notice."""
        self._preempted = message

    def preempted(self) -> tuple[str | None, Notice | None]:
        """Return what the last workers said if they ended after a notice, and the notice; forget both."""
        found = self._preempted, self._notice
        self._preempted = self._notice = None
        return found

    def collect(self) -> tuple[list[str], ProgressUpdate | None, Rung | None, tuple[str, ...]]:
        """Return the messages since the last call, the newest progress and a rung that was reached, if new.

        The last element is what :meth:`listen` was given; none when rank 0 has not asked for notices for
        :data:`SILENCE_SECONDS`, as it was killed.
        """
        messages, self._messages = self._messages, []
        update, self._update = self._update, None
        rung, self._rung = self._rung, None
        silent = self._clock() - self._asked > SILENCE_SECONDS
        return messages, update, rung, () if silent else self._nodes
