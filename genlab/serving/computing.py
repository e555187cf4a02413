"""Requests of an event loop on a batcher's threads."""

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from genlab.inference.batching import Batcher, ClosedError, LateError, OverloadedError, Work
from genlab.inference.engine import Engine, Task
from genlab.serving.problems import Problem

UNWATCHED = 0.05
"""Seconds after which a request that waits is watched for its client leaving; most are answered before."""


class Computer:
    """Computes tasks for coroutines of one event loop.

    Args:
        batcher: the batcher.
        seconds: after which a task is given up.
    """

    def __init__(self, batcher: Batcher, seconds: float) -> None:
        self.batcher = batcher
        self._seconds = seconds
        self._done: deque[tuple[Work, asyncio.Future[Any]]] = deque()
        self._woken = False
        self._new: list[_Watch] = []

    async def compute(
        self, engine: Engine, task: Task, finish: Callable[[NDArray[Any]], Any], receive: Receive | None = None
    ) -> Any:
        """Compute a task, and return what ``finish`` makes of its pixels, in a thread of the batcher.

        Args:
            engine: the engine.
            task: the task.
            finish: makes the result.
            receive: tells, as in ASGI, when the client has left; then no more is computed for it.

        Raises:
            Problem: 503 for too much work that waits, for a server that stops, and for what took too long.
            ClientDisconnect: the client has left.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        try:
            work = self.batcher.submit(
                engine,
                task,
                finish,
                functools.partial(self._hand_over, loop, threading.get_ident(), future),
                self._seconds,
                wake=False,
            )
        except OverloadedError as error:
            raise Problem(503, "overloaded", str(error), retry_after=max(1.0, error.seconds)) from None
        except ClosedError as error:
            raise Problem(503, "stopping", str(error), retry_after=1.0) from None
        watch = _Watch(loop, work, future, receive)
        if not self._new:  # once for all requests that the loop reads before
            loop.call_soon(self._compute_quickly)
        self._new.append(watch)
        try:
            return await future
        except LateError as error:
            raise Problem(503, "late", str(error), retry_after=1.0) from None
        finally:
            work.cancelled = True  # no matter if it is done
            watch.end()

    def _compute_quickly(self) -> None:
        new, self._new = self._new, []
        self.batcher.compute_quickly()
        for watch in new:
            watch.begin()

    def _hand_over(
        self, loop: asyncio.AbstractEventLoop, thread: int, future: "asyncio.Future[Any]", work: Work
    ) -> None:
        """Pass a result to the event loop of ``thread``, which is woken once for all that is there."""
        self._done.append((work, future))
        if threading.get_ident() == thread:
            self._settle()
        elif not self._woken:
            self._woken = True
            loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._woken = False
        while self._done:
            work, future = self._done.popleft()
            if future.done():
                continue
            if work.error is not None:
                future.set_exception(work.error)
            else:
                future.set_result(work.result)


class _Watch:
    """Watches for a client leaving, from :data:`UNWATCHED` seconds on."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Work, future: "asyncio.Future[Any]", receive: Receive | None
    ) -> None:
        self._loop, self._work, self._future, self._receive = loop, work, future, receive
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        if self._receive is not None and not self._future.done():
            self._timer = self._loop.call_later(UNWATCHED, self._begin, self._receive)

    def _begin(self, receive: Receive) -> None:
        self._task = asyncio.create_task(self._watch(receive))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._work.cancelled = True
        if not self._future.done():
            self._future.set_exception(ClientDisconnect())

    def end(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._task:
            self._task.cancel()
