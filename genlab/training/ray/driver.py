"""The loop under Ray Train: the driver that starts the workers and watches them.

Ray Train's controller imports this module, so it keeps clear of torch; what workers run is in
:mod:`genlab.training.ray.worker`.
"""

import itertools
import os
import pickle
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow.fs
import ray
import ray.train
from ray.exceptions import RayActorError, RayError
from ray.train import BackendConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genlab.core.claims import Claim
from genlab.core.errors import ClusterError, GenlabError, RunError, StorageTimeoutError
from genlab.core.storage import delete_folder, is_remote, locate
from genlab.core.text import counted
from genlab.recipes.options import Run
from genlab.recipes.workers import least_of
from genlab.training.console import RunConsole
from genlab.training.notices import RESIZE, SIGTERM_CAME, Notice, PreemptedError
from genlab.training.ray.messages import RunMessages
from genlab.training.ray.task import Task
from genlab.training.rung import Rung

if TYPE_CHECKING:
    from genlab.training.plan import Plan
    from genlab.training.session import Session

POLL_SECONDS = 0.5
RAY_STATE = "ray"
"""Folder of the run directory for Ray Train's own state, a folder in it for each start, so that none finds what another
writes. genlab never reads it and deletes it at each start."""

AUTOSCALED = "GENLAB_AUTOSCALED"
"""Environment variable of the head: the kinds of nodes that an autoscaler can add, as ``CPU=8,GPU=1 CPU=4``."""

QUIET = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
}
"""Environment variables of Ray Train, which hands them on to its workers. It prints nothing of its own, and starts no
actor to watch for nodes that go away, as the driver does that. It waits so many seconds for room for workers before it
looks again how many nodes there are: Ray takes 15 to know that one is lost."""

WATCH_SECONDS = 2.0
"""Time between two questions which nodes Ray is to give up, and which have come."""

RESIZE_SECONDS = 60.0
"""Least time that workers train before they stop so that there can be more of them."""

NEVER_SECONDS = 1e9
"""Seconds of many years."""

RELEASE_SECONDS = 5.0
"""The most seconds until Ray tells that what workers had is free again; a tenth of one where nothing else goes on."""


class LeanTrainer(DataParallelTrainer):
    """Ray Train without two of its actors, each a process that takes over a second to start.

    The first hands out Ray Data sets, which genlab does not use. The second outlives the run to remove its placement
    group when the controller was killed; Ray removes that group, too, when the driver ends. The method that is
    overridden is Ray's own affair: should Ray rename it or its callbacks, the actors are started and all else goes on.
    """

    def _create_default_callbacks(self) -> list[Any]:
        spared = ("DatasetsCallback", "PlacementGroupCleanerCallback")
        return [callback for callback in super()._create_default_callbacks() if type(callback).__name__ not in spared]


@dataclass
class Rendezvous(BackendConfig):
    """Ray Train backend that tells the workers the address of rank 0; they make the process group themselves.

    Ray's TorchConfig would do both, but it imports torch in the controller, which delays the start of the workers.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        """The class whose ``on_start`` Ray Train calls with each new group of workers."""
        return _RendezvousBackend


class _RendezvousBackend(Backend):
    share_cuda_visible_devices = True
    """Whether each worker sees the GPUs of all workers on its node, which NCCL needs."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        address, port = worker_group.execute_single(0, _address_and_free_port)
        worker_group.execute(_set_environment, {"MASTER_ADDR": address, "MASTER_PORT": str(port)})


def _address_and_free_port() -> tuple[str, int]:
    """Return the IP address of this node and a port that nothing listens on."""
    address: str = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind(("", 0))
        return address, probe.getsockname()[1]


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def _worker(config: dict[str, Any]) -> None:
    """Run the loop in a Ray Train worker; only workers import it."""
    from genlab.training.ray.worker import work

    work(pickle.loads(config["task"]), config["messages"])


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has in all."""

    cpus: int
    gpus: int = 0

    def __str__(self) -> str:
        return counted(self.cpus, "CPU") + (f" and {counted(self.gpus, 'GPU')}" if self.gpus else "")


def fitting(nodes: Sequence[Node], threads: int, gpu: bool, per_gpu: int = 1) -> int:
    """Return how many workers fit on ``nodes``, each on one node.

    Args:
        nodes: the nodes.
        threads: CPUs of a worker.
        gpu: whether workers need GPUs.
        per_gpu: how many workers share a GPU.
    """
    room = [node.cpus // threads for node in nodes]
    if gpu:
        room = [min(workers, node.gpus * per_gpu) for workers, node in zip(room, nodes, strict=True)]
    return sum(room)


def most_threads(nodes: Sequence[Node], workers: int, gpu: bool, per_gpu: int = 1) -> int:
    """Return the most threads with which ``workers`` fit on ``nodes``; 1 where they do not fit with any number."""
    most = max((node.cpus for node in nodes), default=0)
    fit = (threads for threads in range(1, most + 1) if fitting(nodes, threads, gpu, per_gpu) >= workers)
    return max(fit, default=1)


def worker_resources(run: Run) -> tuple[int, bool]:
    """Return the number of CPU threads of each worker, and whether each has a GPU.

    A worker runs on one node. Unless ``run.threads`` says otherwise, workers get the most threads with which all of
    them, or of a range as many as can, fit on the nodes of the cluster; if they wait for nodes with GPUs, as many as
    such a node has for each GPU.

    Raises:
        ClusterError: when the workers could never start, because the nodes have too few CPUs or GPUs and there is no
            autoscaler that could add any; when an option needs GPUs (:meth:`Run.without_gpus`) and there are none.
    """
    nodes, offered = _nodes(), _offered()
    gpus = sum(node.gpus for node in nodes)
    per_gpu = [max(1, node.cpus // node.gpus) for node in offered or () if node.gpus]
    gpu = gpus > 0 or bool(per_gpu)
    least = least_of(run.workers)
    if 0 < gpus < least and offered is None:
        raise ClusterError(f"run.workers = {run.workers}: the cluster has {gpus} GPUs; use at most one worker for each")
    if not gpu and (fault := run.without_gpus("the cluster has no GPUs")):
        raise ClusterError(fault)
    wanted = max(least, min(run.workers, fitting(nodes, run.threads or 1, gpu)))
    threads = run.threads or most_threads(nodes, wanted, gpu)
    if fitting(nodes, threads, gpu) < least:
        if offered is None:
            usable = [node for node in nodes if node.gpus or not gpu]
            raise ClusterError(
                f"run.workers = {run.workers} with {counted(threads, 'thread')} each do not fit on the cluster, whose "
                f"nodes have {', '.join(map(str, usable))}, and no autoscaler can add any; use fewer workers or "
                "run.threads"
            )
        threads = run.threads or min(per_gpu, default=threads)
    return threads, gpu


def side_by_side(run: Run, runs: int, per_gpu: int = 1) -> tuple[int, int]:
    """Return the CPU threads of each worker of several like runs, and how many of these go side by side.

    Args:
        run: the options of each run.
        runs: how many there are.
        per_gpu: how many workers share a GPU.

    Raises:
        ClusterError: when one of them could never start, see :func:`worker_resources`.
    """
    threads, gpu = worker_resources(run)
    nodes = _nodes()
    if fitting(nodes, run.threads or 1, gpu) < run.workers:  # An autoscaler is to add nodes first.
        return threads, 1
    return packed(nodes, run, runs, gpu=gpu, per_gpu=per_gpu)


def packed(nodes: Sequence[Node], run: Run, runs: int, *, gpu: bool, per_gpu: int = 1) -> tuple[int, int]:
    """Return what :func:`side_by_side` does, for these nodes: threads of a worker, and runs side by side.

    A worker runs on one node. Unless ``run.threads`` says otherwise, as many runs as there is room for go side by side,
    and their workers get the most threads with which they fit. It is one run where none fits.
    """
    together = max(1, min(runs, fitting(nodes, run.threads or 1, gpu, per_gpu) // run.workers))
    return run.threads or most_threads(nodes, run.workers * together, gpu, per_gpu), together


def resources_of(threads: int, gpu: bool, per_gpu: int = 1) -> dict[str, int | float]:
    """Return the resources of the cluster that a worker of ``threads`` CPU threads takes.

    Args:
        threads: its CPU threads.
        gpu: whether it needs a GPU.
        per_gpu: how many workers share a GPU.
    """
    if not gpu:
        return {"CPU": threads}
    return {"CPU": threads, "GPU": 1 if per_gpu == 1 else 1 / per_gpu}  # Ray wants whole GPUs as whole numbers.


def room_for(run: Run, threads: int, gpu: bool, workers: int = 0) -> int:
    """Return how many workers of a run there is room for, beside what others use.

    Args:
        run: the options of the run.
        threads: CPU threads of each worker.
        gpu: whether each has a GPU.
        workers: how many the run has now.
    """
    return min(int(run.workers), fitting(_nodes(), threads, gpu), workers + fitting(_free(), threads, gpu))


def group_size(run: Run, threads: int, gpu: bool, *, again: bool = False) -> int | tuple[int, int]:
    """Return how many workers of a run to start now: as many as there is room for, if ``run.workers`` is a range.

    Where there is no room for the least, they wait for it. Where an autoscaler may add nodes it is the range, so that
    Ray asks for nodes.

    Args:
        run: the options of the run.
        threads: CPU threads of each worker.
        gpu: whether each has a GPU.
        again: whether workers of the run have just ended. It is waited until what they had is free, for
            :data:`RELEASE_SECONDS` at most.
    """
    least = least_of(run.workers)
    if least == run.workers:
        return run.workers
    if _offered() is not None:
        return least, int(run.workers)
    deadline = time.monotonic() + (RELEASE_SECONDS if again else 0)
    while (found := room_for(run, threads, gpu)) < min(int(run.workers), fitting(_nodes(), threads, gpu)):
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    return max(least, found)


def _nodes(amounts: Mapping[str, Mapping[str, float]] | None = None) -> list[Node]:
    """Return the nodes of the cluster that can take workers: all that they have, or the ``amounts`` by their IDs."""
    leaving = draining()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    resources = [node["Resources"] if amounts is None else amounts.get(node["NodeID"], {}) for node in nodes]
    return [Node(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in resources]


def _free() -> list[Node]:
    """Return the nodes that can take workers, with what nobody uses; all where Ray's private module does not tell."""
    try:
        from ray._private.state import state

        return _nodes(state.available_resources_per_node())
    except (ImportError, AttributeError):
        return _nodes()


def fit(
    plan: "Plan",
    console: RunConsole,
    callbacks: list[Any] | None = None,
    prepare: "Callable[[Plan, Session], None] | None" = None,
    on_rung: Callable[[Rung], bool] | None = None,
) -> None:
    """Run ``plan`` under Ray Train on the cluster that this process is connected to, and wait for its end.

    Args:
        plan: the run.
        console: shows its progress.
        callbacks: Ray Train callbacks.
        prepare: a function that each worker calls before it trains.
        on_rung: a function that is called, in a thread of its own, with each of the plan's rungs that the run reaches,
            and says whether it stops there; by default it goes on.

    Raises:
        ClusterError: when the workers do not fit, see :func:`worker_resources`.
        ClaimLostError: when another process took over the run.
        PreemptedError: when this process got SIGTERM, or its node is given up, and the run is saved.
        RunError: when the run failed more often than ``run.max_failures``.
    """
    run = plan.run
    threads, gpu = worker_resources(run)
    os.environ.update(QUIET)
    # Beside the driver, without which the run ends, so that it depends on no other node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
    messages: Any = ray.remote(**options)(RunMessages).remote()
    elastic = least_of(run.workers) < run.workers
    # Pickled here: the controller unpickles what it passes on, and would import torch for an unpickled task.
    task = ray.cloudpickle.dumps(Task(plan, threads, gpu, prepare))
    each = " each" if run.workers > 1 else ""
    workers = f"{run.workers} workers" if elastic else counted(run.workers, "worker")
    console.say(
        f"{workers}, {counted(threads, 'thread')}{each}, on {'GPUs' if gpu else 'CPUs'}; "
        f"starting {'them' if run.workers > 1 else 'it'}"
    )
    failures = 0
    with _watching(messages, console, plan.claim, on_rung, partial(room_for, run, threads, gpu) if elastic else None):
        for group in itertools.count():
            again = group > 0
            if fitting(_nodes(), threads, gpu) < least_of(run.workers):
                waits = "nodes that stay; waiting until others have come"
                waits = waits if again else "cluster's nodes; waiting until its autoscaler has added some"
                console.say(f"the workers do not fit on the {waits}")
            size = group_size(run, threads, gpu, again=again)
            # Ray would count what others use as room, so it is this driver that starts workers again, as many as fit.
            started_here = size if elastic and isinstance(size, int) else None
            if again and started_here:
                console.say(f"starting {counted(started_here, 'worker')}")
            try:
                trainer = LeanTrainer(
                    _worker,
                    train_loop_config={"task": task, "messages": messages},
                    backend_config=Rendezvous(),
                    scaling_config=_scaling_config(size, resources_of(threads, gpu)),
                    run_config=_run_config(plan, callbacks or [], _failure_config(run, started_here)),
                )
                trainer.fit()
            except StorageTimeoutError:
                failures += 1
                if not again or not started_here or failures > run.max_failures:
                    raise
                continue
            except ray.train.TrainingFailedError as error:
                if _fault(messages, plan) is None:
                    failures += isinstance(error, ray.train.WorkerGroupError)
                    if not started_here or not _were_lost(error) or failures > run.max_failures:
                        raise RunError(f"{plan.directory}: training failed: {error}") from error
                    continue
            fault = _fault(messages, plan)
            if fault is not None:
                raise fault
            said, notice = ray.get(messages.preempted.remote())
            if said is None:
                break
            if notice is None or notice.ends:
                raise PreemptedError(said)
            console.say(said)
    if run.evaluate_every:
        import torch

        from genlab.training.candidates import promote_best
        from genlab.training.ray.worker import DriverSession

        promote_best(plan, DriverSession(console, device=torch.device("cuda" if gpu else "cpu")))


def _scaling_config(size: int | tuple[int, int], each: dict[str, int | float]) -> ScalingConfig:
    """Return what Ray Train starts: ``size`` workers with these resources each.

    Of a range, Ray would also stop workers that are well, without a save, to start more; it never does, since the
    driver has them save first.
    """
    options: dict[str, Any] = {"num_workers": size}
    if not isinstance(size, int):
        options["elastic_resize_monitor_interval_s"] = NEVER_SECONDS
    return ScalingConfig(use_gpu="GPU" in each, resources_per_worker=each, **options)


def _failure_config(run: Run, started_here: int | None) -> FailureConfig:
    """Return which failures Ray Train survives: none where the driver starts so many workers itself, ``started_here``.

    Ray then waits for room for the least workers alone.
    """
    if started_here is None:
        return FailureConfig(max_failures=run.max_failures)
    options: dict[str, Any] = dict.fromkeys(("max_failures", "max_preemption_failures"), 0)
    if started_here > least_of(run.workers):
        options["controller_failure_limit"] = 0
    return FailureConfig(**options)


def _were_lost(error: ray.train.TrainingFailedError) -> bool:
    """Return whether workers were lost, or there was no room for them, and others may be started in their place."""
    cause = type(getattr(error, "controller_failure", None)).__name__
    return isinstance(error, ray.train.WorkerGroupError) or cause.startswith("WorkerGroupStartup")


def _run_config(plan: "Plan", callbacks: list[Any], failure_config: FailureConfig) -> RunConfig:
    """Return Ray Train's own config for a new start, whose state has a folder of its own; that of others is deleted."""
    storage = locate(plan.directory) / RAY_STATE
    if plan.claim:
        plan.claim.require()
    delete_folder(storage)
    filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.fs)) if is_remote(storage) else None
    return RunConfig(
        name=secrets.token_hex(4),
        storage_path=storage.path if filesystem else str(storage),
        storage_filesystem=filesystem,
        failure_config=failure_config,
        callbacks=callbacks,
    )


def _fault(messages: Any, plan: "Plan") -> GenlabError | None:
    """Return the :class:`GenlabError` that a worker sent, if any."""
    try:
        fault: GenlabError | None = ray.get(messages.fault.remote())
    except RayActorError:
        raise ClusterError(
            f"{plan.directory}: the node on which the run's messages were kept was lost; start the run again under its "
            "name, it goes on"
        ) from None
    return fault


@contextmanager
def _watching(
    messages: Any,
    console: RunConsole,
    claim: Claim | None,
    on_rung: Callable[[Rung], bool] | None,
    room: Callable[[int], int] | None,
) -> Iterator[None]:
    """Show the workers' messages and progress, and answer at rungs, from threads, until the context ends.

    If the claim on the run is lost, the workers are told, and rank 0 ends them. While they listen for notices, they are
    told of nodes that Ray is to give up, and of SIGTERM to this process, which else ends it. Where ``room`` says that
    there is room for more of them, they are told so, :data:`RESIZE_SECONDS` after they began at the earliest, and if so
    many do not come then, once for the same nodes.
    """
    over = threading.Event()
    listening = threading.Event()
    own_node = ray.get_runtime_context().get_node_id()

    announced = set[str]()
    tried = set[tuple[frozenset[str], int]]()

    def look_at_nodes(nodes: tuple[str, ...], may_grow: bool) -> None:
        """Tell the workers, which are on these nodes, if one of the nodes goes away or there is room for more."""
        leaving = draining() & {*nodes, own_node} - announced
        for node in leaving:
            messages.notify.remote(Notice(f"Ray gives up {node_name(node)}", ends=handled and node == own_node))
            announced.add(node)
        if room and may_grow and not leaving and (more := room(len(nodes))) > len(nodes):
            trial = frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"]), more
            if trial not in tried:
                tried.add(trial)
                messages.notify.remote(Notice(f"there is room for {more} workers", ends=False, cause=RESIZE))

    def watch() -> None:
        told = False
        asked = began = time.monotonic()
        group: tuple[str, ...] = ()
        while True:
            ended = over.wait(POLL_SECONDS)
            if claim and claim.lost.is_set() and not told:
                messages.fail.remote(claim.lost_error())
                told = True
            try:
                new, update, rung, nodes = ray.get(messages.collect.remote())
            except RayError:  # The actor is lost; _fault reports that after the run.
                return
            (listening.set if nodes else listening.clear)()
            now = time.monotonic()
            if nodes != group:
                group, began = nodes, now
                tried.difference_update([one for one in tried if one[1] <= len(nodes)])
            if nodes and now - asked >= WATCH_SECONDS:
                asked = now
                with suppress(Exception):  # The head may be away for a moment; messages must come all the same.
                    look_at_nodes(nodes, now - began >= RESIZE_SECONDS)
            for message in new:
                console.say(message)
            if update:
                console.show(update)
            if rung:
                threading.Thread(target=answer, args=(rung,), name="rung", daemon=True).start()
            if ended:
                return

    def answer(rung: Rung) -> None:
        try:
            messages.answer.remote(on_rung is not None and on_rung(rung))
        except Exception as error:  # Whatever it is, the workers must not wait for ever.
            fault = error if isinstance(error, GenlabError) else RunError(f"at step {rung.step:,}: {error}")
            messages.fail.remote(fault)

    def terminate(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, before)
        if listening.is_set():
            messages.notify.remote(SIGTERM_CAME)
        else:
            signal.raise_signal(signal.SIGTERM)

    # In another thread it is a trial of Ray Tune's, which starts it again itself.
    handled = threading.current_thread() is threading.main_thread()
    before = (signal.signal(signal.SIGTERM, terminate) if handled else None) or signal.SIG_DFL
    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if handled:
            signal.signal(signal.SIGTERM, before)
        over.set()
        thread.join(timeout=10)


def draining() -> frozenset[str]:
    """Return the IDs of the nodes that Ray is to give up; none where its private module does not tell."""
    try:
        from ray._private.state import state

        return frozenset(state.get_draining_nodes())
    except (ImportError, AttributeError, RayError):
        return frozenset()


def node_name(node: str) -> str:
    """Return how the user knows a node."""
    names = [f"node {one['NodeManagerAddress']}" for one in ray.nodes() if one["NodeID"] == node]
    return " ".join([*names, f"({node[:8]})"])


def _offered() -> list[Node] | None:
    """Return the kinds of nodes that an autoscaler can add to the cluster, or ``None`` if there is no autoscaler.

    Ray's own autoscalers do not tell, so the cluster's files set ``GENLAB_AUTOSCALED`` on the head. Others tell in a
    private module of Ray. Without it, nothing is refused that an autoscaler might make room for.

    Raises:
        ClusterError: when ``GENLAB_AUTOSCALED`` cannot be read.
    """
    said = os.environ.get(AUTOSCALED, "").split()
    if said:
        return [_kind(text) for text in said]
    try:
        from ray._private.state import state

        config = state.get_cluster_config()
    except (ImportError, AttributeError):
        return []
    if config is None or not config.node_group_configs:
        return None
    groups = [group.resources for group in config.node_group_configs if group.max_count]
    return [Node(int(group.get("CPU", 0)), int(group.get("GPU", 0))) for group in groups]


def _kind(text: str) -> Node:
    """Read ``CPU=8,GPU=1``."""
    found = re.fullmatch(r"CPU=(\d+)(?:,GPU=(\d+))?", text)
    if not found:
        raise ClusterError(f"{AUTOSCALED}={text}: write the kinds of nodes that may come as CPU=8,GPU=1 or CPU=4")
    return Node(int(found[1]), int(found[2] or 0))
