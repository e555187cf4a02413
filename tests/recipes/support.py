"""A step context that records what a recipe does in one step, and random batches."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from genlab.data.stream.batches import Batch
from genlab.recipes.recipe import Batches, Recipe


class RecordingStepContext:
    """A :class:`genlab.recipes.recipe.StepContext` that takes a step but changes no weight.

    It keeps the loss and the gradients of each network.
    """

    index: int = 0

    def __init__(self, recipe: Recipe[Any], rows: int) -> None:
        self._recipe = recipe
        self._rows = rows
        self.rows = slice(0, rows)
        self._left: dict[str, Any] = {}
        self.losses: dict[str, Tensor] = {}
        self.gradients: dict[str, dict[str, Tensor | None]] = {}

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def noise(self, name: str, *shape: int) -> Tensor:
        return torch.randn(self._rows, *shape, generator=torch.Generator().manual_seed(len(name)))

    def uniform(self, name: str, *shape: int) -> Tensor:
        return torch.rand(self._rows, *shape, generator=torch.Generator().manual_seed(len(name)))

    def gather(
        self, tensor: Tensor, wanted: Collection[int] | None = None
    ) -> Callable[[], tuple[Sequence[int], Tensor]]:
        rows = [row for row in range(self._rows) if wanted is None or row in wanted]
        return lambda: (rows, tensor.detach()[rows])

    def leave(self, name: str, value: Any) -> None:
        self._left[name] = value

    def left(self, name: str) -> Any:
        return self._left[name]

    def take(self, batches: Batches) -> dict[str, Tensor]:
        """Compute all phases of a step, and return their metrics."""
        found: dict[str, Tensor] = {}
        for phase in self._recipe.phases():
            loss, metrics = phase.loss(batches, self)
            parameters = dict(self._recipe.networks[phase.network].named_parameters())
            gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
            self.losses[phase.network] = loss.detach()
            self.gradients[phase.network] = dict(zip(parameters, gradients, strict=True))
            self.move(phase.network)
            found |= metrics
        return found

    def move(self, network: str) -> None:
        """Called when the loop would move the network."""


def batch(rows: int, *shape: int, seed: int, classes: int = 0) -> Batch:
    """Random pixels, uint8 [rows, *shape], and labels if there are classes."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (rows, *shape), dtype=torch.uint8, generator=generator)
    return Batch(pixels, torch.arange(rows) % classes if classes else None)
