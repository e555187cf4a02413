"""Kinds of work: what may go through a model in one batch, row by row.

Rows of equal kinds share batches, whoever asked for them. A kind has one picture (or latent
vector) in each row, and is compared by value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genlab.imaging.images import Pixels
from genlab.models.noise import Noise


class Kind(Protocol):
    """A kind of work; hashable."""

    @property
    def operation(self) -> str:
        """The operation that it belongs to."""

    @property
    def trial(self) -> tuple[Any, ...]:
        """What its batch sizes depend on, see :mod:`genlab.inference.batch_sizes`."""

    def pixels(self, image_shape: tuple[int, int, int]) -> int:
        """Return the pixels of a row, as it goes through a model of this ``image_shape``."""

    def example(self, model: Any) -> Any:
        """Return a row of this kind to try the model with."""

    def compute(self, model: Any, rows: Sequence[Any]) -> Iterable[Any]:
        """Compute rows as one batch: for each, what it gives."""


class Drawn(NamedTuple):
    """A picture to draw."""

    seed: int
    picture: int
    """Its number, 0 being the seed's first."""
    label: int | None
    """Its class, for a model with classes."""


@dataclass(frozen=True)
class Draw:
    """Pictures drawn from noise; rows are :class:`Drawn`, each gives uint8 [H, W, C]."""

    options: Any

    @property
    def operation(self) -> str:
        """Return its operation."""
        return "sample"

    @property
    def trial(self) -> tuple[Any, ...]:
        """All options take the same networks."""
        return ("draw",)

    def pixels(self, image_shape: tuple[int, int, int]) -> int:
        """Return the pixels of the model's images."""
        return image_shape[0] * image_shape[1]

    def example(self, model: Any) -> Drawn:
        """Return the first picture of seed 0."""
        return Drawn(0, 0, 0 if model.classes else None)

    def compute(self, model: Any, rows: Sequence[Drawn]) -> Pixels:
        """Draw: uint8 [rows, H, W, C]."""
        noise = Noise.of([(row.seed, row.picture) for row in rows], model.device)
        with torch.inference_mode():
            images: Tensor = model.draw(noise, _labels([row.label for row in rows], model.device), self.options)
            return images.cpu().numpy()


@dataclass(frozen=True)
class Translate:
    """Pictures of one size, or tiles of larger ones; rows are uint8 [height, width, C], and so is what they give."""

    direction: str
    options: Any
    height: int
    width: int

    @property
    def operation(self) -> str:
        """Return its operation."""
        return "translate"

    @property
    def trial(self) -> tuple[Any, ...]:
        """Each direction and size has batch sizes of its own."""
        return ("translate", self.direction, self.height, self.width)

    def pixels(self, image_shape: tuple[int, int, int]) -> int:
        """Return the pixels of a row."""
        return self.height * self.width

    def example(self, model: Any) -> Pixels:
        """Return a picture of middle grey."""
        return np.full((self.height, self.width, model.image_shape[2]), 128, np.uint8)

    def compute(self, model: Any, rows: Sequence[Pixels]) -> Pixels:
        """Translate: uint8 [rows, height, width, C]."""
        images: Tensor = model.translate(torch.from_numpy(np.stack(rows)), self.direction, self.options)
        return images.cpu().numpy()


class Labelled(NamedTuple):
    """A picture of the size of the model's images."""

    picture: Pixels
    """uint8 [H, W, C]."""
    label: int | None
    """Its class, for a model with classes."""


@dataclass(frozen=True)
class Reconstruct:
    """Pictures that are encoded and decoded; rows are :class:`Labelled`, each gives uint8 [H, W, C]."""

    options: Any

    @property
    def operation(self) -> str:
        """Return its operation."""
        return "reconstruct"

    @property
    def trial(self) -> tuple[Any, ...]:
        """All options take the same networks."""
        return ("reconstruct",)

    def pixels(self, image_shape: tuple[int, int, int]) -> int:
        """Return the pixels of the model's images."""
        return image_shape[0] * image_shape[1]

    def example(self, model: Any) -> Labelled:
        """Return a picture of middle grey."""
        return Labelled(np.full(model.image_shape, 128, np.uint8), 0 if model.classes else None)

    def compute(self, model: Any, rows: Sequence[Labelled]) -> Pixels:
        """Reconstruct: uint8 [rows, H, W, C]."""
        pixels = torch.from_numpy(np.stack([row.picture for row in rows]))
        images: Tensor = model.reconstruct(pixels, _labels([row.label for row in rows], "cpu"), self.options)
        return images.cpu().numpy()


class Latent(NamedTuple):
    """A latent vector."""

    values: tuple[float, ...]
    """As many as the model's latent dimensions."""
    label: int | None
    """Class of its picture, for a model with classes."""


@dataclass(frozen=True)
class Decode:
    """Pictures of latent vectors; rows are :class:`Latent`, each gives uint8 [H, W, C]."""

    options: Any

    @property
    def operation(self) -> str:
        """Return its operation."""
        return "decode"

    @property
    def trial(self) -> tuple[Any, ...]:
        """All options take the same networks."""
        return ("decode",)

    def pixels(self, image_shape: tuple[int, int, int]) -> int:
        """Return the pixels of the model's images."""
        return image_shape[0] * image_shape[1]

    def example(self, model: Any) -> Latent:
        """Return a latent vector that is nowhere zero."""
        return Latent((0.5,) * model.architecture.latent_dim, 0 if model.classes else None)

    def compute(self, model: Any, rows: Sequence[Latent]) -> Pixels:
        """Decode: uint8 [rows, H, W, C]."""
        latents = torch.tensor([row.values for row in rows], dtype=torch.float32)
        images: Tensor = model.decode(latents, _labels([row.label for row in rows], "cpu"), self.options)
        return images.cpu().numpy()


@dataclass(frozen=True)
class Encode:
    """Latent vectors of pictures; rows are :class:`Labelled`, each gives float32 [latent_dim], the posterior mean."""

    options: Any

    @property
    def operation(self) -> str:
        """Return its operation."""
        return "encode"

    @property
    def trial(self) -> tuple[Any, ...]:
        """All options take the same networks."""
        return ("encode",)

    def pixels(self, image_shape: tuple[int, int, int]) -> int:
        """Return the pixels of the model's images."""
        return image_shape[0] * image_shape[1]

    def example(self, model: Any) -> Labelled:
        """Return a picture of middle grey."""
        return Labelled(np.full(model.image_shape, 128, np.uint8), 0 if model.classes else None)

    def compute(self, model: Any, rows: Sequence[Labelled]) -> NDArray[np.float32]:
        """Encode: float32 [rows, latent_dim]."""
        pixels = torch.from_numpy(np.stack([row.picture for row in rows]))
        mean: Tensor = model.encode(pixels, _labels([row.label for row in rows], "cpu"), self.options)[0]
        return mean.cpu().numpy()


@dataclass(frozen=True)
class Whole:
    """An operation that makes its pictures together, such as an interpolation; rows are its arguments by name.

    Each row is computed on its own, and gives the operation's pictures.
    """

    operation: str
    options: Any
    pictures: int
    """The number of pictures that a row gives."""

    @property
    def trial(self) -> tuple[Any, ...]:
        """There is nothing to try: batches have one row."""
        return ()

    def pixels(self, image_shape: tuple[int, int, int]) -> int:
        """Return the pixels of all pictures of a row."""
        return self.pictures * image_shape[0] * image_shape[1]

    def example(self, model: Any) -> Mapping[str, Any]:
        """Return nothing: it is not tried."""
        return {}

    def compute(self, model: Any, rows: Sequence[Mapping[str, Any]]) -> list[Pixels]:
        """Compute each row: uint8 [..., H, W, C]."""
        return [getattr(model, self.operation)(**row, options=self.options).cpu().numpy() for row in rows]


def _labels(labels: Sequence[int | None], device: torch.device | str) -> Tensor | None:
    """Return the classes of rows, int64 [rows]; ``None`` for a model without classes."""
    if not labels or labels[0] is None:
        return None
    return torch.tensor(labels, device=device)
