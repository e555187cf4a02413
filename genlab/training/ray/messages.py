"""Messages from a run's workers to its driver. Imports nothing heavy: its actor starts before all others."""

from genlab.core.errors import GenlabError
from genlab.training.console import ProgressUpdate
from genlab.training.rung import Rung


class RunMessages:
    """A Ray actor that keeps the messages of rank 0 until the driver fetches them. It lives as long as the driver."""

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._update: ProgressUpdate | None = None
        self._fault: GenlabError | None = None
        self._rung: Rung | None = None
        self._stops: bool | None = None

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

    def collect(self) -> tuple[list[str], ProgressUpdate | None, Rung | None]:
        """Return the messages since the last call, and the newest progress and a rung that was reached, if new."""
        messages, self._messages = self._messages, []
        update, self._update = self._update, None
        rung, self._rung = self._rung, None
        return messages, update, rung
