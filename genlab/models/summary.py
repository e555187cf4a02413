"""Layer tables: the layers of networks with output shapes and parameter counts, found by running the networks once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """A row of the table: a module without submodules, or a parameter that a module has beside its submodules."""

    name: str
    """Dotted name within its network; empty for a network of one layer."""
    kind: str
    """Name of its class, or ``Parameter``."""
    shape: tuple[int, ...] | None
    """Shape of its output at its first call, without the batch dimension; ``None`` if it was not called."""
    parameters: int
    """Number of its parameters."""


@dataclass(frozen=True)
class Network:
    """A module that is called as a whole, such as an encoder."""

    name: str
    """Dotted name."""
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Return the number of parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)


def summarise(modules: Mapping[str, nn.Module], run: Callable[[], object]) -> list[Network]:
    """List the networks in ``modules`` and their layers, in the order in which they are defined.

    A network is an outermost module that is called; modules that only hold others do not count. Layers without
    parameters that keep the shape, such as activations, are left out. A parameter that two layers share counts for the
    first.

    Args:
        modules: modules by name; they may lie on the meta device.
        run: a function that calls them with a batch of any size.
    """
    calls: dict[nn.Module, tuple[tuple[int, ...] | None, tuple[int, ...] | None]] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls.setdefault(module, (_shape(inputs[0]) if inputs else None, _shape(output)))

    hooks = [one.register_forward_hook(note) for module in modules.values() for one in module.modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()

    counted: set[int] = set()

    def own(module: nn.Module) -> dict[str, int]:
        """Return the sizes of the parameters that belong to ``module`` itself, by name."""
        found = {name: each for name, each in module.named_parameters(recurse=False) if id(each) not in counted}
        counted.update(map(id, found.values()))
        return {name: each.numel() for name, each in found.items()}

    def layers(prefix: str, module: nn.Module) -> Iterator[Layer]:
        children = dict(module.named_children())
        if children:
            for name, size in own(module).items():
                yield Layer(_join(prefix, name), "Parameter", None, size)
            for name, child in children.items():
                yield from layers(_join(prefix, name), child)
            return
        before, after = calls.get(module, (None, None))
        size = sum(own(module).values())
        if size or before != after:
            yield Layer(prefix, type(module).__name__, after, size)

    def found(name: str, module: nn.Module) -> Iterator[Network]:
        if module in calls or not dict(module.named_children()):
            yield Network(name, tuple(layers("", module)))
            return
        if parameters := own(module):
            yield Network(name, tuple(Layer(each, "Parameter", None, size) for each, size in parameters.items()))
        for part, child in module.named_children():
            yield from found(_join(name, part), child)

    everything = [network for name, module in modules.items() for network in found(name, module)]
    return [network for network in everything if network.layers]


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else None
