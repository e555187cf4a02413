"""A model of data-parallel training on a cluster: what a step sends to other workers, and how long it waits for that.

:func:`profile` takes real steps of a recipe on the meta device, which has shapes and no values: its networks, its
phases, the buckets of its gradients and what it gathers are those of training. All else is arithmetic.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from genlab.core.config import override
from genlab.data.stream.batches import Batch
from genlab.data.stream.order import group_slice
from genlab.recipes.recipe import DomainInfo, Phase, Recipe, recipe_type
from genlab.training import gradients as gradients_module
from genlab.training import step_context as step_context_module
from genlab.training.console import RunConsole
from genlab.training.gradients import Gradients
from genlab.training.plan import build_on_meta
from genlab.training.session import LocalSession
from genlab.training.state import TrainingState
from genlab.training.step_context import LoopStepContext

FIRST_STEP, STEPS = 960, 16
"""The steps that are profiled: when histories are full, and as many as StyleGAN has between R1 terms."""
META = torch.device("meta")


class Link(NamedTuple):
    """A way for bytes."""

    bandwidth: float
    """Bytes a second, each way."""
    latency: float
    """Seconds of a message of no bytes."""


def ring_seconds(size: float, ranks: int, link: Link) -> float:
    """Return how long it takes to sum ``size`` bytes over ``ranks`` in a ring: each sends 2 (N - 1) / N of them."""
    return 2 * (ranks - 1) * (size / ranks / link.bandwidth + link.latency)


def tree_seconds(size: float, ranks: int, link: Link) -> float:
    """Return the same for two binary trees with half of the bytes each (Sanders, Speck & Träff 2009), as NCCL has."""
    return 0.0 if ranks == 1 else 2 * (size / link.bandwidth + math.ceil(math.log2(ranks)) * link.latency)


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal devices, one worker each."""

    nodes: int
    devices: int
    """Devices of a node."""
    inside: Link
    """The link of each device to the others of its node."""
    between: Link
    """The link of each node to the others, which its devices share."""
    start: float = 0.0
    """Seconds before the first byte of a collective operation moves."""
    beside: bool = True
    """Whether bytes move while a worker computes; if not, its processor moves them."""

    @property
    def workers(self) -> int:
        """The number of workers."""
        return self.nodes * self.devices

    def sum_seconds(self, size: float) -> float:
        """Return how long it takes to sum ``size`` bytes over all workers, first within nodes and then between them."""
        if self.workers == 1:
            return 0.0
        between = min(sum_over(size, self.nodes, self.between) for sum_over in (ring_seconds, tree_seconds))
        return self.start + ring_seconds(size, self.devices, self.inside) + between

    def gather_seconds(self, size: float) -> float:
        """Return how long it takes until each worker has ``size`` bytes of each other one."""
        if self.workers == 1:
            return 0.0
        inside = (self.workers - 1) * size / self.inside.bandwidth + (self.devices - 1) * self.inside.latency
        others = (self.nodes - 1) * (self.devices * size / self.between.bandwidth + self.between.latency)
        return self.start + inside + others

    def copy_seconds(self, size: float) -> float:
        """Return how long it takes to copy ``size`` bytes from one worker to all, in pieces that follow each other."""
        if self.workers == 1:
            return 0.0
        links = [(self.devices, self.inside), (self.nodes, self.between)]
        hops = sum(math.ceil(math.log2(count)) * link.latency for count, link in links)
        return self.start + hops + size / min(link.bandwidth for count, link in links if count > 1)

    def sent(self, size: float) -> float:
        """Return how many bytes a node sends to other nodes for a sum of ``size`` bytes."""
        return 2 * (self.nodes - 1) / self.nodes * size


class Event(NamedTuple):
    """A moment of a step at which a worker begins a collective operation, or begins to wait for its end."""

    operations: int
    """Floating-point operations of the step that are done by then."""
    kind: Literal["sum", "gather", "wait"]
    message: int
    """Number of the collective operation within its step."""
    size: int
    """Bytes that each worker has of it."""


class Step(NamedTuple):
    """What a worker does in a step."""

    operations: int
    """All floating-point operations."""
    events: tuple[Event, ...]


class Times(NamedTuple):
    """Seconds of a step, in the mean."""

    computing: float
    moving: float
    """The collective operations, each for itself."""
    waiting: float
    """A worker waits for them, or moves them itself."""

    @property
    def efficiency(self) -> float:
        """Images a second and worker, as a share of those of a worker that is alone, 0..1."""
        return self.computing / (self.computing + self.waiting)

    @property
    def hidden(self) -> float:
        """The share of the collective operations during which a worker computes, 0..1."""
        return 1 - self.waiting / self.moving if self.moving else 1.0


def times(steps: Sequence[Step], computing: float, cluster: Cluster) -> Times:
    """Return the times of a step: collective operations go one after the other, in the order in which they begin.

    Args:
        steps: consecutive steps.
        computing: seconds of a step without collective operations, in the mean; each step and each part of it takes
            its share by its operations.
        cluster: the workers.
    """
    seconds_each = computing * len(steps) / sum(step.operations for step in steps)
    moving = waiting = 0.0
    for step in steps:
        waited = free = 0.0
        due: dict[int, float] = {}
        for event in step.events:
            now = event.operations * seconds_each + waited
            if event.kind == "wait":
                waited += max(0.0, due[event.message] - now)
                continue
            seconds = cluster.sum_seconds(event.size) if event.kind == "sum" else cluster.gather_seconds(event.size)
            moving += seconds
            free = max(free, now) + seconds
            if not cluster.beside:
                waited += seconds
            due[event.message] = free
        waiting += waited
    return Times(computing, moving / len(steps), waiting / len(steps))


def least_bandwidth(steps: Sequence[Step], computing: float, cluster: Cluster, efficiency: float) -> float:
    """Return the bandwidth between nodes with which ``efficiency`` is reached, bytes a second; infinity for none."""

    def reached(bandwidth: float) -> bool:
        between = cluster.between._replace(bandwidth=bandwidth)
        return times(steps, computing, replace(cluster, between=between)).efficiency >= efficiency

    low, high = 1e3, 1e15
    if not reached(high):
        return math.inf
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class Profile:
    """What training of a family computes, sends and keeps."""

    steps: tuple[Step, ...]
    """Consecutive steps of one worker."""
    gradients: int
    """Bytes of the gradients of all networks."""
    state: int
    """Bytes of the tensors of a checkpoint."""
    tensors: int
    """How many they are."""


def profile(
    family: str,
    options: Mapping[str, Any],
    side: int,
    rows: int,
    workers: int,
    first: int = FIRST_STEP,
    steps: int = STEPS,
) -> Profile:
    """Take steps as rank 0 of ``workers`` without computing a value, as :func:`genlab.training.loop.train` takes them.

    Args:
        family: the family.
        options: options of its config that differ from the defaults, by their dotted names.
        side: height and width of the images, which are RGB.
        rows: rows of a worker.
        workers: number of workers.
        first: number of the first step.
        steps: how many steps.
    """
    config = override(recipe_type(family).config_type(), {**options, "run.batch": rows * workers})
    recipe = build_on_meta(family, config, {name: DomainInfo(1, (side, side, 3), ()) for name in config.data.domains})
    recipe.train()
    state = TrainingState(recipe, META)
    gradients = {
        name: Gradients(list(parameters.values()), alone=workers == 1) for name, parameters in state.parameters.items()
    }
    phases = recipe.phases()
    taken: dict[tuple[str, ...], Step] = {}
    found = []
    for index in range(first, first + steps):
        due = [phase for phase in phases if index % phase.every == 0]
        names = tuple(phase.name for phase in due)
        if names not in taken:  # Steps of the same phases compute and send the same.
            taken[names] = _take(recipe, state, gradients, due, index, rows, workers)
        found.append(taken[names])
    sizes = [tensor.nbytes for tensor in state.tensors().values()]
    parameters = [parameter.nbytes for network in state.parameters.values() for parameter in network.values()]
    return Profile(tuple(found), sum(parameters), sum(sizes), len(sizes))


def _take(
    recipe: Recipe[Any],
    state: TrainingState,
    gradients: Mapping[str, Gradients],
    phases: Sequence[Phase],
    index: int,
    rows: int,
    workers: int,
) -> Step:
    """Take a step of these phases."""
    events: list[Event] = []
    with Operations() as counted, META, _noted(events, counted, workers):
        batches = {
            name: Batch(torch.empty(rows, *domain.shape, dtype=torch.uint8), None)
            for name, domain in recipe.domains.items()
        }
        step = _ShapesOnly(
            LocalSession(RunConsole(), world_size=workers, device=META),
            index=index,
            batch=rows * workers,
            rows_of=partial(_rows_of, rows * workers, workers, recipe.group),
            key=(0,),
            precision="fp32",
        )
        moving: list[str] = []
        for phase in phases:
            reads = {phase.network, *(recipe.networks if phase.reads is None else phase.reads)}
            _move([name for name in moving if name in reads], gradients, state)
            moving = [name for name in moving if name not in reads] + [phase.network]
            with state.only(phase.network):
                loss, _ = phase.loss(batches, step)
                gradients[phase.network].backward(loss, first=True, last=True)
        _move(moving, gradients, state)
    return Step(counted.total, tuple(events))


class Operations(TorchDispatchMode):
    """Counts floating-point operations by PyTorch's formulas, but for convolutions' gradients: those know no groups.

    PyTorch's own FlopCounterMode looks for modules, and so cannot count a gradient of a gradient.
    """

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        packet = function._overloadpacket
        if packet is torch.ops.aten.convolution_backward:
            gradient, inputs, weight, *_ = args
            places = (inputs if args[7] else gradient).numel()
            self.total += 2 * places * weight[0].numel() * sum(args[10][:2])
        elif packet in flop_registry:
            self.total += flop_registry[packet](*args, **(kwargs or {}), out_val=found)
        return found


class _ShapesOnly(LoopStepContext):
    """The loop's own context of a step, but for noise, which has no values."""

    def noise(self, name: str, *shape: int) -> Tensor:
        return torch.empty(self.rows.stop - self.rows.start, *shape)

    uniform = noise


@contextmanager
def _noted(events: list[Event], counted: Operations, workers: int) -> Iterator[None]:
    """Until the context ends, collective operations move nothing and are noted."""

    def begin(kind: Literal["sum", "gather"], tensor: Tensor) -> Callable[[], object]:
        message = len(events)
        events.append(Event(counted.total, kind, message, tensor.nbytes))
        return lambda: events.append(Event(counted.total, "wait", message, tensor.nbytes))

    def gather(tensor: Tensor) -> tuple[list[Tensor], Callable[[], object]]:
        return [tensor] * workers, begin("gather", tensor)

    with (
        mock.patch.object(gradients_module, "start_sum_over_ranks", partial(begin, "sum")),
        mock.patch.object(step_context_module, "start_sum_over_ranks", partial(begin, "sum")),
        mock.patch.object(step_context_module, "start_gather_over_ranks", gather),
    ):
        yield


def _rows_of(batch: int, workers: int, group: int, rank: int) -> slice:
    return group_slice(batch, rank, workers, group)


def _move(networks: Sequence[str], gradients: Mapping[str, Gradients], state: TrainingState) -> None:
    for name in networks:
        gradients[name].wait()
        state.step_optimizer(name)
