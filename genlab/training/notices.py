"""Notices that a run is about to be stopped from outside, on which it writes a checkpoint at its next logged step.

A notice is SIGTERM to the process that the user started (a container that stops, Slurm at the end of a job's time),
or that Ray is to give up a node on which the run has a worker (a spot machine that is taken back, a pod that is moved).
The loop asks for it at logged steps, since metrics are means over the steps between these, and ends with a
:class:`PreemptedError` when the checkpoint is written.
"""

import signal
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

from genlab.core.errors import RunError

PREEMPTION, RESIZE = "preemption", "resize"
"""Why a notice came: something is taken away, or there is room for more workers."""


class PreemptedError(RunError):
    """Training ended after a notice, with a checkpoint of all its steps, from which the run goes on elsewhere."""


@dataclass(frozen=True)
class Notice:
    """What the user is told of a notice."""

    reason: str
    """What happened, such as ``SIGTERM came``."""
    ends: bool
    """Whether the run ends; else its driver goes on with it, with other workers."""
    cause: str = PREEMPTION
    """:data:`PREEMPTION` or :data:`RESIZE`."""


SIGTERM_CAME = Notice("SIGTERM came", ends=True)


class Notices(Protocol):
    """Where the loop asks for notices."""

    def newest(self) -> Notice | None:
        """Return the notice that has come, if any; never waits. Called by rank 0."""
        ...

    def close(self) -> None:
        """Ask for no more: from here on SIGTERM ends the process. May be called twice."""
        ...


class NoNotices:
    """For a run to which none can come."""

    def newest(self) -> Notice | None:
        """Return ``None``."""
        return None

    def close(self) -> None:
        """Do nothing."""


class Termination:
    """SIGTERM to this process, from now until :meth:`close`; the second one does what SIGTERM did before.

    Outside the main thread, where signals cannot be handled, it never comes.
    """

    def __init__(self) -> None:
        self._came = threading.Event()
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._handle)

    def newest(self) -> Notice | None:
        """Return :data:`SIGTERM_CAME` if it did."""
        return SIGTERM_CAME if self._came.is_set() else None

    def close(self) -> None:
        """Let SIGTERM do what it did before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.close()
        self._came.set()
