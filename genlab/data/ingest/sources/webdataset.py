"""``webdataset:FILE-OR-DIR``: tar archives in which the files of one sample lie side by side under one name.

A sample's key is the name of its members up to the first dot of the last part, and what follows is the extension, as in
https://github.com/webdataset/webdataset: ``train/0001.jpg``, ``train/0001.cls`` and ``train/0001.seg.png`` are the
members ``jpg``, ``cls`` and ``seg.png`` of the sample ``train/0001``.
"""

import dataclasses
import itertools
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

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
    entry_fields,
    folder_of,
    open_range_reader,
    splits_and_folders,
)
from genlab.data.ingest.spool import SortedSpool, Spool
from genlab.imaging.images import SUFFIXES, ImageError

KeyEnd = Literal["first-dot", "last-dot"]
"""The dot in a member's name at which its key ends and its extension begins."""

_NUMBER = re.compile("[+-]?[0-9]+")


@dataclasses.dataclass(frozen=True)
class WebDataset(Source):
    """One uncompressed tar archive, or all below a directory.

    The image of a sample is its member whose extension is that of an image, ``.cls`` holds its label (a number from 0
    on, or a name), and the numbers and texts at the top of ``.json`` are attributes; other members, such as ``.txt``,
    are ignored. Upper and lower case in extensions are the same. Where samples of two archives share a key, every key
    begins with its archive's name. Splits: as the archives are named or lie.
    """

    kind = "webdataset"
    listing_fields = frozenset(("image_member", "key_ends_at"))

    image_member: str | None = None
    """Extension of the member that is the image, where it is not the only image."""
    key_ends_at: KeyEnd = "first-dot"

    @property
    def ordered(self) -> bool:
        """True for remote files, which are read ahead."""
        return is_remote(self.path)

    def entries(self) -> Iterator[Entry]:
        """See :meth:`Source.entries`; reads the heads of all members, and the content of ``.cls`` and ``.json``.

        Memory holds the members of one archive at a time.
        """
        found: Spool[tuple[str, tuple[Any, ...], str | None]] = Spool()
        folders: set[str] = set()
        numbered = True
        for file, (name, split) in container_files(self.path, (".tar",)).items():
            with open_range_reader() as read:
                for entry, label in self._samples(file, split, read):
                    found.append((name, entry_fields(entry), label))
                    folders.add(folder_of(entry.key))
                    numbered = numbered and (not label or _NUMBER.fullmatch(label) is not None)
        if not found:
            raise DataError(f"{self.path}: no images in it")
        places = splits_and_folders(folders)
        keys = SortedSpool((fields[0],) for _, fields, _ in found)
        shared = any(one == other for one, other in itertools.pairwise(keys))
        for name, fields, label in found:
            entry = Entry(*fields)
            values = entry.values
            if label is not None:
                values = {**values, LABEL: int(label) if label and numbered else label}
            key = f"{name}/{entry.key}" if shared else entry.key
            yield dataclasses.replace(entry, key=key, folder=places[folder_of(entry.key)][1], values=values)

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`."""
        with open_range_reader() as read:

            def load(entry: Entry) -> Sample:
                data = read(entry.file, entry.offset, entry.size)
                if len(data) < entry.size:
                    raise ImageError("truncated: the archive ends in it")
                return Sample(data)

            yield load

    def _samples(
        self, file: str, split: str, read: Callable[[str, int, int], bytes]
    ) -> Iterator[tuple[Entry, str | None]]:
        """Yield the samples of an archive, each with what its ``.cls`` holds."""
        samples: dict[str, dict[str, tarfile.TarInfo]] = {}
        for member in _members(file):
            folder, _, last = member.name.removeprefix("./").rpartition("/")
            stem, _, extension = last.partition(".") if self.key_ends_at == "first-dot" else last.rpartition(".")
            if stem and extension and not stem.startswith((".", "__")):
                members = samples.setdefault(f"{folder}/{stem}" if folder else stem, {})
                if extension in members:
                    raise DataError(f"{file}: holds {member.name} twice; keys must be unique in an archive")
                members[extension] = member

        def content(member: tarfile.TarInfo) -> bytes:
            return read(file, member.offset_data, member.size)

        for key, members in samples.items():
            values: dict[str, Value | None] = {}
            if known := _only(file, members, "json"):
                values = _attributes(f"{file}: {known.name}", content(known))
            label = None
            if known := _only(file, members, "cls"):
                label = _label(f"{file}: {known.name}", content(known))
            image = self._image(file, key, members)
            entry = Entry(key, split, image.size, file, offset=image.offset_data, values=values)
            yield entry, label

    def _image(self, file: str, key: str, members: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo:
        """Return the member of a sample that is its image.

        Raises:
            DataError: there is none, or more than one; the message says which options pick one.
        """
        there = f"(its members: {', '.join(sorted(members))})"
        dot = self.key_ends_at.removesuffix("-dot")
        rule = f"a member's key is its name up to the {dot} dot, and its extension is what follows"
        if self.image_member is not None:
            image = _only(file, members, self.image_member)
            if image is None:
                raise DataError(
                    f"{file}: {key} has no member {self.image_member} {there}; {rule}; "
                    "name an extension that every sample has with --image-member, or leave that out"
                )
            return image
        images = sorted(extension for extension in members if f".{extension.lower()}" in SUFFIXES)
        if len(images) == 1:
            return members[images[0]]
        if images:
            raise DataError(
                f"{file}: {key} has {len(images)} images {there}; pick one by its extension, "
                f"as in --image-member {images[0]}"
            )
        longer = sorted(extension for extension in members if extension.lower().endswith(SUFFIXES))
        if longer:
            remedy = "where names themselves have dots, end keys at the last one with --key-ends-at last-dot"
            # An extension that begins with a number is more likely the rest of a name, as in 22.05.png.
            if example := next((extension for extension in longer if not extension[0].isdigit()), None):
                remedy += f"; else pick the image by its extension, as in --image-member {example}"
        elif self.key_ends_at == "last-dot":
            remedy = "leave --key-ends-at out if its image is under a longer name, else add one to the archive"
        else:
            remedy = "add one to the archive, or remove these members"
        raise DataError(f"{file}: {key} has no image {there}; {rule}; {remedy}")

    def describe(self, entry: Entry) -> str:
        """See :meth:`Source.describe`."""
        return f"{entry.file}, {entry.key}"


def _members(file: str) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of an archive.

    Raises:
        DataError: the archive cannot be read, or does not end with its end mark.
    """
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


def _only(file: str, members: Mapping[str, tarfile.TarInfo], extension: str) -> tarfile.TarInfo | None:
    """Return the member of an extension: as it is written, else in whatever case; ``None`` if there is none.

    Raises:
        DataError: there are several that differ from it and from each other in case alone.
    """
    if extension in members:
        return members[extension]
    found = [member for name, member in members.items() if name.lower() == extension.lower()]
    if len(found) > 1:
        names = " and ".join(member.name for member in found)
        raise DataError(f"{file}: {names} differ in upper and lower case alone; rename or remove one of them")
    return found[0] if found else None


def _label(where: str, content: bytes) -> str:
    """Return the class's number or name that a ``.cls`` holds; empty if it is empty."""
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        text = "\0"
    if not text.isprintable():
        raise DataError(f"{where}: should be a class's number or name, not {content[:40]!r}; put that right")
    return text


def _attributes(where: str, content: bytes) -> dict[str, Value | None]:
    try:
        values: Any = json.loads(content)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise DataError(f'{where}: should be an object, as in {{"age": 7}}')
    return {name: value for name, value in values.items() if value is None or isinstance(value, int | float | str)}
