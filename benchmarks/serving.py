"""Requests to a server, beside the same work in a loop in one process and beside other servers of the same model.

``python benchmarks/serving.py --models RUNS`` serves a sampler (``--sampler``, by default ``digits``) and a translator
(``--translator``, ``monet``) of the folder RUNS, and has clients ask in closed loops, from a process of their own on
another core. Contenders take turns, round by round; ``--only`` names some of them. All serve the same model on one core
with one thread, and encode PNG by the same function. What a server gives is compared with what the first one gives.

LitServe, BentoML and Gradio need an environment of their own, which ``--peers`` names::

    uv venv PEERS
    uv pip install --python PEERS/bin/python litserve 'bentoml>=1.4' 'gradio>=6' torch==2.15.0 --editable '.[serve]'

The contenders behind HAProxy are replicas of Ray Serve, whose other processes work all the time; so they are measured
apart: ``--only haproxy haproxy-constant --against haproxy-constant``. HAProxy keeps the requests of both, to send them
again if a replica dies. So is the engine without server and codecs:
``--only engine engine-single --against engine-single --cases sample:32``.
"""

import argparse
import base64
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rig import (
    HERE,
    Process,
    alternate,
    command,
    drawn,
    figure,
    free_port,
    machine,
    ratio,
    say,
    spread,
    table,
    versions,
)


@dataclass(frozen=True)
class Contender:
    """Something that answers."""

    title: str
    form: str = "raw"
    """How it is asked (``serving_load.FORMS``); empty for what has no HTTP."""
    peer: str = ""
    """The package that it needs."""
    path: str = "/v1/models/{model}/{operation}"


CONTENDERS = {
    "loop": Contender("the loop, no HTTP", form=""),
    "engine": Contender("genlab's engine, no HTTP, no codec", form=""),
    "engine-single": Contender("genlab's engine, batches of one, no HTTP, no codec", form=""),
    "genlab": Contender("genlab serve"),
    "single": Contender("genlab serve, batches of one"),
    "litserve": Contender("LitServe", "json", "litserve"),
    "bentoml": Contender("BentoML", "list", "bentoml"),
    "gradio": Contender("Gradio", "events", "gradio", "/gradio_api/call/picture"),
    "fastapi": Contender("FastAPI, one request at a time"),
    "constant": Contender("FastAPI, a constant PNG"),
    "haproxy": Contender("HAProxy, a replica of Ray Serve"),
    "haproxy-constant": Contender(
        "HAProxy, a constant PNG in Ray Serve", path="/constant/v1/models/{model}/{operation}"
    ),
}
PEERS = [name for name, contender in CONTENDERS.items() if contender.peer]
DEFAULT = ["loop", "genlab", "single", "fastapi", "constant"]
START_SECONDS = 300.0
"""Seconds in which a contender has to answer."""
CASES = ["sample:1", "sample:32", "translate:1", "translate:8", "translate:32"]


def main() -> None:
    """Take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", required=True, type=Path, help="folder of runs or models")
    parser.add_argument("--sampler", default="digits")
    parser.add_argument("--translator", default="monet")
    parser.add_argument("--side", type=int, default=256, help="of the pictures to translate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="OPERATION:CLIENTS")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="by default those of genlab and FastAPI")
    parser.add_argument("--against", choices=CONTENDERS, default="loop", help="what rates are divided by")
    parser.add_argument("--peers", type=Path, help="environment with LitServe, BentoML and Gradio, which take part")
    options = parser.parse_args()
    names = options.only or DEFAULT + PEERS * (options.peers is not None)
    if options.peers is None and set(names) & set(PEERS):
        parser.error(f"{', '.join(PEERS)} need --peers")
    cores = sorted(os.sched_getaffinity(0))
    print(f"`{command()}`\n\n{machine(cores)}: core {cores[0]} serves, core {cores[-1]} asks.")
    print(f"{versions('torch', 'fastapi', 'uvicorn', 'ray')}{_peer_versions(names, options.peers)}.\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(drawn("a", options.side, 1)[0]).save(picture)
        for operation, model in (("sample", options.sampler), ("translate", options.translator)):
            clients = [int(case.partition(":")[2]) for case in options.cases if case.startswith(f"{operation}:")]
            if clients:
                rows += _measure(operation, options.models / model, clients, names, options, picture, cores)
    print(table(["", "", "pictures/s: median (min–max)", "ratio", "median, ms", "99%, ms"], rows))
    print(f"\nRatio: to {CONTENDERS[options.against].title}.")


def _measure(
    operation: str,
    model: Path,
    clients: Sequence[int],
    names: Sequence[str],
    options: argparse.Namespace,
    picture: Path,
    cores: list[int],
) -> list[list[str]]:
    """Measure an operation with each contender; return its lines of the table."""
    folder = picture.parent
    servers: dict[str, Any] = {}
    rows = []
    try:
        for name in names:
            shared = servers["haproxy"].process if name == "haproxy-constant" and "haproxy" in servers else None
            servers[name] = _Server(name, operation, model, picture, folder, cores, options.peers, shared)
            servers[name].wait()
        _compare({name: server.picture() for name, server in servers.items() if CONTENDERS[name].form})
        for count in clients:
            latencies: dict[str, list[float]] = {name: [] for name in servers}

            def turn(name: str, count: int, latencies: dict[str, list[float]]) -> Callable[[], float]:
                def ask() -> float:
                    rate, seconds = servers[name].ask(count, options.seconds)
                    latencies[name] += seconds
                    return rate

                return ask

            for server in servers.values():
                server.ask(count, min(2.0, options.seconds))  # warm
            rates = alternate({name: turn(name, count, latencies) for name in servers}, options.rounds)
            title = f"{operation}, {count} client{'s' if count > 1 else ''}"
            for name, found in rates.items():
                of_other = ratio(found, rates[options.against]) if options.against in rates else ""
                times = np.array(latencies[name]) * 1e3
                quantiles = [figure(float(np.percentile(times, share))) if len(times) else "" for share in (50, 99)]
                rows.append([title, CONTENDERS[name].title, spread(found), of_other, *quantiles])
                say(" | ".join(rows[-1]))
    finally:
        for server in servers.values():
            server.close()
    return rows


class _Server:
    """A process that serves, or that computes without HTTP.

    Args:
        shared: a process that serves this one as well.
    """

    def __init__(
        self,
        name: str,
        operation: str,
        model: Path,
        picture: Path,
        folder: Path,
        cores: list[int],
        peers: Path | None,
        shared: Process | None,
    ) -> None:
        say(f"starting {name}")
        self._name, self._core = name, cores[-1]
        self.process = shared
        self._owns = shared is None
        self._log = folder / f"{operation}-{name}.log"
        if name.startswith("haproxy"):
            if self.process is None:
                asked = {
                    "models": [str(model)],
                    "deployment": {
                        "autoscaling_config": None,
                        "num_replicas": 1,
                        "ray_actor_options": {"num_cpus": 0.5},
                    },
                    "constant": {"model": str(model), "operation": operation, "picture": str(picture)},
                }
                self.process = Process(["serving_ray.py", json.dumps(asked)], cores[:1], self._log)
            port = self.process.facts["port"]
        else:
            port = free_port()
            python = peers / "bin" / "python" if peers and CONTENDERS[name].peer else Path(sys.executable)
            arguments = [name, str(model), operation, str(port), str(picture)]
            self._other = subprocess.Popen(
                ["taskset", "-c", str(cores[0]), str(python), str(HERE / "serving_contenders.py"), *arguments],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=self._log.open("w") if CONTENDERS[name].form else subprocess.PIPE,
                stdin=subprocess.PIPE,
                stderr=subprocess.STDOUT if CONTENDERS[name].form else self._log.open("w"),
                text=True,
                start_new_session=True,
            )
        path = CONTENDERS[name].path.format(model=model.name, operation=operation)
        self._target = {
            "port": port,
            "path": path,
            "form": CONTENDERS[name].form,
            "operation": operation,
            "picture": str(picture),
        }

    def ask(self, clients: int, seconds: float) -> tuple[float, list[float]]:
        """Ask for some seconds: pictures a second, and the seconds of each."""
        if not self._target["form"]:
            assert self._other.stdin is not None
            self._other.stdin.write(f"{seconds} {clients}\n")
            self._other.stdin.flush()
            return float(self._read()), []
        found = self._ask(clients, seconds)
        if found["failed"]:
            raise RuntimeError(f"{self._name}: {found['failed']} requests failed; {self._last_line()}")
        return found["rate"], found["seconds"]

    def picture(self) -> NDArray[np.uint8]:
        """The picture that it gives."""
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(self._ask(1, 0.01)["picture"]))))

    def _ask(self, clients: int, seconds: float) -> dict[str, Any]:
        asked = json.dumps({"target": self._target, "clients": clients, "seconds": seconds})
        script = [sys.executable, str(HERE / "serving_load.py"), asked]
        done = subprocess.run(["taskset", "-c", str(self._core), *script], capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def wait(self) -> None:
        """Wait until it answers."""
        if not self._target["form"]:
            self._read()
            return
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            if self._owns and self.process is None and self._other.poll() is not None:
                break
            if not self._ask(1, 0.01)["failed"]:
                return
            time.sleep(0.3)
        raise RuntimeError(f"{self._name} does not answer: {self._last_line()}")

    def _read(self) -> str:
        assert self._other.stdout is not None
        if line := self._other.stdout.readline():
            return line
        raise RuntimeError(f"{self._name} has ended: {self._last_line()}")

    def _last_line(self) -> str:
        return (self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            if self._owns:
                self.process.close(120)
            return
        self._other.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._other.wait(30)
        with suppress(ProcessLookupError):  # what it has started, too
            os.killpg(self._other.pid, signal.SIGKILL)
        self._other.wait()


def _compare(pictures: dict[str, NDArray[np.uint8]]) -> None:
    """Check that all give the same picture, but for the rounding of another size of batches."""
    compared = {name: picture for name, picture in pictures.items() if "constant" not in name}
    for name, picture in compared.items():
        first = next(iter(compared.values()))
        if picture.shape != first.shape or np.abs(picture.astype(int) - first).max() > 1:
            raise RuntimeError(f"{name} gives another picture than {next(iter(compared))}")


def _peer_versions(names: Sequence[str], peers: Path | None) -> str:
    packages = [CONTENDERS[name].peer for name in names if CONTENDERS[name].peer]
    if peers is None or not packages:
        return ""
    script = "import sys, importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    done = subprocess.run(
        [peers / "bin" / "python", "-c", script, *packages], capture_output=True, text=True, check=True
    )
    return f"; {done.stdout.strip()}"


if __name__ == "__main__":
    main()
