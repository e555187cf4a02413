"""A small, fast S3 server over a folder, for reading only: as much of S3 as s3fs needs to read objects.

``python benchmarks/s3_server.py ROOT --delay 0.03`` serves ``ROOT/BUCKET/KEY``, adds the delay to each request and
prints ``{"endpoint": "http://127.0.0.1:PORT"}``; it ends when its standard input does. A real S3 server written in
Python takes longer over one request than the decoder over an image, and would be what is measured. ``GET /-/traffic``
tells the requests since it was last asked, see :class:`Traffic`. Signatures are not checked; it binds loopback only.
"""

import argparse
import asyncio
import json
import os
import sys
import threading
import time
import urllib.parse
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from pathlib import Path
from xml.sax.saxutils import escape


@dataclass
class Traffic:
    """Requests of data, all kinds together."""

    requests: int = 0
    bytes: int = 0
    """Of the bodies sent."""
    spans: list[tuple[float, float]] = field(default_factory=list)
    """Seconds at which each request came and was answered."""

    def chain(self) -> int:
        """Round trips one after another: the longest chain of requests each of which came after another's answer."""
        chain, answered = 0, 0.0
        # The most intervals that do not overlap: always take the one that ends first.
        for came, done in sorted(self.spans, key=lambda span: span[1]):
            if came >= answered:
                chain, answered = chain + 1, done
        return chain


class Server:
    """Answers one connection after another."""

    def __init__(self, root: Path, delay: float) -> None:
        self.root = root
        self.delay = delay
        self.traffic = Traffic()
        self._files: dict[str, bytes] = {}

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one client until it goes away."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                came = time.perf_counter()
                request, *lines = head.split("\r\n")
                method, target, _ = request.split(" ")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                if length := int(fields.get("content-length", 0)):
                    await reader.readexactly(length)
                if target == "/-/traffic":
                    told = json.dumps({"chain": self.traffic.chain()} | asdict(self.traffic)).encode()
                    self.traffic = Traffic()
                    writer.write(_head(200, len(told), "application/json") + told)
                    continue
                await asyncio.sleep(self.delay)
                first, body = self._answer(method, target, fields.get("range"))
                writer.write(first)
                if method == "GET":
                    writer.write(body)
                    self.traffic.bytes += len(body)
                await writer.drain()
                self.traffic.requests += 1
                self.traffic.spans.append((came, time.perf_counter()))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, method: str, target: str, span: str | None) -> tuple[bytes, bytes | memoryview]:
        """The head and the body."""
        path, _, query = target.partition("?")
        path = urllib.parse.unquote(path).strip("/")
        asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        if method not in ("GET", "HEAD"):
            return _error(405, "MethodNotAllowed")
        if "/" not in path:
            listing = self._listing(path, asked.get("prefix", ""), asked.get("delimiter", ""))
            return _head(200, len(listing), "application/xml"), listing
        try:
            data = self._read(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return _error(404, "NoSuchKey")
        if span is None:
            return _head(200, len(data), "application/octet-stream"), data
        begin, _, end = span.removeprefix("bytes=").partition("-")
        start = int(begin) if begin else len(data) - int(end)
        stop = min(int(end) + 1, len(data)) if begin and end else len(data)
        if start >= len(data):
            return _error(416, "InvalidRange")
        more = f"Content-Range: bytes {start}-{stop - 1}/{len(data)}\r\n"
        return _head(206, stop - start, "application/octet-stream", more), memoryview(data)[start:stop]

    def _read(self, path: str) -> bytes:
        if path not in self._files:
            self._files[path] = (self.root / path).read_bytes()
        return self._files[path]

    def _listing(self, bucket: str, prefix: str, delimiter: str) -> bytes:
        base = self.root / bucket
        names = sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())
        keys, folders = [], set()
        for name in names:
            if not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                size = (base / name).stat().st_size
                keys.append(
                    f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    f"<ETag>&quot;0&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders))
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(keys) + len(folders)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(keys)}{common}</ListBucketResult>"
        ).encode()


def _head(status: int, length: int, kind: str, more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} -\r\nContent-Length: {length}\r\nContent-Type: {kind}\r\nAccept-Ranges: bytes\r\n"
        f'ETag: "0"\r\nLast-Modified: {formatdate(0, usegmt=True)}\r\n{more}\r\n'
    ).encode()


def _error(status: int, code: str) -> tuple[bytes, bytes]:
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code></Error>'.encode()
    return _head(status, len(body), "application/xml"), body


async def _serve(root: Path, delay: float) -> None:
    # Wide enough for the largest head; bodies are written, not read.
    server = await asyncio.start_server(Server(root, delay).connection, "127.0.0.1", 0, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"endpoint": f"http://127.0.0.1:{port}"}), flush=True)
    async with server:
        await server.serve_forever()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Serve a folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds added to each request")
    options = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_serve(options.root, options.delay))


if __name__ == "__main__":
    main()
