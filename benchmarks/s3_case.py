"""The case ``s3`` of ``stream.py``: the stream from an S3 server 30 ms away, against the same from local files.

The loader has core 0 for reading and decoding, the server core 1. Whole passes alternate after a warm-up pass, which
is the first epoch; nothing is cached on disk. The time to the first batch is taken in a fresh process each time, from
before the data set is opened, with the S3 client made and connected before.

From S3, rows are shuffled across a window much smaller than the set, so that every epoch has to fetch all of it again;
with a larger one the epochs after the first would come from memory.

Another server can be put in the place of ``s3_server.py``: a command that prints ``{"endpoint": URL}`` as its first
line, serves the folder that is its last argument as a bucket's parent, adds the delay itself, and ends when its
standard input does. Without ``/-/traffic`` the columns on requests stay empty.

Run as a program, this file measures one first batch.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rig import HERE, Process, alternate, command, machine, ratio, say, spread, table, versions
from samples import Samples

DELAY = 0.03
"""Seconds added to each request."""
BATCH = 16
WINDOW = 8 << 20
"""Bytes."""
LOADER, SERVER = 0, 1
"""Cores."""


def compare(samples: Samples, *, rounds: int, server: str | None) -> None:
    """Measure and print."""
    local = str(samples.shards())
    print(f"`{command()}`\n\n{machine([LOADER, SERVER])}. {versions('torch', 'torchvision', 's3fs', 'aiobotocore')}.")
    print(
        f"{samples.origin}; batch {BATCH}; {DELAY * 1000:.0f} ms added to a request; S3 window {WINDOW >> 20} MiB.\n",
        flush=True,
    )
    words = shlex.split(server) if server else [sys.executable, str(HERE / "s3_server.py"), f"--delay={DELAY}"]
    with _serving([*words, str(samples.form("s3", lambda path: _bucket(local, path)))]) as endpoint:
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        remote = "s3://bench/shards"
        _passes(samples, endpoint, {"local files": local, "S3": remote}, rounds)
        print()
        _first_batches(samples, endpoint, {"local files": local, "S3": remote}, rounds)


def _bucket(local: str, path: Path) -> None:
    (path / "bench").mkdir()
    (path / "bench" / "hello").write_text("hello")
    (path / "bench" / "shards").symlink_to(local)


def _passes(samples: Samples, endpoint: str, urls: dict[str, str], rounds: int) -> None:
    processes, first = {}, {}
    for name, url in urls.items():
        arguments = [f"--count={samples.count}", f"--batch={BATCH}", "--threads=1", "--workers=0", "--passes=1"]
        words = ["contenders.py", "genlab", "jpeg", *arguments, f"--cache={samples.cache}", f"--url={url}"]
        if name == "S3":
            words.append(f"--window={WINDOW}")
        processes[name] = Process(words, [LOADER], samples.cache / f"s3-{name.replace(' ', '-')}.txt")
        first[name] = processes[name].facts["warm_up"]
        say(f"{name}: first epoch {first[name]:.2f} s, checks included")
    _traffic(endpoint)
    found = alternate({name: lambda one=one: float(one.ask()["rate"]) for name, one in processes.items()}, rounds)
    traffic = _traffic(endpoint)
    for process in processes.values():
        process.close()
    rows = []
    for name in urls:
        sent = traffic["bytes"] / rounds / 2**20 if traffic and name == "S3" else 0
        requests = traffic["requests"] / rounds if traffic and name == "S3" else 0
        rows.append([name, spread(found[name]), f"{first[name]:.2f}", f"{requests:.0f}", f"{sent:.1f}"])
    head = [
        "from",
        "images/s in later epochs: median (min–max)",
        "first epoch with checks, s",
        "requests an epoch",
        "MiB an epoch",
    ]
    print(table(head, rows))
    held = sum(file.stat().st_size for file in samples.shards().iterdir()) / 2**20
    print(f"\nS3 against local files: {ratio(found['S3'], found['local files'])}. The set is {held:.1f} MiB.")


def _first_batches(samples: Samples, endpoint: str, urls: dict[str, str], rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in urls}
    traffic: dict[str, Any] | None = None
    for number in range(rounds):
        for name, url in urls.items():
            log = samples.cache / "s3-first.txt"
            process = Process(["s3_case.py", url], [LOADER], log)
            _traffic(endpoint)
            seconds[name].append(process.ask()["seconds"])
            if name == "S3":
                traffic = _traffic(endpoint)
            process.close()
        say(f"first batch, round {number + 1} of {rounds}")
    rows = [[name, spread([1000 * one for one in found])] for name, found in seconds.items()]
    print(table(["from", "first batch, ms: median (min–max)"], rows))
    extra = statistics.median(seconds["S3"]) - statistics.median(seconds["local files"])
    print(f"\nS3 adds {1000 * extra:.0f} ms, {extra / DELAY:.1f} round trips of {DELAY * 1000:.0f} ms.")
    if traffic:
        print(
            f"The server saw {traffic['requests']} requests, at most {traffic['chain']} of them one after another, "
            f"for {traffic['bytes'] / 2**20:.2f} MiB."
        )


def _traffic(endpoint: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{endpoint}/-/traffic", timeout=10) as answer:
            return dict(json.loads(answer.read()))
    except (OSError, ValueError):
        return {}


@contextmanager
def _serving(words: list[str]) -> Iterator[str]:
    pinned = ["taskset", "-c", str(SERVER), *words]
    with subprocess.Popen(pinned, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["endpoint"]
        finally:
            process.stdin.close()


def main() -> None:
    """One first batch: say ready, wait for a line, tell the seconds."""
    url = sys.argv[1]
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import torch
    from torchvision.io import decode_image  # its import takes seconds and is not the stream's

    from genlab.core.storage import locate
    from genlab.data.format.shards import ShardSet
    from genlab.data.stream.shard_stream import ShardStream

    assert decode_image
    torch.set_num_threads(1)
    if url.startswith("s3:"):
        locate("s3://bench/hello").read_bytes()
    print(json.dumps({"ready": True}), file=report)
    sys.stdin.readline()
    began = time.perf_counter()
    window = WINDOW if url.startswith("s3:") else None
    stream = ShardStream(ShardSet.open(url, threads=1), batch=BATCH, seed=1, window=window)
    next(stream)
    print(json.dumps({"seconds": time.perf_counter() - began}), file=report)
    sys.stdin.readline()
    os._exit(0)


if __name__ == "__main__":
    main()
