"""Files of latent vectors: JSON as the server answers it, ``{"latents": [[0.5, -1.25]]}``.

Beside them may stand ``pictures``, the names of the pictures that were encoded, in the same order.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import read_bytes


def latent_lists(latents: NDArray[np.float32]) -> list[list[float]]:
    """Return float32 [N, D] as numbers for JSON, with the fewest digits that tell each from all others of float32."""
    return [[float(str(value)) for value in vector] for vector in latents]


def latent_file(latents: NDArray[np.float32], pictures: Sequence[str]) -> bytes:
    """Return the content of a file of latent vectors, float32 [N, D], of N pictures by their names."""
    return json.dumps({"latents": latent_lists(latents), "pictures": list(pictures)}).encode() + b"\n"


def read_latents(file: UPath) -> tuple[list[list[float]], list[str]]:
    """Read a file of latent vectors, and the names of their pictures; no names where it has none.

    Raises:
        DataError: it is missing or damaged, or holds something else; the message names it.
    """
    try:
        content: Any = json.loads(read_bytes(file))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        content = None
    latents = content.get("latents") if isinstance(content, dict) else None
    if not isinstance(latents, list) or not latents or not all(map(_is_vector, latents)):
        raise DataError(f'{file}: not a file of latent vectors, such as {{"latents": [[0.5, -1.25]]}}')
    pictures = content.get("pictures", [])
    if not isinstance(pictures, list) or not all(isinstance(name, str) for name in pictures):
        raise DataError(f"{file}: its pictures are no list of names")
    if pictures and len(pictures) != len(latents):
        raise DataError(f"{file}: has {len(latents)} latent vectors and the names of {len(pictures)} pictures")
    return latents, pictures


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and abs(number) <= LARGEST and number == number
        for number in value
    )


LARGEST = float(np.finfo(np.float32).max)
"""The largest number that a model takes."""
