"""Export of a data set to image files, with a CSV file of labels and attributes.

``FOLDER/metadata.csv`` has a row for each image: ``file_name``, ``key``, ``split``, its label, its attributes. Both
``genlab ingest FOLDER DEST --attributes.csv FOLDER/metadata.csv`` and the imagefolder loader of Hugging Face
``datasets`` read it.
"""

import csv
import io
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from upath import UPath

from genlab.core.progress import progress
from genlab.core.storage import is_remote, locate, require_absolute, require_empty, write_atomic, writing
from genlab.data.format.manifest import Attribute, Manifest
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.attributes import FILE_COLUMN, KEY_COLUMN, SPLIT_COLUMN, csv_header, csv_value
from genlab.data.ingest.sources.base import is_visible
from genlab.imaging.images import encode_png
from genlab.imaging.value_range import range_text

TABLE = "metadata.csv"

CHUNK = 256
"""Images read at a time."""

THREADS = 8
"""Files written at the same time, to hide the latency of disks and object stores."""


def export_files(data: str, folder: str, split: str | None = None) -> Manifest:
    """Write the images of a data set, encoded ones byte by byte as they are, raw ones as PNG, then the table.

    Args:
        data: directory or s3:// URL of the data set.
        folder: directory or s3:// URL to write to; it must be empty or not there. :func:`file_name` names the files.
        split: the split whose images are written; ``None`` for all images.

    Returns:
        The manifest of the data set.

    Raises:
        DataError: there is no such data set or split, a shard is damaged, or ``folder`` is not empty or cannot be
            written.
    """
    for option, url in (("data", data), ("folder", folder)):
        require_absolute(option, url)
    shards, root = ShardSet.open(data), locate(folder)
    if split:
        shards = shards.split(split)
    with writing(root):
        require_empty(root)
        names = _write_images(shards, root)
        write_atomic(root / TABLE, _table(shards, names).encode())
    return shards.manifest


def ingest_command(manifest: Manifest, folder: UPath) -> str:
    """Return the command that makes the data set of ``manifest`` again from its export in ``folder``."""
    again = ["genlab", "ingest", f"folder:{folder}", "DEST", "--attributes.csv", f"{folder / TABLE}"]
    again += ["--channels", str(manifest.channels), "--encoding", manifest.encoding]
    if manifest.value_range:  # the files have 8 bits; a model that is trained on them reads others by the range
        again += ["--range", range_text(manifest.value_range)]
    return shlex.join(again)


def _write_images(shards: ShardSet, folder: UPath) -> list[str]:
    """Write the files.

    Returns:
        The relative path of each.
    """
    names: list[str] = []
    taken: set[str] = set()

    def write(name: str, data: bytes) -> None:
        # Files are not synced one by one: the table is written last, and an export without it is to be repeated.
        if is_remote(folder):
            (folder / name).write_bytes(data)
        else:
            file = Path(str(folder), name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    with progress("export", len(shards), "images") as advance, ThreadPoolExecutor(THREADS) as pool:
        for rows in shards.row_ranges(CHUNK):
            files = _files(shards, rows)
            called = [
                file_name(_wanted(key, data), row, taken)
                for key, data, row in zip(shards.keys(rows), files, rows, strict=True)
            ]
            for _ in pool.map(write, called, files):
                advance(1)
            names += called
    return names


def _files(shards: ShardSet, rows: np.ndarray) -> list[bytes]:
    if shards.manifest.encoding == "encoded":
        return shards.encoded(rows)
    return [encode_png(image) for image in shards.read(rows).image]


def _wanted(key: str, data: bytes) -> str:
    """Return the name that a file should have if it can: its key, with the suffix of its format."""
    heads = {b"\x89PNG": (".png",), b"RIFF": (".webp",)}
    suffixes = heads.get(data[:4], (".jpg", ".jpeg"))
    return key if key.lower().endswith(suffixes) else key + suffixes[0]


def file_name(wanted: str, row: int, taken: set[str]) -> str:
    """Choose the name of an image's file.

    Args:
        wanted: the name to choose if it can be a relative path and is not taken.
        row: the number of the image, which makes the name otherwise.
        taken: the names chosen before, and their folders with a ``/`` at the end; the new ones are added.
    """
    path = PurePosixPath(wanted)
    folders = {f"{folder}/" for folder in path.parents if folder.name}
    usable = (
        str(path) == wanted
        and wanted.isprintable()
        and not path.is_absolute()
        and is_visible(wanted)
        and all(len(part.encode()) < 256 for part in path.parts)
        # There is no file of that name, no folder of that name, and no file where a folder is needed.
        and wanted not in taken
        and f"{wanted}/" not in taken
        and taken.isdisjoint(folder.removesuffix("/") for folder in folders)
    )
    name = wanted
    if not usable:
        suffix = ".png" if wanted.lower().endswith(".png") else ".jpg"
        name, folders = f"unnamed/{row:08d}{suffix}", {"unnamed/"}
    taken |= {name, *folders}
    return name


def _table(shards: ShardSet, names: Sequence[str]) -> str:
    manifest = shards.manifest
    label = (Attribute("label", "category", manifest.label_names),) if shards.labelled else ()
    parts = [(shards.keys(rows), shards.columns(rows)) for rows in shards.row_ranges(CHUNK)]
    splits = [shard.split for shard in shards.shards for _ in range(shard.rows)]
    cells: list[Sequence[str]] = [names, [key for keys, _ in parts for key in keys], splits]
    heads = [FILE_COLUMN, KEY_COLUMN, SPLIT_COLUMN]
    for attribute in (*label, *manifest.attributes):
        values = [value for _, part in parts for value in part[attribute.name].tolist()]
        heads.append(csv_header(attribute, values, label=attribute in label))
        cells.append([csv_value(attribute, value) for value in values])
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(zip(*cells, strict=True))
    return file.getvalue()
