"""The function that each Ray Train worker runs: join the process group, then train."""

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genlab.core.errors import GenlabError, StorageTimeoutError
from genlab.training.attempts import SupersededError
from genlab.training.console import ProgressUpdate
from genlab.training.loop import train
from genlab.training.notices import NoNotices, Notice, Notices, PreemptedError
from genlab.training.ray.task import Task
from genlab.training.ray.telemetry import RunTelemetry
from genlab.training.rung import Rung
from genlab.training.session import LocalSession, T, become_background_process, gather

TIMEOUT = datetime.timedelta(minutes=30)
"""How long a collective operation waits for a missing worker before it fails."""

POLL_SECONDS = 0.1
"""Time between two questions whether the driver has answered, while the run waits at a rung."""

NOTICE_SECONDS = 1.0
"""Time between two questions whether there is a notice."""


class AskedNotices:
    """Notices that are asked for in a thread, so that the loop never waits for them.

    Args:
        ask: returns the newest notice, if any.
    """

    def __init__(self, ask: Callable[[], Notice | None]) -> None:
        self._ask = ask
        self._newest: Notice | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._keep_asking, name="notices", daemon=True).start()

    def newest(self) -> Notice | None:
        """Return the notice that has come, if any; never waits."""
        return self._newest

    def close(self) -> None:
        """Ask for no more."""
        self._closed.set()

    def _keep_asking(self) -> None:
        with contextlib.suppress(RayError):  # The cluster or an actor is lost; that is reported after the run.
            while not self._closed.wait(NOTICE_SECONDS):
                self._newest = self._ask()


class _SentNotices(AskedNotices):
    """The notices that the driver sends.

    Args:
        messages: handle of the run's :class:`genlab.training.ray.messages.RunMessages` actor.
        nodes: ID of the node of each worker.
    """

    def __init__(self, messages: Any, nodes: tuple[str, ...]) -> None:
        self._messages = messages
        messages.listen.remote(nodes)
        super().__init__(lambda: ray.get(messages.notice.remote()))

    def close(self) -> None:
        if not self._closed.is_set():
            super().close()
            self._messages.listen.remote(())


class RaySession:
    """The :class:`genlab.training.session.Session` of a Ray Train worker.

    Args:
        task: the worker's input.
        messages: handle of the run's :class:`genlab.training.ray.messages.RunMessages` actor.
    """

    def __init__(self, task: Task, messages: Any) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = _gpu() if task.gpu else torch.device("cpu")
        self.threads: int | None = task.threads
        self.reserved = True
        self.telemetry = RunTelemetry(str(task.plan.run.name), task.plan.family)
        self._messages = messages
        self._shown: Any = None

    def report(self, metrics: Mapping[str, float]) -> None:
        """Report ``metrics`` to Ray Train."""
        ray.train.report(dict(metrics))

    def reach(self, rung: Rung) -> bool:
        """Send the rung to the driver, and wait for its answer. Raises the fault for which the run was given up."""
        ray.get(self._messages.reach.remote(rung))
        while True:
            stops, fault = ray.get(self._messages.answered.remote())
            if fault is not None:
                raise fault
            if stops is not None:
                return bool(stops)
            time.sleep(POLL_SECONDS)

    def notices(self) -> Notices:
        """Tell the driver which nodes the workers are on, and listen for what it sends."""
        nodes = tuple(gather(ray.get_runtime_context().get_node_id()))
        return _SentNotices(self._messages, nodes) if self.rank == 0 else NoNotices()

    def progress(self, update: ProgressUpdate) -> None:
        """Send the progress to the driver; never waits. Raises the fault that was known when it was last sent."""
        self.telemetry.progress(update)
        shown, self._shown = self._shown, self._messages.show.remote(update)
        if shown is not None and ray.wait([shown], timeout=0)[0]:
            with contextlib.suppress(RayError):  # The actor is lost; the driver reports that after the run.
                fault = ray.get(shown)
                if fault is not None:
                    raise fault

    def say(self, message: str) -> None:
        """Send ``message`` to the driver; does not wait."""
        self._messages.say.remote(message)

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call ``function`` in a Ray task on this node, for which Ray reserves no CPU."""
        return _in_background(self.device, function, *arguments)


@dataclass(frozen=True)
class DriverSession(LocalSession):
    """The driver's session, for what is left to do when the workers have ended."""

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call ``function`` in a Ray task on this node, for which Ray reserves no CPU."""
        return _in_background(self.device, function, *arguments)


def _in_background(training_device: torch.device, function: Callable[..., T], *arguments: Any) -> Future[T]:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # max_calls=1: Ray ends the process after the call, as become_background_process changes it for good.
    options: dict[str, Any] = {"num_cpus": 0, "max_calls": 1, "scheduling_strategy": here}
    task: Any = ray.remote(**options)(_call_in_background)
    future: Future[T] = task.remote(training_device, function, *arguments).future()
    return future


def _call_in_background(training_device: torch.device, function: Callable[..., T], *arguments: Any) -> T:
    become_background_process(training_device)
    return function(*arguments)


def work(task: Task, messages: Any) -> None:
    """Join the process group and train.

    A :class:`GenlabError` would come again after a restart: once one was sent to the driver, later groups of workers
    return at once. Two of them are otherwise: that a later group goes on with the run ends only this group, and a store
    that was away for longer than requests are repeated may be back after the restart.

    Args:
        task: the worker's input.
        messages: handle of the run's :class:`genlab.training.ray.messages.RunMessages` actor.
    """
    if ray.get(messages.fault.remote()) is not None:
        return
    session = RaySession(task, messages)
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
    except (SupersededError, StorageTimeoutError) as end:
        session.say(f"rank {session.rank}: {end}")
        raise
    except PreemptedError as end:
        # Not raised: to Ray Train this group has ended as it should, and the driver starts the next.
        if session.rank == 0:
            ray.get(messages.preempt.remote(str(end)))
    except GenlabError as fault:
        ray.get(messages.fail.remote(fault))
        raise
    finally:
        if session.rank == 0:
            session.telemetry.end()
    dist.destroy_process_group()


def _gpu() -> torch.device:
    """Make this worker's GPU the default one, and return it."""
    import ray.train.torch

    device: torch.device = ray.train.torch.get_device()
    torch.cuda.set_device(device)
    return device
