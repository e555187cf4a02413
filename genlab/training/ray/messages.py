"""Where a run's workers leave news for the driver. Imports nothing heavy: its actor starts before all others."""

from genlab.core.errors import GenlabError
from genlab.training.console import Update


class Board:
    """Where rank 0 leaves news of the run and the driver picks it up. Lives as long as the driver."""

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._update: Update | None = None
        self._fault: GenlabError | None = None

    def say(self, message: str) -> None:
        """Leave a message."""
        self._messages.append(message)

    def show(self, update: Update) -> None:
        """Leave word of how far the run is."""
        self._update = update

    def fail(self, fault: GenlabError) -> None:
        """Leave a fault that only the user can put right."""
        self._fault = self._fault or fault

    def fault(self) -> GenlabError | None:
        """The fault left, if any."""
        return self._fault

    def collect(self) -> tuple[list[str], Update | None]:
        """Messages since the last call, and the newest word of progress."""
        messages, self._messages = self._messages, []
        update, self._update = self._update, None
        return messages, update
