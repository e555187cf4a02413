"""``genlab ingest`` beside other writers and a bare loop that reads, checksums and writes.

    python benchmarks/ingest.py

5,000 JPEG files become a data set whose images keep their bytes. Each contender runs in a process of its own, pinned
to the same cores, and writes one whole data set to warm up, which must hold every image; then they take turns, round by
round. The files lie in the page cache. A turn ends when all that was written is on the disk (fsync). Starting
processes and Ray is not part of it; Ray's start is told apart.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import formats
import xxhash
from rig import CACHE, Process, alternate, command, figure, machine, ratio, say, spread, table, versions
from samples import Samples

COUNT = 5000
SHARD_BYTES = 64 << 20


@dataclass(frozen=True)
class Writer:
    """One way to write a data set."""

    write: Callable[[Samples, Path], object]
    package: str | None = None
    """Whose version to print."""
    decodes: bool = False
    """Whether every image is decoded to see that it is sound."""
    checksums: str = ""
    """What it stores to find damage by."""


def bare_loop(samples: Samples, path: Path) -> None:
    """Read each file, checksum it, append it to a file of 64 MiB, checksum that; on the disk before the next."""
    number, held, whole = 0, 0, sha256()
    out = (path / "0").open("wb")

    def finish() -> None:
        out.flush()
        os.fsync(out.fileno())
        out.close()
        (path / f"{number}.sha256").write_text(whole.hexdigest())

    for file in samples.files():
        data = Path(file).read_bytes()
        if held + len(data) > SHARD_BYTES:
            finish()
            number, held, whole = number + 1, 0, sha256()
            out = (path / str(number)).open("wb")
        xxhash.xxh3_64_digest(data)
        whole.update(data)
        out.write(data)
        held += len(data)
    finish()


def genlab(samples: Samples, path: Path, *, validate: bool, ray: bool = False) -> None:
    """The one place that knows genlab's interface."""
    from genlab.data.ingest.ingest import IngestConfig, ingest
    from genlab.data.ingest.shard_makers import make_locally, make_on_ray

    config = IngestConfig(f"folder:{samples.folder() / 'all'}", str(path), encoding="encoded", validate=validate)
    manifest = ingest(config, make_on_ray if ray else make_locally)
    assert manifest.rows == samples.count


def read_file(path: str) -> bytes:
    """For litdata's workers."""
    return Path(path).read_bytes()


def litdata_optimize(samples: Samples, path: Path) -> None:
    """As its documentation has it, with a worker process a core, whose start is part of it."""
    from litdata import optimize

    workers = len(os.sched_getaffinity(0))
    optimize(read_file, samples.files(), str(path), chunk_bytes=SHARD_BYTES, num_workers=workers, verbose=False)


WRITERS = {
    "bare loop": Writer(bare_loop, checksums="SHA-256 a file, xxh3 an image"),
    "genlab": Writer(
        lambda samples, path: genlab(samples, path, validate=True), decodes=True, checksums="SHA-256, xxh3 a block"
    ),
    "genlab --no-validate": Writer(
        lambda samples, path: genlab(samples, path, validate=False), checksums="SHA-256, xxh3 a block"
    ),
    "genlab on Ray": Writer(
        lambda samples, path: genlab(samples, path, validate=True, ray=True),
        decodes=True,
        checksums="SHA-256, xxh3 a block",
    ),
    "genlab on Ray --no-validate": Writer(
        lambda samples, path: genlab(samples, path, validate=False, ray=True), checksums="SHA-256, xxh3 a block"
    ),
    "litdata, optimize": Writer(litdata_optimize, "litdata"),
    "litdata, cache writer": Writer(formats.write_litdata, "litdata"),
    "mosaicml-streaming": Writer(formats.write_mosaicml, "mosaicml-streaming", checksums="xxh3 a shard"),
    "webdataset": Writer(formats.write_webdataset, "webdataset"),
    "Hugging Face datasets": Writer(formats.write_hugging_face, "datasets"),
    "Parquet, pyarrow": Writer(formats.write_parquet, "pyarrow", checksums="CRC-32 a page"),
}


def main() -> None:
    """Run all writers and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="cores to pin contenders to")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--writers", nargs="*", choices=WRITERS, default=list(WRITERS), metavar="NAME")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the samples are kept, and written to")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    samples = Samples("jpeg", COUNT, options.cache)
    if options.child:
        _child(samples, options.child)
        return
    print(f"`{command()}`\n\n{machine(range(options.threads))}. {versions('pyarrow', 'ray', 'xxhash')}.")
    print(f"{samples.origin}, {sum(map(os.path.getsize, samples.files())) / 2**20:.1f} MiB.\n", flush=True)
    processes: dict[str, Process] = {}
    absent = []
    for name in options.writers:
        log = options.cache / "logs" / f"ingest-{name.replace('/', ' ')}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            words = ["ingest.py", f"--child={name}", f"--cache={options.cache}"]
            processes[name] = Process(words, range(options.threads), log)
        except RuntimeError as error:
            absent.append(f"Left out: {name}: {error}.")
            continue
        say(f"{name}: warm")
    cpu: dict[str, list[float]] = {name: [] for name in processes}

    def turn(name: str) -> float:
        answer = processes[name].ask()
        cpu[name].append(answer["cpu"])
        return float(answer["rate"])

    found = alternate({name: lambda name=name: turn(name) for name in processes}, options.rounds)
    rows = []
    for name in sorted(processes, key=lambda name: -statistics.median(found[name])):
        writer = WRITERS[name]
        rows.append(
            [
                f"**{name}**" if name.startswith("genlab") else name,
                version(writer.package) if writer.package else "",
                "yes" if writer.decodes else "no",
                writer.checksums or "none",
                spread(found[name]),
                figure(1e6 * statistics.median(cpu[name])),
                ratio(found[name], found["bare loop"]) if "bare loop" in found else "",
            ]
        )
    head = ["writer", "version", "decodes", "checksums", "images/s: median (min–max)", "CPU µs/image", "of bare loop"]
    print(table(head, rows))
    starts = [process.facts["ray_start"] for process in processes.values() if process.facts["ray_start"] is not None]
    if starts:
        print(f"\nRay's own start, not in the figures: {statistics.median(starts):.1f} s.")
    for line in absent:
        print(line)
    for process in processes.values():
        process.close()


def _child(samples: Samples, name: str) -> None:
    """One writer: warm up, then a data set for each line of standard input."""
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    dest = samples.cache / "written" / name.replace(" ", "-")
    start = None
    if "Ray" in name:
        import logging

        import ray

        began = time.perf_counter()
        cores = len(os.sched_getaffinity(0))
        ray.init(num_cpus=cores, include_dashboard=False, logging_level=logging.ERROR)
        start = time.perf_counter() - began
    _write(samples, name, dest)
    # Encoded bytes do not shrink: what holds every image is as large as all of them.
    held, least = _size(dest), sum(map(os.path.getsize, samples.files()))
    if held < least:
        raise SystemExit(f"{held} bytes written of {least} of images")
    print(json.dumps({"ray_start": start, "bytes": held}), file=report)
    for _ in sys.stdin:
        shutil.rmtree(dest)
        before, began = _cpu(), time.perf_counter()
        _write(samples, name, dest)
        seconds = time.perf_counter() - began
        print(json.dumps({"rate": samples.count / seconds, "cpu": (_cpu() - before) / samples.count}), file=report)
    shutil.rmtree(dest, ignore_errors=True)


def _write(samples: Samples, name: str, dest: Path) -> None:
    shutil.rmtree(dest, ignore_errors=True)
    dest.mkdir(parents=True)
    WRITERS[name].write(samples, dest)
    for path in [*dest.rglob("*"), dest]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _cpu() -> float:
    """CPU seconds of this process, its living children and those it has waited for."""
    import psutil

    mine: Any = os.times()
    total = float(mine.user + mine.system + mine.children_user + mine.children_system)
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
