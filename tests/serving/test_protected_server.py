"""Limits and refusals over real connections, as a client of uvicorn sees them."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.middleware import Middleware

from genlab.serving.guard import Guard
from genlab.serving.intake import Intake
from genlab.serving.limits import Limits
from genlab.serving.problems import ERROR_HANDLERS
from genlab.serving.settings import Access
from tests.serving.live import live

MIB = 2**20


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server that takes bodies of 1 MiB that come within a second."""
    app = FastAPI(
        middleware=[
            Middleware(Intake, limits=Limits(body_bytes=MIB, body_seconds=1)),
            Middleware(Guard, access=Access()),
        ],
        exception_handlers=dict(ERROR_HANDLERS),
    )

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    with live(app) as port:
        yield port


@contextlib.contextmanager
def connection(port: int, head: str) -> Iterator[socket.socket]:
    """A connection on which the head of a request was sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(f"POST /length HTTP/1.1\r\nHost: localhost:{port}\r\n{head}\r\n\r\n".encode())
        yield client


def answer(client: socket.socket) -> tuple[str, dict[str, Any]]:
    """The head and the problem of the next answer."""
    head, _, body = client.recv(65536).decode().partition("\r\n\r\n")
    while not body:
        body = client.recv(65536).decode()
    problem: dict[str, Any] = json.loads(body)
    return head.lower(), problem


def serves(port: int) -> bool:
    with httpx.Client() as client:  # one connection for both
        return all(client.post(f"http://localhost:{port}/length", content=bytes(n)).json() == n for n in (MIB, 0))


@pytest.mark.parametrize("said", [True, False])
def test_a_client_that_sends_too_much_gets_its_answer(port: int, said: bool) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(30):
            yield bytes(65536)

    content = bytes(30 * 65536) if said else parts()
    for _ in range(5):
        response = httpx.post(f"http://localhost:{port}/length", content=content if said else parts())
        assert (response.status_code, response.json()["type"]) == (413, "/problems/body-too-large")
    assert serves(port)


def test_a_body_without_end_is_cut_off(port: int) -> None:
    with connection(port, "Transfer-Encoding: chunked") as client:
        chunks = (b"10000\r\n" + bytes(65536) + b"\r\n") * 1000
        with pytest.raises(OSError, match=r"Broken pipe|reset by peer"):
            client.sendall(chunks)
    assert serves(port)


def test_no_body_is_asked_for_that_will_be_refused(port: int) -> None:
    for head, status in (
        ("Content-Length: 99\r\nOrigin: http://evil.example", "403 forbidden"),
        (f"Content-Length: {MIB + 1}", "413"),
    ):
        with connection(port, f"{head}\r\nExpect: 100-continue") as client:
            got, problem = answer(client)
            assert got.startswith(f"http/1.1 {status}")
            assert problem["request_id"] in got
    with connection(port, "Content-Length: 2\r\nExpect: 100-continue") as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"ab")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert serves(port)


@pytest.mark.slow
def test_a_slow_body_loses_its_connection(port: int) -> None:
    with connection(port, "Content-Length: 9") as client:
        client.sendall(b"12345")
        head, problem = answer(client)
        assert (problem["status"], problem["type"]) == (408, "/problems/slow-body")
        assert "connection: close" in head
        assert client.recv(1000) == b""
    assert serves(port)
