"""The stream at the scale of many workers and rows, on this machine: ``python benchmarks/scale.py [PART ...]``.

The code is the real one; what it would read from, and how many workers there are, is modelled. Beside each figure
stands that of the order of earlier versions (rule 1).

``order``: what it takes to put 10^8 rows in order, of 2.4 million blocks; each case in a process of its own.

``reads``: how often blocks are read in an epoch, by all workers together, how much of them a worker holds in memory,
and how far apart the rows of a block come. A block is 1 MiB and about 41 rows.

``nodes``: block caches of several nodes that hold a part of the data set each: how many reads they spare in a later
epoch, and in the epoch after a node has gone.

``noise``: what a worker of 100 draws for a step of StyleGAN2 at 256x256 with a batch of 256, and what it sends and
receives for the histories of a CycleGAN at 256x256 with a batch of 100.

``waiting`` (needs ``--data``): each request for blocks takes a random time, log-normal with a median of 30 ms and one
in a hundred above 400 ms, before the bytes are there. A worker of ``--workers`` takes rows at ``--rows-per-second``;
printed is the share of the time that it waits for data, with several sizes of the read-ahead.

``listing``: what the driver of an ingest holds in memory and on disk, from the first file listed to the manifest. The
files are there, hard links to some JPEGs of 24 KiB; shards are not made, but each task is pickled as for a cluster. In
the last line a million files are cut into as many sorted runs and shards as 10^8 files have, which is what grows.

``cache``: a block cache holds a part of the blocks of a data set, which are read in eight passes in random orders;
printed is how many of the reads of the last pass it spares.

``predicted``: how long a step of the loop takes with 1, 2 and 3 workers on this machine, beside what the model of the
plan predicts.

``limits``: figures of all these parts beside those of earlier versions and the bounds that they are to keep, and for
each that is not kept the reason; with ``--data`` the waiting, too.

``--plan``, instead of a part: what CycleGAN at 256x256 and StyleGAN2 at 1024x1024 read, send, write and cost on 8, 64
and 512 GPUs, by a model; its inputs are options.
"""

import argparse
import dataclasses
import math
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from rig import command, forget_peak_memory, machine, peak_memory, versions
from scale_index import FIRST_ROWS, IMAGE, measured, shards_of, write
from scale_plan import add_options, print_plan, print_predictions

from genlab.data.format.shard_bytes import ShardBytes
from genlab.data.format.shards import ShardSet
from genlab.data.ingest import spool
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.shard_task import ShardResult, ShardTask
from genlab.data.stream.cache import BlockCache
from genlab.data.stream.order import Ints, RowSequence, group_slice
from genlab.data.stream.readahead import BlockGroups
from genlab.data.stream.shard_stream import PIECE, READ_AHEAD, ShardStream
from genlab.recipes.history_buffer import HistoryBuffer
from genlab.training.console import RunConsole
from genlab.training.plan import REMOTE_WINDOW, remote_window
from genlab.training.session import LocalSession
from genlab.training.step_context import NUMBERS_AT_ONCE, LoopStepContext

MEDIAN, ONE_IN_A_HUNDRED = 0.03, 0.4
"""Seconds of a request."""
SIGMA = math.log(ONE_IN_A_HUNDRED / MEDIAN) / 2.326
WINDOW = 256 << 20
BLOCKS, PASSES, PAGE = 1000, 8, 4096
MIB = 1 << 20
ROWS = 10**8
ROWS_OF_BLOCK = 41
FEW_WORKERS = ((16, 1, 0), (16, 8, 0), (64, 8, 0), (128, 8, 0), (256, 1, 0), (256, 8, 0))
MANY_WORKERS = (
    *((256, 100, 0), (256, 256, 0), (202, 101, 0), (254, 127, 0), (2048, 1, 0), (2048, 1000, 0), (2048, 1024, 0)),
    *((2048, 683, 0), (2048, 683, 2048)),
)
"""Batch, workers, and the window of rule 2 in MiB; 0 for the default."""
NODES = 8
FILES = (100_000, 1_000_000)
CHANCE = 0.005
"""Share by which two orders may differ by chance."""
LINKS = 60_000
"""Hard links of a file; ext4 allows 65,000."""


class Modelled:
    """As much of a data set as an order is made of: blocks of 1 MiB, and of about 41 rows."""

    def __init__(self, blocks: int) -> None:
        rows = np.rint(ROWS_OF_BLOCK * (1 + 0.1 * np.random.default_rng(0).standard_normal(blocks))).astype(np.int64)
        self.block_starts = np.concatenate([[0], np.cumsum(rows)])
        self.size = blocks * MIB

    def __len__(self) -> int:
        return int(self.block_starts[-1])

    def block_ranges(self, blocks: range, most: int) -> list[range]:
        """Cut blocks into ranges of at most so many bytes."""
        each = max(1, most // MIB)
        return [range(first, min(first + each, blocks.stop)) for first in range(blocks.start, blocks.stop, each)]


def sequence_of(
    shards: Any, batch: int, rank: int, workers: int, rule: int, window: int = 0
) -> tuple[BlockGroups, RowSequence]:
    """Return the block groups, and the rows of one worker; by default with the window of a remote data set."""
    window = (window << 20 or remote_window(batch)) if rule > 1 else REMOTE_WINDOW
    groups = BlockGroups.of(cast("ShardSet", shards), window, batch, rule)
    windowed = groups.order(cast("ShardSet", shards))
    return groups, RowSequence(len(shards), batch, 1, group_slice(batch, rank, workers, 1), windowed, rule)


def order_once(which: str, workers: int, rule: int) -> None:
    """Put rows of the third epoch in order, in this process; print seconds, microseconds a row, and MB."""
    shards = Modelled(round(ROWS / ROWS_OF_BLOCK)) if which == "windowed" else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if shards is None:
        sequence = RowSequence(ROWS, 2048, 1, group_slice(2048, workers - 1, workers, 1), None, rule)
    else:
        _, sequence = sequence_of(shards, 2048, workers - 1, workers, rule)
    most = PIECE if rule > 1 else ROWS  # Earlier versions made all of an epoch at once.
    began = time.process_time()
    pieces = sequence.pieces(sequence.taken_before(2), most)
    next(pieces)
    first, count, began = time.process_time() - began, 0, time.process_time()
    for _ in range(10 if rule > 1 else 0):
        count += len(next(pieces)[1])
    each = (time.process_time() - began) / count * 1e6 if count else math.nan
    print(first, each, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6)


def ordered(which: str, workers: int, rule: int) -> tuple[float, float, float]:
    """Return what :func:`order_once` prints, in a process of its own."""
    call = [sys.executable, __file__, "order", "--one", which, str(workers), str(rule)]
    first, each, peak = subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()
    return float(first), float(each), float(peak)


def print_order() -> None:
    """Print the table of ``order``."""
    print(f"{ROWS:,} rows, batch 2048; processor time; peak memory beside the data set's own\n")
    print("| order | workers | rule | before the first row of an epoch, s | a row after that, µs | peak, MB |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for which in ("whole", "windowed"):
        for workers in (1, 1024):
            for rule in (1, 2):
                first, each, peak = ordered(which, workers, rule)
                rest = "all at once" if math.isnan(each) else f"{each:.2f}"
                print(f"| {which} | {workers} | {rule} | {first:.3f} | {rest} | {peak:,.0f} |", flush=True)


def held(sequence: RowSequence, groups: BlockGroups, starts: Ints, ahead: int) -> tuple[float, float, float]:
    """Return what one worker reads and holds in its second and third epoch.

    Args:
        sequence: the worker's rows.
        groups: the block groups.
        starts: the first row of each block, and the number of rows.
        ahead: how many of its rows it reads ahead.

    Returns:
        Reads of blocks an epoch; the most blocks in memory; the mean distance between the first and the last row of a
        block, in rows of the global batches.
    """
    intervals: list[tuple[int, int]] = []
    until: dict[int, int] = {}
    reads, distances, taken, share = 0, [], 0, (sequence.slots.stop - sequence.slots.start) / sequence.batch
    for epoch in (1, 2):
        order = sequence.order(epoch)
        block = np.searchsorted(starts, order, side="right") - 1
        touched, first, inverse = np.unique(block, return_index=True, return_inverse=True)
        last = np.zeros(len(touched), np.int64)
        np.maximum.at(last, inverse, np.arange(len(order)))
        distances.append((last - first).mean() / share)
        _, group = np.unique(np.searchsorted(groups.starts, touched, side="right"), return_inverse=True)
        of_group = np.full(group.max() + 1, len(order))
        np.minimum.at(of_group, group, first)  # A group is fetched with its first block.
        for number, begin, end in zip(
            touched.tolist(), (taken + of_group[group] - ahead).tolist(), (taken + last).tolist(), strict=True
        ):
            again = number in until and until[number] >= begin
            reads += not again
            intervals.append((until[number] if again else begin, end))
            until[number] = end
        taken += len(order)
    edges = np.array(intervals)
    times, change = np.concatenate(edges.T), np.repeat([1, -1], len(edges))
    sort = np.lexsort((change, times))
    inside = (times[sort] > 0) & (times[sort] < taken - ahead)
    return reads / 2, float(np.cumsum(change[sort])[inside].max()), float(np.mean(distances))


def read_by_all(
    shards: Modelled, batch: int, workers: int, rule: int, window: int, most_ranks: int
) -> tuple[float, float, float]:
    """Return reads of a block by all workers, MiB in memory of one, and rows between; of many a few stand for all."""
    found, rows = [], 0
    for rank in range(0, workers, -(-workers // most_ranks)):
        groups, sequence = sequence_of(shards, batch, rank, workers, rule, window)
        share = (sequence.slots.stop - sequence.slots.start) / batch
        least = groups.least_ahead(cast("ShardSet", shards), batch)
        ahead = max(int(least * share), min(READ_AHEAD * len(shards) // shards.size, int(len(shards) * share)))
        found.append(held(sequence, groups, shards.block_starts, ahead))
        rows += sequence.taken_before(3) - sequence.taken_before(2)
    reads = sum(one[0] for one in found) / (shards.size // MIB) * len(shards) / rows
    return reads, max(one[1] for one in found), found[0][2]


def print_reads(blocks: int, batches: tuple[tuple[int, int, int], ...], most_ranks: int) -> None:
    """Print a table of ``reads``."""
    shards = Modelled(blocks)
    print(f"\n{blocks:,} blocks; of many workers a few are taken for all\n")
    print("| batch | workers | reads of a block: rule 1 | rule 2 | MiB in memory of a worker | | rows between | |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for batch, workers, window in batches:
        cells: list[list[str]] = []
        for rule in (1, 2):
            reads, most, between = read_by_all(shards, batch, workers, rule, window, most_ranks)
            cells.append([f"{reads:.2f}", f"{most:.0f}", f"{between:,.0f}"])
        row = [cell for pair in zip(*cells, strict=True) for cell in pair]
        which = f"{batch}, window {window} MiB" if window else f"{batch}"
        print(f"| {which} | {workers} | {' | '.join(row)} |", flush=True)


def spared_by_nodes(shards: Modelled, share: float, rule: int, workers: int) -> float:
    """Return the share of reads that the caches of nodes spare, which hold so much of the data set together.

    Args:
        shards: the data set.
        share: how much the caches of :data:`NODES` nodes hold.
        rule: the rule of the order.
        workers: how many nodes there are when it is read once more, a worker on each.
    """
    blocks = len(shards.block_starts) - 1

    def read(batch: int, rank: int, workers: int, rule: int, epoch: int) -> Ints:
        _, sequence = sequence_of(shards, batch, rank, workers, rule)
        order = sequence.order(epoch)
        block = np.searchsorted(shards.block_starts, order, side="right") - 1
        touched, first = np.unique(block, return_index=True)
        return cast("Ints", touched[np.argsort(first)])

    spared_reads = all_reads = 0
    for node in range(workers):
        # A cache keeps what it was given first.
        kept = read(256, node, NODES, rule, 0)[: int(blocks / NODES * share)]
        later = read(256, node, workers, rule, 3)
        spared_reads += len(np.intersect1d(kept, later))
        all_reads += len(later)
    return spared_reads / all_reads


def print_nodes() -> None:
    """Print the table of ``nodes``."""
    shards = Modelled(16_384)
    print(f"\n{len(shards.block_starts) - 1:,} blocks, {NODES} nodes of a worker each, batch 256\n")
    print("| of the data set in the caches of all nodes | reads spared: rule 1 | rule 2 | rule 2, a node less |")
    print("| --- | ---: | ---: | ---: |")
    for share in (0.25, 0.5, 1.0):
        cases = ((1, NODES), (2, NODES), (2, NODES - 1))
        found = [f"{spared_by_nodes(shards, share, rule, workers):.1%}" for rule, workers in cases]
        print(f"| {share:.0%} | {' | '.join(found)} |", flush=True)


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


def drawn_noise(numbers_at_once: int | None) -> tuple[float, float]:
    """Return the MB of noise maps that a worker of 100 draws for a step, and the processor's seconds."""
    workers, rank, batch = 100, 50, 256
    numbers = 16 + 2 * sum(4**level for level in range(3, 9))  # noise maps of 4x4, and twice 8x8 to 256x256
    step = LoopStepContext(
        LocalSession(RunConsole(), rank=rank, world_size=workers, device=torch.device("cpu")),
        index=0,
        batch=batch,
        rows_of=lambda rank: group_slice(batch, rank, workers, 1),
        key=(1,),
        precision="fp32",
        numbers_at_once=numbers_at_once,
    )
    began = time.process_time()
    own = len(step.noise("maps", numbers))
    seconds = time.process_time() - began
    return (batch if numbers_at_once is None else own) * numbers * 4 / 1e6, seconds


def gathered() -> tuple[float, float]:
    """Return the MB that a worker of 100 sends and receives of translations of a domain: all, and those wanted."""
    workers, side = 100, 256
    history, generator = HistoryBuffer(50, (1, 1, 3)), torch.Generator().manual_seed(0)
    wanted = [
        len(history.stored(torch.rand(workers, generator=generator), torch.randperm(50), seen)) for seen in (50,) * 100
    ]
    image = side * side * 3 * 4 / 1e6
    return 2 * workers * image, 2 * sum(wanted) / len(wanted) * image  # a ring moves sums twice


def print_noise() -> None:
    """Print the tables of ``noise``."""
    print("\n| noise maps, a worker of 100 | earlier versions | now |\n| --- | ---: | ---: |")
    (before, slow), (now, fast) = (drawn_noise(numbers_at_once) for numbers_at_once in (None, NUMBERS_AT_ONCE))
    print(f"| drawn, MB | {before:,.1f} | {now:,.1f} |\n| processor time, s | {slow:.3f} | {fast:.3f} |")
    before, now = gathered()
    print(f"| translations sent and received, one domain, MB | {before:,.0f} | {now:,.0f} |", flush=True)


class Limit(NamedTuple):
    """A figure, and what it is to be at most, or at least."""

    what: str
    found: float
    bound: float
    before: float | None = None
    """That of earlier versions, if it was measured, too."""
    at_least: bool = False
    why: str = "–"
    """Why it is not kept."""

    def __str__(self) -> str:
        """Return the row of the table."""
        kept = self.found >= self.bound if self.at_least else self.found <= self.bound
        bound = f"at {'least' if self.at_least else 'most'} {self.bound:,.4g}"
        before = "" if self.before is None else f"{self.before:,.4g}"
        end = "met | |" if kept else f"missed | {self.why} |"
        return f"| {self.what} | {before} | {self.found:,.4g} | {bound} | {end}"


def limits(given: argparse.Namespace) -> Iterator[Limit]:
    """Yield the figures of ``limits``."""
    # First: a process begins with the peak of the one that starts it.
    (before, _, earlier), (first, _, peak) = (ordered("windowed", 1024, rule) for rule in (1, 2))
    yield Limit("the order of 10^8 rows, 1,024 workers, MB", peak, 100, earlier)
    yield Limit("the same, before the first row, s", first, 1, before)
    with tempfile.TemporaryDirectory() as place:
        shards = shards_of(ROWS)
        for name, index in (("with", True), ("format-1", False)):
            write(shards, Path(place, name), index=index)
        del shards
        for case, what in (("the data set", "opening"), (FIRST_ROWS, "opening, and the first row of each block, of")):
            (seconds, mib), (before, earlier) = (measured(Path(place, name), case) for name in ("with", "format-1"))
            yield Limit(f"{what} a data set of 10^8 JPEGs, s", seconds, 1, before)
            yield Limit("the same, MB of a process", mib * MIB / 1e6, 200, earlier * MIB / 1e6)
    few, many = Modelled(8192), Modelled(65_536)
    for batch, workers in ((256, 100), (256, 256), (2048, 1024), (202, 101), (254, 127)):
        (before, _, _), (reads, _, _) = (read_by_all(many, batch, workers, rule, 0, 4) for rule in (1, 2))
        yield Limit(f"reads of a block in an epoch, batch {batch}, {workers} workers", reads, 1.1, before)
    window, _, _ = read_by_all(many, 2048, 683, 2, 2048, 4)
    (before, _, _), (reads, _, _) = (read_by_all(many, 2048, 683, rule, 0, 4) for rule in (1, 2))
    even, _, _ = read_by_all(many, 1366, 683, 2, 0, 4)
    why = f"683 workers do not divide 2,048 rows: a batch of 1,366 has {even:.2f}, a window of 2,048 MiB {window:.2f}"
    yield Limit("the same, batch 2048, 683 workers", reads, 1.1, before, why=why)
    why = "a block is held for each row of the batch, beside those read ahead"
    for batch, workers, _ in FEW_WORKERS:
        (_, before, near), (_, now, far) = (read_by_all(few, batch, workers, rule, 0, 1) for rule in (1, 2))
        which = f"batch {batch}, {workers} worker{'s' * (workers > 1)}"
        yield Limit(f"memory of a worker, {which}, MiB", now, before * (1 + CHANCE), before, why=why)
        yield Limit(f"rows between, {which}", far, near * (1 - CHANCE), near, at_least=True)
    for share in (0.25, 0.5, 0.75, 0.9):
        yield Limit(
            f"reads spared by a cache of {share:.0%}, of that share", spared(share) / share, 0.95, at_least=True
        )
    nodes = Modelled(16_384)
    for share in (0.25, 0.5, 0.75, 0.9):
        before, found = (spared_by_nodes(nodes, share, rule, NODES) / share for rule in (1, 2))
        yield Limit(f"the same by those of {NODES} nodes, {share:.0%} together", found, 0.95, before, at_least=True)
    before, stays = (spared_by_nodes(nodes, 1, rule, NODES - 1) for rule in (1, 2))
    why = "a worker has neighbouring rows of the batch, by which sums over workers have the same bits"
    yield Limit("blocks that stay where they are when one of 8 nodes goes", stays, 0.85, before, at_least=True, why=why)
    before, drawn = (drawn_noise(numbers_at_once)[0] for numbers_at_once in (None, NUMBERS_AT_ONCE))
    yield Limit("noise maps that one of 100 workers draws for a step, MB", drawn, before / 50, before)
    before, moved = gathered()
    yield Limit("translations that it sends and receives, MB", moved, before / 2, before)
    for which, memory, _, _ in listed():
        yield Limit(f"memory of the process that leads an ingest of {which} files, MiB", memory, 512)
    if given.data:
        shards = ShardSet.open(given.data).split("train")
        share = waiting(shards, given.workers, given.batch, given.rows_per_second, given.seconds, READ_AHEAD)
        yield Limit(f"one of {given.workers} workers waits for a distant store", share, 0.03)


def link_files(folder: Path, have: int, count: int) -> None:
    """Have ``count`` files of 24 KiB in a folder that has ``have``, in 1,000 folders of classes."""
    for number in range(have, count):
        file = folder / f"class-{number % 1000:03d}" / f"image-{number:08d}.jpg"
        linked = folder.parent / f"{number // LINKS}.jpg"
        if number < 1000:
            file.parent.mkdir(parents=True)
        if number % LINKS == 0:
            Image.new("RGB", (64, 64), (number // LINKS, 0, 0)).save(linked)
            with linked.open("ab") as stream:
                stream.truncate(IMAGE)  # A decoder ignores what follows the end of the image.
        os.link(linked, file)


def listing_once(folder: str, parts: int) -> None:
    """Ingest without making shards; print peak memory in MiB, MiB of files that have no name, and seconds.

    Args:
        folder: the images.
        parts: how many parts to cut usual runs and shards into.
    """
    shard, on_disk = shards_of(1)[0], 0

    def make(tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
        nonlocal on_disk
        links = [file for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
        on_disk = sum(link.stat().st_size for link in links if str(link.readlink()).endswith(" (deleted)"))
        for task in tasks:
            pickle.dumps(task)
            file = dataclasses.replace(shard, file=Path(task.path).name, split=task.split)
            yield ShardResult(file, ((64, 64, 3),), {}, ())

    with tempfile.TemporaryDirectory() as dest:
        ingest(IngestConfig(f"{folder}/class-000", f"{dest}/few", test_fraction=0.1), make)  # for what is imported late
        spool.RUN_CHUNKS = round(spool.RUN_CHUNKS / parts)
        config = IngestConfig(folder, f"{dest}/all", label="folder", test_fraction=0.1, shard_size=64 / parts)
        forget_peak_memory()
        before, began = peak_memory(), time.process_time()
        ingest(config, make)
        print(peak_memory() - before, on_disk / MIB, time.process_time() - began)


def listed() -> Iterator[tuple[str, float, float, float]]:
    """Yield numbers of files in words, and of each MiB in memory, MiB on disk, and the processor's seconds."""
    have = 0
    with tempfile.TemporaryDirectory() as place:
        for count, parts in (*((count, 1) for count in FILES), (FILES[-1], ROWS // FILES[-1])):
            link_files(Path(place, "files"), have, count)
            have = count
            call = [sys.executable, __file__, "listing", "--one", f"{place}/files", str(parts), ""]
            said = subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            which = f"{count:,}" if parts == 1 else f"{count:,}, in as many runs and shards as {count * parts:,}"
            memory, on_disk, seconds = map(float, said.split())
            yield which, memory, on_disk, seconds


def print_listing() -> None:
    """Print the table of ``listing``."""
    print("\n| files | memory of the driver, MiB | on disk, MiB | processor time, s |")
    print("| ---: | ---: | ---: | ---: |")
    for which, *figures in listed():
        print(f"| {which} | {' | '.join(f'{figure:,.0f}' for figure in figures)} |", flush=True)


def main() -> None:
    """Measure, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "part",
        nargs="*",
        default=["order", "reads", "nodes", "cache"],
        help="by default order, reads, nodes and cache",
    )
    parser.add_argument("--data", help="a local data set, for waiting")
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rows-per-second", type=float, default=500, help="of one worker")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5, help="of predicted")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--plan", action="store_true", help="print the plan")
    add_options(parser)
    given = parser.parse_args()
    if given.one and given.part == ["listing"]:
        listing_once(given.one[0], int(given.one[1]))
        return
    if given.one:
        order_once(given.one[0], int(given.one[1]), int(given.one[2]))
        return
    print(f"$ {command()}\n", flush=True)
    if given.plan:
        print_plan(given)
        return
    print(f"{machine(sorted(os.sched_getaffinity(0)))}\n{versions('torch', 'pyarrow', 'numpy')}\n", flush=True)
    if "order" in given.part:
        print_order()
    if "reads" in given.part:
        print_reads(8192, FEW_WORKERS, 1)
        print_reads(65_536, MANY_WORKERS, 4)
    if "nodes" in given.part:
        print_nodes()
    if "noise" in given.part:
        print_noise()
    if "listing" in given.part:
        print_listing()
    if "waiting" in given.part:
        print_waiting(given)
    if "limits" in given.part:
        print("| | earlier versions | now | bound | | why |\n| --- | ---: | ---: | --- | --- | --- |")
        for limit in limits(given):
            print(limit, flush=True)
    if "predicted" in given.part:
        print_predictions(given.rounds)
    if "cache" in given.part:
        print("\n| blocks in the cache | reads spared |\n| --- | --- |")
        for share in (0.25, 0.5, 0.75, 0.9):
            print(f"| {share:.0%} | {spared(share):.1%} |", flush=True)


def print_waiting(given: argparse.Namespace) -> None:
    """Print the table of ``waiting``."""
    shards = ShardSet.open(given.data).split("train")
    print(f"{len(shards):,} rows of {shards.size / len(shards) / 1024:.1f} KiB; one of {given.workers} workers, batch")
    print(f"{given.batch}, {given.rows_per_second:g} rows/s a worker\n")
    print("| read-ahead a worker | waiting |\n| --- | --- |")
    for mib in (0, 4, 8, 16, 32):
        found = waiting(shards, given.workers, given.batch, given.rows_per_second, given.seconds, int(mib * 2**20))
        print(f"| {mib} MiB | {found:.1%} |", flush=True)


if __name__ == "__main__":
    main()
