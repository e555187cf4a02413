"""What a real browser lets pages do to a server on loopback."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genlab.serving.guard import Guard
from genlab.serving.intake import Intake
from genlab.serving.limits import Limits
from genlab.serving.settings import Access
from tests.serving.webdriver import CHROMIUM, DRIVER, PATIENCE, browsing

OWN_PAGE = """<script>
fetch("/own", {method: "POST", body: "x"}).then(() => location = "OTHER")
</script>"""

OTHER_PAGE = """<iframe name="frame"></iframe>
<form id="form" method="post" action="SERVER/form" target="frame"><input name="count" value="64"></form>
<script>
const simple = {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"}, body: "{}"}
const json = {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"}
const ask = (path, options) => fetch("SERVER" + path, options).then(answer => answer.type, () => "failed")
const framed = new Promise(resolve => document.querySelector("iframe").onload = resolve)
document.getElementById("form").submit()
Promise.all([ask("/no-cors", simple), ask("/cors", {...simple, mode: "cors"}), ask("/json", json), framed])
  .then(([noCors, cors, json]) => fetch(`/done/${noCors}-${cors}-${json}`))
</script>"""


@contextmanager
def serving(app: ASGIApp, listening: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


class Recorded:
    """An application with the statuses of its answers, by method and path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.statuses: dict[tuple[str, str], int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses[scope["method"], scope["path"]] = message["status"]
            await send(message)

        await self.app(scope, receive, record)


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver")
@pytest.mark.parametrize("trusted", [False, True])
def test_pages_of_another_port_cannot_use_the_server(trusted: bool) -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    server, other = (f"http://localhost:{listening.getsockname()[1]}" for listening in sockets)
    computed: list[str] = []
    ended: list[str] = []
    end = threading.Event()

    models = FastAPI()

    @models.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(OWN_PAGE.replace("OTHER", other))

    @models.post("/{path}")
    def compute(path: str) -> str:
        computed.append(path)
        return "done"

    elsewhere = FastAPI()

    @elsewhere.get("/")
    def other_page() -> HTMLResponse:
        return HTMLResponse(OTHER_PAGE.replace("SERVER", server))

    @elsewhere.get("/done/{what}")
    def done(what: str) -> None:
        ended.append(what)
        end.set()

    access = Access(origins=(other,) if trusted else ())
    recorded = Recorded(Intake(Guard(models, access), Limits()))
    with serving(recorded, sockets[0]), serving(elsewhere, sockets[1]), browsing() as browser:
        browser.open(server)
        assert end.wait(PATIENCE), "the page did not come to its end"

    assert recorded.statuses["POST", "/own"] == 200, "the server's own page may"
    if trusted:
        assert ended == ["opaque-cors-cors"]
        assert sorted(computed) == ["cors", "form", "json", "no-cors", "own"]
        assert recorded.statuses["OPTIONS", "/json"] == 204
    else:
        assert ended == ["opaque-failed-failed"]
        assert computed == ["own"]
        assert recorded.statuses["POST", "/form"] == 403
        assert recorded.statuses["POST", "/no-cors"] == 403
        assert recorded.statuses["POST", "/cors"] == 403
        assert ("POST", "/json") not in recorded.statuses, "the browser asked first"
