"""How far projections of held-out pictures are from the pictures, kept in a model's directory in one JSON file.

:mod:`genlab.editing` measures it and warns of later pictures that are further. It is no part of the model, whose
version stays what it was.
"""

import json
from collections.abc import Sequence
from typing import Any

from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import read_bytes, write_json

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
    file = directory / FILE_NAME
    try:
        found = json.loads(read_bytes(file))
        if found["version"] != VERSION:
            return []
        return [one for one in found["calibrations"] if one["settings"]["model"] == weights]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: damaged ({error}); delete it, and calibrate again") from None


def write_limits(directory: UPath, limits: Sequence[dict[str, Any]]) -> UPath:
    """Write into a model directory what was measured with the model, and return the file."""
    file = directory / FILE_NAME
    write_json(file, {"version": VERSION, "calibrations": list(limits)})
    return file
