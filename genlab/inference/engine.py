"""The engine: a trained model on a device, from pictures to pictures.

The command line, batch translation and the server run models through it alone.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from genlab.imaging.images import Channels, ImageError, Pixels, prepare
from genlab.inference.operations import ModelInfo
from genlab.models.precision import allow_tf32
from genlab.store import model_directory

ImageInput = bytes | Pixels
"""The bytes of an image file, or uint8 [H, W, 1 or 3]."""


def best_device() -> str:
    """Name a GPU if this process has one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Engine:
    """A model from a model directory, on a device. It takes pictures as files or pixels, and gives pixels: uint8.

    Each operation checks that the model has it, its direction or class, and the options of the model's own, which are
    given by name, as in ``sample(16, 0, truncation=0.5)``. Pictures come upright, in the model's
    channels, whatever their own, and in 8 bits, by the range of values that training read deeper ones by; all but
    :meth:`translate` take them in the size of the model's images. Computes in fp32, on a GPU too: what a model gives
    does not depend on the device, but for rounding.

    Args:
        directory: the model directory.
        device: where to put the model; by default :func:`best_device`.

    Raises:
        RunError: the model cannot be loaded; and, from an operation, the model does not have it.
        ConfigError: from an operation, it has no such option, or a value is out of range.
    """

    def __init__(self, directory: model_directory.Location, device: str | torch.device | None = None) -> None:
        allow_tf32(False)
        self.info = ModelInfo.read(directory)
        self._model: Any = model_directory.load(directory, device or best_device())

    def sample(self, count: int, seed: int, label: str | int | None = None, **options: Any) -> Pixels:
        """Draw a seed's first ``count`` pictures, all of the class ``label`` if given: uint8 [count, H, W, C].

        Raises:
            ConfigError: the model has no such class.
        """
        chosen = self.info.options("sample", options)
        return _pixels(self._model.sample(count, seed, _labels(self.info.class_number(label), count), chosen))

    def translate(self, picture: ImageInput, direction: str | None = None, **options: Any) -> Pixels:
        """Translate a picture of any size, by default in the model's first direction: uint8 [H, W, C], its size.

        Raises:
            ConfigError: the model has no such direction.
            ImageError: the picture cannot be decoded.
        """
        chosen = self.info.options("translate", options)
        direction = self.info.direction(direction)
        return _pixels(self._model.translate(torch.tensor(self.read(picture, direction))[None], direction, chosen))[0]

    def reconstruct(self, pictures: Sequence[ImageInput], label: str | int | None = None, **options: Any) -> Pixels:
        """Encode and decode pictures of the class ``label``, which a model with classes needs: uint8 [N, H, W, C].

        Raises:
            ConfigError: the model has no such class, or needs one.
            ImageError: a picture cannot be decoded, or has not the size of the model's images.
        """
        chosen = self.info.options("reconstruct", options)
        number = self.info.class_number(label, needed=True)
        return _pixels(self._model.reconstruct(self._batch(pictures), _labels(number, len(pictures)), chosen))

    def interpolate(self, begin: ImageInput, end: ImageInput, label: str | int | None = None, **options: Any) -> Pixels:
        """Go from one picture to another, both included, in as many ``steps`` as asked for: uint8 [steps, H, W, C].

        Raises:
            ConfigError: the model has no such class, or needs one.
            ImageError: a picture cannot be decoded, or has not the size of the model's images.
        """
        chosen = self.info.options("interpolate", options)
        number = self.info.class_number(label, needed=True)
        return _pixels(self._model.interpolate(self._batch((begin, end)), _labels(number, 2), chosen))

    def interpolate_draws(self, seeds: tuple[int, int], label: str | int | None = None, **options: Any) -> Pixels:
        """Go from the first picture of one seed to that of another, both included: uint8 [steps, H, W, C].

        Raises:
            ConfigError: the model has no such class, or needs one.
        """
        chosen = self.info.options("interpolate_draws", options)
        number = self.info.class_number(label, needed=True)
        return _pixels(self._model.interpolate_draws(seeds, _labels(number, 2), chosen))

    def mix_styles(
        self, rows: Sequence[int], columns: Sequence[int], label: str | int | None = None, **options: Any
    ) -> Pixels:
        """Give the first pictures of the seeds ``rows`` some styles of those of ``columns``, all of one class.

        Returns:
            uint8 [len(rows) + 1, len(columns) + 1, H, W, C]: the pictures themselves in the first column and the first
            row, white at [0, 0].

        Raises:
            ConfigError: the model has no such class, or needs one.
        """
        chosen = self.info.options("mix_styles", options)
        number = self.info.class_number(label, needed=True)
        return _pixels(self._model.mix_styles(rows, columns, _labels(number, len(rows) + len(columns)), chosen))

    def read(self, picture: ImageInput, direction: str | None = None) -> Pixels:
        """Decode a picture as the model takes it: upright, uint8 [H, W, C] in the model's channels, of its own size.

        A picture of more than 8 bits is read by the range of values that training read such images by.

        Args:
            picture: the picture.
            direction: direction in which it is to be translated, if it is.

        Raises:
            ImageError: it cannot be decoded.
        """
        channels, value_range = cast("Channels", self.info.image_shape[2]), self.info.value_range(direction)
        return cast("Pixels", prepare(picture, channels=channels, value_range=value_range).image)

    def read_fitting(self, picture: ImageInput) -> Pixels:
        """Decode a picture that has the size of the model's images: uint8 [H, W, C].

        Raises:
            ImageError: it cannot be decoded, or has another size.
        """
        pixels = self.read(picture)
        height, width, _ = self.info.image_shape
        if pixels.shape[:2] != (height, width):
            raise ImageError(f"is {pixels.shape[1]}x{pixels.shape[0]} pixels; the model takes {width}x{height}")
        return pixels

    def _batch(self, pictures: Sequence[ImageInput]) -> Tensor:
        """Stack pictures of the size of the model's images: uint8 [N, H, W, C], on the CPU."""
        return torch.from_numpy(np.stack([self.read_fitting(picture) for picture in pictures]))


def _pixels(images: Tensor) -> Pixels:
    return images.cpu().numpy()


def _labels(number: int | None, count: int) -> Tensor | None:
    """Tell an operation that its ``count`` images are of the class ``number``: int64 [count]; ``None`` for no class."""
    return None if number is None else torch.full((count,), number)
