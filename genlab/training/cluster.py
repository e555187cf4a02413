"""The loop under Ray Train: workers, their session, and the driver that watches them."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow.fs
import ray
import ray._private.state
import ray.train
import ray.train.torch
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from genlab.errors import ClusterError, GenlabError, RunError
from genlab.recipes.options import Run
from genlab.storage import is_remote, locate
from genlab.training.loop import train
from genlab.training.plan import Plan
from genlab.training.progress import Console, Update
from genlab.training.session import Session

POLL_SECONDS = 0.5
RAY_STATE = "ray"
"""Folder of the run directory for Ray Train's own state, which genlab never reads: each attempt starts it afresh."""

QUIET = {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}
"""Ray Train's settings, which it hands on to its workers: nothing but our own lines on the terminal."""


class Board:
    """Where rank 0 leaves news of the run and the driver picks it up. Lives as long as the driver."""

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._update: Update | None = None
        self._fault: GenlabError | None = None

    def say(self, message: str) -> None:
        """Leave a message."""
        self._messages.append(message)

    def show(self, update: Update) -> None:
        """Leave word of how far the run is."""
        self._update = update

    def fail(self, fault: GenlabError) -> None:
        """Leave a fault that only the user can put right."""
        self._fault = self._fault or fault

    def fault(self) -> GenlabError | None:
        """The fault left, if any."""
        return self._fault

    def collect(self) -> tuple[list[str], Update | None]:
        """Messages since the last call, and the newest word of progress."""
        messages, self._messages = self._messages, []
        update, self._update = self._update, None
        return messages, update


class RaySession:
    """A Ray Train worker's place in the run."""

    def __init__(self, board: Any, threads: int) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self.threads: int | None = threads
        self._board = board

    def report(self, metrics: Mapping[str, float]) -> None:
        """Report to Ray Train."""
        ray.train.report(dict(metrics))

    def progress(self, update: Update) -> None:
        """Send word to the driver; does not wait."""
        self._board.show.remote(update)

    def say(self, message: str) -> None:
        """Send a message to the driver; does not wait."""
        self._board.say.remote(message)


def _worker(task: dict[str, Any]) -> None:
    """What each Ray Train worker runs. A fault of the user's is not worth a restart: later attempts end at once."""
    board = task["board"]
    if ray.get(board.fault.remote()) is not None:
        return
    try:
        session = RaySession(board, task["threads"])
        if task["prepare"]:
            task["prepare"](task["plan"], session)
        train(task["plan"], session)
    except GenlabError as fault:
        ray.get(board.fail.remote(fault))
        raise


def place(run: Run) -> tuple[int, bool]:
    """The CPU threads of each worker, and whether each has a GPU.

    A worker lies on one node. Unless ``run.threads`` says otherwise, workers get the most threads with which all of
    them fit on the nodes there are.

    Raises:
        ClusterError: when what was asked for would wait forever: the nodes have too few CPUs or GPUs, and there is no
            autoscaler that could add any.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if 0 < gpus < run.workers and not _autoscaled():
        raise ClusterError(f"run.workers = {run.workers}: the cluster has {gpus} GPUs; use at most one worker for each")
    cpus = [int(node.get("CPU", 0)) for node in nodes if not gpus or node.get("GPU", 0)]

    def fitting(threads: int) -> int:
        return sum(count // threads for count in cpus)

    most = max(
        (threads for threads in range(1, max(cpus, default=0) + 1) if fitting(threads) >= run.workers), default=1
    )
    threads = run.threads or most
    if fitting(threads) < run.workers and not _autoscaled():
        raise ClusterError(
            f"run.workers = {run.workers} with {threads} thread(s) each do not fit on the cluster, whose nodes have "
            f"{', '.join(map(str, cpus))} CPUs, and no autoscaler can add any; use fewer workers or run.threads"
        )
    return threads, gpus > 0


def fit(
    plan: Plan,
    console: Console,
    callbacks: list[Any] | None = None,
    prepare: Callable[[Plan, Session], None] | None = None,
) -> None:
    """Run ``plan`` under Ray Train on the cluster that this process is connected to, and wait for its end.

    Args:
        plan: the run.
        console: shows its progress.
        callbacks: for Ray Train.
        prepare: called in each worker before it trains.

    Raises:
        ClusterError: when the workers do not fit, see :func:`place`.
        RunError: when the run failed more often than ``run.max_failures``.
    """
    run = plan.run
    threads, gpu = place(run)
    os.environ.update(QUIET)
    storage = locate(plan.directory) / RAY_STATE
    if storage.exists():
        storage.fs.rm(storage.path, recursive=True)
    filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.fs)) if is_remote(storage) else None
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"plan": plan, "board": board, "threads": threads, "prepare": prepare},
        scaling_config=ScalingConfig(
            num_workers=run.workers, use_gpu=gpu, resources_per_worker={"CPU": threads} | ({"GPU": 1} if gpu else {})
        ),
        run_config=RunConfig(
            name=RAY_STATE,
            storage_path=storage.parent.path if filesystem else str(storage.parent),
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=run.max_failures),
            callbacks=callbacks or [],
        ),
    )
    console.say(f"{run.workers} workers, {threads} threads each, on {'GPUs' if gpu else 'CPUs'}; starting them")
    with _watching(board, console):
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            if ray.get(board.fault.remote()) is None:
                raise RunError(f"{plan.directory}: training failed: {error}") from error
    fault = ray.get(board.fault.remote())
    if fault is not None:
        raise fault


@contextmanager
def _watching(board: Any, console: Console) -> Iterator[None]:
    """Show the board's news from a thread."""
    over = threading.Event()

    def watch() -> None:
        while True:
            ended = over.wait(POLL_SECONDS)
            messages, update = ray.get(board.collect.remote())
            for message in messages:
                console.say(message)
            if update:
                console.show(update)
            if ended:
                return

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=10)


def _autoscaled() -> bool:
    """Whether an autoscaler watches this cluster and could add nodes."""
    return ray._private.state.state.get_max_resources_from_cluster_config() is not None
