"""What every servable model is: a module with an architecture and operations from pixels to pixels."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genlab.core.errors import RunError
from genlab.core.families import defined, families
from genlab.models.graph import Graph

Shape = tuple[int, int, int]
"""(height, width, channels) of an image."""


class Model(nn.Module):
    """A trained generator, ready to be saved, loaded and served.

    A subclass sets ``family`` (the name of its module in ``genlab.models``), ``Architecture`` (a frozen
    dataclass of plain values) and ``operations``: the names of its methods that the command line and the server
    may call. Each operation is one of

    * ``sample(count, seed, label) -> uint8 [count, H, W, C]``
    * ``translate(pixels uint8 [N, H, W, C], direction) -> uint8 [N, H, W, C]`` (see ``directions``)
    * ``reconstruct(pixels uint8 [N, H, W, C], label) -> uint8 [N, H, W, C]``
    * ``interpolate(pixels uint8 [2, H, W, C], steps, label) -> uint8 [steps, H, W, C]``
    * ``interpolate_draws(seeds, steps, label) -> uint8 [steps, H, W, C]``, between ``sample(1, seed)`` of two seeds

    A ``conditional`` model is told a class, ``label``, int64 [N], and has their number as ``classes`` in its
    architecture; for the others ``label`` is ``None``.

    Attributes:
        image_shape: (height, width, channels) of the images the model was made for.
        architecture: the values it was built from.
    """

    family: ClassVar[str]
    Architecture: ClassVar[type]
    operations: ClassVar[tuple[str, ...]]
    conditional: ClassVar[bool] = False

    def __init__(self, image_shape: Shape, architecture: Any) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.architecture = architecture

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def graphs(self) -> dict[str, Graph]:
        """Its parts from tensors to tensors that other runtimes can run, by name; none unless a subclass says so."""
        return {}


class Sampler(Model, ABC):
    """A model that draws images from noise."""

    @abstractmethod
    def sample(self, count: int, seed: int, label: Tensor | None = None) -> Tensor:
        """Draw ``count`` images, uint8 [count, H, W, C]; a pure function of (weights, count, seed, label).

        A conditional model that is given no ``label``, int64 [count], takes its classes in turn.
        """


class Translator(Model, ABC):
    """A model that turns the images of one domain into another's; its architecture has a field ``directions``."""

    @property
    @abstractmethod
    def directions(self) -> tuple[str, ...]:
        """The values that ``translate`` takes for ``direction``, the default first: those of its architecture."""

    @abstractmethod
    def translate(self, pixels: Tensor, direction: str) -> Tensor:
        """Translate uint8 [N, H, W, C] of any height and width into uint8 of the same shape."""


def model_type(family: str) -> type[Model]:
    """The model class of ``family``.

    Raises:
        RunError: when there is no such family; only modules of ``genlab.models`` are ever imported.
    """
    model: type[Model] | None = defined("genlab.models", family, "MODEL")
    if model is None:
        known = ", ".join(families("genlab.models", "MODEL"))
        raise RunError(f"no model family {family!r}; there are: {known}")
    return model
