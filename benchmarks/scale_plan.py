"""The plan of ``benchmarks/scale.py --plan``, and what its model predicts of the loop on this machine.

The model is in ``scale_model.py``. Each figure that it is given is an option; a table says where its default is from.
"""

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from rig import alternate, figure, spread, table
from scale_model import Cluster, Link, least_bandwidth, profile, times

from genlab.core.config import override
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.proofs.compare_runs import LoggedProcess
from genlab.recipes.recipe import recipe_type
from genlab.training.console import RunConsole
from genlab.training.gradients import BUCKET_BYTES
from genlab.training.loop import MOST_STEPS_BETWEEN_CHECKPOINTS, train
from genlab.training.plan import Plan, make_plan, start_or_resume
from genlab.training.session import LocalSession
from genlab.training.tracking import read_metrics

GBIT = 1e9 / 8
"""Bytes."""
EFFICIENCY = 0.9
"""The plan says which network this efficiency needs."""


class Input(NamedTuple):
    """A figure that the plan is given."""

    option: str
    value: float
    meaning: str
    source: str
    """Where the default is from: measured here, published or assumed."""


NCCL = "published: what NCCL reckons with, `src/graph/tuning.cc` of NVIDIA/nccl, protocol Simple"
INPUTS = (
    Input(
        "--node-gpus",
        8,
        "GPUs of a node",
        "published: an EC2 p4d.24xlarge, 8 A100 of 40 GB (AWS, Amazon EC2 P4d instances deep dive)",
    ),
    Input("--cyclegan-rows", 1, "pairs of a GPU in a step", "published: the paper's batch (arXiv:1703.10593)"),
    Input(
        "--cyclegan-step",
        0.05,
        "seconds a GPU computes a step",
        "assumed: the operations that the plan counts, at a quarter of the 156 TFLOP/s that NVIDIA's A100 data sheet "
        "gives for TF32",
    ),
    Input(
        "--cyclegan-kb",
        29.6,
        "kB of a pair in the store",
        "measured here: `ls -l` of 176 JPEG files of monet2photo, 13.3 kB a photograph and 16.3 kB a Monet",
    ),
    Input(
        "--stylegan-rows",
        4,
        "images of a GPU in a step",
        "published: the paper's batch of 32 on 8 GPUs (arXiv:1912.04958)",
    ),
    Input(
        "--stylegan-step",
        0.466,
        "seconds a GPU computes a step",
        "published: 14.57 s a thousand images, batch 32 on 8 A100, StyleGAN2 at 1024x1024 in NVIDIA's own code with "
        "fp16, `docs/configs.md` of NVlabs/stylegan3",
    ),
    Input(
        "--stylegan-kb",
        1273,
        "kB of an image in the store",
        "published: FFHQ, 89.1 GB of PNG files for 70,000 images, README of NVlabs/ffhq-dataset",
    ),
    Input("--images", 1e6, "images, or pairs, of the data set", "assumed"),
    Input("--nvlink-gb", 300, "GB/s of a GPU to those of its node, each way", "published: NVIDIA's A100 data sheet"),
    Input("--nvlink-us", 3.4, "µs from GPU to GPU", NCCL),
    Input(
        "--network-gbit",
        400,
        "Gbit/s of a node to others, each way",
        "published: EFA of an EC2 p4d.24xlarge (the same)",
    ),
    Input("--network-us", 14, "µs from node to node", NCCL),
    Input("--begin-us", 8.4, "µs to begin a sum", NCCL),
    Input("--reached", 0.8, "share of a link's bandwidth that is reached", "assumed"),
    Input(
        "--store-gbit",
        5,
        "Gbit/s between a worker and the store, each way",
        "published: one connection to S3, AWS re:Post, Maximizing Amazon S3 transfer throughput; workers have up to 16",
    ),
    Input("--pcie-gb", 32, "GB/s from a GPU to its host", "published: NVIDIA's A100 data sheet, PCIe 4.0"),
    Input(
        "--start-seconds",
        13,
        "from submission to the first step of two workers",
        "measured here: `python benchmarks/startup.py --runs 3`",
    ),
    Input(
        "--actors-a-second",
        550,
        "workers that Ray starts in a second",
        "published: `release/perf_metrics/benchmarks/many_actors.json` of ray-project/ray, on 64 nodes",
    ),
    Input(
        "--group-seconds",
        6,
        "to make the process group",
        "published: 7 groups of 16 machines in 42 s, NVIDIA/nccl issue 534",
    ),
    Input("--node-seconds", 300, "from the wish for a node until it is there, with the image", "assumed"),
    Input(
        "--price",
        32.77,
        "of a node for an hour, in dollars",
        "published: an EC2 p4d.24xlarge on demand, US East, as usage.ai states it for June 2026",
    ),
)


class Family(NamedTuple):
    """What is planned for."""

    title: str
    name: str
    options: Mapping[str, Any]
    side: int


FAMILIES = (
    Family("CycleGAN 256x256, the paper's ResNet-9", "cyclegan", {"model.generator": "resnet-9"}, 256),
    Family("StyleGAN2 1024x1024, preset stylegan2", "stylegan", recipe_type("stylegan").presets["stylegan2"], 1024),
)

SMALL, SMALL_SIDE, SMALL_ROWS = {"model.width": 24, "model.discriminator_width": 32}, 64, 2
"""Options of the CycleGAN that is trained here, height and width of its images, and pairs of a worker in a step."""
WORKERS = (1, 2, 3)
LOG_EVERY, LINES, WARM_UP = 5, 12, 2
"""Steps of a line of metrics.jsonl, lines of a run, and how many of them do not count."""
REPEATS = 20
"""Sums that are timed together."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the inputs of the plan, and the numbers of GPUs that it is for."""
    group = parser.add_argument_group("inputs of --plan")
    group.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    for given in INPUTS:
        group.add_argument(given.option, type=float, default=given.value, help=f"{given.meaning} ({given.source})")


def print_plan(given: argparse.Namespace) -> None:
    """Print the inputs, and a table for each family."""
    values = {one.option: float(getattr(given, one.option[2:].replace("-", "_"))) for one in INPUTS}
    if odd := [gpus for gpus in given.gpus if gpus > values["--node-gpus"] and gpus % values["--node-gpus"]]:
        sys.exit(f"--gpus {odd[0]}: give whole nodes of {values['--node-gpus']:g}")
    sources = {one.option: one.source if values[one.option] == one.value else "given" for one in INPUTS}
    rows = [[f"`{one.option}`", f"{values[one.option]:,.10g}", one.meaning, sources[one.option]] for one in INPUTS]
    print(table(["input", "", "", "from"], rows))
    for family in FAMILIES:
        columns = [_planned(family, gpus, values) for gpus in given.gpus]
        lines = [[name, *(column[name] for column in columns)] for name in columns[0]]
        print(f"\n{family.title}\n")
        print(table(["", *(f"{gpus} GPUs" for gpus in given.gpus)], lines), flush=True)


def _planned(family: Family, gpus: int, values: Mapping[str, float]) -> dict[str, str]:
    """Return a column of a family's table, by the names of its rows."""
    rows, computing, kilobytes = (values[f"--{family.name}-{name}"] for name in ("rows", "step", "kb"))
    node, reached, store = int(values["--node-gpus"]), values["--reached"], values["--store-gbit"] * GBIT
    cluster = Cluster(
        nodes=math.ceil(gpus / node),
        devices=min(gpus, node),
        inside=Link(values["--nvlink-gb"] * 1e9 * reached, values["--nvlink-us"] * 1e-6),
        between=Link(values["--network-gbit"] * GBIT * reached, values["--network-us"] * 1e-6),
        start=values["--begin-us"] * 1e-6,
    )
    found = profile(family.name, family.options, family.side, int(rows), gpus)
    step = times(found.steps, computing, cluster)
    begun = [event for one in found.steps for event in one.events if event.kind != "wait"]
    least = least_bandwidth(found.steps, computing, cluster, EFFICIENCY)

    batch = rows * gpus
    epoch = math.ceil(values["--images"] / batch)
    every = min(epoch, MOST_STEPS_BETWEEN_CHECKPOINTS)
    between = every * (step.computing + step.waiting)
    written, copied = found.state / store, found.state / (values["--pcie-gb"] * 1e9 * reached)
    standing = copied + max(0.0, written - between)  # A save waits for the one before.
    rate = batch * every / (between + standing)

    copying = (found.tensors - 1) * cluster.copy_seconds(0) + cluster.copy_seconds(found.state)
    starting = values["--start-seconds"] + gpus / values["--actors-a-second"] + values["--group-seconds"] + copying
    price = cluster.nodes * values["--price"]
    read = rate * kilobytes * 1e3
    return {
        "nodes": f"{cluster.nodes}",
        "rows of the global batch": f"{batch:,.0f}",
        "steps of an epoch": f"{epoch:,}",
        "state and gradients on each GPU, MB": f"{(found.state + found.gradients) / 1e6:,.0f}",
        "collective operations of a step": f"{len(begun) / len(found.steps):.0f}",
        "their bytes on a GPU, MB": f"{sum(event.size for event in begun) / len(found.steps) / 1e6:.0f}",
        "they take, ms": f"{step.moving * 1e3:.1f}",
        "a GPU computes, ms": f"{step.computing * 1e3:.0f}",
        "it waits, ms": f"{step.waiting * 1e3:.1f}",
        "hidden": f"{step.hidden:.0%}",
        "efficiency": f"{step.efficiency:.1%}",
        f"network that {EFFICIENCY:.0%} need, Gbit/s a node": f"{least / GBIT:.0f}" if cluster.nodes > 1 else "none",
        "rows a second": figure(rate),
        "a node reads, MB/s": figure(read / cluster.nodes / 1e6),
        "of what one connection a worker gives": f"{read / gpus / store:.2%}",
        "the store sends, MB/s": figure(read / 1e6),
        "checkpoint, MB": f"{found.state / 1e6:,.0f}",
        "every": f"{every:,} steps, {between:,.0f} s",
        "that is, MB/s": f"{found.state / (between + standing) / 1e6:.1f}",
        "rank 0 writes it in, s": f"{written:.1f}",
        "all stand still for it, ms": f"{standing * 1e3:.0f}",
        "start of a new run, s": f"{starting:.0f}",
        "of one that goes on, s": f"{starting + found.state / store:.0f}",
        "a start costs, nodes included, $": f"{price * (values['--node-seconds'] + starting) / 3600:,.2f}",
        "an hour costs, $": f"{price:,.2f}",
        "a million rows cost, $": f"{price / 3600 / rate * 1e6:,.2f}",
    }


def print_predictions(rounds: int) -> None:
    """Print what the model predicts of the loop with 1, 2 and 3 workers on this machine, and what it does.

    The model is given what was measured: seconds of a step of one worker that is alone, those of as many runs of one
    worker as there are cores, at the same time, and those of a short and of a long sum of two workers.
    """
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="genlab-predicted-") as folder:
        data = {}
        for domain in ("a", "b"):
            data[f"data.{domain}"] = f"{folder}/{domain}"
            ingest(IngestConfig(f"synthetic:scenes-{domain}", data[f"data.{domain}"], size=SMALL_SIDE, count=200))
        trainings = _Trainings(Path(folder), data)
        seconds = alternate(
            {
                "alone": partial(trainings.seconds, 1),
                "together": partial(trainings.seconds, 1, runs=cores),
                "short sum": partial(trainings.sum_seconds, 1),
                "long sum": partial(trainings.sum_seconds, BUCKET_BYTES),
                **{f"{workers}": partial(trainings.seconds, workers) for workers in WORKERS},
            },
            rounds,
        )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    # Two in a ring: two messages of half of the bytes.
    link = Link(BUCKET_BYTES / (median["long sum"] - median["short sum"]), median["short sum"] / 2)
    print(
        f"One run of one worker: {median['alone'] * 1e3:.0f} ms a step; {cores} runs at the same time: "
        f"{median['together'] * 1e3:.0f} ms. Loopback: {link.bandwidth / 1e6:,.0f} MB/s, {link.latency * 1e6:.0f} µs.\n"
    )
    rows = []
    for workers in WORKERS:
        turns = max(1.0, workers / cores)  # Workers that share a core take turns on it.
        shared = Link(link.bandwidth / turns, link.latency * turns)
        found = profile("cyclegan", SMALL, SMALL_SIDE, SMALL_ROWS, workers)
        computing = turns * median["alone" if workers == 1 else "together"]
        predicted = times(found.steps, computing, Cluster(1, workers, shared, shared, beside=False))
        whole, measured = predicted.computing + predicted.waiting, seconds[f"{workers}"]
        parts = [f"{1e3 * part:.0f}" for part in (predicted.computing, predicted.waiting, whole)]
        error = f"{whole / statistics.median(measured) - 1:+.1%}"
        rows.append([f"{workers}", *parts, spread([1e3 * each for each in measured]), error])
    head = ["workers", "predicted: computing, ms", "sums, ms", "a step, ms", "measured, ms: median (min–max)", "error"]
    print(table(head, rows))


class _Trainings:
    """Runs of the small CycleGAN, by the loop in processes of this machine.

    Args:
        folder: of the runs.
        data: the options of the data.
    """

    def __init__(self, folder: Path, data: Mapping[str, str]) -> None:
        self._folder = folder
        self._data = data
        self._count = 0

    def seconds(self, workers: int, runs: int = 1) -> float:
        """Return the seconds a step of runs of so many workers that go on at the same time, in the mean."""
        plans = [self._plan(workers) for _ in range(runs)]
        self._wait_for(
            [
                self._process(_train_rank, rank, workers, plan, f"{plan.directory}-store")
                for plan in plans
                for rank in range(workers)
            ]
        )
        found = []
        for plan in plans:
            lines = [line for line in read_metrics(Path(plan.directory) / "metrics.jsonl") if line["kind"] == "train"]
            ends = [line["time"] for line in lines[WARM_UP:]]
            found.append(statistics.median(end - begin for begin, end in pairwise(ends)) / LOG_EVERY)
        return statistics.mean(found)

    def sum_seconds(self, size: int) -> float:
        """Return the seconds in which two workers sum ``size`` bytes."""
        self._count += 1
        store, answer = self._folder / f"store-{self._count}", self._folder / f"sum-{self._count}"
        self._wait_for([self._process(_sum, rank, size, str(store), str(answer)) for rank in range(2)])
        return float(answer.read_text())

    def _plan(self, workers: int) -> Plan:
        self._count += 1
        options = {
            **SMALL,
            **self._data,
            "run.storage": str(self._folder),
            "run.name": f"run-{self._count}",
            "run.workers": workers,
            "run.threads": 1,
            "run.batch": SMALL_ROWS * workers,
            "run.steps": LOG_EVERY * LINES,
            "run.log_every": LOG_EVERY,
            "run.figures_every": 10**6,
            "run.checkpoint_every": 10**6,
        }
        plan = make_plan("cyclegan", override(recipe_type("cyclegan").config_type(), options))
        start_or_resume(plan)
        return plan

    def _process(self, target: Callable[..., None], *arguments: Any) -> LoggedProcess:
        self._count += 1
        return LoggedProcess(self._folder / f"{self._count}.log", target, *arguments)

    @staticmethod
    def _wait_for(processes: Sequence[LoggedProcess]) -> None:
        try:
            for one in processes:
                one.process.join()
                if one.process.exitcode:
                    raise one.failure()
        finally:
            for one in processes:
                one.kill()


def _train_rank(rank: int, workers: int, plan: Plan, store: str) -> None:
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=workers)
    train(plan, LocalSession(RunConsole(), 1, rank, workers, torch.device("cpu")))
    if workers > 1:
        dist.destroy_process_group()


def _sum(rank: int, size: int, store: str, answer: str) -> None:
    """Sum again and again; rank 0 writes the seconds of one sum."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    tensor = torch.zeros(max(1, size // 4))
    for _ in range(REPEATS):
        dist.all_reduce(tensor)
    dist.barrier()
    began = time.perf_counter()
    for _ in range(REPEATS):
        dist.all_reduce(tensor)
    if rank == 0:
        Path(answer).write_text(str((time.perf_counter() - began) / REPEATS))
    dist.destroy_process_group()
