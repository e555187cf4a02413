"""``folder:DIR`` and ``zip:FILE``: images that are files."""

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from genlab.core.errors import DataError
from genlab.core.storage import is_remote, locate, read_bytes
from genlab.core.text import counted
from genlab.data.ingest.sources.base import (
    Entry,
    Load,
    Sample,
    Source,
    folder_of,
    is_visible,
    list_files,
    read_at,
    splits_and_folders,
)
from genlab.data.ingest.spool import Spool
from genlab.imaging.images import SUFFIXES, ImageError


class Folder(Source):
    """All images below a directory.

    Keys are their relative posix paths. If all of them lie in a ``train`` or a ``test`` folder, at one level, those
    are the published splits.
    """

    kind = "folder"

    def entries(self) -> Iterator[Entry]:
        """See :meth:`Source.entries`."""
        return _entries(self.path, list_files(self.path))

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`."""
        directory, remote = locate(self.path), is_remote(self.path)

        def read(entry: Entry) -> bytes:
            if remote:
                return read_bytes(directory / entry.key)
            return _read_local(f"{self.path}/{entry.key}", entry.size)

        def load(entry: Entry) -> Sample:
            try:
                return Sample(read(entry))
            except OSError as error:
                raise ImageError(f"cannot be read ({error.strerror or error})") from None

        yield load


class Zip(Source):
    """All images in a zip archive; keys and splits are those of a :class:`Folder` with the same files."""

    kind = "zip"

    def entries(self) -> Iterator[Entry]:
        """See :meth:`Source.entries`; holds the archive's directory in memory."""
        return _entries(self.path, self._members())

    def _members(self) -> Iterator[tuple[str, int]]:
        """Yield name and size of each visible file; of several that have one name, the last is meant."""
        with self._open() as archive:
            for name in dict.fromkeys(archive.namelist()):
                info = archive.getinfo(name)
                if not info.is_dir() and is_visible(name):
                    yield name, info.file_size

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`."""
        with self._open() as archive:

            def load(entry: Entry) -> Sample:
                try:
                    return Sample(archive.read(entry.key))
                # RuntimeError: encrypted; NotImplementedError: an unknown compression
                except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
                    raise ImageError(f"cannot be unpacked ({error})") from None
                except OSError as error:
                    raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from None

            yield load

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        try:
            with locate(self.path).open("rb") as file, zipfile.ZipFile(file) as archive:
                yield archive
        except FileNotFoundError:
            raise DataError(f"{self.path}: no such file") from None
        except (zipfile.BadZipFile, IsADirectoryError):
            raise DataError(f"{self.path}: not a zip archive, or a truncated one") from None


def _read_local(file: str, size: int) -> bytes:
    """Read a whole local file by three system calls: ``open`` takes longer than to read a small file."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        data = os.read(descriptor, size + 1)
        # The size differs where the file has changed since it was listed, or is longer than what one read returns.
        return data if len(data) == size else read_at(descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def is_image(name: str) -> bool:
    """Return whether a file's name ends like that of an image."""
    return name.lower().endswith(SUFFIXES)


def _entries(path: str, files: Iterable[tuple[str, int]]) -> Iterator[Entry]:
    """Yield the images among the files of a source, which are given by name and size."""
    images: Spool[tuple[str, int]] = Spool()
    folders: set[str] = set()
    count = 0
    for name, size in files:
        count += 1
        if is_image(name):
            images.append((name, size))
            folders.add(folder_of(name))
    if not images:
        raise DataError(f"{path}: no images in it (of {counted(count, 'file')} none is named {', '.join(SUFFIXES)})")
    places = splits_and_folders(folders)
    for name, size in images:
        split, folder = places[folder_of(name)]
        yield Entry(name, split, size, folder=folder)
