"""The base classes of models: modules with an architecture and operations from pixels to pixels."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from genlab.core.errors import RunError
from genlab.core.families import defined, undefined
from genlab.models.graph import Graph
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed, to_signed

Shape = tuple[int, int, int]
"""(height, width, channels) of an image."""


@dataclass(frozen=True)
class NoOptions:
    """The options of an operation that has none."""


@dataclass(frozen=True)
class InterpolationOptions:
    """The options of every interpolation."""

    steps: Annotated[int, Ge(2)] = 10
    """Images from end to end, both included."""


MOST_IMAGES, MOST_PIXELS = 500, 2**21
"""The most images, and the most pixels, that go through a model at a time."""


def images_per_pass(image_shape: Shape) -> int:
    """Return how many images of ``image_shape`` go through a model at a time, so that its layers fit in a few GiB."""
    height, width, _ = image_shape
    return max(1, min(MOST_IMAGES, MOST_PIXELS // (height * width)))


class Model(nn.Module):
    """A trained network, ready to be saved and loaded.

    A subclass sets ``family`` (the name of its module in ``genlab.models``), ``Architecture`` (a frozen
    dataclass of plain values) and ``operations``: the names of its methods that the command line and the server
    may call, each with a frozen dataclass of its options. Each operation is one of

    * ``sample(count, seed, label, options) -> uint8 [count, H, W, C]``, drawn from noise (see :class:`Sampler`)
    * ``translate(pixels uint8 [N, H, W, C], direction, options) -> uint8 [N, H, W, C]`` (see :class:`Translator`)
    * ``reconstruct(pixels uint8 [N, H, W, C], label, options) -> uint8 [N, H, W, C]``
    * ``interpolate(pixels uint8 [2, H, W, C], label, options) -> uint8 [options.steps, H, W, C]``
    * ``interpolate_draws(seeds, label, options) -> uint8 [options.steps, H, W, C]``, between ``sample(1, seed)`` of two
      seeds
    * ``decode(z float [N, latent_dim], label, options) -> uint8 [N, H, W, C]``
    * ``encode(pixels uint8 [N, H, W, C], label, options)``: mean and log-variance of q(z|x), float [N, latent_dim] each
    * ``mix_styles(rows, columns, label, options) -> uint8 [len(rows) + 1, len(columns) + 1, H, W, C]``: the pictures
      ``sample(1, seed)`` of seeds, those of ``rows`` down the first column, those of ``columns`` along the first row,
      white where these meet; and where a row and a column meet, the row's picture with some styles of the column's

    A ``conditional`` model takes a class number for each image, ``label``, int64 [N], and its architecture has the
    number of classes as ``classes``; for other models ``label`` is ``None``. All arguments are always passed.

    Options are typed fields with a range (``annotated_types``), a default and a docstring. Command line, HTTP schema
    and the model's card follow from them. They have other names than the arguments and :data:`RESERVED_NAMES`.

    Attributes:
        image_shape: (height, width, channels) of the images the model was made for.
        architecture: the values it was built from.
    """

    family: ClassVar[str]
    Architecture: ClassVar[type]
    operations: ClassVar[Mapping[str, type]]
    conditional: ClassVar[bool] = False

    def __init__(self, image_shape: Shape, architecture: Any) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.architecture = architecture

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return next(self.parameters()).device

    @property
    def classes(self) -> int:
        """Return the number of classes that the model is conditioned on; 0 for none."""
        return int(self.architecture.classes) if self.conditional else 0

    def graphs(self) -> dict[str, Graph]:
        """Return the functions of tensors that ``genlab export`` writes, by name; by default none."""
        return {}

    def networks(self) -> dict[str, Graph]:
        """Return the submodules, by name, that another runtime than PyTorch may compute in inference; by default none.

        Nothing but their results may be asked of these submodules then.
        """
        return {}


class Sampler(Model, ABC):
    """A model that draws images from noise."""

    @abstractmethod
    def draw(self, noise: Noise, label: Tensor | None, options: Any) -> Tensor:
        """Draw an image for each picture of ``noise``: uint8 [len(noise), H, W, C].

        It is called in inference mode, and takes all its random numbers from ``noise``.

        Args:
            noise: the random numbers, which come on the model's device.
            label: class of each image, int64 [len(noise)], on the model's device; ``None`` for a model without classes.
            options: an instance of ``operations["sample"]``.
        """

    def sample(self, count: int, seed: int, label: Tensor | None = None, options: Any = None) -> Tensor:
        """Draw the first ``count`` pictures of a seed: uint8 [count, H, W, C].

        Picture i is a pure function of (weights, seed, i, its class, options), up to the rounding of the networks,
        which may differ with the number of images that go through them together.

        Args:
            count: number of images, at least 1.
            seed: 0 or more.
            label: class of each image, int64 [count], for a conditional model; by default its classes in turn.
            options: an instance of ``operations["sample"]``; by default its defaults.
        """
        return torch.cat(list(self.sample_in_parts(count, seed, label, options)))

    def sample_in_parts(
        self, count: int, seed: int, label: Tensor | None = None, options: Any = None
    ) -> Iterator[Tensor]:
        """Draw what :meth:`sample` draws, :func:`images_per_pass` at a time: uint8 [N, H, W, C] each."""
        if label is None and self.classes:
            label = torch.arange(count) % self.classes
        if options is None:
            options = self.operations["sample"]()
        step = images_per_pass(self.image_shape)
        for first in range(0, count, step):
            pictures = range(first, min(first + step, count))
            classes = None if label is None else label[first : pictures.stop].to(self.device)
            with torch.inference_mode():
                images = self.draw(Noise(seed, pictures, self.device), classes, options)
            yield images


class Translator(Model, ABC):
    """A model that turns images of one domain into images of another; its architecture has a field ``directions``."""

    @property
    @abstractmethod
    def directions(self) -> tuple[str, ...]:
        """The values that ``translate`` takes for ``direction``, the default first: those of its architecture.

        Each is the names of two domains, joined by ``_to_``.
        """

    @property
    def size_multiple(self) -> int:
        """The number of pixels of which tiles of a large picture begin at multiples, see :mod:`genlab.models.tiles`."""
        return 1

    @abstractmethod
    def translate(self, pixels: Tensor, direction: str, options: Any = None) -> Tensor:
        """Translate uint8 [N, H, W, C] of any height and width into uint8 of the same shape."""

    def translate_signed(self, images: Tensor, direction: str) -> Tensor:
        """Translate float [N, C, H, W] in [-1, 1] into the same: by default by ``translate``, rounded to 8 bits.

        A model whose networks map floats overrides it, so that errors of translating there and back are not rounded.
        """
        return to_signed(self.translate(from_signed(images), direction))


@dataclass(frozen=True)
class Operation:
    """What models have in common that have an operation of one name."""

    arguments: tuple[str, ...]
    """The arguments of its method, in their order; its options come after them."""
    options: type = NoOptions
    """The dataclass of the options that all of these models have. A model's own options are a dataclass derived from
    it, or any dataclass where it is ``NoOptions``."""
    base: type[Model] = Model
    """The class that these models derive from."""


OPERATIONS: Mapping[str, Operation] = {
    "sample": Operation(("count", "seed", "label"), base=Sampler),
    "translate": Operation(("pixels", "direction"), base=Translator),
    "reconstruct": Operation(("pixels", "label")),
    "interpolate": Operation(("pixels", "label"), InterpolationOptions),
    "interpolate_draws": Operation(("seeds", "label"), InterpolationOptions),
    "decode": Operation(("z", "label")),
    "encode": Operation(("pixels", "label")),
    "mix_styles": Operation(("rows", "columns", "label")),
}
"""The operations that a model may have, by name."""
RESERVED_NAMES = frozenset(
    {name for operation in OPERATIONS.values() for name in operation.arguments}
    | {"model", "source", "dest", "paths", "split"}
    | {
        "data",
        "data_a",
        "data_b",
        "classifier",
        "inception",
        "samples",
        "iwae_images",
        "path_lengths",
        "copies",
        "output",
    }
)
"""Names that no option of a model may have, since commands and requests that take its options have them themselves."""


def model_type(family: str) -> type[Model]:
    """Return the model class of ``family``.

    Raises:
        RunError: when there is no such family; only modules of ``genlab.models`` are ever imported.
    """
    model: type[Model] | None = defined("genlab.models", family, "MODEL")
    if model is None:
        raise RunError(undefined("genlab.models", family, "MODEL"))
    return model
