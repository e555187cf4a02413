"""Clients for the benchmarks of servers: HTTP/1.1 as bare as it can be, so that a client costs less than any server.

As a program, ``serving_load.py JSON``, it asks in closed loops and prints what came of it (:func:`closed_loops`).
"""

import asyncio
import base64
import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

FORMS = ("raw", "json", "list", "events")
"""How a picture is asked for and given, see :meth:`Target.request`."""
_PNG = re.compile(rb"iVBORw0KGgo[A-Za-z0-9+/=]*")  # in base64


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    """0 if the connection broke, or none could be had."""
    head: bytes = b""
    """Status line and headers, in lower case."""
    body: bytes = b""
    seconds: float = 0.0

    def header(self, name: str) -> str | None:
        """Return a header's value."""
        _, found, rest = self.head.partition(b"\r\n" + name.lower().encode() + b":")
        return rest.partition(b"\r\n")[0].strip().decode() if found else None

    def picture(self) -> bytes:
        """Return the PNG file in it: the body itself, or base64 somewhere in it."""
        if self.body.startswith(b"\x89PNG"):
            return self.body
        found = _PNG.search(self.body)
        return base64.b64decode(found[0]) if found else b""


def post(path: str, content: bytes, kind: str, host: str = "127.0.0.1") -> bytes:
    """Return the bytes of a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Connection:
    """A connection to a port of this machine, which stays open for one request after the other.

    Args:
        port: the port.
        seconds: after which an answer counts as none.
    """

    def __init__(self, port: int, seconds: float = 180.0) -> None:
        self._port = port
        self._seconds = seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for the answer."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._seconds):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
                reader, writer = self._streams
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await self._body(reader, head)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            self.close()
            return Answer(0, seconds=time.perf_counter() - began)
        if b"\r\nconnection: close" in head:
            self.close()
        return Answer(int(head[9:12]), head, body, time.perf_counter() - began)

    @staticmethod
    async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
        if b"\r\ntransfer-encoding: chunked" not in head:
            return await reader.readexactly(int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0))
        parts = []
        while length := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(length))
            await reader.readexactly(2)
        await reader.readexactly(2)
        return b"".join(parts)

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            with suppress(OSError, RuntimeError):
                self._streams[1].close()
            self._streams = None


@dataclass(frozen=True)
class Target:
    """Where to ask, and for what."""

    port: int
    path: str
    form: str
    """One of :data:`FORMS`."""
    operation: str
    picture: str
    """File of the picture to translate."""

    def request(self) -> bytes:
        """Return the bytes to send.

        ``raw``: JSON for a sample, the picture itself for a translation. ``json``: the picture in base64 in a field of
        JSON. ``list``: a list of one seed, or of one picture in base64. ``events``: as Gradio has it.
        """
        sample = self.operation == "sample"
        with open(self.picture, "rb") as file:  # noqa: PTH123 -- pathlib takes a while to import
            content = file.read()
        if self.form == "raw" and not sample:
            return post(self.path, content, "image/png")
        text = base64.b64encode(content).decode()
        bodies: dict[str, Any] = {
            "raw": {"count": 1, "seed": 3},
            "json": {"count": 1, "seed": 3} if sample else {"image": text},
            "list": {"seeds": [3]} if sample else {"images": [text]},
            "events": {"data": [3 if sample else text]},
        }
        return post(self.path, json.dumps(bodies[self.form]).encode(), "application/json")

    async def ask(self, connection: Connection, request: bytes) -> Answer:
        """Ask for one picture. Gradio answers with the name of an event, which a second request waits for."""
        answer = await connection.ask(request)
        if self.form != "events" or answer.status != 200:
            return answer
        event = json.loads(answer.body)["event_id"]
        second = await connection.ask(f"GET {self.path}/{event} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        done = second.status if b"event: complete" in second.body else 0
        return Answer(done, second.head, second.body, answer.seconds + second.seconds)


@dataclass
class Loops:
    """Clients that each send a request when the one before is answered, over a connection that stays open."""

    ask: Callable[[Connection, int], Any]
    """Sends the request of this number; a coroutine that gives an :class:`Answer`."""
    port: int
    clients: int
    note: Callable[[Answer], None]
    """Is told of each answer."""
    stop: bool = False
    sent: int = field(default=0, init=False)

    async def run(self) -> None:
        """Ask until :attr:`stop` is set."""
        await asyncio.gather(*(self._client() for _ in range(self.clients)))

    async def _client(self) -> None:
        connection = Connection(self.port)
        while not self.stop:
            self.sent += 1
            answer = await self.ask(connection, self.sent)
            self.note(answer)
            if answer.status == 0:
                await asyncio.sleep(0.01)  # a server that is not there is not asked thousands of times a second
        connection.close()


async def closed_loops(target: Target, clients: int, seconds: float) -> dict[str, Any]:
    """Ask in closed loops.

    Returns:
        ``rate``, answers a second; ``seconds`` of each; ``failed``, how many had another status than 200; and
        ``picture`` of the last, in base64.
    """
    request = target.request()
    answers: list[Answer] = []
    loops = Loops(lambda connection, number: target.ask(connection, request), target.port, clients, answers.append)
    began = time.perf_counter()

    async def end() -> None:
        await asyncio.sleep(seconds)
        loops.stop = True

    await asyncio.gather(loops.run(), end())
    good = [answer.seconds for answer in answers if answer.status == 200]
    return {
        "rate": len(good) / (time.perf_counter() - began),
        "seconds": good,
        "failed": len(answers) - len(good),
        "picture": base64.b64encode(answers[-1].picture()).decode(),
    }


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(closed_loops(Target(**asked["target"]), asked["clients"], asked["seconds"]))))
