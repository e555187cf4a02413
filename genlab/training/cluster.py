"""The loop under Ray Train: workers, their session, and the driver that watches them."""

import os
import threading
from collections.abc import Iterator, Mapping
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
from genlab.storage import is_remote, locate
from genlab.training.loop import train
from genlab.training.plan import Plan
from genlab.training.progress import Console, Update

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
        train(task["plan"], RaySession(board, task["threads"]))
    except GenlabError as fault:
        ray.get(board.fail.remote(fault))
        raise


def fit(plan: Plan, console: Console, callbacks: list[Any] | None = None) -> None:
    """Run ``plan`` under Ray Train on the cluster that this process is connected to, and wait for its end.

    Raises:
        ClusterError: when the cluster has too few CPUs for the workers and none can be added.
        RunError: when the run failed more often than ``run.max_failures``.
    """
    run = plan.run
    gpu = ray.cluster_resources().get("GPU", 0) >= run.workers
    threads = run.threads or _fair_share(run.workers)
    _check_capacity(run.workers, threads)
    os.environ.update(QUIET)
    storage = locate(plan.directory) / RAY_STATE
    if storage.exists():
        storage.fs.rm(storage.path, recursive=True)
    filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.fs)) if is_remote(storage) else None
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"plan": plan, "board": board, "threads": threads},
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
            fault = ray.get(board.fault.remote())
            if fault is None:
                log = "; Ray's logs are in /tmp/ray/session_latest/logs/train of the head node"
                raise RunError(f"{plan.directory}: training failed: {error}{log}") from error
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


def _fair_share(workers: int) -> int:
    """CPU threads for each worker when the cluster's CPUs are shared evenly, at least one."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)


def _check_capacity(workers: int, threads: int) -> None:
    """Refuse what would wait forever: too few CPUs and no autoscaler to add any."""
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if workers * threads > cpus and not _autoscaled():
        raise ClusterError(
            f"run.workers = {workers} with {threads} thread(s) each need {workers * threads} CPUs; the cluster has "
            f"{cpus} and no autoscaler; use fewer workers, or set run.threads"
        )


def _autoscaled() -> bool:
    """Whether an autoscaler watches this cluster and could add nodes."""
    return ray._private.state.state.get_max_resources_from_cluster_config() is not None
