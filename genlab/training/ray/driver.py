"""The loop under Ray Train: the driver that starts the workers and watches them.

Ray Train's controller imports this module, so it keeps clear of torch; what workers run is in
:mod:`genlab.training.ray.worker`.
"""

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.fs
import ray
import ray._private.state
import ray.train
from ray.exceptions import RayActorError, RayError
from ray.train import BackendConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from genlab.core.errors import ClusterError, GenlabError, RunError
from genlab.core.storage import is_remote, locate
from genlab.recipes.options import Run
from genlab.training.console import Console
from genlab.training.ray.messages import Board
from genlab.training.ray.task import Task

if TYPE_CHECKING:
    from genlab.training.plan import Plan
    from genlab.training.session import Session

POLL_SECONDS = 0.5
RAY_STATE = "ray"
"""Folder of the run directory for Ray Train's own state, which genlab never reads: each attempt starts it afresh."""

QUIET = {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}
"""Ray Train's settings, which it hands on to its workers: nothing but our own lines on the terminal."""


class LeanTrainer(DataParallelTrainer):
    """Ray Train without two helper actors, each a process that takes over a second to start.

    One hands out Ray Data sets, of which there are none. The other outlives the run to remove its placement group when
    the controller was killed; the driver's end, which follows, removes it just as well.
    """

    def _create_default_callbacks(self) -> list[Any]:
        spared = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, spared)]


@dataclass
class Rendezvous(BackendConfig):
    """Tells the workers where rank 0 is; they make the process group themselves.

    Ray's TorchConfig would do both, but for that imports torch in the controller, before a worker can start.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls on a new group of workers."""
        return _RendezvousBackend


class _RendezvousBackend(Backend):
    share_cuda_visible_devices = True
    """NCCL needs to see its neighbours' GPUs."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        address, port = worker_group.execute_single(0, get_address_and_port)
        worker_group.execute(_set_environment, {"MASTER_ADDR": address, "MASTER_PORT": str(port)})


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def _worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs; imports the loop, which nobody else needs."""
    from genlab.training.ray.worker import work

    work(pickle.loads(config["task"]), config["board"])


def place(run: Run) -> tuple[int, bool]:
    """The CPU threads of each worker, and whether each has a GPU.

    A worker lies on one node. Unless ``run.threads`` says otherwise, workers get the most threads with which all of
    them fit on the nodes there are.

    Raises:
        ClusterError: when what was asked for would wait forever: the nodes have too few CPUs or GPUs, and there is no
            autoscaler that could add any. Also when there are to be CUDA graphs without GPUs.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if 0 < gpus < run.workers and not _autoscaled():
        raise ClusterError(f"run.workers = {run.workers}: the cluster has {gpus} GPUs; use at most one worker for each")
    if run.cuda_graphs and not gpus:
        raise ClusterError("run.cuda_graphs: the cluster has no GPUs; leave it out, or try run.compile")
    cpus = [int(node.get("CPU", 0)) for node in nodes if not gpus or node.get("GPU", 0)]

    def fitting(threads: int) -> int:
        return sum(count // threads for count in cpus)

    most = max(
        (threads for threads in range(1, max(cpus, default=0) + 1) if fitting(threads) >= run.workers), default=1
    )
    threads = run.threads or most
    if fitting(threads) < run.workers and not _autoscaled():
        raise ClusterError(
            f"run.workers = {run.workers} with {_count(threads, 'thread')} each do not fit on the cluster, whose nodes "
            f"have {', '.join(map(str, cpus))} CPUs, and no autoscaler can add any; use fewer workers or run.threads"
        )
    return threads, gpus > 0


def fit(
    plan: "Plan",
    console: Console,
    callbacks: list[Any] | None = None,
    prepare: "Callable[[Plan, Session], None] | None" = None,
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
    if not _autoscaled():  # Who announces that a node will go is an autoscaler; watching for that is one more actor.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    storage = locate(plan.directory) / RAY_STATE
    if storage.exists():
        storage.fs.rm(storage.path, recursive=True)
    filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.fs)) if is_remote(storage) else None
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    # Sealed, because the controller unpickles what it passes on, and would import torch for it.
    task = ray.cloudpickle.dumps(Task(plan, threads, gpu, prepare))
    trainer = LeanTrainer(
        _worker,
        train_loop_config={"task": task, "board": board},
        backend_config=Rendezvous(),
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
    each = " each" if run.workers > 1 else ""
    console.say(
        f"{_count(run.workers, 'worker')}, {_count(threads, 'thread')}{each}, on {'GPUs' if gpu else 'CPUs'}; "
        f"starting {'them' if run.workers > 1 else 'it'}"
    )
    with _watching(board, console):
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            if _fault(board, plan) is None:
                raise RunError(f"{plan.directory}: training failed: {error}") from error
    fault = _fault(board, plan)
    if fault is not None:
        raise fault


def _fault(board: Any, plan: "Plan") -> GenlabError | None:
    """The fault of the user's that a worker left on the board, if any."""
    try:
        fault: GenlabError | None = ray.get(board.fault.remote())
    except RayActorError:
        raise ClusterError(
            f"{plan.directory}: the node on which the run's messages were kept was lost; start the run again under its "
            "name, it goes on"
        ) from None
    return fault


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextmanager
def _watching(board: Any, console: Console) -> Iterator[None]:
    """Show the board's news from a thread."""
    over = threading.Event()

    def watch() -> None:
        while True:
            ended = over.wait(POLL_SECONDS)
            try:
                messages, update = ray.get(board.collect.remote())
            except RayError:  # The board is gone; what becomes of the run is said in the end.
                return
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
