"""``mnist:DIR``: the idx files of MNIST and of data sets in the same format."""

import dataclasses
import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import is_folder, locate, names, read_bytes
from genlab.core.text import counted
from genlab.data.ingest.sources.base import Entry, Load, Sample, Source

_SPLITS = {"t10k": "test", "train": "train"}
_CONTENTS = {"images": 3, "labels": 1}
"""What a file holds → the number of its array's dimensions."""


@dataclasses.dataclass(frozen=True)
class Mnist(Source):
    """``train-*`` and ``t10k-*`` files of images and labels, plain or ``.gz``; one of the halves may be absent.

    Keys are ``train-00042`` and ``t10k-00042``; the published splits are ``train`` and ``test``.
    """

    kind = "mnist"
    encoded = False

    @property
    def channels(self) -> int:
        """1: the images are stored as grey."""
        return 1

    def entries(self) -> Iterator[Entry]:
        """See :meth:`Source.entries`; reads only the label files."""
        counts = {half: len(read_idx(files["labels"], 1)) for half, files in self._halves().items()}
        if not any(counts.values()):
            raise DataError(f"{self.path}: its idx files hold no images")
        for half, count in counts.items():
            for number in range(count):
                yield Entry(f"{half}-{number:05d}", _SPLITS[half], file=half, index=number)

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`; holds all pixels in memory."""
        arrays: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        for half, files in self._halves().items():
            images, labels = read_idx(files["images"], 3), read_idx(files["labels"], 1)
            if len(images) != len(labels):
                raise DataError(f"{files['labels']}: {len(labels)} labels for {len(images)} images")
            arrays[half] = images, labels

        def load(entry: Entry) -> Sample:
            images, labels = arrays[entry.file]
            return Sample(images[entry.index, :, :, None], int(labels[entry.index]))

        yield load

    def label_names(self) -> tuple[str, ...]:
        """Return ``0``, ``1``, ... up to the highest label."""
        labels = [read_idx(files["labels"], 1) for files in self._halves().values()]
        return tuple(str(label) for label in range(1 + max(int(half.max(initial=0)) for half in labels)))

    def describe(self, entry: Entry) -> str:
        """See :meth:`Source.describe`."""
        return f"{self._halves()[entry.file]['images']}, image {entry.index}"

    def _halves(self) -> dict[str, dict[str, UPath]]:
        """Return half → content → file, for each half that is there."""
        directory = locate(self.path)
        if not is_folder(directory):
            raise DataError(f"{self.path}: no such directory")
        there = names(directory)
        halves: dict[str, dict[str, UPath]] = {}
        for half in _SPLITS:
            files = {
                content: directory / name for content in _CONTENTS for name in idx_names(half, content) if name in there
            }
            if files:
                halves[half] = files
            for content in _CONTENTS.keys() - files.keys() if files else ():
                raise DataError(
                    f"{directory / next(idx_names(half, content))}: missing (plain or .gz), but "
                    f"{next(iter(files.values())).name} is there; images and labels come in pairs"
                )
        if not halves:
            raise DataError(f"{self.path}: no idx files (train-images-idx3-ubyte, t10k-images-idx3-ubyte.gz, ...)")
        return halves


def idx_names(half: str, content: str) -> Iterator[str]:
    """Yield the names in use for an idx file."""
    for mark in "-", ".":
        for suffix in "", ".gz":
            yield f"{half}-{content}{mark}idx{_CONTENTS[content]}-ubyte{suffix}"


def has_idx(names: Iterable[str]) -> bool:
    """Return whether idx files of images are among these names."""
    return not set(names).isdisjoint(name for half in _SPLITS for name in idx_names(half, "images"))


def read_idx(file: UPath, dimensions: int) -> NDArray[np.uint8]:
    """Read an idx file of bytes, plain or (if named ``.gz``) compressed.

    Returns:
        uint8 [n] or [n, height, width].

    Raises:
        DataError: the magic number or the length is wrong, or the compression is damaged.
    """
    data = read_bytes(file)
    if file.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file}: damaged or not gzip ({error}); fetch it again") from None
    magic = 0x0800 | dimensions
    head = 4 + 4 * dimensions
    if len(data) < head or int.from_bytes(data[:4]) != magic:
        raise DataError(
            f"{file}: begins with 0x{data[:4].hex()}; an idx file of bytes in {counted(dimensions, 'dimension')} "
            f"begins with 0x{magic:08x}"
        )
    shape = struct.unpack(f">{dimensions}I", data[4:head])
    if len(data) - head != np.prod(shape, dtype=np.int64):
        raise DataError(f"{file}: {len(data) - head} bytes of data where its head promises {shape}; fetch it again")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
