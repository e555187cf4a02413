"""A real S3 server on loopback, and a proxy in front of it that injects faults.

:class:`S3Server` is moto's server in a process of its own. :class:`FaultProxy` is an HTTP proxy, in a process of its
own too, that delays, breaks and counts the requests it passes on. Tests get them from the fixtures ``s3`` (a fresh
bucket, reached through the proxy) and ``fault_proxy`` (which tells the proxy what to do) of ``tests/conftest.py``::

    def test_a_pass_over_a_failing_store(s3: Bucket, fault_proxy: FaultProxy, monkeypatch) -> None:
        hurry(monkeypatch)
        write_atomic(locate(f"{s3.url}/file"), data)
        fault_proxy.plan(rate=0.2, kinds=READ_FAULTS, seed=7, method="GET")
        ...
        traffic = fault_proxy.traffic()
        assert sum(traffic.faults.values()) > 100
        assert traffic.sent("GET", "/file") <= 1.1 * len(data)

Both processes end when the process that started them does.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

HOST = "127.0.0.1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-key-id", "AWS_SECRET_ACCESS_KEY": "test-secret"}
SETTINGS = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}

KINDS = {
    "error": "answer 500 InternalError",
    "slow_down": "answer 503 SlowDown",
    "denied": "answer 403 AccessDenied",
    "cut": "close the connection without an answer; the server never sees the request",
    "lost": "let the server do it, then close the connection without an answer",
    "cut_body": "reset the connection in the middle of the body",
    "short": "close the connection in the middle of the body, in an orderly way",
    "truncated": "send half of the body with the Content-Length of that half",
    "stall": "send half of the body and then nothing, until the client goes away",
}
"""What a proxy can do to a request. Where an answer has no body, what breaks in the body breaks before it."""
READ_FAULTS = ("error", "slow_down", "cut", "lost", "cut_body", "short", "truncated", "stall")
WRITE_FAULTS = ("error", "slow_down", "cut", "lost", "stall")
"""The faults after which the same request may succeed."""


def hurry(monkeypatch: pytest.MonkeyPatch, *, stall: float = 0.5, retry_seconds: float = 90.0) -> None:
    """Shorten this process's storage timeouts and waits.

    Args:
        monkeypatch: sets them for one test.
        stall: after how many seconds without a byte a connection has stalled.
        retry_seconds: how long a request is repeated after its first failure.
    """
    monkeypatch.setattr("genlab.core.s3.READ_SECONDS", stall)
    monkeypatch.setattr("genlab.core.s3.COMPLETE_SECONDS", stall)
    monkeypatch.setattr("genlab.core.retries.RETRY_SECONDS", retry_seconds)
    monkeypatch.setattr("genlab.core.retries.BACKOFF_SECONDS", (0.01, 0.2))


@dataclass(frozen=True)
class Bucket:
    """An empty bucket that only one test uses."""

    name: str
    environment: dict[str, str]
    """Environment variables that a process needs to reach the bucket; they are set in this process already."""

    @property
    def url(self) -> str:
        """``s3://NAME``."""
        return f"s3://{self.name}"


@dataclass(frozen=True)
class Traffic:
    """The requests that a proxy has passed on, and the faults it injected, since it started or was last reset."""

    rows: list[tuple[str, str, int, int]]
    """(method, /bucket/key, requests, bytes of the bodies sent to clients)."""
    faults: dict[str, int]
    """Faults injected, by kind."""

    def count(self, method: str = "", path: str = "") -> int:
        """Requests of ``method`` for paths that contain ``path``."""
        return sum(row[2] for row in self._matching(method, path))

    def sent(self, method: str = "", path: str = "") -> int:
        """Bytes of the bodies of the answers to requests of ``method`` for paths that contain ``path``."""
        return sum(row[3] for row in self._matching(method, path))

    def _matching(self, method: str, path: str) -> Iterator[tuple[str, str, int, int]]:
        return (row for row in self.rows if method in ("", row[0]) and path in row[1])


class _Child:
    """A process of this file, which obeys one JSON line at a time and ends when its standard input does."""

    def __init__(self, *arguments: str) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.endpoint: str = self._answer()

    def _ask(self, command: str, **arguments: Any) -> Any:
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps([command, arguments]) + "\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self._process.args!r} ended"
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


class S3Server(_Child):
    """moto's S3 server. ``endpoint`` is its URL. Conditional puts are atomic, as those of S3 are."""

    def __init__(self) -> None:
        super().__init__("server")

    def create(self, bucket: str) -> None:
        """Create a bucket by a plain HTTP request, because an S3 client takes half a second to make."""
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{bucket}", method="PUT")).close()


class FaultProxy(_Child):
    """A proxy in front of the S3 server ``upstream`` (a URL). ``endpoint`` is its own URL.

    Thread-safe. Commands take effect for requests that come after they return.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__("proxy", upstream)

    def latency(self, seconds: float) -> None:
        """Delay each request by ``seconds``."""
        self._ask("latency", seconds=seconds)

    def plan(
        self,
        *,
        rate: float,
        kinds: Sequence[str],
        seed: int,
        method: str = "",
        path: str = "",
        most: int | None = None,
    ) -> None:
        """Break a fraction of the requests of ``method`` for paths that contain ``path``, ``most`` of them at most.

        Whether and how a request is broken depends on ``seed``, its method, path, query and range, and how often it
        was made before: not on the order in which requests come.

        Args:
            rate: the fraction, 0..1.
            kinds: the faults to choose from, see :data:`KINDS`.
            seed: of the choice.
            method: such as ``GET``; any by default.
            path: part of ``/bucket/key?query``.
            most: faults after which the plan is over.
        """
        self._ask("plan", rate=rate, kinds=list(kinds), seed=seed, method=method, path=path, most=most)

    def fail(self, kind: str, *, times: int = 1, method: str = "", path: str = "") -> None:
        """Break the next ``times`` requests of ``method`` for paths that contain ``path``."""
        self.plan(rate=1, kinds=[kind], seed=0, method=method, path=path, most=times)

    def away(self, seconds: float | None = None) -> None:
        """Cut all connections and refuse new ones, for some seconds or until :meth:`back`."""
        self._ask("away", seconds=seconds)

    def back(self) -> None:
        """Accept connections again."""
        self._ask("back")

    def remember(self) -> None:
        """Keep the objects that are read in memory and answer for them, until they are written or deleted.

        moto copies a whole object to answer for a range; so this is the way to read quickly.
        """
        self._ask("remember")

    def traffic(self) -> Traffic:
        """Return the traffic since the start, or since the last :meth:`reset`."""
        answer = self._ask("traffic")
        return Traffic([(row[0], row[1], row[2], row[3]) for row in answer["counts"]], answer["faults"])

    def reset(self) -> None:
        """Return to the state at the start: no faults, no latency, nothing remembered, nothing counted."""
        self._ask("reset")


# What follows runs in the processes.


@dataclass
class _Plan:
    rate: float
    kinds: list[str]
    seed: int
    method: str
    path: str
    most: int | None
    seen: Counter[str]

    def choose(self, method: str, target: str, request: str) -> str | None:
        """The fault for a request, if any."""
        if self.most == 0 or self.method not in ("", method) or self.path not in target:
            return None
        self.seen[request] += 1
        dice = random.Random(f"{self.seed} {request} {self.seen[request]}")
        if dice.random() >= self.rate:
            return None
        if self.most is not None:
            self.most -= 1
        return dice.choice(self.kinds)


@dataclass(frozen=True)
class _Answer:
    status: bytes
    """The first line."""
    headers: dict[bytes, bytes]
    """By lower-case name, without Content-Length."""
    body: bytes
    length: int
    """Content-Length, which is not that of the body in an answer to HEAD."""

    def head(self, length: int) -> bytes:
        """Status line and headers, with this Content-Length."""
        headers = {**self.headers, b"content-length": b"%d" % length}
        return b"\r\n".join([self.status, *(name + b": " + value for name, value in headers.items()), b"", b""])


class _Break(Exception):  # noqa: N818
    """Close the client's connection now."""


class _Proxy:
    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = host, int(port)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._clients: set[asyncio.StreamWriter] = set()
        self._return: asyncio.TimerHandle | None = None
        self._forget()

    def _forget(self) -> None:
        self._latency = 0.0
        self._plans: list[_Plan] = []
        self._requests: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._faults: Counter[str] = Counter()
        self._memory: dict[str, _Answer] | None = None

    async def listen(self) -> None:
        """Accept connections, at the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, HOST, self._port, limit=2**20)
            self._port = self._server.sockets[0].getsockname()[1]

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self._port}"

    async def obey(self, command: str, arguments: dict[str, Any]) -> Any:
        """Carry out a command of the test, and return the answer."""
        if command == "latency":
            self._latency = arguments["seconds"]
        elif command == "plan":
            unknown = set(arguments["kinds"]) - set(KINDS)
            assert not unknown, unknown
            self._plans.append(_Plan(**arguments, seen=Counter()))
        elif command == "away":
            await self._leave()
            if arguments["seconds"] is not None:
                loop = asyncio.get_running_loop()
                self._return = loop.call_later(arguments["seconds"], lambda: loop.create_task(self.listen()))
        elif command == "back":
            await self._come_back()
        elif command == "remember":
            self._memory = {}
        elif command == "traffic":
            counts = [[*key, count, self._bytes[key]] for key, count in sorted(self._requests.items())]
            return {"counts": counts, "faults": self._faults}
        elif command == "reset":
            self._forget()
            await self._come_back()
        return None

    async def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for client in self._clients:
            client.transport.abort()

    async def _come_back(self) -> None:
        if self._return is not None:
            self._return.cancel()
            self._return = None
        await self.listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while True:
                await self._exchange(reader, writer)
        except (_Break, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._clients.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, headers = _parse(await reader.readuntil(b"\r\n\r\n"))
        method, target, _ = line.decode().split(" ")
        if headers.pop(b"expect", b"").lower() == b"100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _body(reader, headers)
        path = target.partition("?")[0]
        self._requests[method, path] += 1
        identity = f"{method} {target} {headers.get(b'range', b'').decode()}"
        choices = (plan.choose(method, target, identity) for plan in self._plans)
        fault = next((choice for choice in choices if choice), None)
        if fault:
            self._faults[fault] += 1
        await asyncio.sleep(self._latency)
        if fault == "cut":
            raise _Break
        if fault in _ERRORS:
            answer = _ERRORS[fault]
        else:
            answer = await self._answer(method, target, headers, body)
        if fault == "lost":
            raise _Break
        if fault in ("cut_body", "short", "truncated", "stall"):
            half = answer.body[: len(answer.body) // 2]
            if half:
                self._bytes[method, path] += len(half)
                writer.write(answer.head(len(half) if fault == "truncated" else answer.length) + half)
                await writer.drain()
            if fault == "stall":
                await reader.read()  # Until the client goes away.
            if fault == "cut_body":
                writer.transport.abort()
            if fault != "truncated" or not half:
                raise _Break
        else:
            self._bytes[method, path] += len(answer.body)
            writer.write(answer.head(answer.length))
            writer.write(answer.body)
            await writer.drain()

    async def _answer(self, method: str, target: str, headers: dict[bytes, bytes], body: bytes) -> _Answer:
        memory = self._memory
        if memory is None or "?" in target:
            return await self._forward(method, target, headers, body)
        if method != "GET":
            memory.pop(target, None)
            answer = await self._forward(method, target, headers, body)
            memory.pop(target, None)
            return answer
        asked = headers.pop(b"range", None)
        if target not in memory:
            answer = await self._forward(method, target, headers, body)
            if answer.status.split()[1] != b"200":
                return answer
            memory[target] = answer
        return _part(memory[target], asked)

    async def _forward(self, method: str, target: str, headers: dict[bytes, bytes], body: bytes) -> _Answer:
        """What the server says. A connection is used once."""
        try:
            reader, writer = await asyncio.open_connection(*self._upstream, limit=2**20)
        except OSError:
            raise _Break from None
        with contextlib.closing(writer):
            headers = {**headers, b"connection": b"close"}
            if body or method in ("PUT", "POST"):
                headers[b"content-length"] = b"%d" % len(body)
            lines = [f"{method} {target} HTTP/1.1".encode(), *(name + b": " + value for name, value in headers.items())]
            writer.write(b"\r\n".join([*lines, b"", b""]) + body)
            status, fields = _parse(await reader.readuntil(b"\r\n\r\n"))
            length = int(fields.pop(b"content-length", b"-1"))
            fields.pop(b"connection", None)
            content = (
                b"" if method == "HEAD" else await reader.readexactly(length) if length >= 0 else await reader.read()
            )
        return _Answer(status, fields, content, length if method == "HEAD" else len(content))


def _parse(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = (line.partition(b":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in fields}


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> bytes:
    """The body of a request, without transfer encoding."""
    if headers.pop(b"transfer-encoding", b"").lower() != b"chunked":
        return await reader.readexactly(int(headers.pop(b"content-length", b"0")))
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return bytes(body)


def _part(whole: _Answer, asked: bytes | None) -> _Answer:
    """The range ``asked`` for of a whole object."""
    found = re.fullmatch(rb"bytes=(\d+)-(\d*)", asked or b"")
    if not found:
        return whole
    first, size = int(found[1]), len(whole.body)
    last = min(int(found[2] or size), size - 1)
    if first >= size:
        return _error(
            b"416 Requested Range Not Satisfiable", b"InvalidRange", b"The requested range is not satisfiable"
        )
    # The checksum is the whole object's.
    headers = {name: value for name, value in whole.headers.items() if not name.startswith(b"x-amz-checksum")}
    headers[b"content-range"] = b"bytes %d-%d/%d" % (first, last, size)
    return _Answer(b"HTTP/1.1 206 Partial Content", headers, whole.body[first : last + 1], last + 1 - first)


def _error(status: bytes, code: bytes, message: bytes) -> _Answer:
    body = (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s</Message>'
        b"<RequestId>0123456789ABCDEF</RequestId><HostId>host</HostId></Error>" % (code, message)
    )
    return _Answer(b"HTTP/1.1 " + status, {b"content-type": b"application/xml"}, body, len(body))


_ERRORS = {
    "error": _error(
        b"500 Internal Server Error", b"InternalError", b"We encountered an internal error. Please try again."
    ),
    "denied": _error(b"403 Forbidden", b"AccessDenied", b"Access Denied"),
    "slow_down": _error(b"503 Slow Down", b"SlowDown", b"Please reduce your request rate."),
}


def _say(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


async def _run_proxy(upstream: str) -> None:
    proxy = _Proxy(upstream)
    await proxy.listen()
    _say(proxy.endpoint)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _say(await proxy.obey(*json.loads(line)))
    os._exit(0)  # Without a word about connections that are still open.


def _run_server() -> None:
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    put, lock = S3Response._key_response_put, threading.Lock()

    def atomic_put(*arguments: Any) -> Any:
        with lock:  # moto looks whether the key is there and then puts it; in between another thread may.
            return put(*arguments)

    setattr(S3Response, "_key_response_put", atomic_put)  # noqa: B010
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    _say(f"http://{host}:{port}")
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "proxy":
        asyncio.run(_run_proxy(sys.argv[2]))
    else:
        _run_server()
