"""What a source of images is to ingest."""

import abc
import dataclasses
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from genlab.data.images import Pixels
from genlab.errors import DataError
from genlab.storage import is_remote, locate


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One image of a source, before it is loaded."""

    key: str
    """Its name, unique in the source."""
    split: str = "train"
    """The split in which it was published; ``train`` where nothing was."""
    size: int = 0
    """Stored bytes; 0 where the source holds no encoded files."""
    file: str = ""
    """The file it lies in, where the key does not say it."""
    index: int = 0
    """Its number in that file, or of the picture to draw."""
    offset: int = 0
    """Where it begins in that file, in bytes."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image as its source holds it."""

    image: Pixels | bytes
    """uint8 [height, width, channels], or the bytes of an image file."""
    label: int | None = None


Load = Callable[[Entry], Sample]
"""Loads one image; safe to call from many threads. Raises :class:`genlab.data.images.ImageError` if it is damaged."""


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """Images to ingest: a small value that can be sent to other processes."""

    kind: ClassVar[str]
    """The scheme."""
    encoded: ClassVar[bool] = True
    """Whether samples are the bytes of image files rather than pixels."""

    path: str
    """An absolute path or URL (for ``synthetic``: what to draw)."""

    @property
    def channels(self) -> int:
        """Channels an image has unless asked otherwise: 1 or 3."""
        return 3

    @abc.abstractmethod
    def entries(self) -> list[Entry]:
        """All images, in any order, without decoding one.

        Raises:
            DataError: the source is missing, empty or damaged.
        """

    @abc.abstractmethod
    def reader(self) -> AbstractContextManager[Load]:
        """Open the source to load entries from it."""

    def label_names(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ...; empty if images have no labels."""
        return ()

    def describe(self, entry: Entry) -> str:
        """Where an image is, for messages: file first."""
        return f"{self.path}/{entry.key}"


def list_files(directory: str) -> dict[str, int]:
    """All files below a directory, by relative posix path, with their sizes in bytes.

    Hidden files and folders, and the ``__MACOSX`` folders of archives, are left out. Links are followed.

    Raises:
        DataError: there is no such directory.
    """
    root = locate(directory)
    if not root.is_dir():
        raise DataError(f"{directory}: no such directory")
    if is_remote(root):
        found = {
            str(name).removeprefix(root.path).lstrip("/"): int(info["size"])
            for name, info in root.fs.find(root.path, detail=True).items()
        }
    else:
        local = Path(str(root))
        found = {
            (Path(folder) / name).relative_to(local).as_posix(): (Path(folder) / name).stat().st_size
            for folder, _, names in os.walk(local, followlinks=True)
            for name in names
            if (Path(folder) / name).is_file()
        }
    return {name: size for name, size in found.items() if is_visible(name)}


def is_visible(name: str) -> bool:
    """Whether no part of a relative posix path is hidden."""
    return not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def published_splits(keys: list[str]) -> dict[str, str]:
    """The split of each file: the name of its ``train`` or ``test`` folder.

    Those folders count when every file lies in one of them, at one level, with no other fork above it.
    Otherwise everything is ``train``.
    """
    folders = [key.split("/")[:-1] for key in keys]
    for level in zip(*folders, strict=False):
        if set(level) <= {"train", "test"}:
            return dict(zip(keys, level, strict=True))
        if len(set(level)) > 1:
            break
    return dict.fromkeys(keys, "train")
