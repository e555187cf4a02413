"""The models at work: what runs behind the HTTP interface."""

import math
from collections.abc import Mapping
from typing import Any, cast

import torch

from genlab import modelstore
from genlab.data.images import ImageError, encode_png, sheet
from genlab.models.model import Model, Sampler, Translator
from genlab.translation import read_picture, translate_picture, write_picture


class Generator:
    """All served models, loaded into this process; takes and gives the bytes of image files.

    The caller sees to it that a model has the operation asked of it.

    Args:
        directories: model directories by name.
        device: where the models are put.

    Raises:
        RunError: a model cannot be loaded.
    """

    def __init__(self, directories: Mapping[str, str], device: str | torch.device = "cpu") -> None:
        self._models: dict[str, Model] = {
            name: modelstore.load(directory, device) for name, directory in directories.items()
        }

    def sample(self, name: str, count: int, seed: int) -> bytes:
        """Draw pictures: a PNG of one, or of a square sheet of several."""
        images = cast("Sampler", self._models[name]).sample(count, seed).cpu().numpy()
        return encode_png(images[0] if count == 1 else sheet(images, columns=math.ceil(math.sqrt(count))))

    def translate(self, name: str, picture: bytes, direction: str) -> bytes:
        """Translate a picture of any size into a PNG of that size.

        Raises:
            ImageError: it cannot be decoded.
        """
        return translate_picture(cast("Translator", self._models[name]), picture, direction)

    def reconstruct(self, name: str, picture: bytes) -> bytes:
        """What the model makes of a picture, as PNG.

        Raises:
            ImageError: it cannot be decoded, or has not the size of the model's images.
        """
        model = self._models[name]
        pixels = read_picture(picture, model)
        height, width, _ = model.image_shape
        if pixels.shape[1:3] != (height, width):
            raise ImageError(f"is {pixels.shape[2]}x{pixels.shape[1]} pixels; the model takes {width}x{height}")
        return write_picture(cast("Any", model).reconstruct(pixels))
