"""What each Ray Train worker runs: the loop, and its place in the run."""

import datetime
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genlab.core.errors import GenlabError
from genlab.training.console import Update
from genlab.training.loop import train
from genlab.training.ray.task import Task
from genlab.training.session import T, stand_back

TIMEOUT = datetime.timedelta(minutes=30)
"""How long a collective waits for a worker that does not come."""


class RaySession:
    """A Ray Train worker's place in the run."""

    def __init__(self, task: Task, board: Any) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = _gpu() if task.gpu else torch.device("cpu")
        self.threads: int | None = task.threads
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

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call it in a Ray task on this node, beside those that the CPUs are counted for."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # max_calls: the process, with what the call has set in it, serves nothing else.
        options: dict[str, Any] = {"num_cpus": 0, "max_calls": 1, "scheduling_strategy": here}
        task: Any = ray.remote(**options)(_stand_back_and_call)
        future: Future[T] = task.remote(self.device, function, *arguments).future()
        return future


def _stand_back_and_call(beside: torch.device, function: Callable[..., T], *arguments: Any) -> T:
    stand_back(beside)
    return function(*arguments)


def work(task: Task, board: Any) -> None:
    """Join the process group and train. A fault of the user's is not worth a restart: later attempts end at once."""
    if ray.get(board.fault.remote()) is not None:
        return
    session = RaySession(task, board)
    dist.init_process_group(
        "nccl" if task.gpu else "gloo",
        rank=session.rank,
        world_size=session.world_size,
        timeout=TIMEOUT,
    )
    try:
        if task.prepare:
            task.prepare(task.plan, session)
        train(task.plan, session)
    except GenlabError as fault:
        ray.get(board.fail.remote(fault))
        raise
    dist.destroy_process_group()


def _gpu() -> torch.device:
    """This worker's GPU, made the default one."""
    import ray.train.torch

    device: torch.device = ray.train.torch.get_device()
    torch.cuda.set_device(device)
    return device
