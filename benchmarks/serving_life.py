"""What a service does over its life: too many requests, updates, more and fewer replicas, replicas that die, its start.

::

    python benchmarks/serving_life.py overload --models RUNS     # translations at five times what the server can do
    python benchmarks/serving_life.py update                     # a model is updated again and again
    python benchmarks/serving_life.py autoscale                  # Ray Serve: 1, 2 and 1 replicas; 0 and 1
    python benchmarks/serving_life.py kill                       # Ray Serve, HAProxy: a replica of two is killed
    python benchmarks/serving_life.py start --models RUNS        # until the first answer; a model that is not loaded

Each prints a table. All but ``overload`` and ``start`` serve small VAEs of random weights, 28x28, that they make. The
server of ``overload``, ``update`` and ``start`` has the first core, its clients the last; Ray has all.
"""

import argparse
import asyncio
import contextlib
import functools
import hashlib
import io
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rig import Process, command, drawn, figure, free_port, machine, say, table, versions
from serving_load import Answer, Connection, Loops, post

SAMPLE = post("/v1/models/digits/sample", b'{"seed": 3}', "application/json")
WAIT_SECONDS = 240.0
"""How long a state of the service is waited for."""


def main() -> None:
    """Run a subcommand, print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def add(run: Callable[[argparse.Namespace], Awaitable[list[list[str]]]]) -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__, help=(run.__doc__ or "").splitlines()[0])
        sub.set_defaults(run=run)
        return sub

    sub = add(overload)
    sub.add_argument("--models", required=True, type=Path)
    sub.add_argument("--translator", default="monet")
    sub.add_argument("--side", type=int, default=256)
    sub.add_argument("--factor", type=float, default=5.0, help="requests a second, in those that the server can do")
    sub.add_argument("--seconds", type=float, default=60.0)
    sub.add_argument("--calibrate", type=float, default=15.0, help="seconds of each measurement before")
    sub.add_argument("--waiting", type=int, help="limits.waiting of the server")
    sub = add(update)
    sub.add_argument("--requests", type=int, default=10_000, help="at least")
    sub.add_argument("--updates", type=int, default=6)
    sub = add(autoscale)
    sub.add_argument("--requests", type=int, default=10_000, help="at least")
    sub = add(kill)
    sub.add_argument("--requests", type=int, default=10_000, help="at least, of bodies that fit the buffer")
    sub.add_argument("--kills", type=int, default=6, help="at least, and half as many with larger bodies")
    sub.add_argument("--every", type=float, default=10.0, help="seconds from kill to kill, at least")
    sub = add(start)
    sub.add_argument("--models", required=True, type=Path)
    sub.add_argument("--names", nargs="+", default=["digits", "monet"])
    sub.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    print(f"`{command()}`\n\n{machine(cores)}. {versions('torch', 'uvicorn', 'ray')}.\n", flush=True)
    options.cores = cores
    os.sched_setaffinity(0, cores[-1:])
    with tempfile.TemporaryDirectory(prefix="gll-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        options.folder = Path(folder)
        print(table(["", ""], asyncio.run(options.run(options))))


class Server:
    """``genlab serve`` in a process of its own, with one thread on the first core."""

    def __init__(self, sources: Sequence[Path], options: argparse.Namespace, *more: str) -> None:
        self.port = free_port()
        self._log = options.folder / f"serve-{self.port}.log"
        script = [sys.executable, "-c", "from genlab.cli.serve import main; main()", *map(str, sources)]
        self._process = subprocess.Popen(
            ["taskset", "-c", str(options.cores[0]), *script, "--port", str(self.port), "--threads", "1", *more],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=self._log.open("w"),
            stderr=subprocess.STDOUT,
        )

    async def until(self, request: bytes) -> Answer:
        """Send a request again and again until it is answered with 200."""
        connection, began = Connection(self.port), time.perf_counter()
        while time.perf_counter() - began < WAIT_SECONDS and self._process.poll() is None:
            if (answer := await connection.ask(request)).status == 200:
                connection.close()
                return answer
            await asyncio.sleep(0.005)
        raise RuntimeError(f"genlab serve does not answer: {self._log.read_text()[-300:]}")

    def resident(self) -> float:
        """Return the memory that it has (RSS), MiB."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(150)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.asynccontextmanager
async def closed(
    ask: Callable[[Connection, int], Awaitable[Answer]], port: int, clients: int, note: Callable[[Answer], None]
) -> AsyncIterator[Loops]:
    """Clients that ask as long as the context lasts."""
    loops = Loops(ask, port, clients, note)
    task = asyncio.create_task(loops.run())
    try:
        yield loops
    finally:
        loops.stop = True
        await task


@dataclass
class Outcomes:
    """What became of requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    unannounced: int = 0
    """Answers 429 and 503 without Retry-After."""

    def note(self, answer: Answer) -> None:
        """Count an answer."""
        self.statuses[f"answers {answer.status}" if answer.status else "no answer, the connection broke"] += 1
        if answer.status in (429, 503) and answer.header("retry-after") is None:
            self.unannounced += 1

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        """How many have another status than 200."""
        return self.total - self.statuses["answers 200"]

    def rows(self) -> list[list[str]]:
        """Lines of a table."""
        found = [[status, f"{count:,}"] for status, count in sorted(self.statuses.items())]
        if self.statuses["answers 429"] + self.statuses["answers 503"]:
            found.append(["of 429 and 503, those without `Retry-After`", f"{self.unannounced:,}"])
        return found


async def wait_for(condition: Callable[[], Any], pause: float = 0.1) -> float:
    """Wait until a condition holds: the seconds that it took."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > WAIT_SECONDS:
            raise RuntimeError("waited in vain")
        await asyncio.sleep(pause)
    return time.perf_counter() - began


def percentile(seconds: Sequence[float], share: float) -> float:
    """A percentile, NaN of nothing."""
    return float(np.percentile(seconds, share)) if seconds else math.nan


# --- too many requests


async def overload(options: argparse.Namespace) -> list[list[str]]:
    """Ask for translations far faster than the server can give them."""
    file = io.BytesIO()
    Image.fromarray(drawn("a", options.side, 1)[0]).save(file, "PNG")
    request = post(f"/v1/models/{options.translator}/translate", file.getvalue(), "image/png")
    more = [] if options.waiting is None else ["--limits.waiting", str(options.waiting)]
    clients = min(32, options.waiting or 32)  # as many as are never refused
    server = Server([options.models / options.translator], options, *more)
    try:
        await server.until(request)
        say(f"one client, then {clients}")
        alone = await _rate(server, request, 1, options.calibrate)
        await _rate(server, request, clients, 2.0)  # larger batches are tried
        full = await _rate(server, request, clients, options.calibrate)
        capacity = len(full) / options.calibrate
        rate, usual = options.factor * capacity, percentile(alone, 99)
        say(f"{capacity:.1f} a second; now {rate:.1f}")
        outcomes, accepted, memory = Outcomes(), list[float](), list[float]()
        free, asking = list[Connection](), set[asyncio.Task[None]]()

        async def one() -> None:
            connection = free.pop() if free else Connection(server.port)
            answer = await connection.ask(request)
            free.append(connection)
            outcomes.note(answer)
            if answer.status == 200:
                accepted.append(answer.seconds)

        began = time.perf_counter()
        for number in range(int(rate * options.seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            task = asyncio.create_task(one())
            asking.add(task)
            task.add_done_callback(asking.discard)
            if number % max(1, int(rate / 4)) == 0:
                memory.append(server.resident())
        late = time.perf_counter() - began - options.seconds
        ended, connection = time.perf_counter(), Connection(server.port)
        while True:
            answer = await connection.ask(request)
            if answer.status == 200 and answer.seconds <= 2 * usual:
                break
            await asyncio.sleep(0.05)
        recovered = time.perf_counter() - ended
        connection.close()
        while asking:
            await asyncio.wait(asking)
        for one_free in free:
            one_free.close()
        after = await _rate(server, request, clients, options.calibrate)
    finally:
        server.close()
    third = max(1, len(memory) // 3)
    first, last = float(np.median(memory[:third])), float(np.median(memory[-third:]))
    worst = percentile(accepted, 99)
    return [
        [f"{options.side}x{options.side}, {clients} clients: pictures/s", figure(capacity)],
        ["one client: median; 99%, ms", f"{figure(1e3 * percentile(alone, 50))}; {figure(1e3 * usual)}"],
        [f"sent for {options.seconds:g} s, requests/s", f"{figure(rate)} ({options.factor:g}x)"],
        ["the last was sent too late by, s", figure(max(0.0, late))],
        *outcomes.rows(),
        ["accepted: median; 99%, ms", f"{figure(1e3 * percentile(accepted, 50))}; {figure(1e3 * worst)}"],
        ["99% of those accepted, to that of one client", f"{figure(worst / usual)}x"],
        ["RSS, median of the first third; of the last, MiB", f"{figure(first)}; {figure(last)}"],
        ["until a request takes no longer than twice the 99% of before, s", figure(recovered)],
        [f"then, {clients} clients: pictures/s", figure(len(after) / options.calibrate)],
    ]


async def _rate(server: Server, request: bytes, clients: int, seconds: float) -> list[float]:
    """Ask in closed loops: the seconds of each answer that came in time."""
    found: list[float] = []

    def note(answer: Answer) -> None:
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {answer.body[:200]!r}")
        if time.perf_counter() - began <= seconds:
            found.append(answer.seconds)

    began = time.perf_counter()
    async with closed(lambda connection, _: connection.ask(request), server.port, clients, note):
        await asyncio.sleep(seconds)
    return found


# --- updates


async def update(options: argparse.Namespace) -> list[list[str]]:
    """Promote two versions in turn while clients ask for samples of the model."""
    from genlab.cli.promote import PromoteConfig, promote
    from genlab.store.model_store import ModelStore

    store = options.folder / "store"
    with contextlib.redirect_stdout(io.StringIO()):
        for seed, alias in ((0, "even"), (1, "odd")):
            run = small_sampler(options.folder / str(seed) / "digits", seed)
            promote(PromoteConfig(str(run), str(store), alias, add_probes=True))
        promote(PromoteConfig("digits@even", str(store)))
    version_of = {alias: ModelStore(str(store)).resolve(f"digits@{alias}").version for alias in ("even", "odd")}
    outcomes, versions_seen, pictures, seconds = Outcomes(), Counter[str](), set[tuple[str, str]](), list[float]()
    latest = ""

    def note(answer: Answer) -> None:
        nonlocal latest
        outcomes.note(answer)
        if answer.status == 200:
            latest = answer.header("x-genlab-version") or ""
            versions_seen[latest] += 1
            pictures.add((latest, hashlib.sha256(answer.body).hexdigest()))
            seconds.append(answer.seconds)

    server, took = Server([store], options), list[float]()
    try:
        await server.until(SAMPLE)
        async with closed(lambda connection, _: connection.ask(SAMPLE), server.port, 8, note):
            await wait_for(lambda: latest)
            for number in range(options.updates):
                alias = ("odd", "even")[number % 2]
                with contextlib.redirect_stdout(io.StringIO()):
                    await asyncio.to_thread(promote, PromoteConfig(f"digits@{alias}", str(store)))
                took.append(await wait_for(lambda alias=alias: latest == version_of[alias], 0.01))
                say(f"update {number + 1} of {options.updates}, {outcomes.total:,} requests")
            await wait_for(lambda: outcomes.total >= options.requests)
    finally:
        server.close()
    return [
        ["updates, 8 clients", str(options.updates)],
        ["requests", f"{outcomes.total:,}"],
        *outcomes.rows(),
        *([f"of version {version}", f"{count:,}"] for version, count in sorted(versions_seen.items())),
        ["different pictures of the seed", f"{len(pictures)} of {len(versions_seen)} versions"],
        ["from a promotion to the first answer, s", f"{figure(min(took))} to {figure(max(took))}"],
        [
            "median; 99%; longest, ms",
            "; ".join(figure(1e3 * percentile(seconds, share)) for share in (50, 99, 100)),
        ],
    ]


# --- replicas that come and go


@contextlib.contextmanager
def ray_serve(options: argparse.Namespace, model: Path, deployment: dict[str, Any]) -> Any:
    """Ray Serve behind HAProxy."""
    asked = {"models": [str(model)], "deployment": {"ray_actor_options": {"num_cpus": 0.5}} | deployment}
    process = Process(["serving_ray.py", json.dumps(asked)], options.cores, options.folder / "ray.log")
    try:
        yield process
    finally:
        process.close(120)


class Replicas:
    """What there is of replicas, as it was a moment ago."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pids: list[int] = []
        self.up = 0
        self.stop = False

    async def watch(self) -> None:
        """Look again and again until :attr:`stop` is set."""
        while not self.stop:
            found = await asyncio.to_thread(self._process.ask)
            self.pids, self.up = found["pids"], found["up"]
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def watched(process: Process) -> AsyncIterator[Replicas]:
    """The replicas, which are looked at as long as the context lasts."""
    replicas = Replicas(process)
    task = asyncio.create_task(replicas.watch())
    try:
        yield replicas
    finally:
        replicas.stop = True
        await task


async def autoscale(options: argparse.Namespace) -> list[list[str]]:
    """Have Ray Serve go from one replica to two and back, and from none to one."""
    model = small_sampler(options.folder / "digits", 0)
    rows: list[list[str]] = []
    for least in (1, 0):
        scaling = {
            "min_replicas": least,
            "initial_replicas": least,
            "max_replicas": 2 if least else 1,
            "target_ongoing_requests": 2,
            "upscale_delay_s": 1,
            "downscale_delay_s": 5,
            "look_back_period_s": 2,
            "metrics_interval_s": 1,
        }
        say(f"Ray Serve with at least {least} replicas")
        with ray_serve(options, model, {"autoscaling_config": scaling}) as process:
            rows += await (_up_and_down if least else _from_nothing)(process, options.requests // 2)
    return rows


async def _up_and_down(process: Process, requests: int) -> list[list[str]]:
    outcomes, port = Outcomes(), process.facts["port"]

    def ask(connection: Connection, _: int) -> Awaitable[Answer]:
        return connection.ask(SAMPLE)

    async with watched(process) as replicas:
        await wait_for(lambda: replicas.up == 1)
        async with closed(ask, port, 1, outcomes.note):
            await asyncio.sleep(2)
            async with closed(ask, port, 16, outcomes.note):
                up = await wait_for(lambda: replicas.up == 2)
                await wait_for(lambda: outcomes.total >= requests)
            say("one client again")
            down = await wait_for(lambda: len(replicas.pids) == 1 and replicas.up == 1)
            await asyncio.sleep(2)
    return [
        ["1, 2, 1 replicas: requests", f"{outcomes.total:,}"],
        *outcomes.rows(),
        ["from 16 more clients to the second replica's traffic, s", figure(up)],
        ["from their end to one replica, s", figure(down)],
    ]


async def _from_nothing(process: Process, requests: int) -> list[list[str]]:
    outcomes, connection = Outcomes(), Connection(process.facts["port"])
    firsts: list[float] = []

    def ask(connection: Connection, _: int) -> Awaitable[Answer]:
        return connection.ask(SAMPLE)

    async with watched(process) as replicas:
        for half in (1, 2):
            await wait_for(lambda: not replicas.pids)
            await asyncio.sleep(2)
            say("the first request")
            began = time.perf_counter()
            while True:  # as a client does that is told to ask again
                answer = await connection.ask(SAMPLE)
                outcomes.note(answer)
                if answer.status == 200:
                    break
                await asyncio.sleep(float(answer.header("retry-after") or 1))
            firsts.append(time.perf_counter() - began)
            async with closed(ask, process.facts["port"], 8, outcomes.note):
                await wait_for(lambda half=half: outcomes.total >= requests * half / 2)
    connection.close()
    return [
        ["0, 1, 0, 1 replicas: requests", f"{outcomes.total:,}"],
        *outcomes.rows(),
        ["from the first request to its picture, s", "; ".join(map(figure, firsts))],
    ]


# --- replicas that die


async def kill(options: argparse.Namespace) -> list[list[str]]:
    """Kill one of two replicas behind HAProxy again and again, while clients send bodies of several sizes."""
    from genlab.client import AsyncClient
    from genlab.core.errors import GenlabError

    model = small_sampler(options.folder / "digits", 0)
    files = {size: padded_picture(size) for size in (60_000, 1_000_000, 2_000_000)}
    requests = {size: post("/v1/models/digits/reconstruct", file, "image/png") for size, file in files.items()}
    few = max(1, options.kills // 2)
    with ray_serve(options, model, {"autoscaling_config": None, "num_replicas": 2}) as process:
        port = process.facts["port"]
        async with watched(process) as replicas, AsyncClient(f"http://127.0.0.1:{port}") as client:

            def mixed(connection: Connection, number: int) -> Awaitable[Answer]:
                return connection.ask(requests[(60_000, 1_000_000)[number % 2]])

            def large(connection: Connection, _: int) -> Awaitable[Answer]:
                return connection.ask(requests[2_000_000])

            async def by_client(connection: Connection, _: int) -> Answer:
                try:
                    answer = await client.reconstruct("digits", files[2_000_000])
                except GenlabError as error:
                    return Answer(getattr(error, "status", 0))
                return Answer(200, body=answer.data)

            rows = []
            for title, ask, kills, least in (
                ("bodies of 60,000 and 1,000,000 bytes", mixed, options.kills, options.requests),
                ("bodies of 2,000,000 bytes, above the buffer", large, few, 0),
                ("the same through `genlab.client`", by_client, few, 0),
            ):
                say(title)
                rows += await _under_kills(title, ask, port, replicas, kills, options.every, least)
    return rows


async def _under_kills(
    title: str,
    ask: Callable[[Connection, int], Awaitable[Answer]],
    port: int,
    replicas: Replicas,
    kills: int,
    every: float,
    least: int,
) -> list[list[str]]:
    outcomes, failed_before, lost = Outcomes(), 0, list[int]()

    def settled(killed: Sequence[int]) -> bool:
        return replicas.up == 2 and len(replicas.pids) == 2 and not set(killed) & set(replicas.pids)

    killed: list[int] = []
    await wait_for(lambda: settled(killed))
    async with closed(ask, port, 8, outcomes.note):
        while len(lost) < kills or outcomes.total < least:
            await asyncio.sleep(every if lost else 2.0)
            await wait_for(lambda: settled(killed))
            victim = replicas.pids[len(lost) % 2]
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
            await asyncio.sleep(1.0)
            await wait_for(lambda: settled(killed))
            lost.append(outcomes.failed - failed_before)
            failed_before = outcomes.failed
            say(f"kill {len(lost)}: {outcomes.total:,} requests, {lost[-1]} of them failed by it")
    return [
        [f"**{title}**", ""],
        ["kills; requests", f"{len(lost)}; {outcomes.total:,}"],
        *outcomes.rows(),
        ["failed after each kill", ", ".join(map(str, lost))],
    ]


# --- the start


async def start(options: argparse.Namespace) -> list[list[str]]:
    """Start ``genlab serve``, and ask for a model that is not loaded."""
    rows = []
    os.environ["GENLAB_CACHE"] = str(options.folder / "cache")
    for name in options.names:
        to_first = "from `genlab serve` to the first picture, s"
        found = {f"{to_first}, networks exported": [(await _start_once(options, name))[to_first]]}
        for _ in range(options.runs):
            for what, seconds in (await _start_once(options, name)).items():
                found.setdefault(what, []).append(seconds)
        say(f"{name}: {found}")
        for what, values in found.items():
            rows.append(
                [f"{name}: {what}", f"{figure(float(np.median(values)))} ({figure(min(values))}–{figure(max(values))})"]
            )
    return rows


async def _start_once(options: argparse.Namespace, name: str) -> dict[str, float]:
    models = options.folder / f"two-{name}"
    if not models.exists():
        for copy in ("first", "second"):
            shutil.copytree(options.models / name, models / copy)
    card = json.loads(next((models / "first").rglob("genlab.json")).read_text())
    operation = "sample" if "sample" in _operations(options.models / name) else "translate"
    file = io.BytesIO()
    Image.fromarray(drawn("a", 256, 1)[0]).save(file, "PNG")

    def request(model: str) -> bytes:
        path = f"/v1/models/{model}/{operation}"
        return (
            post(path, b'{"seed": 3}', "application/json")
            if operation == "sample"
            else post(path, file.getvalue(), "image/png")
        )

    one_and_a_half = 1.5 * card["weights"]["bytes"] / 2**30
    began = time.perf_counter()
    server = Server([models / "first", models / "second"], options, "--settings.memory-gib", f"{one_and_a_half:.6f}")
    found: dict[str, float] = {}
    try:
        await server.until(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        found["from `genlab serve` to `/livez`, s"] = time.perf_counter() - began
        await server.until(request("first"))
        found["from `genlab serve` to the first picture, s"] = time.perf_counter() - began
        found["the next picture, s"] = (await server.until(request("first"))).seconds
        found["first picture of a model that is not loaded, s"] = (await server.until(request("second"))).seconds
        found["its next picture, s"] = (await server.until(request("second"))).seconds
    finally:
        server.close()
    return found


def _operations(model: Path) -> Sequence[str]:
    from genlab.inference.operations import ModelInfo
    from genlab.store import model_directory

    [(_, directory)] = model_directory.find([str(model)]).items()
    return list(ModelInfo.read(directory).operations)


# --- models and pictures


@functools.cache
def _small(seed: int) -> Any:
    import torch

    from genlab.models.vae import VAE, VAEArchitecture

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return VAE((28, 28, 1), VAEArchitecture(channels=(4, 4)))


def small_sampler(run: Path, seed: int) -> Path:
    """Make the run of a small VAE of random weights, 28x28."""
    from genlab.store import model_directory

    provenance = model_directory.Provenance(
        run=str(run), step=1, images=1, data={}, config={"run": {"name": run.name}}, metrics={}
    )
    model_directory.save(str(run / "model"), _small(seed), provenance)
    return run


def padded_picture(size: int) -> bytes:
    """Make a PNG file of 28x28 of so many bytes, most of them in a chunk that no program knows."""
    file = io.BytesIO()
    Image.fromarray(np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)).save(file, "PNG")
    picture = file.getvalue()
    padding = b"paDd" + bytes(size - len(picture) - 12)
    chunk = struct.pack(">I", len(padding) - 4) + padding + struct.pack(">I", zlib.crc32(padding))
    return picture[:-12] + chunk + picture[-12:]


if __name__ == "__main__":
    main()
