"""The loop's view of the cluster, and the collectives it uses.

Ray Train's adapter is in :mod:`genlab.training.ray.driver`; the one here runs the loop in this process.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from genlab.core.processes import end_with_parent
from genlab.training.console import Console, Update

T = TypeVar("T")
NICENESS = 10
"""Of processes that stand back: the kernel gives them a tenth of the time of those that have none."""


class Session(Protocol):
    """One worker's place in a run."""

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """How many workers there are."""
        ...

    @property
    def device(self) -> torch.device:
        """Where this worker computes."""
        ...

    @property
    def threads(self) -> int | None:
        """CPU threads to compute with; ``None`` leaves PyTorch's choice."""
        ...

    def report(self, metrics: Mapping[str, float]) -> None:
        """Hand figures to whoever watches the run (Ray Tune, say). Every rank calls it, on the same steps."""
        ...

    def progress(self, update: Update) -> None:
        """Show how far the run is. Called by rank 0; never waits."""
        ...

    def say(self, message: str) -> None:
        """Tell the user something that happened. Never waits."""
        ...

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function of a module in a process of its own on this node, see :func:`stand_back`."""
        ...


@dataclass(frozen=True)
class LocalSession:
    """A world of one: the loop in this process, without Ray."""

    console: Console
    threads: int | None = None
    rank: int = 0
    world_size: int = 1

    @property
    def device(self) -> torch.device:
        """The GPU where there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def report(self, metrics: Mapping[str, float]) -> None:
        """Nobody else watches."""

    def progress(self, update: Update) -> None:
        """Draw the progress bar."""
        self.console.show(update)

    def say(self, message: str) -> None:
        """Print the message."""
        self.console.say(message)

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call it in a child process."""
        return in_child(self.device, function, *arguments)


def in_child(beside: torch.device, function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Call a function of a module in a new child process, which stands back for training on ``beside``."""
    executor = ProcessPoolExecutor(1, get_context("spawn"), initializer=stand_back, initargs=(beside,))
    future = executor.submit(function, *arguments)
    executor.shutdown(wait=False)
    return future


def stand_back(beside: torch.device) -> None:
    """Make this process one that leaves training on ``beside``, on the same node, alone.

    It sees no GPU. Beside a GPU it computes on half of the cores, else on one, of which it gets about a tenth while
    training wants it.
    """
    end_with_parent()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.nice(NICENESS)
    torch.set_num_threads(1 if beside.type == "cpu" else max(1, (os.cpu_count() or 1) // 2))


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """``tensor`` summed over all ranks, in place."""
    start_sum_over_ranks(tensor)()
    return tensor


def start_sum_over_ranks(tensor: Tensor) -> Callable[[], object]:
    """Begin to sum ``tensor`` over all ranks, in place, beside what is computed until the returned function waits."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        return dist.all_reduce(tensor, async_op=True).wait
    return lambda: None


def from_rank_zero(value: Any) -> Any:
    """Rank 0's ``value``, on every rank; a small picklable object."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]
    return value


def copy_from_rank_zero(tensor: Tensor) -> None:
    """Rank 0's ``tensor``, in place, on every rank."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        whole = tensor.contiguous()
        dist.broadcast(whole, src=0)
        if whole is not tensor:
            tensor.copy_(whole)


def gather(value: Any) -> list[Any]:
    """Every rank's ``value``, on every rank, in rank order; small picklable objects."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values
    return [value]
