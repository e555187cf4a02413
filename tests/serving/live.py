"""Applications over real connections: uvicorn in a thread, and faults in front of an application."""

import contextlib
import socket
import threading
from collections.abc import Iterator, MutableSequence

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from genlab.serving.connections import BoundedHeads


@contextlib.contextmanager
def live(app: ASGIApp) -> Iterator[int]:
    """Serve an application on loopback, by the protocol of `genlab serve`; gives its port."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, http=BoundedHeads, log_level="critical"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        assert started.wait(30)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


class Faulty:
    """Breaks the next requests to an application, one for each entry of :attr:`faults`.

    ``cut``: the connection breaks in the middle of the answer, after the application did all of its work. A number:
    an answer of this status, not the application's own, with ``Retry-After`` if it is 429 or 503.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.faults: MutableSequence[str | int] = []
        self.retry_after = "0"
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of all requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((scope["method"], scope["path"], headers))
        fault = self.faults.pop(0) if self.faults else None
        if fault is None:
            await self._app(scope, receive, send)
        elif isinstance(fault, int):
            extra = {"Retry-After": self.retry_after} if fault in (429, 503) else {}
            await PlainTextResponse("out of order", fault, extra)(scope, receive, send)
        else:

            async def discard(message: object) -> None:
                pass

            await self._app(scope, receive, discard)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
            await send({"type": "http.response.body", "body": b"half of", "more_body": True})
