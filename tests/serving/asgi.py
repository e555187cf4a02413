"""Requests to an ASGI application without a server, so that each part of a body comes when the test says."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message


@dataclass
class Answer:
    """What the application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    read: int = 0
    """Bytes of the request's body that were taken from the server."""

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = json.loads(self.body)
        assert problem["status"] == self.status
        assert problem["request_id"] == self.headers["x-request-id"]
        return problem


Part = bytes | Callable[[], Awaitable[bytes]] | None
"""A part of a body; a call that waits for one; ``None``: the client leaves."""


def ask(
    app: ASGIApp,
    method: str = "POST",
    path: str = "/",
    headers: Iterable[tuple[str, str]] | dict[str, str] = (),
    body: Iterable[Part] = (),
    *,
    host: str | None = "localhost:8000",
    scheme: str = "http",
    root_path: str = "",
) -> Answer:
    """Send one request; a ``host`` of ``None`` is no Host header."""
    pairs = [*headers.items()] if isinstance(headers, dict) else [*headers]
    if host is not None:
        pairs.insert(0, ("host", host))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "root_path": root_path,
        "query_string": b"secret=1",
        "headers": [(name.lower().encode(), value.encode()) for name, value in pairs],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    answer, parts, ended = Answer(), iter(body), False

    async def receive() -> Message:
        nonlocal ended
        if ended:
            await asyncio.Event().wait()
        part = next(parts, b"")
        if part is None:
            ended = True
            return {"type": "http.disconnect"}
        data = part if isinstance(part, bytes) else await part()
        answer.read += len(data)
        ended = not data
        return {"type": "http.request", "body": data, "more_body": not ended}

    async def send(message: Message) -> None:
        assert not answer.complete
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            answer.complete = not message.get("more_body", False)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return answer
