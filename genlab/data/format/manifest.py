"""The manifest: the description of a data set, with checksums of all its bytes.

``DEST/manifest.json`` is written last, so a directory without one is not a data set. A checksum covers every byte that
a reader uses: the manifest has one over itself, each shard's schema and each record batch have their own (XXH3, fast
enough to check on the way to the GPU), and each whole file has a SHA-256 that ``sha256sum`` can confirm. Format 1 has
those of the record batches in the manifest; from format 2 on they are in an index (:mod:`genlab.data.format.index`),
and the manifest has the checksums of that.
"""

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import locate, read_bytes, sha256, write_atomic, write_json
from genlab.core.text import counted
from genlab.imaging.images import Encoding
from genlab.imaging.value_range import ValueRange

FORMAT = "genlab-shards"
VERSION = 2
"""The format of new data sets; those of format 1 are read as well."""
FILE_NAME = "manifest.json"
INDEX_NAME = "index.arrow"
RESTORE = "restore the file or ingest the data again"
"""The way out of a damaged or missing file of a data set, for messages."""
LABEL = "label"
"""Name of the label's column."""


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One Arrow IPC message of a file: the schema of a shard, or a record batch."""

    offset: int
    """Where the message begins, in bytes from the start of the file (a multiple of 8)."""
    bytes: int
    """Length of the message, metadata and body."""
    rows: int
    """Rows of the record batch; 0 for the schema."""
    xxh3: str
    """Hexadecimal XXH3-64 of these bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Blocks:
    """Neighbouring blocks of one shard, as columns."""

    offset: NDArray[np.int64]
    """[n] where each begins, in bytes from the start of the shard's file."""
    bytes: NDArray[np.int64]
    """[n] length of each."""
    rows: NDArray[np.int64]
    """[n] rows of each."""
    xxh3: NDArray[np.uint64]
    """[n] XXH3-64 of the bytes of each."""

    @staticmethod
    def of(blocks: Sequence[Block]) -> "Blocks":
        """Return blocks that are in a manifest, or were just written."""
        return Blocks(
            np.array([block.offset for block in blocks], np.int64),
            np.array([block.bytes for block in blocks], np.int64),
            np.array([block.rows for block in blocks], np.int64),
            np.array([int(block.xxh3, 16) for block in blocks], np.uint64),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> "Blocks":
        """Return some of the blocks."""
        return Blocks(self.offset[part], self.bytes[part], self.rows[part], self.xxh3[part])


def _bare_name(file: str) -> str:
    """Refuse a path: a data set reads no file outside its folder."""
    if file in {"", ".", ".."} or set(file) & {"/", "\\", "\0"}:
        raise ValueError(f"shard file {file!r}: not the name of a file in the data set's folder")
    return file


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """One Arrow IPC file. All its rows belong to one split."""

    file: Annotated[str, AfterValidator(_bare_name)]
    """Name of the file in the data set's folder."""
    split: str
    rows: int
    bytes: int
    """Size of the file."""
    sha256: str
    """Hexadecimal SHA-256 of the file."""
    schema: Block
    blocks: Annotated[tuple[Block, ...], Field(exclude_if=lambda blocks: not blocks)] = ()
    """The record batches, in the order of the file; empty where they are in the index."""
    index: Annotated[Block | None, Field(exclude_if=lambda index: index is None)] = None
    """The record batch of the index that has a row for each of this shard's record batches; ``None`` in format 1."""

    @property
    def block_count(self) -> int:
        """How many record batches it has."""
        return len(self.blocks) if self.index is None else self.index.rows


@dataclasses.dataclass(frozen=True)
class IndexFile:
    """The file ``index.arrow``."""

    bytes: int
    """Size of the file."""
    sha256: str
    """Hexadecimal SHA-256 of the file."""


@dataclasses.dataclass(frozen=True)
class Attribute:
    """A further column: a value for each image, such as the age of a face."""

    name: str
    kind: Literal["int", "float", "category"]
    """``int``: int64. ``float``: float64. ``category``: int64 indices into ``names``."""
    names: tuple[str, ...] = ()
    """Names of the values 0, 1, ... of a category; empty for the other kinds."""


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An image that ingest was told to leave out because it could not be used."""

    key: str
    """Name of the image in its source."""
    why: str
    """Why it could not be used, as a message."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """How a data set was made."""

    kind: str
    """Scheme of the source: ``mnist``, ``folder``, ``zip``, ``tfrecord``, ``webdataset``, ``parquet``, ``hf`` or
    ``synthetic``."""
    path: str
    """The source, without its scheme."""
    options: dict[str, Any]
    """Options of the ingest that decide what the data set holds."""
    versions: dict[str, str]
    """Version of genlab and of each library that was used, by name."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The description of a data set: everything that is known without opening a shard."""

    encoding: Encoding
    """``raw``: fixed-shape uint8 tensors. ``encoded``: bytes of JPEG, PNG or WebP files."""
    channels: int
    shape: tuple[int, int, int] | None
    """(height, width, channels) of every image; ``None`` when encoded images differ in size."""
    label_names: tuple[str, ...]
    """Names of the labels 0, 1, ...; empty when the images are not labelled."""
    attributes: tuple[Attribute, ...]
    """Further columns, in their order."""
    shards: tuple[Shard, ...]
    """The shards; rows are numbered through them in this order."""
    origin: Origin
    converted: dict[str, int]
    """How many images were converted, by kind of conversion: ``grey``, ``alpha``, ``cmyk``, ``exif``, ``depth``, ..."""
    skipped: tuple[Skipped, ...] = ()
    """Images that were left out."""
    value_range: ValueRange | None = None
    """The values that became 0 and 255 in images of more than 8 bits; ``None`` (and not written) where the upper 8 of
    their 16 bits were kept.
    """
    index: Annotated[IndexFile | None, Field(exclude_if=lambda index: index is None)] = None
    """The index; ``None`` in format 1."""

    @property
    def labelled(self) -> bool:
        """Whether each image has a label."""
        return bool(self.label_names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names of every shard, in their order."""
        label = (LABEL,) if self.labelled else ()
        return ("image", "key", *label, *(attribute.name for attribute in self.attributes))

    @property
    def label_column(self) -> str:
        """Name that the label's column had in the source, such as ``gender``; ``label`` where it had none."""
        return self.origin.options.get("label") or LABEL

    @property
    def rows(self) -> int:
        """Images in all splits together."""
        return sum(shard.rows for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Size of all shard files."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def splits(self) -> dict[str, int]:
        """Rows of each split, in the order of the shards."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            counts[shard.split] = counts.get(shard.split, 0) + shard.rows
        return counts

    @property
    def version(self) -> int:
        """The format: 1 or 2."""
        return 1 if self.index is None else 2

    @cached_property
    def checksum(self) -> str:
        """The data set's identity: SHA-256 over everything in the manifest."""
        if self.version == 1:
            return sha256(json.dumps(self._content(), sort_keys=True, separators=(",", ":")).encode())
        return sha256(self._text().encode())

    def _content(self) -> dict[str, Any]:
        fields = _ADAPTER.dump_python(self, mode="json")
        if self.value_range is None:  # Manifests that were written before there were ranges keep their checksums.
            del fields["value_range"]
        return {"format": FORMAT, "version": self.version} | fields

    def _text(self) -> str:
        """Return the file up to its checksum: a line for each field, and for each shard."""
        lines = [f"{json.dumps(name)}: {_json(value)}" for name, value in self._content().items()]
        return "{\n" + ",\n".join(lines)

    def save(self, directory: UPath) -> None:
        """Write ``manifest.json``, which makes ``directory`` a data set."""
        if self.version == 1:
            write_json(directory / FILE_NAME, self._content() | {"checksum": self.checksum})
        else:
            write_atomic(directory / FILE_NAME, self._text().encode() + _end(self.checksum))

    @staticmethod
    def load(url: str | UPath) -> "Manifest":
        """Read and check the manifest of the data set at ``url``.

        Raises:
            DataError: when there is no manifest, or it is damaged or of another format.
        """
        file = locate(url) / FILE_NAME
        try:
            data = read_bytes(file)
            manifest = _parse_1(data) if not data.startswith(_HEAD_2) else _parse_2(data)
        except FileNotFoundError:
            raise DataError(
                f"{url}: not a data set (no {FILE_NAME}); make one with `genlab ingest SOURCE {url}`"
            ) from None
        except ValidationError as error:
            named = [fault["ctx"]["error"] for fault in error.errors() if fault["type"] == "value_error"]
            fault = named[0] if named else counted(error.error_count(), "fault")
            raise DataError(f"{file}: damaged ({fault}); ingest the data again") from None
        except _UnreadableError as error:
            raise DataError(f"{file}: {error}") from None
        except (ValueError, OSError) as error:
            raise DataError(f"{file}: cannot be read ({error}); ingest the data again") from None
        return manifest


class _UnreadableError(Exception):
    """A manifest that cannot be used; the message says why."""


_HEAD_2 = f'{{\n"format": "{FORMAT}",\n"version": 2,\n'.encode()
"""How manifests of format 2 begin."""


def _parse_1(data: bytes) -> Manifest:
    """Parse a manifest of format 1, which is JSON however it is written."""
    content = json.loads(data)
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise _UnreadableError("not a manifest of genlab shards")
    version = content.pop("version", None)
    if version == VERSION:
        raise _UnreadableError("damaged (it is not as genlab wrote it); ingest the data again")
    if version != 1:
        raise _UnreadableError(f"shard format {version!r}; this genlab reads formats 1 and {VERSION}")
    checksum = content.pop("checksum", None)
    manifest = _ADAPTER.validate_python(content, extra="forbid")
    if manifest.index is not None or manifest.checksum != checksum:
        raise _UnreadableError(_OTHER_CHECKSUM)
    return manifest


def _parse_2(data: bytes) -> Manifest:
    """Parse a manifest of format 2, whose checksum is over the bytes before it, so that these are parsed only once."""
    text = data[: -len(_end("0" * 64))]
    checksum = sha256(text)
    if data[len(text) :] != _end(checksum):
        raise _UnreadableError(_OTHER_CHECKSUM)
    manifest = _ADAPTER.validate_json(b"{" + text[len(_HEAD_2) :] + b"}", extra="forbid")
    vars(manifest)["checksum"] = checksum  # where cached_property keeps it
    return manifest


_OTHER_CHECKSUM = "damaged (its checksum does not match); ingest the data again"


def _end(checksum: str) -> bytes:
    """Return the end of a manifest of format 2."""
    return f',\n"checksum": "{checksum}"\n}}\n'.encode()


def _json(value: Any) -> str:
    """Return a value as JSON; a list of objects has a line for each."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
    return json.dumps(value)


def missing_file(path: UPath) -> DataError:
    """Return the error for a file of a data set that is not there."""
    return DataError(f"{path}: no such file, though the manifest lists it; {RESTORE}")


# Made once, because building it takes longer than reading a manifest.
_ADAPTER = TypeAdapter(Manifest)
