"""The manifest: the description of a data set, with checksums of all its bytes (shard format 1).

``DEST/manifest.json`` is written last, so a directory without one is not a data set. A checksum covers every byte that
a reader uses: the manifest has one over itself, each shard's schema and each record batch have their own (XXH3, fast
enough to check on the way to the GPU), and each whole file has a SHA-256 that ``sha256sum`` can confirm.
"""

import dataclasses
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, TypeAdapter, ValidationError
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import locate, read_bytes, sha256, write_json
from genlab.core.text import counted
from genlab.imaging.images import Encoding
from genlab.imaging.value_range import ValueRange

FORMAT = "genlab-shards"
VERSION = 1
FILE_NAME = "manifest.json"
LABEL = "label"
"""Name of the label's column."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One Arrow IPC message of a shard file: the schema, or a record batch."""

    offset: int
    """Where the message begins, in bytes from the start of the file (a multiple of 8)."""
    bytes: int
    """Length of the message, metadata and body."""
    rows: int
    """Rows of the record batch; 0 for the schema."""
    xxh3: str
    """Hexadecimal XXH3-64 of these bytes."""


def _bare_name(file: str) -> str:
    """Refuse a path: a data set reads no file outside its folder."""
    if file in {"", ".", ".."} or set(file) & {"/", "\\", "\0"}:
        raise ValueError(f"shard file {file!r}: not the name of a file in the data set's folder")
    return file


@dataclasses.dataclass(frozen=True)
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
    blocks: tuple[Block, ...]
    """The record batches, in the order of the file."""


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
    """``raw``: fixed-shape uint8 tensors. ``encoded``: JPEG or PNG bytes."""
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
    def checksum(self) -> str:
        """The data set's identity: SHA-256 over everything in the manifest."""
        return sha256(json.dumps(self._content(), sort_keys=True, separators=(",", ":")).encode())

    def _content(self) -> dict[str, Any]:
        fields = _ADAPTER.dump_python(self, mode="json")
        if self.value_range is None:  # Manifests that were written before there were ranges keep their checksums.
            del fields["value_range"]
        return {"format": FORMAT, "version": VERSION} | fields

    def save(self, directory: UPath) -> None:
        """Write ``manifest.json``, which makes ``directory`` a data set."""
        write_json(directory / FILE_NAME, self._content() | {"checksum": self.checksum})

    @staticmethod
    def load(url: str | UPath) -> "Manifest":
        """Read and check the manifest of the data set at ``url``.

        Raises:
            DataError: when there is no manifest, or it is damaged or of another format.
        """
        file = locate(url) / FILE_NAME
        try:
            content = json.loads(read_bytes(file))
        except FileNotFoundError:
            raise DataError(
                f"{url}: not a data set (no {FILE_NAME}); make one with `genlab ingest SOURCE {url}`"
            ) from None
        except (ValueError, OSError) as error:
            raise DataError(f"{file}: cannot be read ({error}); ingest the data again") from None
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise DataError(f"{file}: not a manifest of genlab shards")
        version = content.pop("version", None)
        if version != VERSION:
            raise DataError(f"{file}: shard format {version!r}; this genlab reads format {VERSION}")
        checksum = content.pop("checksum", None)
        try:
            manifest = _ADAPTER.validate_python(content, extra="forbid")
        except ValidationError as error:
            named = [fault["ctx"]["error"] for fault in error.errors() if fault["type"] == "value_error"]
            fault = named[0] if named else counted(error.error_count(), "fault")
            raise DataError(f"{file}: damaged ({fault}); ingest the data again") from None
        if manifest.checksum != checksum:
            raise DataError(f"{file}: damaged (its checksum does not match); ingest the data again")
        return manifest


# Made once, because building it takes longer than reading a manifest.
_ADAPTER = TypeAdapter(Manifest)
