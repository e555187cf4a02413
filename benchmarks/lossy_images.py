"""What ``genlab ingest --encoding jpeg`` and ``webp`` cost and save: ``python benchmarks/lossy_images.py PHOTOS``.

The photos become squares, as raw pixels and as files of several qualities. Printed for each: bytes a picture, the PSNR
of what is read against the raw pixels (the mean over pictures), and the rows that a stream reads and decodes from the
page cache in a second of a processor, the median of several passes that take turns.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from rig import command, machine, versions

from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.stream.shard_stream import ShardStream

CASES = [("raw", None), ("encoded", None)] + [(kind, quality) for kind in ("jpeg", "webp") for quality in (75, 90, 95)]
BATCH = 16
PASSES = 5


def psnr(shards: ShardSet, raw: ShardSet) -> float:
    """Return the mean PSNR in dB, infinite for equal pictures."""
    found = []
    for rows in raw.row_ranges(64):
        error = (shards.read(rows).image.astype(np.float64) - raw.read(rows).image) ** 2
        found.append(10 * np.log10(255**2 / np.maximum(error.mean(axis=(1, 2, 3)), 1e-12)))
    return float(np.concatenate(found).mean())


def rate(shards: ShardSet) -> float:
    """Return rows a second of a processor, in one pass."""
    with ShardStream(shards, batch=BATCH, seed=0) as stream:
        next(stream)
        batches, began = max(1, len(shards) // BATCH - 1), time.process_time()
        for _ in range(batches):
            next(stream)
        return batches * BATCH / (time.process_time() - began)


def main() -> None:
    """Ingest, measure, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="a folder of photos, or another source of ingest")
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    print(f"$ {command()}\n{machine(sorted(os.sched_getaffinity(0)))}\n{versions('pillow', 'simplejpeg', 'numpy')}\n")
    with tempfile.TemporaryDirectory() as place:
        sets: list[ShardSet] = []
        for kind, quality in CASES:
            dest = str(Path(place, f"{kind}-{quality}"))
            ingest(IngestConfig(given.photos, dest, size=given.size, encoding=kind, quality=quality))
            sets.append(ShardSet.open(dest, threads=1))
        rates = [[rate(shards) for shards in sets] for _ in range(PASSES)]
        print(f"{len(sets[0]):,} photos at {given.size}x{given.size}\n")
        print(
            "| stored as | bytes a picture | of raw | PSNR | rows a core-second |\n| --- | ---: | ---: | ---: | ---: |"
        )
        for number, ((kind, quality), shards) in enumerate(zip(CASES, sets, strict=True)):
            size, loss = shards.size / len(shards), psnr(shards, sets[0])
            name = kind if quality is None else f"{kind}, quality {quality}"
            speed = statistics.median(one[number] for one in rates)
            share, decibels = size / (sets[0].size / len(sets[0])), "exact" if loss > 100 else f"{loss:.1f} dB"
            print(f"| {name} | {size:,.0f} | {share:.0%} | {decibels} | {speed:,.0f} |")


if __name__ == "__main__":
    main()
