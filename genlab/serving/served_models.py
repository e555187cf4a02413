"""The served models in one process: bytes of image files in, PNG files out."""

from collections.abc import Mapping

import torch

from genlab.imaging.images import encode_png
from genlab.inference.engine import Engine
from genlab.inference.pictures import encode_sheet


class ServedModels:
    """All served models, each on an :class:`genlab.inference.engine.Engine` in this process.

    Args:
        directories: model directories by name.
        device: where to put the models.

    Raises:
        RunError: a model cannot be loaded; and, from a method, the model does not have the operation.
    """

    def __init__(self, directories: Mapping[str, str], device: str | torch.device = "cpu") -> None:
        self._engines = {name: Engine(directory, device) for name, directory in directories.items()}

    def sample(self, name: str, count: int, seed: int, label: int | None = None) -> bytes:
        """Draw pictures, all of the class ``label`` if given: a PNG of one, or of a square sheet of several."""
        return encode_sheet(self._engines[name].sample(count, seed, label))

    def translate(self, name: str, picture: bytes, direction: str) -> bytes:
        """Translate a picture of any size into a PNG of that size.

        Raises:
            ImageError: it cannot be decoded.
        """
        return encode_png(self._engines[name].translate(picture, direction))

    def reconstruct(self, name: str, picture: bytes, label: int | None = None) -> bytes:
        """Reconstruct a picture of the class ``label``, where the model knows classes, as PNG.

        Raises:
            ImageError: it cannot be decoded, or has not the size of the model's images.
        """
        [reconstructed] = self._engines[name].reconstruct([picture], label)
        return encode_png(reconstructed)
