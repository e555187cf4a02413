"""What happens to every request before and after its route: an id, limits of its body, its errors, the access log.

:class:`Intake` is the outermost middleware of the application, with :class:`genlab.serving.guard.Guard` inside it. Both
leave what they know in ``scope["state"]``, where routes find it as ``request.state``:

* ``request_id``: the id of the request, for answers, logs and problems.
* ``token``: the name of the token that came with it, or ``None``.
* ``answer_headers``: a list of further headers of the answer, whatever it will be.
* ``model`` and ``operation``: set by routes, for the metrics.

A line of the access log, of the logger ``genlab.access`` and the level INFO, is ``METHOD PATH STATUS BYTES MILLISECONDS
REQUEST_ID TOKEN``, such as ``POST /v1/models/digits/sample 200 612 3.4 5f0c2a9be1d07743 alice``. There is no query in
it. The status 499 means that the client left before there was an answer.
"""

import asyncio
import logging
import random
import re
import secrets
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genlab.serving.guard import route_path
from genlab.serving.limits import Limits
from genlab.serving.problems import Problem, problem_of, problem_response
from genlab.serving.telemetry import Telemetry

logger = logging.getLogger(__name__)
access_log = logging.getLogger("genlab.access")

REQUEST_ID = "X-Request-Id"
LEFT = 499
"""Status in the access log and the metrics of a request whose client left before it was answered."""

_ids = random.Random(secrets.randbits(128))
_CLIENTS_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Intake:
    """ASGI middleware that gives a request its id, bounds its body, answers its errors and logs it.

    A body is looked at when the application first asks for it: one whose Content-Length is too large is refused before
    any of it is read; others are counted as they come.

    Args:
        app: the application. An error that it raises is answered by its problem (``problems.problem_of``), and one that
            the client did not cause is logged with its traceback.
        limits: ``body_bytes`` and ``body_seconds`` of them.
        telemetry: counts the answers.
        larger_bodies: the most bytes of a body by path, where ``body_bytes`` does not hold.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        telemetry: Telemetry | None = None,
        larger_bodies: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._larger_bodies = larger_bodies or {}
        self._limits = limits
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":  # no route takes one, and none of the checks would see it
                await send({"type": "websocket.close"})
            else:
                await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._limits, self._larger_bodies)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            pass
        except Exception as error:
            await exchange.fail(error)
        finally:
            self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.started
        state = exchange.state
        if self._telemetry is not None:
            model, operation = state.get("model", ""), state.get("operation", "")
            self._telemetry.answered(model, operation, exchange.status, seconds)
        if access_log.isEnabledFor(logging.INFO):
            # As it was sent: a decoded path may have line breaks in it.
            path = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
            values = (
                scope["method"],
                path.partition(b"?")[0].decode("ascii", "backslashreplace"),
                exchange.status,
                exchange.sent,
                seconds * 1000,
                state["request_id"],
                state["token"] or "-",
            )
            # What access_log.info would make, without its search for the line of code that logs.
            access_log.handle(
                logging.LogRecord(access_log.name, logging.INFO, __file__, 0, "%s %s %d %d %.1f %s %s", values, None)
            )


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "_deadline", "_headers", "_limits", "_most_bytes", "_problem", "_receive", "_received", "_scope", "_send",
        "_whole", "sent", "started", "state", "status",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: Limits, larger_bodies: Mapping[str, int]
    ) -> None:
        self.started = time.perf_counter()
        self.status = LEFT
        self.sent = 0
        """Bytes of the answer's body."""
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limits = limits
        self._most_bytes = limits.body_bytes
        if larger_bodies:
            self._most_bytes = larger_bodies.get(route_path(scope), limits.body_bytes)
        self._received = 0
        self._deadline = 0.0
        self._whole = False
        self._problem: Problem | None = None
        headers: dict[bytes, bytes] = dict(scope["headers"])
        own = headers.get(b"x-request-id", b"")
        request_id = own if _CLIENTS_ID.fullmatch(own) else b"%016x" % _ids.getrandbits(64)
        self._headers = [(b"x-request-id", request_id)]
        self.state: MutableMapping[str, Any] = dict(scope.get("state") or ())
        self.state.update(request_id=request_id.decode(), token=None, answer_headers=self._headers)
        scope["state"] = self.state

    async def receive(self) -> Message:
        """Receive the next part of the body.

        Raises:
            Problem: 413 for too large a body, 408 for one that comes too slowly.
        """
        if self._problem is not None:
            raise self._problem
        if self._whole:
            return await self._receive()
        loop = asyncio.get_running_loop()
        if not self._deadline:
            self._deadline = loop.time() + self._limits.body_seconds
            self._check_length()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise self._refuse(
                408, "slow-body", f"the body did not come within {self._limits.body_seconds:g} seconds"
            ) from None
        self._received += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._received > self._most_bytes:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Send the beginning or a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._headers]
        else:
            self.sent += len(message.get("body", b""))
            if self.status == 413 and self._problem is not None and not message.get("more_body", False):
                await self._send({**message, "more_body": True})
                await self._discard()
                message = {"type": "http.response.body"}
        await self._send(message)

    async def fail(self, error: Exception) -> None:
        """Answer a request with the problem that an error is."""
        problem = problem_of(error)
        request_id = self.state["request_id"]
        begun = self.status != LEFT
        if problem.status == 500 or begun:
            logger.error("request %s failed: %r", request_id, self._scope["path"], exc_info=error)
        if not begun:  # else the server cuts the connection, as the answer is not complete
            await problem_response(problem, request_id)(self._scope, self._receive, self.send)

    def _check_length(self) -> None:
        for name, value in self._scope["headers"]:
            if name == b"content-length" and not (
                value.isdigit() and len(value) < 19 and int(value) <= self._most_bytes
            ):
                raise self._too_large()

    def _too_large(self) -> Problem:
        detail = f"the body has more than the {self._most_bytes} bytes allowed"
        return Problem(413, "body-too-large", detail) if self._whole else self._refuse(413, "body-too-large", detail)

    def _refuse(self, status: int, kind: str, detail: str) -> Problem:
        """Return the problem of a body of which no more is read; the connection ends with its answer."""
        self._headers.append((b"connection", b"close"))
        self._problem = Problem(status, kind, detail)
        return self._problem

    async def _discard(self) -> None:
        """Read on behind an answer that refuses the body, as far again at most.

        Many clients read no answer before they have sent all, and to close a connection with unread bytes loses the
        answer on its way.
        """
        discarded = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while discarded <= self._most_bytes:
                    message = await self._receive()
                    discarded += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return
