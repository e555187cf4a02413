"""The batcher: the work of many callers on one device, one batch at a time.

Nothing waits for a batch to fill: when the device is free, all rows that wait and are of the same kind as the first go
together, as many as a batch may have. While a batch is computed, what finishes the one before (such as encoding its
pictures) goes on in other threads, and more work arrives. Work that takes less time than to wake another thread may be
computed by the caller's own: :meth:`Batcher.compute_quickly`.
"""

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from numpy.typing import NDArray

from genlab.core.errors import GenlabError
from genlab.inference.engine import Engine, Task
from genlab.inference.kinds import Kind

logger = logging.getLogger(__name__)

FINISHED_AT_ONCE = 2**16
"""Pixels of answers up to which the thread that computes finishes them itself: handing them over would take longer."""


QUICK = 0.005
"""Seconds of work up to which a thread that must not be held up, such as that of an event loop, computes it itself: as
long as Python lets a thread run before it has another take its turn."""


class OverloadedError(GenlabError):
    """More work waits than the batcher takes.

    Attributes:
        seconds: about how long it takes until the work that waits is done.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("too many requests are waiting")
        self.seconds = seconds


class LateError(GenlabError):
    """The deadline of a piece of work passed before it was done."""


class ClosedError(GenlabError):
    """The batcher is closed."""


@dataclass(frozen=True)
class BatchRecord:
    """What a batch was, for statistics."""

    engine: Engine
    operation: str
    rows: int
    pixels: int
    """Pixels of its rows, as they went through the model."""
    waited: Sequence[float]
    """Seconds that each piece of work waited for its first batch; empty for work that had one before."""
    seconds: float
    """Seconds that it took to compute."""
    row_bytes: int | None = None
    """Bytes of memory that a row was measured to take; ``None`` if it was not."""
    still_waiting: int = 0
    """Pieces of work for this engine that wait after it."""


@dataclass(eq=False)
class Work:
    """A task that waits, is computed, or is done."""

    engine: Engine
    task: Task
    finish: Callable[[NDArray[Any]], Any]
    """Makes the result of the answer's pixels, such as a file."""
    deadline: float
    """On the clock of ``time.monotonic``."""
    done: Callable[["Work"], None]
    """Is told when ``result`` or ``error`` is set; in a thread of the batcher."""
    submitted: float = field(default_factory=time.monotonic)
    result: Any = None
    error: Exception | None = None
    cancelled: bool = False
    """Whether the caller has left; may be set from any thread, and then no more batches are computed for it."""
    outputs: list[Any] = field(default_factory=list)
    """What the rows that are computed gave."""


class Batcher:
    """Computes the work of many callers on one device.

    Args:
        most_waiting: pieces of work that may wait; more are refused.
        most_seconds: seconds that the work that waits may take, by what pixels of its kinds took last; with more,
            further work is refused. When nothing waits, any work is taken.
        finishers: threads that finish what was computed.
        record: is told of each batch, in the thread that computes.
    """

    def __init__(
        self,
        most_waiting: int = 256,
        most_seconds: float = math.inf,
        finishers: int = 1,
        record: Callable[[BatchRecord], None] | None = None,
    ) -> None:
        self._most_waiting = most_waiting
        self._most_seconds = most_seconds
        self._record = record
        self._waiting: deque[Work] = deque()
        self._waiting_seconds = 0.0
        self._changed = threading.Condition()
        self._device = threading.Lock()
        self._closing = False
        self._pixel_seconds: dict[tuple[Engine, str, Any], float] = {}
        self._untried: dict[tuple[Engine, Any], Kind] = {}
        self._forgotten = WeakSet[Engine]()
        self._finishers = ThreadPoolExecutor(finishers, thread_name_prefix="finish")
        self._thread = threading.Thread(target=self._compute_all, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many pieces of work wait or are partly computed."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Return whether there is a thread that computes."""
        return self._thread.is_alive()

    @property
    def closing(self) -> bool:
        """Return whether it takes no more work."""
        return self._closing

    def submit(
        self,
        engine: Engine,
        task: Task,
        finish: Callable[[NDArray[Any]], Any],
        done: Callable[[Work], None],
        seconds: float = float("inf"),
        wake: bool = True,
    ) -> Work:
        """Queue a task.

        Args:
            engine: the engine that computes it.
            task: the task.
            finish: makes the result of the answer's pixels, in a thread of the batcher.
            done: is told when the result or an error is there, in a thread of the batcher; not if it was cancelled.
            seconds: after which the work is given up: :class:`LateError`.
            wake: whether the batcher's thread is told; else :meth:`compute_quickly` must be called.

        Raises:
            OverloadedError: too much work is waiting.
            ClosedError: the batcher is closed.
        """
        work = Work(engine, task, finish, time.monotonic() + seconds, done)
        with self._changed:
            if self._closing:
                raise ClosedError("the server is stopping")
            if len(self._waiting) >= self._most_waiting or self._waiting_seconds > self._most_seconds:
                raise OverloadedError(self._waiting_seconds)
            self._waiting.append(work)
            self._waiting_seconds += self._seconds_of(work, 0.0)
            if wake:
                self._changed.notify()
        return work

    def compute_quickly(self) -> None:
        """Compute in this thread what waits, if that takes :data:`QUICK` at most; else have the batcher's thread do it.

        What was never computed before is left to that thread, and so is all while it is at work.
        """
        if self._device.acquire(blocking=False):
            try:
                while self._waiting and self._is_quick():
                    self._step()
            finally:
                self._device.release()
        with self._changed:
            if self._waiting:
                self._changed.notify()

    def _is_quick(self) -> bool:
        with self._changed:
            return sum(self._seconds_of(work, math.inf) for work in self._waiting) <= QUICK

    def forget(self, engine: Engine) -> None:
        """Try no more batch sizes of an engine that is put away, and keep nothing of it but the work that waits."""
        with self._changed:
            self._forgotten.add(engine)
            for untried in [key for key in self._untried if key[0] is engine]:
                del self._untried[untried]
            for timed in [key for key in self._pixel_seconds if key[0] is engine]:
                del self._pixel_seconds[timed]

    def run(self, engine: Engine, task: Task, finish: Callable[[NDArray[Any]], Any] = lambda pixels: pixels) -> Any:
        """Queue a task, and wait for its result.

        Raises:
            Exception: what the task or ``finish`` raised.
        """
        done = threading.Event()
        work = self.submit(engine, task, finish, lambda work: done.set())
        done.wait()
        if work.error is not None:
            raise work.error
        return work.result

    def close(self) -> None:
        """Take no more work, and wait until all there is is done."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._finishers.shutdown()

    def _compute_all(self) -> None:
        while self._wait():
            with self._device:
                if not self._step():
                    self._try_larger_batch()

    def _wait(self) -> bool:
        """Wait for something to do, and return whether there will be more."""
        with self._changed:
            while not (self._waiting or self._untried or self._closing):
                self._changed.wait()
            return bool(self._waiting) or not self._closing

    def _step(self) -> bool:
        """Compute a batch, and return whether there was one; for the thread that has the device."""
        with self._changed:
            late, together = self._sweep(), self._of_one_kind()
        for work in late:
            work.error = LateError(f"not done {work.deadline - work.submitted:.0f} seconds after it was asked for")
            self._finish(work)
        if together:
            self._compute_batch(together)
        return bool(together)

    def _try_larger_batch(self) -> None:
        """Use a moment of leisure."""
        with self._changed:
            if not self._untried:
                return
            (engine, trial), kind = next(iter(self._untried.items()))
        try:
            more = engine.try_larger_batch(kind)
        except Exception:  # such as no memory for it; batches stay as large as they are
            logger.exception("no larger batches of %s are tried", kind.operation)
            more = False
        if not more:
            with self._changed:
                self._untried.pop((engine, trial), None)

    def _seconds_of(self, work: Work, unknown: float) -> float:
        """Return about how long the rest of a piece of work will take; ``unknown`` if its kind was never computed."""
        kind = work.task.kind
        seconds = self._pixel_seconds.get((work.engine, kind.operation, kind.trial), unknown)
        return seconds * work.engine.pixels(kind) * (len(work.task.rows) - len(work.outputs))

    def _sweep(self) -> list[Work]:
        """Drop the work of callers who left, and return what is late."""
        now = time.monotonic()
        late = [work for work in self._waiting if work.deadline < now and not work.cancelled]
        if late or any(work.cancelled for work in self._waiting):
            left = [work for work in self._waiting if not work.cancelled and work.deadline >= now]
            self._waiting.clear()
            self._waiting.extend(left)
            self._waiting_seconds = sum(self._seconds_of(work, 0.0) for work in left)
        return late

    def _of_one_kind(self) -> list[Work]:
        """Return all work that may share a batch with the first that waits."""
        if not self._waiting:
            return []
        first = self._waiting[0]
        return [one for one in self._waiting if one.engine is first.engine and one.task.kind == first.task.kind]

    def _compute_batch(self, together: Sequence[Work]) -> None:
        engine, kind = together[0].engine, together[0].task.kind
        begin, batch, rows = time.monotonic(), list[tuple[Work, int]](), list[Any]()
        failed = False
        try:
            wanted = engine.next_batch(kind, sum(len(work.task.rows) - len(work.outputs) for work in together))
            for work in together:
                share = work.task.rows[len(work.outputs) :][: wanted - len(rows)]
                if share:
                    batch.append((work, len(share)))
                    rows += share
            outputs = iter(engine.compute(kind, rows))
            for work, count in batch:
                work.outputs += [next(outputs) for _ in range(count)]
        except Exception as error:  # whatever it is, it is the answer to those who asked, and others go on
            failed = True
            batch = batch or [(one, 0) for one in together]
            for work, _ in batch:
                work.error = error
        seconds = time.monotonic() - begin
        done = [work for work, _ in batch if work.error or len(work.outputs) == len(work.task.rows)]
        if rows:
            with self._changed:
                key, now = (engine, kind.operation, kind.trial), seconds / len(rows) / engine.pixels(kind)
                if engine not in self._forgotten:
                    self._pixel_seconds[key] = (self._pixel_seconds.get(key, now) + now) / 2
        self._remove(done, together[0])
        pixels = engine.pixels(kind)
        if not failed and not engine.knows_batches(kind):
            with self._changed:
                if engine not in self._forgotten:
                    self._untried[engine, kind.trial] = kind
        if self._record is not None:
            waited = [begin - work.submitted for work, count in batch if len(work.outputs) == count]
            with self._log_errors():
                with self._changed:
                    left = sum(work.engine is engine for work in self._waiting)
                count, size = len(rows), engine.row_bytes(kind)
                record = BatchRecord(engine, kind.operation, count, count * pixels, waited, seconds, size, left)
                self._record(record)
        if len(rows) * pixels <= FINISHED_AT_ONCE:
            for work in done:
                self._finish(work)
        else:
            for work in done:
                self._finishers.submit(self._finish, work)

    def _remove(self, done: Sequence[Work], first: Work) -> None:
        """Take what is done out of the queue, and let others come before what is not."""
        with self._changed:
            for work in done:
                self._waiting.remove(work)
            if first not in done:
                self._waiting.remove(first)
                self._waiting.append(first)
            self._waiting_seconds = sum(self._seconds_of(work, 0.0) for work in self._waiting)

    @staticmethod
    def _finish(work: Work) -> None:
        if work.cancelled:
            return
        if work.error is None:
            try:
                work.result = work.finish(work.task.join(work.outputs))
            except Exception as error:  # the answer to whom it concerns
                work.error = error
        with Batcher._log_errors():
            work.done(work)

    @staticmethod
    @contextlib.contextmanager
    def _log_errors() -> Iterator[None]:
        """Log what others raise: the thread that computes must not end by it."""
        try:
            yield
        except Exception:
            logger.exception("an error where a batch was told of")
