"""What it takes to open a data set of 100 million JPEGs: ``python benchmarks/scale_index.py``.

Written are the manifest and the index that an ingest of so many images of 24 KiB would write, without the shards. Each
line is a process of its own, which opens them: with the index, and as data sets of format 1 were, whose manifest lists
all blocks. Printed are the seconds of its processor after all imports, and the most memory that it held.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rig import command, machine, versions
from upath import UPath

from genlab.data.format.index import IndexWriter
from genlab.data.format.manifest import Block, Manifest, Origin, Shard

IMAGE, BLOCK, SHARD = 24 << 10, 1 << 20, 64 << 20
"""Bytes of an image, of a block and of a shard."""

FIRST_ROWS = "and the first row of each block"
CASES = {
    "nothing but imports": "",
    "the data set": "",
    "and the blocks of one shard": "shards.index.blocks(shards.shards[len(shards.shards) // 2])",
    FIRST_ROWS: "shards.block_starts",
}
"""What is done → the code that does it, after opening."""

OPEN = """
import re, time
from pathlib import Path
import pyarrow
from genlab.data.format.shards import ShardSet
began = time.process_time()
{open}
{code}
seconds = time.process_time() - began
print(seconds, int(re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def shards_of(images: int) -> list[Shard]:
    """Return the shards, with blocks of random checksums."""
    rng = np.random.default_rng(0)
    count, rows, schema = SHARD // BLOCK, BLOCK // IMAGE, Block(8, 480, 0, "0" * 16)
    found = []
    for number in range(-(-images // (count * rows))):
        sizes = (BLOCK - 8 * rng.integers(0, 2000, count)).tolist()
        offsets = np.cumsum([488, *sizes]).tolist()
        sums = [f"{one:016x}" for one in rng.integers(0, 2**64, count, np.uint64).tolist()]
        blocks = tuple(map(Block, offsets, sizes, [rows] * count, sums))
        file, sha256 = f"shard-{number:05d}.arrow", rng.bytes(32).hex()
        found.append(Shard(file, "train", count * rows, offsets[-1] + 500, sha256, schema, blocks))
    return found


def write(shards: list[Shard], folder: Path, *, index: bool) -> None:
    """Write the manifest of shards, and their index or not."""
    folder.mkdir()
    origin, entry, entries = Origin("folder", "/photos", {}, {}), None, tuple(shards)
    if index:
        writer = IndexWriter()
        for shard in shards:
            writer.add(shard)
        entry, entries = writer.save(UPath(folder))
    Manifest("encoded", 3, (256, 256, 3), (), (), entries, origin, {}, index=entry).save(UPath(folder))


def measured(folder: Path, case: str) -> tuple[float, float]:
    """Return the processor's seconds and the most MiB of memory of a process that does ``case``."""
    opened = "" if case == next(iter(CASES)) else f"shards = ShardSet.open({str(folder)!r})"
    code = OPEN.format(open=opened, code=CASES[case])
    seconds, memory = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    return float(seconds), float(memory)


def main() -> None:
    """Write, open, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000_000)
    given = parser.parse_args()
    print(f"$ {command()}\n{machine(sorted(os.sched_getaffinity(0)))}\n{versions('pyarrow', 'numpy')}\n", flush=True)
    with tempfile.TemporaryDirectory() as place:
        shards = shards_of(given.images)
        for name, index in (("with", True), ("format-1", False)):
            write(shards, Path(place, name), index=index)
        blocks = sum(len(shard.blocks) for shard in shards)
        sizes = {str(file.relative_to(place)): file.stat().st_size / 1e6 for file in sorted(Path(place).glob("*/*"))}
        print(f"{given.images:,} images, {len(shards):,} shards, {blocks:,} blocks")
        print(json.dumps({name: f"{size:,.0f} MB" for name, size in sizes.items()}), "\n")
        del shards
        print("| opened | with an index: seconds | MiB | format 1: seconds | MiB |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for case in CASES:
            cells = [measured(Path(place, name), case) for name in ("with", "format-1")]
            print(f"| {case} | " + " | ".join(f"{s:.2f} | {mib:,.0f}" for s, mib in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
