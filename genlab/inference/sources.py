"""Folders and data sets of pictures that something is made of, one result for each, and work on them that restarts.

The folder of the results keeps a record of what they are made from. A picture whose result lies there under the same
record is done, and the same command goes on with the others.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from upath import UPath

from genlab.core.config import describe_changes
from genlab.core.errors import DataError
from genlab.core.storage import create_exclusive, exists, is_folder, json_bytes, read_bytes, read_json, writing
from genlab.data.format.manifest import FILE_NAME as MANIFEST
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.sources.base import list_files
from genlab.data.ingest.sources.files import is_image
from genlab.data.ingest.to_files import file_name
from genlab.imaging.images import Pixels
from genlab.inference.pictures import folder_keys, png_name

KEYS_AT_ONCE = 256
"""Keys of a data set that are read at a time."""


class Picture(NamedTuple):
    """A picture of a folder or a data set."""

    key: str
    """Its path in its folder, or its key in its data set."""
    row: int
    """Its number in the folder or data set."""
    name: str
    """Path, ending in ``.png``, of what is made of it in the folder of the results."""


def begin(dest: UPath, file: str, record: Mapping[str, Any], names: set[str], work: str) -> set[str]:
    """Leave a record of what is made in ``dest``, unless it is there.

    Args:
        dest: the folder of the results.
        file: name of the record in it.
        record: what they are made from, with what and how, in plain values.
        names: paths in ``dest`` of files that show that a picture is done.
        work: what is done, for messages, such as ``translation``.

    Returns:
        Those of ``names`` that lie there: they were written whole, under this record.

    Raises:
        DataError: there are pictures of another record, or of none, or it cannot be written.
    """
    with writing(dest):
        files = dict(list_files(str(dest))).keys() if is_folder(dest) else set()
        there = names & files
        if there and not exists(dest / file):
            raise DataError(
                f"{dest}: holds {min(there)} already, and no {file} that says what it was made from; choose another "
                "place, or delete it"
            )
        create_exclusive(dest / file, json_bytes(record))
    found = read_json(dest / file)
    if found != record:
        differing = describe_changes(found if isinstance(found, dict) else {}, record)
        if files <= {file}:
            raise DataError(
                f"{dest / file}: of another {work} that was begun here, without any picture yet ({differing}); delete "
                "it, or choose another place"
            )
        raise DataError(
            f"{dest}: holds the pictures of another {work} ({differing}); choose another place, or delete that one"
        )
    return there


def is_data_set(source: UPath) -> bool:
    """Tell whether a directory holds a data set."""
    return exists(source / MANIFEST)


def open_shards(source: UPath, split: str | None) -> ShardSet:
    """Open a data set, or a split of it, or half of one.

    Raises:
        DataError: there is none, or it is damaged.
    """
    shards = ShardSet.open(source)
    return shards.part(split) if split else shards


def folder_pictures(source: UPath) -> list[Picture]:
    """List the pictures below a folder, see :func:`genlab.inference.pictures.folder_keys`."""
    return [Picture(key, row, png_name(key)) for row, key in enumerate(folder_keys(source))]


def data_pictures(shards: ShardSet) -> list[Picture]:
    """List all rows of a data set under names that differ; reads every block of keys once, also of a remote one."""
    taken: set[str] = set()
    pictures = []
    for rows in shards.row_ranges(KEYS_AT_ONCE):
        for row, key in zip(rows.tolist(), shards.keys(rows), strict=True):
            wanted = png_name(key) if is_image(key) else f"{key}.png"
            pictures.append(Picture(key, row, file_name(wanted, row, taken)))
    return pictures


def picture_reader(source: UPath, split: str | None) -> Callable[[Picture], bytes | Pixels]:
    """Return the function that loads a picture: the bytes of its file, or uint8 [H, W, C]."""
    if not is_data_set(source):
        return lambda picture: read_bytes(source / picture.key)
    shards = open_shards(source, split)

    def read(picture: Picture) -> bytes | Pixels:
        row = np.array([picture.row])
        return shards.encoded(row)[0] if shards.encoded_files else shards.read(row).image[0]

    return read
