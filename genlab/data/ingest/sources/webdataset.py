"""``webdataset:FILE-OR-DIR``: tar archives in which the files of one sample lie side by side under one name.

A sample's key is the name of its members up to the first dot of the last part, as in
https://github.com/webdataset/webdataset: ``train/0001.jpg``, ``train/0001.cls`` and ``train/0001.json`` are
``train/0001``.
"""

import dataclasses
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from genlab.core.errors import DataError
from genlab.core.storage import is_remote, locate
from genlab.data.ingest.sources.base import (
    LABEL,
    Entry,
    Load,
    Sample,
    Source,
    Value,
    container_files,
    ranges,
    splits_and_folders,
)
from genlab.imaging.images import SUFFIXES, ImageError

_IMAGES = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)


class WebDataset(Source):
    """One uncompressed tar archive, or all below a directory.

    Of each sample, the member named as an image is the image, ``.cls`` the label (a number from 0 on), and the numbers
    and texts at the top of ``.json`` are attributes; other members, such as ``.txt``, are left. Where samples of
    two archives share a key, every key is led by its archive's name. Splits: as the archives are named or lie.
    """

    kind = "webdataset"

    @property
    def ordered(self) -> bool:
        """Remote files are read ahead."""
        return is_remote(self.path)

    def entries(self) -> list[Entry]:
        """See :meth:`Source.entries`; reads the heads of all members, and those that are no images."""
        found: list[tuple[str, Entry]] = []
        for file, (name, split) in container_files(self.path, (".tar",)).items():
            with ranges() as read:
                found += [(name, entry) for entry in _samples(file, split, read)]
        if not found:
            raise DataError(f"{self.path}: no images in it")
        keys = [entry.key for _, entry in found]
        folders = {key: folder for key, (_, folder) in splits_and_folders(keys).items()}
        shared = len(set(keys)) < len(keys)
        return [
            dataclasses.replace(entry, key=f"{name}/{entry.key}" if shared else entry.key, folder=folders[entry.key])
            for name, entry in found
        ]

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`."""
        with ranges() as read:

            def load(entry: Entry) -> Sample:
                data = read(entry.file, entry.offset, entry.size)
                if len(data) < entry.size:
                    raise ImageError("truncated: the archive ends in it")
                return Sample(data)

            yield load

    def describe(self, entry: Entry) -> str:
        """See :meth:`Source.describe`."""
        return f"{entry.file}, {entry.key}"


def _samples(file: str, split: str, read: Callable[[str, int, int], bytes]) -> Iterator[Entry]:
    members: dict[str, dict[str, tarfile.TarInfo]] = {}
    for member in _members(file):
        folder, _, last = member.name.removeprefix("./").rpartition("/")
        stem, _, suffix = last.partition(".")
        if stem and suffix and not stem.startswith("__"):
            key = f"{folder}/{stem}" if folder else stem
            known = members.setdefault(key, {})
            if suffix in known:
                raise DataError(f"{file}: holds {member.name} twice; keys must be unique in an archive")
            known[suffix.lower()] = member

    def content(member: tarfile.TarInfo) -> bytes:
        return read(file, member.offset_data, member.size)

    for key, parts in members.items():
        images = sorted(parts.keys() & _IMAGES)
        if len(images) != 1:
            there = ", ".join(sorted(parts))
            raise DataError(f"{file}: {key} has {len(images)} images instead of one (its members: {there})")
        values: dict[str, Value | None] = {}
        if "json" in parts:
            values |= _attributes(f"{file}: {parts['json'].name}", content(parts["json"]))
        if "cls" in parts:
            values[LABEL] = _label(f"{file}: {parts['cls'].name}", content(parts["cls"]))
        image = parts[images[0]]
        yield Entry(key, split, image.size, file, offset=image.offset_data, values=values)


def _members(file: str) -> Iterator[tarfile.TarInfo]:
    """The regular files of an archive that is whole to its end mark."""
    try:
        with locate(file).open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            yield from (member for member in archive if member.isreg())
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise DataError(f"{file}: truncated, it has no end mark; fetch it again")
    except tarfile.ReadError as error:
        raise DataError(f"{file}: truncated, compressed, or no tar archive ({error})") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None


def _label(where: str, content: bytes) -> int:
    try:
        return int(content)
    except ValueError:
        raise DataError(f"{where}: should be a label's number, not {content[:40]!r}") from None


def _attributes(where: str, content: bytes) -> dict[str, Value | None]:
    try:
        values: Any = json.loads(content)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise DataError(f'{where}: should be an object, as in {{"age": 7}}')
    return {name: value for name, value in values.items() if value is None or isinstance(value, int | float | str)}
