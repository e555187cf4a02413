"""What a real browser lets pages do to a server on loopback."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genlab.serving.guard import Guard
from genlab.serving.intake import Intake
from genlab.serving.limits import Limits
from genlab.serving.settings import Access
from tests.serving.webdriver import CHROMIUM

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


def browse(url: str, folder: Path, until: Callable[[float], bool]) -> None:
    """Show a page in a browser until ``until(seconds)`` returns; it says whether what it waited for came."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder}"]
    browser = subprocess.Popen(
        [str(CHROMIUM), *options, url],
        env={**os.environ, "TMPDIR": str(folder.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert until(400), "the page did not come to its end"
    finally:
        browser.send_signal(signal.SIGTERM)
        browser.wait(30)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
@pytest.mark.parametrize("trusted", [False, True])
def test_pages_of_another_port_cannot_use_the_server(tmp_path: Path, trusted: bool) -> None:
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
    with serving(recorded, sockets[0]), serving(elsewhere, sockets[1]):
        browse(server, tmp_path / "browser", end.wait)

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
