"""Streams as one of many workers has them, on this machine: ``python benchmarks/scale.py --data IMAGES``.

The code is the real one, the object store is modelled: each request for blocks takes a random time, log-normal with a
median of 30 ms and one in a hundred above 400 ms, before the bytes are there. A worker of ``--workers`` takes rows at
``--rows-per-second``; printed is the share of the time that it waits for data, with several sizes of the read-ahead.

Then a block cache holds a part of the blocks of a data set, which are read in eight passes in random orders; printed is
how many of the reads of the last pass it spares.
"""

import argparse
import math
import os
import random
import tempfile
import threading
import time
from pathlib import Path

from rig import command, machine, versions

from genlab.data.format.shard_bytes import ShardBytes
from genlab.data.format.shards import ShardSet
from genlab.data.stream.cache import BlockCache
from genlab.data.stream.shard_stream import ShardStream

MEDIAN, ONE_IN_A_HUNDRED = 0.03, 0.4
"""Seconds of a request."""
SIGMA = math.log(ONE_IN_A_HUNDRED / MEDIAN) / 2.326
WINDOW = 256 << 20
BLOCKS, PASSES, PAGE = 1000, 8, 4096


class Distant(ShardSet):
    """A local data set, each request of which takes as long as one to an object store."""

    @staticmethod
    def of(shards: ShardSet) -> "Distant":
        """Return the same rows, far away."""
        distant = Distant(shards.directory, shards.manifest, shards.shards, shards.threads)
        distant.dice = random.Random(0)
        distant.lock = threading.Lock()
        return distant

    dice: random.Random
    lock: threading.Lock

    def fetch(self, blocks: range) -> list[ShardBytes]:
        """Wait, then read."""
        with self.lock:
            seconds = self.dice.lognormvariate(math.log(MEDIAN), SIGMA)
        time.sleep(seconds)
        return super().fetch(blocks)


def waiting(shards: ShardSet, workers: int, batch: int, rate: float, seconds: float, read_ahead: int) -> float:
    """Return the share of the time that the last worker waits for data."""
    with ShardStream(
        Distant.of(shards),
        batch=batch,
        seed=1,
        rank=workers - 1,
        world_size=workers,
        window=WINDOW,
        read_ahead=read_ahead,
    ) as stream:
        next(stream)  # The first one comes after a request, whatever is read ahead.
        before, began = stream.waited, time.perf_counter()
        taken, due = 0, began
        while time.perf_counter() - began < seconds:
            rows = len(next(stream).row)
            taken += rows
            due = max(due + rows / rate, time.perf_counter() - rows / rate)
            time.sleep(max(0.0, due - time.perf_counter()))
        return (stream.waited - before) / (time.perf_counter() - began)


def spared(share: float) -> float:
    """Return the share of the last pass's reads that a cache of ``share`` of all blocks spares."""
    with tempfile.TemporaryDirectory() as folder:
        cache, dice = BlockCache(Path(folder), int(BLOCKS * share) * PAGE), random.Random(0)
        names = [f"block-{number}" for number in range(BLOCKS)]
        hits = 0
        for _ in range(PASSES):
            cache.next_pass()
            dice.shuffle(names)
            hits = 0
            for name in names:
                if cache.get(name) is None:
                    cache.put(name, bytes(PAGE))
                else:
                    hits += 1
        return hits / BLOCKS


def main() -> None:
    """Measure, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a local data set")
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rows-per-second", type=float, default=500, help="of one worker")
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    print(f"$ {command()}\n{machine(sorted(os.sched_getaffinity(0)))}\n{versions('pyarrow', 'numpy')}\n", flush=True)
    shards = ShardSet.open(given.data).split("train")
    print(f"{len(shards):,} rows of {shards.size / len(shards) / 1024:.1f} KiB; one of {given.workers} workers, batch")
    print(f"{given.batch}, {given.rows_per_second:g} rows/s a worker\n")
    print("| read-ahead a worker | waiting |\n| --- | --- |")
    for mib in (0, 4, 8, 16, 32):
        found = waiting(shards, given.workers, given.batch, given.rows_per_second, given.seconds, int(mib * 2**20))
        print(f"| {mib} MiB | {found:.1%} |", flush=True)
    print("\n| blocks in the cache | reads spared |\n| --- | --- |")
    for share in (0.25, 0.5, 0.75, 0.9):
        print(f"| {share:.0%} | {spared(share):.1%} |", flush=True)


if __name__ == "__main__":
    main()
