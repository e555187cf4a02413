"""What two workers of one run make, against two runs of one worker each that know nothing of each other.

``python benchmarks/workers.py`` trains a CycleGAN on drawn scenes under Ray Train: once with two workers of one thread,
and then twice at the same time with one worker of one thread, each with as many rows as a worker of the pair had. What
the pair lacks in throughput is the price of adding up gradients and of waiting for each other.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rig import command, machine, say, spread, table, versions

from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.training.tracking import read_metrics

WARM_UP = 2
"""Lines of metrics.jsonl that do not count."""
SAME = ["--run.log-every", "5", "--run.figures-every", "1000000", "--run.checkpoint-every", "1000000"]


def main() -> None:
    """Take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="of the images")
    parser.add_argument("--rows", type=int, default=2, help="of a worker in a step")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("options", nargs="*", default=[], help="of jobs/cyclegan.py, after --")
    options = parser.parse_args()
    print(f"`{command()}`\n\n{machine(range(os.cpu_count() or 1))}. {versions('torch', 'ray')}.\n")
    pair, alone = list[float](), list[float]()
    with tempfile.TemporaryDirectory(prefix="genlab-workers-") as folder:
        data = []
        for domain in ("a", "b"):
            place = f"{folder}/{domain}"
            ingest(IngestConfig(f"synthetic:scenes-{domain}", place, size=options.size, count=200))
            data += [f"--data.{domain}", place]
        same = [*data, *SAME, "--run.storage", folder, "--run.steps", str(options.steps), *options.options]
        for number in range(options.rounds):
            pair.append(_throughput(folder, [(f"pair-{number}", 2, 2 * options.rows)], same))
            alone.append(_throughput(folder, [(f"{who}-{number}", 1, options.rows) for who in ("one", "other")], same))
            say(f"two workers {pair[-1]:.2f} pairs/s, two runs {alone[-1]:.2f}")
    rows = [
        ["two workers", spread(pair), f"{statistics.median(pair) / statistics.median(alone):.3f}"],
        ["two runs, together", spread(alone), "1"],
    ]
    print(table(["", "pairs of images a second: median (min–max)", "share"], rows))


def _throughput(folder: str, runs: list[tuple[str, int, int]], same: list[str]) -> float:
    """Pairs a second of runs of so many workers and rows that go on at the same time, together."""
    job = str(Path(__file__).parents[1] / "jobs" / "cyclegan.py")
    processes = []
    for name, workers, batch in runs:
        own = ["--run.name", name, "--run.workers", str(workers), "--run.threads", "1", "--run.batch", str(batch)]
        processes.append(subprocess.Popen([sys.executable, job, *same, *own], stdout=subprocess.DEVNULL))
    if any(process.wait() for process in processes):
        sys.exit("a run failed")
    speeds = []
    for name, _, _ in runs:
        lines = [line for line in read_metrics(Path(folder) / name / "metrics.jsonl") if line["kind"] == "train"]
        speeds.append(statistics.median(line["images_per_second"] for line in lines[WARM_UP:]))
    return sum(speeds)


if __name__ == "__main__":
    main()
