"""What a recipe is: one family's networks, losses and figures, and what one training step means.

A family is one module in ``genlab.models`` and one of the same name in ``genlab.recipes``, found by that name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from genlab.core.errors import ConfigError
from genlab.core.families import defined, families
from genlab.data.stream.batches import Batch
from genlab.models.model import Model, Shape
from genlab.recipes.options import Data, Optimization, Run


class RecipeConfig(Protocol):
    """The sections every recipe's config has; it may have more."""

    @property
    def run(self) -> Run: ...  # noqa: D102

    @property
    def data(self) -> Data: ...  # noqa: D102

    @property
    def optimization(self) -> Optimization: ...  # noqa: D102


@dataclass(frozen=True)
class DomainInfo:
    """What a recipe may know of a data set before it sees a row."""

    rows: int
    shape: Shape
    label_names: tuple[str, ...]

    def classes(self, asked: int) -> int:
        """The number of classes of a model for this data set: ``asked``, or as many as there are labels when that is 0.

        It is 0 where the images have no labels.

        Raises:
            ValueError: when there are more labels than ``asked``.
        """
        found = len(self.label_names)
        if 0 < asked < found:
            raise ValueError(f"model.classes = {asked}: the data set has {found}; leave it out")
        return found and (asked or found)


class StepContext(Protocol):
    """What the training loop offers a recipe for one optimisation step: its rows, their noise and the optimisers."""

    @property
    def index(self) -> int:
        """The step's number, from 0."""
        ...

    @property
    def rows(self) -> slice:
        """This rank's rows within the global batch; with gradient accumulation, those of this part."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes: bf16 autocast, or nothing in fp32."""
        ...

    def noise(self, name: str, *shape: int) -> Tensor:
        """Standard normal noise that belongs to rows, in full precision [local rows, *shape].

        Drawn for the global batch from (seed, step, name) and sliced, so it is the same for any world size.
        """
        ...

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Noise as of :meth:`noise`, but uniform in [0, 1)."""
        ...

    def gather(self, tensor: Tensor) -> Callable[[], tuple[Sequence[int], Tensor]]:
        """Begin to gather [local rows, ...] of every rank, beside what is computed until the returned function waits.

        It returns the rows' numbers in the global batch, and [rows, ...]. No gradient flows through it. With gradient
        accumulation these are the rows of one part of the global batch.
        """
        ...

    def update(self, network: str, loss: Tensor) -> None:
        """Step the optimiser of ``networks[network]`` down the gradient of ``loss``.

        ``loss`` is a scalar, the mean over this rank's rows; the gradient applied is the mean over the global
        batch. Gradients that ``loss`` leaves on other networks are dropped. With several workers the optimiser steps
        when all of the recipe's step is done; with gradient accumulation that is called for each part of its rows, and
        the optimiser steps with the last of them: so nothing that comes later in a step may count on weights that have
        moved.
        """
        ...


Batches = Mapping[str, Batch]
C = TypeVar("C", bound=RecipeConfig)


class Recipe(nn.Module, ABC, Generic[C]):
    """One model family in training.

    The constructor builds the networks on the CPU from the default generator, which the loop has seeded.

    Attributes:
        networks: what is trained, by name; each has an optimiser of its own.
        averaged: names of the networks of which an exponential moving average is kept and exported.
        ranked_by: the figure of an evaluation, lower being better, by which checkpoints are ranked; empty for a family
            whose test metrics say enough.
        figure_rows: how many held-out rows ``figures`` is given: up to a hundred from the first, then some of the whole
            split.
    """

    config_type: ClassVar[type]
    averaged: ClassVar[tuple[str, ...]]
    ranked_by: ClassVar[str] = ""
    networks: nn.ModuleDict
    figure_rows: int = 16

    def __init__(self, config: C, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__()
        self.config = config
        self.domains = domains

    @abstractmethod
    def step(self, batches: Batches, step: StepContext) -> dict[str, Tensor]:
        """Do one optimisation step; return named scalar tensors, means over this rank's rows, on the device."""

    @abstractmethod
    def test_metrics(self, batches: Batches, step: StepContext) -> dict[str, Tensor]:
        """Figures of held-out rows, scalar tensors that are means over this rank's rows; empty for none."""

    @abstractmethod
    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Named pictures, uint8 [H, W, C], of held-out rows, see ``figure_rows``."""

    def tables(self, batches: Batches) -> dict[str, list[tuple[str, ...]]]:
        """Named tables of the rows that ``figures`` is given, each with its head first; by default none."""
        return {}

    @abstractmethod
    def model(self) -> Model:
        """The servable model, sharing its weights with ``networks``."""


def recipe_type(family: str) -> type[Recipe[Any]]:
    """The recipe class of ``family``.

    Raises:
        ConfigError: when there is no such family.
    """
    recipe: type[Recipe[Any]] | None = defined("genlab.recipes", family, "RECIPE")
    if recipe is None:
        raise ConfigError(f"no recipe for family {family!r}; there are: {', '.join(families())}")
    return recipe
