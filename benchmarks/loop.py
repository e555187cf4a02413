"""The training loop against the same step in a bare script: what do the loop, Ray Train and checkpoints cost?

``python benchmarks/loop.py`` starts one Ray Train worker (of a Ray of its own), and in it takes turns: a bare script
(batches ready in memory, forward, backward, ``torch.optim.Adam``, nothing else), the loop, and the loop with a
checkpoint every hundred steps. All do the same step, on as many threads. Prints medians over windows of steps and
their ratios to the bare script.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.core.config import override
from genlab.data.format.shards import ShardSet
from genlab.data.stream.batches import read_batch
from genlab.recipes.recipe import Batches, Recipe, recipe_type
from genlab.training.launch import launch
from genlab.training.loop import train
from genlab.training.plan import Plan, make_plan, start_or_resume
from genlab.training.session import Session
from genlab.training.torch_settings import set_up_torch
from genlab.training.tracking import read_metrics

WINDOW = 50
"""Steps that are timed together."""
CHECKPOINTS = 100
"""Steps between checkpoints."""
BATCHES = 8
"""Batches that the bare script goes through again and again."""
DATA = {"vae": {"images": "synthetic:digits"}, "cyclegan": {"a": "synthetic:scenes-a", "b": "synthetic:scenes-b"}}


class BareStep:
    """A step of one process: :class:`genlab.recipes.recipe.StepContext` as short as it can be."""

    index = 0

    def __init__(self, recipe: Recipe[Any], rate: float, betas: tuple[float, float], rows: int) -> None:
        self._rows = rows
        self.rows = slice(0, rows)
        self._left: dict[str, Any] = {}
        self._phases = recipe.phases()
        self._optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=betas, fused=True)
            for name, network in recipe.networks.items()
        }

    def autocast(self) -> AbstractContextManager[Any]:
        """Nothing: fp32."""
        return nullcontext()

    def noise(self, name: str, *shape: int) -> Tensor:
        """Noise for the batch."""
        return torch.randn(self._rows, *shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Noise for the batch."""
        return torch.rand(self._rows, *shape)

    def gather(
        self, tensor: Tensor, wanted: Collection[int] | None = None
    ) -> Callable[[], tuple[Sequence[int], Tensor]]:
        """There is one process."""
        rows = [row for row in range(self._rows) if wanted is None or row in wanted]
        return lambda: (rows, tensor.detach()[rows])

    def leave(self, name: str, value: Any) -> None:
        """Keep a value for a later phase."""
        self._left[name] = value.detach() if isinstance(value, Tensor) else value

    def left(self, name: str) -> Any:
        """Return a value that an earlier phase left."""
        return self._left[name]

    def take(self, batches: Batches) -> None:
        """Forward, backward, Adam for each network."""
        for phase in self._phases:
            loss, _ = phase.loss(batches, self)
            optimizer = self._optimizers[phase.network]
            optimizer.zero_grad()
            loss.backward(inputs=[p for group in optimizer.param_groups for p in group["params"]])
            optimizer.step()


@dataclass(frozen=True)
class Turns:
    """Called in the Ray Train worker before it trains: the benchmark itself."""

    rounds: int
    windows: int
    out: str

    def __call__(self, plan: Plan, session: Session) -> None:
        """Take turns, and write down the seconds a step of each window."""
        set_up_torch(plan.run.exact, session.threads)  # threads and determinism are not what is compared
        seconds: dict[str, list[float]] = {"bare script": [], "loop": [], f"loop, checkpoint every {CHECKPOINTS}": []}
        bare, loop, saving = seconds
        for number in range(self.rounds):
            seconds[bare] += self._bare(plan)
            seconds[loop] += self._loop(plan, session, f"loop-{number}", checkpoint_every=10**6)
            seconds[saving] += self._loop(plan, session, f"saving-{number}", checkpoint_every=CHECKPOINTS)
        Path(self.out).write_text(json.dumps(seconds))

    def _bare(self, plan: Plan) -> list[float]:
        recipe = recipe_type(plan.family)(plan.config, {name: domain.info for name, domain in plan.domains.items()})
        recipe.train()
        batch, optimization = plan.run.batch, plan.config.optimization
        step = BareStep(recipe, optimization.learning_rate, (optimization.beta1, optimization.beta2), batch)
        batches = []
        for number in range(BATCHES):
            rows = np.arange(number * batch, (number + 1) * batch)
            domains = {}
            for name, domain in plan.domains.items():
                shards = ShardSet.open(domain.url).split("train")
                domains[name] = read_batch(shards, rows % len(shards))
            batches.append(domains)
        times = [time.perf_counter()]
        for number in range((self.windows + 1) * WINDOW):
            step.take(batches[number % BATCHES])
            if (number + 1) % WINDOW == 0:
                times.append(time.perf_counter())
        return [(end - begin) / WINDOW for begin, end in pairwise(times[1:])]

    def _loop(self, plan: Plan, session: Session, name: str, checkpoint_every: int) -> list[float]:
        changes = {"run.name": name, "run.checkpoint_every": checkpoint_every}
        changes |= {"run.steps": (self.windows + 2) * WINDOW}
        plan = make_plan(plan.family, override(plan.config, changes))
        start_or_resume(plan)
        train(plan, session)
        lines = read_metrics(Path(plan.directory) / "metrics.jsonl")
        times = [line["time"] for line in lines if line["kind"] == "train"]
        # Neither the first window, which warms up, nor the last, after which everything is written.
        return [(end - begin) / WINDOW for begin, end in pairwise(times[:-1])]


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=DATA, default="vae")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--windows", type=int, default=6, help=f"windows of {WINDOW} steps a turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genlab-loop-") as folder:
        changes: dict[str, Any] = {
            "run.storage": folder,
            "run.name": "benchmark",
            "run.workers": 1,
            "run.threads": options.threads,
            "run.batch": options.batch,
            "run.steps": 1,
            "run.log_every": WINDOW,
            "run.figures_every": 10**6,
        }
        for name, source in DATA[options.family].items():
            data = f"{folder}/data-{name}"
            ingest = ["genlab", "ingest", source, data, "--count", "4000", "--test-fraction", "0"]
            subprocess.run(ingest, check=True, capture_output=True)
            changes[f"data.{name}"] = data
        config = override(recipe_type(options.family).config_type(), changes)
        launch(options.family, config, Turns(options.rounds, options.windows, f"{folder}/seconds.json"))
        seconds = json.loads(Path(f"{folder}/seconds.json").read_text())
    bare = statistics.median(next(iter(seconds.values())))
    print(
        f"\n{options.family}, batch {options.batch}, {options.threads} thread(s), medians of "
        f"{options.rounds * options.windows} windows of {WINDOW} steps"
    )
    print("| | ms a step | to the bare script |\n| --- | ---: | ---: |")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"| {name} | {1000 * median:.2f} | {median / bare:.3f} |")


if __name__ == "__main__":
    main()
