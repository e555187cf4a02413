"""The pictures of a folder that a model takes, for commands that send them through it."""

import sys
from collections.abc import Iterator, Mapping, Sequence

from upath import UPath

from genlab.core.errors import DataError
from genlab.core.progress import progress
from genlab.imaging.images import ImageError, Pixels
from genlab.inference.engine import Engine
from genlab.inference.pictures import load_fitting

BATCH = 64
"""Pictures that are read at a time."""


def fitting_pictures(source: UPath, keys: Sequence[str], engine: Engine, work: str) -> Iterator[Mapping[str, Pixels]]:
    """Yield pictures below a folder by their keys, some at a time, and show how far the work on them is.

    Those that cannot be used are reported and left out.

    Args:
        source: the folder.
        keys: paths of its pictures.
        engine: the model that they are for.
        work: what is done with them, for the progress.

    Raises:
        DataError: none of them can be used.
    """
    used = False
    with progress(work, len(keys), "images") as advance:
        for begin in range(0, len(keys), BATCH):
            pictures: dict[str, Pixels] = {}
            for key in keys[begin : begin + BATCH]:
                try:
                    pictures[key] = load_fitting(source / key, engine)
                except ImageError as error:
                    print(f"skipped: {error}", file=sys.stderr)
            if pictures:
                used = True
                yield pictures
            advance(len(keys[begin : begin + BATCH]))
    if not used:
        height, width, _ = engine.info.image_shape
        raise DataError(f"{source}: none of its {len(keys)} images could be used; the model takes {width}x{height}")
