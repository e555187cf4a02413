"""What a checkpoint costs: how long the loop stands still, how long the write takes, and how much memory it needs.

``python benchmarks/checkpoint.py [--megabytes 1000] [--device cuda]``. The first save allocates, later ones do not.
"""

import argparse
import resource
import statistics
import tempfile
import time

import torch

from genlab.core.storage import locate
from genlab.training.checkpoints import Checkpoints


def main() -> None:
    """Measure, print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--saves", type=int, default=6)
    options = parser.parse_args()
    count = 200
    shape = (options.megabytes * 1_000_000 // 4 // count,)
    tensors = {f"layer.{number}": torch.full(shape, 1.0, device=options.device) for number in range(count)}
    before = peak_megabytes()
    stalls, writes = [], []
    with tempfile.TemporaryDirectory(dir=".") as folder, Checkpoints(locate(folder), keep=1) as checkpoints:
        for step in range(options.saves):
            began = time.perf_counter()
            checkpoints.save(step, tensors, {})
            stalls.append(time.perf_counter() - began)
            checkpoints.wait()
            writes.append(time.perf_counter() - began - stalls[-1])
    print(
        f"{options.megabytes} MB on {options.device}: stall {statistics.median(stalls[1:]):.3f} s "
        f"(first {stalls[0]:.3f}), write {statistics.median(writes[1:]):.2f} s, "
        f"peak memory +{peak_megabytes() - before:.0f} MB"
    )


def peak_megabytes() -> float:
    """The most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
