"""Requests to a server, beside the same work in a loop in one process and beside plain servers.

``python benchmarks/serving.py --models RUNS`` serves a sampler (``--sampler``, by default ``digits``) and a translator
(``--translator``, ``monet``) of the folder RUNS, and has clients ask in closed loops, from a process of their own on
other cores. Contenders take turns, round by round:

* the loop: the same model, batches, codec and threads in one process, without HTTP: the limit of what can be served
* genlab serve
* genlab serve, batches of one
* FastAPI with uvicorn: the model behind a lock in a thread pool, one request at a time, as its documentation has it
* FastAPI with uvicorn, a constant PNG: no model at all

``--only`` names some of them. The server computes on the first core, clients run on the last.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rig import HERE, alternate, command, figure, machine, ratio, say, spread, table, versions

SECONDS = 5.0
"""Length of a turn."""
CONTENDERS = {
    "loop": "the loop, no HTTP",
    "genlab": "genlab serve",
    "single": "genlab serve, batches of one",
    "fastapi": "FastAPI, one request at a time",
    "constant": "FastAPI, a constant PNG",
}


@dataclass(frozen=True)
class Case:
    """What is asked for."""

    operation: str
    model: str
    clients: int

    @property
    def title(self) -> str:
        """Its line in the table."""
        return f"{self.operation}, {self.clients} client{'s' if self.clients > 1 else ''}"


def main() -> None:
    """Take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", required=True, type=Path, help="folder of runs or models")
    parser.add_argument("--sampler", default="digits")
    parser.add_argument("--translator", default="monet")
    parser.add_argument("--side", type=int, default=256, help="of the pictures to translate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    print(
        f"`{command()}`\n\n{machine(cores)}: the first serves, the last asks. "
        f"{versions('torch', 'fastapi', 'uvicorn')}.\n"
    )
    cases = [Case("sample", options.sampler, clients) for clients in (1, 32)]
    cases += [Case("translate", options.translator, clients) for clients in (1, 8, 32)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        picture.write_bytes(_picture(options.side))
        for case in cases:
            rows += _measure(case, options, picture, Path(folder), cores)
    print(table(["", "", "requests/s: median (min–max)", "of the loop", "median, ms", "99%, ms"], rows))


def _measure(case: Case, options: argparse.Namespace, picture: Path, folder: Path, cores: list[int]) -> list[list[str]]:
    """Measure one case with each contender; return its lines of the table."""
    servers = {name: _Contender(name, case, options.models, picture, folder, cores) for name in options.only}
    latencies: dict[str, list[list[float]]] = {name: [] for name in servers}

    def turn(name: str) -> Callable[[], float]:
        def ask() -> float:
            rate, found = servers[name].ask(cores[-1])
            latencies[name].append(found)
            return rate

        return ask

    try:
        for server in servers.values():
            server.ask(cores[-1])  # warm
        rates = alternate({name: turn(name) for name in servers}, options.rounds)
    finally:
        for server in servers.values():
            server.close()
    rows = []
    for name, found in rates.items():
        of_loop = ratio(found, rates["loop"]) if "loop" in rates else ""
        all_of_it = np.array([one for part in latencies[name] for one in part] or [np.nan]) * 1e3
        middle, late = (figure(float(np.percentile(all_of_it, share))) for share in (50, 99))
        rows.append(
            [case.title, CONTENDERS[name], spread(found), of_loop, *(("", "") if name == "loop" else (middle, late))]
        )
        say(" | ".join(rows[-1]))
    return rows


class _Contender:
    """A process that serves, or that loops."""

    def __init__(self, name: str, case: Case, models: Path, picture: Path, folder: Path, cores: list[int]) -> None:
        self._name, self._case, self._picture = name, case, picture
        self._port = 8400 + list(CONTENDERS).index(name)
        self._log = (folder / f"{name}.log").open("w")
        script = [sys.executable, str(HERE / "serving_contenders.py"), name, str(models / case.model)]
        script += [case.operation, str(self._port), str(picture), str(case.clients)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            ["taskset", "-c", str(cores[0]), *script],
            env=environment,
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        if name != "loop":
            self._wait()

    def ask(self, core: int) -> tuple[float, list[float]]:
        """Ask for :data:`SECONDS`: requests a second, and the seconds of each."""
        if self._name == "loop":
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(f"{SECONDS}\n")
            self._process.stdin.flush()
            return float(self._process.stdout.readline()), []
        url = f"127.0.0.1:{self._port}"
        request = [sys.executable, __file__, "--ask", url, self._path, self._body, str(self._case.clients)]
        answer = subprocess.run(["taskset", "-c", str(core), *request], capture_output=True, text=True, check=True)
        found = json.loads(answer.stdout)
        if found["failed"]:
            raise RuntimeError(f"{CONTENDERS[self._name]}: {found['failed']} requests failed")
        return found["rate"], found["seconds"]

    @property
    def _path(self) -> str:
        return f"/v1/models/{self._case.model}/{self._case.operation}"

    @property
    def _body(self) -> str:
        return '{"count": 1, "seed": 3}' if self._case.operation == "sample" else f"@{self._picture}"

    def _wait(self) -> None:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{CONTENDERS[self._name]} does not answer")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)
        self._log.close()


def _picture(side: int) -> bytes:
    from rig import drawn

    from genlab.imaging.images import encode_png

    return encode_png(drawn("a", side, 1)[0])


def ask(address: str, path: str, body: str, clients: int) -> None:
    """Ask in closed loops over connections that stay open, and print what came of it as JSON."""
    host, port = address.split(":")
    content = Path(body[1:]).read_bytes() if body.startswith("@") else body.encode()
    kind = "image/png" if body.startswith("@") else "application/json"
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    request = head.encode() + content
    found: dict[str, list[float]] = {"seconds": [], "failed": []}

    async def client(end: float) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < end:
            began = time.perf_counter()
            writer.write(request)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            found["seconds"].append(time.perf_counter() - began)
            if b" 200 " not in answer[:16]:
                found["failed"].append(0.0)
        writer.close()

    async def all_clients() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(client(began + SECONDS) for _ in range(clients)))
        return time.perf_counter() - began

    seconds = asyncio.run(all_clients())
    answer: Mapping[str, object] = {
        "rate": len(found["seconds"]) / seconds,
        "seconds": found["seconds"],
        "failed": len(found["failed"]),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        ask(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main()
