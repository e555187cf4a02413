"""Connections of a server of one process: what uvicorn leaves open before a request has reached the application.

uvicorn waits for ever for the head of a request, of any length, answers what is no HTTP in plain text, and closes idle
connections after 5 seconds. A server behind HAProxy needs none of this, since HAProxy bounds heads itself.
"""

import asyncio
import secrets
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from genlab.serving.problems import PROBLEM_JSON, Problem, problem_body

HEAD_SECONDS = 15.0
"""Seconds in which the head of a request must have come, from the opening of its connection or its first byte."""
HEAD_BYTES = 64 * 2**10
"""Largest head of a request."""
IDLE_SECONDS = 75
"""Seconds that a connection stays open between requests. Clients close theirs sooner, httpx after 5 seconds: a server
that closes at the same moment breaks off a request that is on its way."""


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol of a connection (``uvicorn.Config(http=BoundedHeads)``), with limits of time and size for the
    head of a request: 408 and 431. These and 400, for what is no HTTP, are problem details. Connections stay open for
    :data:`IDLE_SECONDS`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.timeout_keep_alive = IDLE_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():  # most heads come whole, and need no timer
            if self._timer is None:
                self._start_timer()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._end(431, "head-too-large", f"the head of the request has more than {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head_bytes = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Pass the request to the application."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._end(400, "bad-request", "what was sent is no valid HTTP request")

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_timer()  # the request before is at work, and would lose its answer
        else:
            self._end(408, "slow-head", f"the head of the request did not come within {HEAD_SECONDS:g} seconds")

    def _end(self, status: int, kind: str, detail: str) -> None:
        """Answer with a problem, unless another answer is under way, and close the connection."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            request_id = secrets.token_hex(8)
            body = problem_body(Problem(status, kind, detail), request_id)
            self.transport.write(
                STATUS_LINE[status]
                + f"content-type: {PROBLEM_JSON}\r\ncontent-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
                "connection: close\r\n\r\n".encode()
                + body
            )
        self.transport.close()
