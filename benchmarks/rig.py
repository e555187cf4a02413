"""What the benchmarks share: the machine line, contenders that alternate in processes of their own, and the table."""

import csv
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "benchmarks"
"""Where samples and their forms are kept by default."""


def machine(cores: Sequence[int]) -> str:
    """One line: processor, cores in use and in all, load as the benchmark starts."""
    fields = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    found = {name.strip(): value.strip() for name, _, value in fields}
    model = f"{found.get('model name', platform.machine())} (model {found.get('model', '?')})"
    used = ",".join(map(str, cores))
    return f"{model}; core(s) {used} of {os.cpu_count()}; load {os.getloadavg()[0]:.1f} at the start"


def versions(*packages: str) -> str:
    """One line: Python, and those of the packages that are installed."""
    found = [f"Python {platform.python_version()}"]
    for name in packages:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def command() -> str:
    """The command line that is running."""
    script = Path(sys.argv[0]).resolve().relative_to(HERE.parent)
    return " ".join(["python", str(script), *(f'"{word}"' if " " in word else word for word in sys.argv[1:])])


def read_rows(file: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a head; none where there is no file."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def write_rows(file: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV file that :func:`read_rows` reads."""
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


class Process:
    """A program that says one JSON object when it is ready, and one more for each line that it is sent.

    Args:
        arguments: Script in this folder and its arguments.
        cores: Cores to pin it to.
        log: File that takes everything else it says.
    """

    def __init__(self, arguments: Sequence[str], cores: Sequence[int], log: Path) -> None:
        self._log = log
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(log.parent / "hf"),
            "OMP_NUM_THREADS": str(len(cores)),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), sys.executable, str(HERE / arguments[0]), *arguments[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            env=environment,
            text=True,
        )
        self.facts = self._answer()

    def ask(self) -> dict[str, Any]:
        """Send a line, wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self, seconds: float = 30.0) -> None:
        """End it; by force if it takes longer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            last = self._log.read_text(errors="replace").strip().splitlines()
            raise RuntimeError(last[-1][:300] if last else f"ended with {self._process.returncode}")
        return dict(json.loads(line))


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def forget_peak_memory() -> None:
    """Begin anew with :func:`peak_memory`."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """The most memory that this process has held (RSS), MiB."""
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) / 1024


def peak_flops(threads: int, precision: str = "fp32") -> float:
    """FLOP/s of a product of matrices that fit the caches, fp32 or bf16, on the first cores."""
    import torch

    os.sched_setaffinity(0, range(threads))
    torch.set_num_threads(threads)
    left, right = torch.rand(2, 1024, 1024).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - began)
    return 2 * 1024**3 / statistics.median(seconds)


def drawn(domain: str, size: int, count: int) -> NDArray[np.uint8]:
    """Scenes of domain ``a`` or ``b`` that genlab draws, [count, size, size, 3]."""
    from genlab.data.ingest.sources import open_source

    source = open_source(f"synthetic:scenes-{domain}", size=size, count=count)
    with source.reader() as load:
        return np.stack([np.asarray(load(entry).image) for entry in source.entries()])


def alternate(turns: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every contender in turn, round by round, so that a busy minute hits all of them; the figures of each."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            found[name].append(turn())
        say(f"round {number + 1} of {rounds}")
    return found


def say(text: str) -> None:
    """A line of progress, apart from the table."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def spread(values: Sequence[float]) -> str:
    """Median, and smallest to largest."""
    return f"{figure(statistics.median(values))} ({figure(min(values))}–{figure(max(values))})"


def ratio(ours: Sequence[float], other: Sequence[float]) -> str:
    """Ratio of medians, and of the smallest to largest within one round."""
    rounds = [one / two for one, two in zip(ours, other, strict=True)]
    return f"{statistics.median(ours) / statistics.median(other):.2f} ({min(rounds):.2f}–{max(rounds):.2f})"


def figure(value: float) -> str:
    """A number to three significant digits or so."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
