"""``folder:DIR`` and ``zip:FILE``: images that are files."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from genlab.core.errors import DataError
from genlab.core.storage import is_remote, locate
from genlab.core.text import counted
from genlab.data.ingest.sources.base import (
    Entry,
    Load,
    Sample,
    Source,
    is_visible,
    list_files,
    read_at,
    splits_and_folders,
)
from genlab.imaging.images import SUFFIXES, ImageError


class Folder(Source):
    """All images below a directory.

    Keys are their relative posix paths. If all of them lie in a ``train`` or a ``test`` folder, at one level, those
    are the published splits.
    """

    kind = "folder"

    def entries(self) -> list[Entry]:
        """See :meth:`Source.entries`."""
        return _entries(self.path, list_files(self.path))

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`."""
        directory, remote = locate(self.path), is_remote(self.path)

        def read(entry: Entry) -> bytes:
            if remote:
                return (directory / entry.key).read_bytes()
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

    def entries(self) -> list[Entry]:
        """See :meth:`Source.entries`."""
        with self._open() as archive:
            members = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
        return _entries(self.path, {name: size for name, size in members.items() if is_visible(name)})

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


def _entries(path: str, sizes: dict[str, int]) -> list[Entry]:
    keys = [name for name in sizes if is_image(name)]
    if not keys:
        raise DataError(
            f"{path}: no images in it (of {counted(len(sizes), 'file')} none is named {', '.join(SUFFIXES)})"
        )
    return [Entry(key, split, sizes[key], folder=folder) for key, (split, folder) in splits_and_folders(keys).items()]
