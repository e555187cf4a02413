"""How far projections of held-out pictures are from the pictures, kept in a model's directory in one JSON file.

:mod:`genlab.editing` measures it and warns of later pictures that are further. It is no part of the model, whose
version stays what it was.
"""

import json
from collections.abc import Sequence
from typing import Any

from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import json_bytes, read_bytes
from genlab.core.updates import update

FILE_NAME = "projection.json"
VERSION = 1


def read_limits(directory: UPath, weights: str) -> list[dict[str, Any]]:
    """Read what was measured with a model.

    Args:
        directory: its directory.
        weights: SHA-256 of its weights; what was measured with others is left out.

    Returns:
        For each setting of projections ``settings``, among them ``model``, the weights; ``data``, the held-out
        pictures; ``perceptual_99``, the 99th percentile of their distances. Empty where nothing was measured, or by a
        newer genlab.

    Raises:
        RunError: the file is something else.
    """
    try:
        return _parse(directory / FILE_NAME, read_bytes(directory / FILE_NAME), weights)
    except (FileNotFoundError, NotADirectoryError):
        return []


def write_limits(directory: UPath, weights: str, limits: Sequence[dict[str, Any]]) -> UPath:
    """Write into a model directory what was measured with the model, and return the file.

    Args:
        directory: the directory.
        weights: SHA-256 of the model's weights; what was measured with others goes.
        limits: as :func:`read_limits` returns them; they take the place of those of the same settings.

    Raises:
        ClaimError: other processes write it all the time.
        RunError: the file that is there is something else.
    """
    file, new = directory / FILE_NAME, [one["settings"] for one in limits]

    def change(content: bytes | None) -> bytes:
        there = [] if content is None else _parse(file, content, weights)
        kept = [one for one in there if one["settings"] not in new]
        return json_bytes({"version": VERSION, "calibrations": [*kept, *limits]})

    update(file, "calibration", change)
    return file


def _parse(file: UPath, content: bytes, weights: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(content)
        if found["version"] != VERSION:
            return []
        return [one for one in found["calibrations"] if one["settings"]["model"] == weights]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: damaged ({error}); delete it, and calibrate again") from None
