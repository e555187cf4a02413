"""The loop's view of the cluster: the interface ``Session``, one for a single process, and collective operations.

The session of a Ray Train worker is in :mod:`genlab.training.ray.worker`.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from genlab.core.claims import Claim
from genlab.core.processes import end_with_parent
from genlab.training.console import ProgressUpdate, RunConsole
from genlab.training.notices import NoNotices, Notices, Termination
from genlab.training.rung import Rung

T = TypeVar("T")
NICENESS = 10
"""Niceness of background processes: while others want a core, the kernel gives them about a tenth of its time."""


class Session(Protocol):
    """One worker's view of a run: its rank, its device, and how it reports."""

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """The number of workers."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that this worker computes on."""
        ...

    @property
    def threads(self) -> int | None:
        """The number of CPU threads to compute with; ``None`` leaves PyTorch's choice."""
        ...

    @property
    def reserved(self) -> bool:
        """Whether a cluster keeps this worker's CPUs and GPU from others, so that it ends as soon as training is done.

        What is left to do then, such as to measure checkpoints, is done by the driver.
        """
        ...

    def report(self, metrics: Mapping[str, float]) -> None:
        """Report metrics to what started the run, such as Ray Tune. Every rank calls it, at the same steps."""
        ...

    def reach(self, rung: Rung) -> bool:
        """Tell what started the run what it has reached, and wait for the answer; return whether to stop there.

        Called by rank 0, when the checkpoint of that step is written. A run that goes on from this checkpoint calls it
        again.
        """
        ...

    def notices(self) -> Notices:
        """Begin to listen for notices that the run is about to be stopped. Every rank calls it, before its steps."""
        ...

    def progress(self, update: ProgressUpdate) -> None:
        """Show the run's progress. Called by rank 0; never waits. Raises the error for which the run was given up."""
        ...

    def say(self, message: str) -> None:
        """Show a message to the user. Never waits."""
        ...

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a module-level function in a background process on this node (:func:`become_background_process`)."""
        ...


@dataclass(frozen=True)
class LocalSession:
    """A worker without Ray: the loop in this process, by default the only worker of its run."""

    console: RunConsole
    threads: int | None = None
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    """The device to compute on; by default the GPU if there is one, else the CPU."""
    claim: Claim | None = None
    """This process's claim on the run directory."""
    reserved: bool = False
    """Nothing is kept from others."""

    def report(self, metrics: Mapping[str, float]) -> None:
        """Do nothing: the metrics are in the run directory."""

    def reach(self, rung: Rung) -> bool:
        """Go on: nothing stops a run without Ray."""
        return False

    def notices(self) -> Notices:
        """Listen for SIGTERM, if this is the only worker."""
        return Termination() if self.world_size == 1 else NoNotices()

    def progress(self, update: ProgressUpdate) -> None:
        """Show the progress on the console; raise a ClaimLostError if another process took over the run."""
        if self.claim and self.claim.lost.is_set():
            raise self.claim.lost_error()
        self.console.show(update)

    def say(self, message: str) -> None:
        """Print ``message``."""
        self.console.say(message)

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call ``function`` in a child process."""
        return in_child(self.device, function, *arguments)


class ChildCall(Future[T]):
    """The result of a call in a child process, which ends when this is cancelled.

    A pool of processes would keep the interpreter from ending before the call has.

    Args:
        training_device: see :func:`in_child`.
        function: the same.
        arguments: the same.
    """

    def __init__(self, training_device: torch.device, function: Callable[..., T], arguments: Sequence[Any]) -> None:
        super().__init__()
        context = get_context("spawn")
        results, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_call_and_send, args=(sender, training_device, function, arguments), daemon=True
        )
        self._process.start()
        sender.close()
        threading.Thread(target=self._receive, args=(results,), name="child-call", daemon=True).start()

    def cancel(self) -> bool:
        """End the process; return False where the call was over."""
        cancelled = super().cancel()
        self._process.terminate()
        return cancelled

    def _receive(self, results: Connection) -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result, error = results.recv()
        except EOFError:
            self._process.join()
            error = RuntimeError(f"its process ended with exit code {self._process.exitcode}")
        except Exception as fault:  # such as an error that cannot be unpickled: nothing may wait for ever
            error = fault
        with contextlib.suppress(InvalidStateError):  # It was cancelled.
            self.set_exception(error) if error else self.set_result(result)


def _call_and_send(
    sender: Connection, training_device: torch.device, function: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    become_background_process(training_device)
    try:
        sender.send((function(*arguments), None))
    except Exception as error:
        sender.send((None, error))


def in_child(training_device: torch.device, function: Callable[..., T], *arguments: Any) -> ChildCall[T]:
    """Call a module-level function in a new child process with low CPU priority, beside training.

    Args:
        training_device: the device that the training beside it runs on.
        function: a function that can be pickled, as its result and its errors can.
        arguments: its arguments.
    """
    return ChildCall(training_device, function, arguments)


def become_background_process(training_device: torch.device) -> None:
    """Give this process low CPU priority and no GPU, so that it does not slow the training on the same node.

    Args:
        training_device: the device that the training runs on. Beside a GPU this process computes on half of the cores;
            beside a CPU on one core, of which it gets about a tenth while training wants it.
    """
    end_with_parent()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.nice(NICENESS)
    torch.set_num_threads(1 if training_device.type == "cpu" else max(1, (os.cpu_count() or 1) // 2))


def start_sum_over_ranks(tensor: Tensor) -> Callable[[], object]:
    """Begin to sum ``tensor`` over all ranks, in place; the returned function waits for the end of that."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        return dist.all_reduce(tensor, async_op=True).wait
    return lambda: None


def start_gather_over_ranks(tensor: Tensor) -> tuple[list[Tensor], Callable[[], object]]:
    """Begin to gather ``tensor``, of the same shape on every rank.

    Returns:
        The tensors of the ranks, in their order, and a function that waits until they are there.
    """
    if dist.is_initialized() and dist.get_world_size() > 1:
        own = tensor.contiguous()
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        return gathered, dist.all_gather(gathered, own, async_op=True).wait
    return [tensor], lambda: None


def from_rank_zero(value: Any) -> Any:
    """Return rank 0's ``value``, a small picklable object, on every rank."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]
    return value


def copy_from_rank_zero(tensor: Tensor) -> None:
    """Overwrite ``tensor`` with that of rank 0, on every rank."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        contiguous = tensor.contiguous()
        dist.broadcast(contiguous, src=0)
        if contiguous is not tensor:
            tensor.copy_(contiguous)


def gather(value: Any) -> list[Any]:
    """Return the ``value`` of every rank, in rank order, on every rank; small picklable objects."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values
    return [value]
