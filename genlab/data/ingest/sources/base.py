"""The interface of a source of images, and what several sources share."""

import abc
import dataclasses
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar

from genlab.core.errors import DataError
from genlab.core.storage import is_file, is_folder, is_remote, locate, walk_remote
from genlab.data.format.manifest import Attribute
from genlab.imaging.images import ImageError, Pixels

Value = int | float | str
"""A value that a source knows of an image, in the type that the source has it in."""

LABEL = "label"
"""Name of the column that is the label unless another is asked for."""


_NO_VALUES: dict[str, Value | None] = {}
"""One for all entries without further columns, of which there may be millions."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One image of a source, before it is loaded."""

    key: str
    """Name of the image, unique in the source."""
    split: str = "train"
    """The split in which the image was published; ``train`` where the source has no splits."""
    size: int = 0
    """Approximate number of bytes that store the image; 0 where the source holds no encoded files."""
    file: str = ""
    """The file that holds the image, where the key does not say it."""
    index: int = 0
    """Number of the image in that file, or of the picture to draw."""
    offset: int = 0
    """Position at which the image begins in that file, in bytes."""
    values: Mapping[str, Value | None] = dataclasses.field(default_factory=lambda: _NO_VALUES)
    """Name → value of each further column of the source; ``None`` where the source has no value."""
    folder: str | None = None
    """Relative posix path of the folder that holds the image, below the folder of its split; empty where the image lies
    directly in that; ``None`` where the source has no folders."""


_fields = attrgetter(*(field.name for field in dataclasses.fields(Entry)))


def entry_fields(entry: Entry) -> tuple[Any, ...]:
    """Return the fields of an entry, of which ``Entry(*fields)`` makes it again."""
    fields: tuple[Any, ...] = _fields(entry)
    return fields


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image as its source holds it."""

    image: Pixels | bytes
    """uint8 [height, width, channels], or the bytes of an image file."""
    label: int | None = None


Load = Callable[[Entry], Sample]
"""A function that loads one image; safe to call from many threads unless its source is ordered. It raises
:class:`genlab.imaging.images.ImageError` if the image is damaged."""


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """Images to ingest: a small value that can be sent to other processes."""

    kind: ClassVar[str]
    """Name of the scheme, as in ``folder:photos``."""
    encoded: ClassVar[bool] = True
    """Whether samples are the bytes of image files rather than pixels."""
    listing_fields: ClassVar[frozenset[str]] = frozenset()
    """Names of fields that only :meth:`entries` depends on: an entry's image is the same whatever they are."""

    path: str
    """An absolute path or URL (for ``synthetic``: what to draw)."""

    @property
    def channels(self) -> int:
        """Channels an image has unless asked otherwise: 1 or 3."""
        return 3

    @property
    def ordered(self) -> bool:
        """Whether one thread must load the entries, in the order of file, offset and index."""
        return False

    @abc.abstractmethod
    def entries(self) -> Iterator[Entry]:
        """List all images, in any order, without decoding one; they need not fit into memory.

        Raises:
            DataError: the source is missing, empty or damaged.
        """

    @abc.abstractmethod
    def reader(self) -> AbstractContextManager[Load]:
        """Open the source to load entries from it."""

    def label_names(self) -> tuple[str, ...]:
        """Return the names of the labels 0, 1, ... that come with the images; empty if none do."""
        return ()

    def declared(self) -> tuple[Attribute, ...]:
        """Return the columns of :attr:`Entry.values` whose kind the source states; others are recognised by values."""
        return ()

    def describe(self, entry: Entry) -> str:
        """Return where an image is, for messages: the file first."""
        return f"{self.path}/{entry.key}"


def list_files(directory: str) -> Iterator[tuple[str, int]]:
    """List all files below a directory, in any order.

    Hidden files and folders, and the ``__MACOSX`` folders of archives, are left out. Links are followed.

    Yields:
        Relative posix path and size in bytes.

    Raises:
        DataError: there is no such directory.
    """
    root = locate(directory)
    if not is_folder(root):
        raise DataError(f"{directory}: no such directory")
    if is_remote(root):
        yield from ((name, size) for name, size in walk_remote(root) if is_visible(name))
        return
    try:
        yield from _walk(str(root), "", frozenset())
    except OSError as error:
        raise DataError(f"{error.filename or directory}: cannot be listed ({error.strerror or error})") from None


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """Yield relative path and size of each visible file below a folder; a link to a folder above it is not followed."""
    place = Path(folder).stat()
    if (place.st_dev, place.st_ino) in above:
        return
    with os.scandir(folder) as children:
        for child in children:
            if not is_visible(child.name):
                continue
            if child.is_dir():
                yield from _walk(child.path, f"{prefix}{child.name}/", above | {(place.st_dev, place.st_ino)})
            elif child.is_file():
                yield prefix + child.name, child.stat().st_size


def is_visible(name: str) -> bool:
    """Return whether no part of a relative posix path is hidden."""
    return not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def splits_and_folders(folders: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Find the split of the files in each folder, and the path of the folder below that of the split.

    Folders named ``train`` and ``test`` are splits when every file lies in one of them, at one level, with no other
    fork above it. Otherwise everything is ``train``, and folders count from the source's own.

    Args:
        folders: relative posix paths of the folders that hold files; empty for the source's own.

    Returns:
        Folder → the split of its files, and its path from the split's folder on.
    """
    parts = {folder: folder.split("/") if folder else [] for folder in folders}
    level = _split_level(list(parts.values()))
    return {
        folder: ("train", folder) if level is None else (names[level], "/".join(names[level + 1 :]))
        for folder, names in parts.items()
    }


def folder_of(key: str) -> str:
    """Return the folder part of a relative posix path; empty if it has none."""
    return key.rpartition("/")[0]


def _split_level(folders: list[list[str]]) -> int | None:
    """Return the level of folders that are all named ``train`` or ``test``; ``None`` if there is none."""
    for number, level in enumerate(zip(*folders, strict=False)):
        if set(level) <= {"train", "test"}:
            return number
        if len(set(level)) > 1:
            break
    return None


def container_splits(path: str, names: list[str]) -> dict[str, str]:
    """Find the splits of files that hold many images: by folder, or by name as in ``train-00000-of-00004.parquet``.

    Returns:
        Name of each file → its split.

    Raises:
        DataError: only some files are named for a split ``train`` or ``test``.
    """
    heads = [re.match(r"[a-z]+(?=[-_.])", PurePosixPath(name).name) for name in names]
    found = {head[0] if head else "" for head in heads}
    if found.isdisjoint(("train", "test")):
        places = splits_and_folders(map(folder_of, names))
        return {name: places[folder_of(name)][0] for name in names}
    if not found <= {"train", "test"}:
        other = next(
            name for name, head in zip(names, heads, strict=True) if not head or head[0] not in ("train", "test")
        )
        raise DataError(
            f"{path}/{other}: of neither split, train nor test, while other files are; "
            "ingest the files of one split at a time"
        )
    return {name: head[0] for name, head in zip(names, heads, strict=True) if head}


def container_files(path: str, suffixes: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """List the files of a source whose files hold many images: the file itself, or those in a directory, in order.

    Returns:
        Path of each file → its relative path without suffix, for keys, and its split.

    Raises:
        DataError: there is no such file.
    """
    root = locate(path)
    if is_file(root):
        return {str(root): (root.stem, "train")}
    names = sorted(name for name, _ in list_files(path) if name.lower().endswith(suffixes))
    if not names:
        raise DataError(f"{path}: no files ending in {' or '.join(suffixes)}")
    splits = container_splits(path, names)
    return {str(root / name): (str(PurePosixPath(name).with_suffix("")), splits[name]) for name in names}


@contextmanager
def open_range_reader() -> Iterator[Callable[[str, int, int], bytes]]:
    """Provide a function that reads parts of files; each file is opened once, and closed when the context ends.

    Local files are read without a lock, by many threads at once. Remote files are read one part at a time, through
    fsspec's read-ahead, which is fast when parts are asked for in the order in which the file stores them.

    Yields:
        A function ``read(path, offset, length)``, offset and length in bytes, that is safe to call from many threads.
        It returns the bytes, fewer than ``length`` where the file ends early, and raises
        :class:`genlab.imaging.images.ImageError` if the file cannot be opened or read.
    """
    lock = threading.Lock()
    local: dict[str, int] = {}
    remote: dict[str, IO[bytes]] = {}

    def remote_file(file: str) -> IO[bytes]:
        if file not in remote:
            remote[file] = stack.enter_context(locate(file).open("rb"))
        return remote[file]

    def local_file(file: str) -> int:
        descriptor = local.get(file)
        if descriptor is None:
            with lock:
                if file not in local:
                    local[file] = os.open(file, os.O_RDONLY)
                    stack.callback(os.close, local[file])
                descriptor = local[file]
        return descriptor

    def read(file: str, offset: int, length: int) -> bytes:
        try:
            if not is_remote(file):
                return read_at(local_file(file), offset, length)
            with lock:
                stream = remote_file(file)
                stream.seek(offset)
                return stream.read(length)
        except OSError as error:
            raise ImageError(f"{file} cannot be read ({error.strerror or error})") from None

    with ExitStack() as stack:
        yield read


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Read ``length`` bytes of an open local file from ``offset``, or those up to its end."""
    data = os.pread(descriptor, length, offset)
    while len(data) < length and (more := os.pread(descriptor, length - len(data), offset + len(data))):
        data += more
    return data
