"""The log of a server of one process, as lines of text."""

import contextlib
import logging
import threading
import time
from typing import TextIO

PAUSE = 0.1
"""Seconds that lines are collected for. To write each by itself takes a tenth of the time of a small request."""


class LineLog(logging.Handler):
    """Writes what is logged, all lines of :data:`PAUSE` seconds at once; warnings and errors immediately.

    Lines are lost where the stream takes none, such as a pipe that nobody reads any more; requests do not suffer.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []
        self._there = threading.Event()
        self._closing = False
        threading.Thread(target=self._write_on, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        try:
            self._lines.append(self.format(record))
        except Exception:
            self.handleError(record)
        if record.levelno >= logging.WARNING:
            self.flush()
        elif not self._there.is_set():
            self._there.set()

    def flush(self) -> None:
        """Write all lines."""
        with self.lock or threading.RLock():
            lines, self._lines = self._lines, []
            if lines:
                with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
                    self._stream.write("\n".join((*lines, "")))
                    self._stream.flush()

    def close(self) -> None:
        """Write all lines, and take no more."""
        self._closing = True
        self._there.set()
        self.flush()
        super().close()

    def _write_on(self) -> None:
        while not self._closing:
            self._there.wait()
            time.sleep(PAUSE)
            self._there.clear()
            self.flush()
