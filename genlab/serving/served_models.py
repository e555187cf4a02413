"""The served models in one process: bytes of image files in, PNG files out."""

from collections.abc import Mapping, Sequence
from typing import Any

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
        ConfigError: from a method, the options of the model's own, which are given by name, are others.
    """

    def __init__(self, directories: Mapping[str, str], device: str | torch.device = "cpu") -> None:
        self._engines = {name: Engine(directory, device) for name, directory in directories.items()}

    def sample(self, name: str, count: int, seed: int, label: int | None, options: Mapping[str, Any]) -> bytes:
        """Draw pictures, all of the class ``label`` if given: a PNG of one, or of a square sheet of several."""
        return encode_sheet(self._engines[name].sample(count, seed, label, **options))

    def translate(self, name: str, picture: bytes, direction: str, options: Mapping[str, Any]) -> bytes:
        """Translate a picture of any size into a PNG of that size.

        Raises:
            ImageError: it cannot be decoded.
        """
        return encode_png(self._engines[name].translate(picture, direction, **options))

    def reconstruct(self, name: str, picture: bytes, label: int | None, options: Mapping[str, Any]) -> bytes:
        """Reconstruct a picture of the class ``label``, where the model knows classes, as PNG.

        Raises:
            ImageError: it cannot be decoded, or has not the size of the model's images.
        """
        [reconstructed] = self._engines[name].reconstruct([picture], label, **options)
        return encode_png(reconstructed)

    def mix_styles(
        self, name: str, rows: Sequence[int], columns: Sequence[int], label: int | None, options: Mapping[str, Any]
    ) -> bytes:
        """Mix the styles of the pictures of seeds, of the class ``label`` if the model knows classes: a PNG sheet."""
        grid = self._engines[name].mix_styles(rows, columns, label, **options)
        return encode_sheet(grid.reshape(-1, *grid.shape[2:]), columns=grid.shape[1])
