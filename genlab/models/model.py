"""The base classes of models: modules with an architecture and operations from pixels to pixels."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genlab.core.errors import RunError
from genlab.core.families import defined, undefined
from genlab.models.graph import Graph

Shape = tuple[int, int, int]
"""(height, width, channels) of an image."""
OPERATIONS = {
    "sample": ("count", "seed", "label"),
    "translate": ("pixels", "direction"),
    "reconstruct": ("pixels", "label"),
    "interpolate": ("pixels", "steps", "label"),
    "interpolate_draws": ("seeds", "steps", "label"),
}
"""The operations that a model may have, each with its arguments, which are all given, in this order."""


class Model(nn.Module):
    """A trained network, ready to be saved and loaded.

    A subclass sets ``family`` (the name of its module in ``genlab.models``), ``Architecture`` (a frozen
    dataclass of plain values) and ``operations``: the names of its methods that the command line and the server
    may call. Each operation is one of

    * ``sample(count, seed, label) -> uint8 [count, H, W, C]``, drawn from noise
    * ``translate(pixels uint8 [N, H, W, C], direction) -> uint8 [N, H, W, C]`` (see ``directions``)
    * ``reconstruct(pixels uint8 [N, H, W, C], label) -> uint8 [N, H, W, C]``
    * ``interpolate(pixels uint8 [2, H, W, C], steps, label) -> uint8 [steps, H, W, C]``
    * ``interpolate_draws(seeds, steps, label) -> uint8 [steps, H, W, C]``, between ``sample(1, seed)`` of two seeds

    A ``conditional`` model takes a class number for each image, ``label``, int64 [N], and its architecture has the
    number of classes as ``classes``; for other models ``label`` is ``None``. All arguments are always passed.

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
        """Return the device of the weights."""
        return next(self.parameters()).device

    def graphs(self) -> dict[str, Graph]:
        """Return the functions of tensors that ``genlab export`` writes, by name; by default none."""
        return {}


class Sampler(Model, ABC):
    """A model that draws images from noise."""

    @abstractmethod
    def sample(self, count: int, seed: int, label: Tensor | None = None) -> Tensor:
        """Draw ``count`` images, uint8 [count, H, W, C]: a pure function of (weights, count, seed, label).

        A conditional model takes the class of each image, ``label``, int64 [count]; by default its classes in turn.
        """


class Translator(Model, ABC):
    """A model that turns images of one domain into images of another; its architecture has a field ``directions``."""

    @property
    @abstractmethod
    def directions(self) -> tuple[str, ...]:
        """The values that ``translate`` takes for ``direction``, the default first: those of its architecture."""

    @abstractmethod
    def translate(self, pixels: Tensor, direction: str) -> Tensor:
        """Translate uint8 [N, H, W, C] of any height and width into uint8 of the same shape."""


def model_type(family: str) -> type[Model]:
    """Return the model class of ``family``.

    Raises:
        RunError: when there is no such family; only modules of ``genlab.models`` are ever imported.
    """
    model: type[Model] | None = defined("genlab.models", family, "MODEL")
    if model is None:
        raise RunError(undefined("genlab.models", family, "MODEL"))
    return model
