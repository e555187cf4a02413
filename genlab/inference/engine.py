"""The models at work: what runs behind the HTTP interface."""

from collections.abc import Mapping
from typing import Any, cast

import torch

from genlab.inference.batch_translation import translate_picture
from genlab.inference.operations import labels
from genlab.inference.pictures import as_png, as_sheet, read_fitting
from genlab.models.model import Model, Sampler, Translator
from genlab.store import model_directory


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
            name: model_directory.load(directory, device) for name, directory in directories.items()
        }

    def sample(self, name: str, count: int, seed: int, label: int | None = None) -> bytes:
        """Draw pictures, all of the class ``label`` if given: a PNG of one, or of a square sheet of several."""
        return as_sheet(cast("Sampler", self._models[name]).sample(count, seed, labels(label, count)))

    def translate(self, name: str, picture: bytes, direction: str) -> bytes:
        """Translate a picture of any size into a PNG of that size.

        Raises:
            ImageError: it cannot be decoded.
        """
        return translate_picture(cast("Translator", self._models[name]), picture, direction)

    def reconstruct(self, name: str, picture: bytes, label: int | None = None) -> bytes:
        """What the model makes of a picture of the class ``label``, where it knows classes, as PNG.

        Raises:
            ImageError: it cannot be decoded, or has not the size of the model's images.
        """
        model = self._models[name]
        pixels = read_fitting(picture, model)
        return as_png(cast("Any", model).reconstruct(pixels, labels(label, 1)))
