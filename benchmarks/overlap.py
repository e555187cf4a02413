"""How much of the gradients' way to the other workers hides behind the backward pass, over a simulated link.

``python benchmarks/overlap.py`` takes steps of a family on one worker whose sums with another take a simulated link: so
many bytes a second, one sum after the other, while the worker goes on computing. It prints the time the link was busy
and the time the worker waited for it, with buckets as they are, and with each network's gradients in one sum after the
backward pass.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import torch
from rig import command, machine, say, table, versions
from torch import Tensor

from genlab.core.config import override
from genlab.recipes.recipe import recipe_type
from genlab.training import gradients
from genlab.training.console import RunConsole
from genlab.training.loop import train
from genlab.training.plan import make_plan, start_or_resume
from genlab.training.session import LocalSession

LATENCY = 100e-6
"""Seconds of a sum of no bytes."""
OPTIONS = {
    "vae": {"run.batch": 128},
    "cyclegan": {"run.batch": 2, "model.width": 32, "objective.history": 0},
}


class Link:
    """Carries one sum after another."""

    def __init__(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._free = 0.0
        self.busy = self.waited = 0.0

    def start_sum(self, tensor: Tensor) -> Callable[[], object]:
        """Begin a sum; the returned function waits for its end."""
        seconds = LATENCY + tensor.nbytes / self._bandwidth
        self._free = max(self._free, time.perf_counter()) + seconds
        self.busy += seconds
        due = self._free

        def wait() -> None:
            before = time.perf_counter()
            time.sleep(max(0.0, due - before))
            self.waited += time.perf_counter() - before

        return wait


def main() -> None:
    """Take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gbit", type=float, default=1.0, help="of the link, in a second")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    print(f"`{command()}`\n\n{machine(range(os.cpu_count() or 1))}. {versions('torch')}.\n")
    rows = []
    for family in OPTIONS:
        for name, bucket_bytes in (("buckets", gradients.BUCKET_BYTES), ("one sum a network", 1 << 62)):
            link, seconds = _train(family, options.steps, bucket_bytes, options.gbit)
            busy, waited = (1e3 * part / options.steps for part in (link.busy, link.waited))
            hidden = f"{1 - waited / busy:.0%}"
            rows.append([family, name, f"{busy:.0f}", f"{waited:.0f}", hidden, f"{1e3 * seconds / options.steps:.0f}"])
            say(" ".join(rows[-1]))
    head = ["family", "", "link busy, ms a step", "worker waits, ms a step", "hidden", "ms a step"]
    print(table(head, rows))


def _train(family: str, steps: int, bucket_bytes: int, gbit: float) -> tuple[Link, float]:
    """Train on rank 0 of two, of which the other does not exist; return the link and the seconds of all steps."""
    link = Link(gbit * 1e9 / 8)
    with tempfile.TemporaryDirectory(prefix="genlab-overlap-") as folder:
        run = {"run.storage": folder, "run.workers": 0, "run.steps": steps, "run.figures_every": 10**6}
        config = override(recipe_type(family).config_type(), OPTIONS[family] | run)
        plan = make_plan(family, config)
        start_or_resume(plan)
        session = LocalSession(RunConsole(), threads=1, world_size=2, device=torch.device("cpu"))
        with (
            mock.patch.object(gradients, "BUCKET_BYTES", bucket_bytes),
            mock.patch.object(gradients, "start_sum_over_ranks", link.start_sum),
        ):
            began = time.perf_counter()
            train(plan, session)
            return link, time.perf_counter() - began


if __name__ == "__main__":
    main()
