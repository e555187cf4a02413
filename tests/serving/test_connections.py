"""Connections that send no whole request, and what is no request."""

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from genlab.serving import connections
from genlab.serving.limits import Limits
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import PrometheusTelemetry
from tests.serving.live import live


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that waits half a second for the head of a request."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "IDLE_SECONDS", 1)
    listening = socket.create_server(("127.0.0.1", 0))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await asyncio.sleep(0.8)
        await PlainTextResponse("here")(scope, receive, send)

    options: dict[str, Any] = {"log_level": "critical", "lifespan": "off", "timeout_keep_alive": 3600}
    server = uvicorn.Server(uvicorn.Config(app, http=connections.BoundedHeads, **options))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()


def everything(client: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and problem of the answer with which the server ends the connection."""
    received = b""
    while data := client.recv(65536):
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    problem: dict[str, Any] = json.loads(body)
    assert b"application/problem+json" in head
    assert f"x-request-id: {problem['request_id']}".encode() in head
    return int(head.split()[1]), problem


def test_a_connection_stays_open_between_requests_for_a_while(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for _ in range(2):
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"here" in client.recv(65536)
        assert client.recv(65536) == b""


def test_connections_that_send_no_whole_head_are_closed(port: int) -> None:
    clients = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(3)]
    clients[1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
    clients[2].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert clients[2].recv(1000).endswith(b"here")
    clients[2].sendall(b"GET / HT")  # the second request of its connection
    for client in clients:
        with client:
            status, problem = everything(client)
            assert (status, problem["type"]) == (408, "/problems/slow-head")


def test_a_head_has_a_largest_size(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + bytes(b"a" * (connections.HEAD_BYTES + 1)))
        status, problem = everything(client)
    assert (status, problem["type"]) == (431, "/problems/head-too-large")


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_a_problem(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(sent)
        status, problem = everything(client)
    assert (status, problem["type"]) == (400, "/problems/bad-request")


def test_whole_requests_are_answered_one_after_the_other(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for _ in range(3):
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
            received = b""
            while not received.endswith(b"here"):
                received += client.recv(65536)


def test_a_request_at_work_keeps_its_connection_when_the_next_head_is_late(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
        assert client.recv(1000).endswith(b"here")


@pytest.mark.slow
def test_a_thousand_connections_are_all_answered_and_end_nothing(
    served_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 300.0)  # a busy machine is no client that is slow
    app = create_app(
        (str(served_runs / "digits"),),
        Limits(),
        Access(),
        Settings(runtime="pytorch", exact=True),
        PrometheusTelemetry(),
    )
    body = b'{"seed": 3}'
    head = (
        b"POST /v1/models/digits/sample HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    )

    async def crowd(port: int) -> list[bytes]:
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1000)]
        for _, writer in streams:  # all are open, and nothing is asked yet
            writer.write(head % len(body) + body)
        answers = await asyncio.gather(*(reader.read() for reader, _ in streams))
        for _, writer in streams:
            writer.close()
        return answers

    with live(app) as port:

        def usual() -> bytes:
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/models/digits/sample", content=body, timeout=300)
            assert answer.status_code == 200
            return answer.content

        before = usual()
        answers = asyncio.run(crowd(port))
        assert usual() == before
    statuses = Counter(answer.split(b" ", 2)[1] for answer in answers)
    assert set(statuses) <= {b"200", b"503"}
    assert statuses[b"200"] >= Limits().waiting
    for answer in answers:
        status, answered = answer.split(b" ", 2)[1], answer.partition(b"\r\n\r\n")
        assert answered[2] == before if status == b"200" else b"retry-after: " in answered[0].lower()
