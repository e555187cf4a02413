"""The one reader of image shards (format 1).

A shard is an Arrow IPC file that any Arrow implementation opens, in record batches ("blocks") of about 1 MiB. The
reader does not follow the file's footer. It goes by the byte ranges in the manifest and checks each block against its
checksum before the first row of it is used, so that a damaged image is never handed out. What was checked is
remembered: a file is expected to stay as it is while it is read.
"""

import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from upath import UPath

from genlab.data.format import arrow_schema
from genlab.data.manifest import FILE_NAME, Block, Manifest, Shard
from genlab.errors import DataError
from genlab.storage import is_remote, json_bytes, locate, read_json, sha256

AGAIN = "restore the file or ingest the data again"


@dataclass(frozen=True)
class Rows:
    """Images gathered from a data set, in the order they were asked for."""

    image: NDArray[np.uint8]
    """uint8 [n, height, width, channels], 0..255."""
    label: NDArray[np.int64] | None
    """int64 [n]; ``None`` when the images are not labelled."""


class ShardSet:
    """The rows of a data set, or of one of its splits, to be read by index.

    Local shards are memory mapped; remote ones are read whole when first used. Reading is thread-safe.

    Args:
        directory: Where the shards are.
        manifest: The data set's manifest.
        shards: The shards whose rows these are: rows 0, 1, ... run through them in this order.
        threads: Threads that decode encoded images.
    """

    def __init__(self, directory: UPath, manifest: Manifest, shards: Sequence[Shard], threads: int) -> None:
        self.directory = directory
        self.manifest = manifest
        self.shards = tuple(shards)
        self.threads = threads
        self._starts = np.cumsum([0] + [shard.rows for shard in self.shards])
        self._files: dict[int, _ShardFile] = {}

    @staticmethod
    def open(url: str | UPath, *, threads: int = 2) -> "ShardSet":
        """Open the data set at ``url``, a local path or a URL. Only the manifest is read now.

        Raises:
            DataError: when there is no data set at ``url``, or its manifest is damaged or of another format.
        """
        directory = locate(url)
        manifest = Manifest.load(directory)
        return ShardSet(directory, manifest, manifest.shards, threads)

    def split(self, name: str) -> "ShardSet":
        """Only the rows of one split, counted from 0 again.

        Raises:
            DataError: when there is no such split; names those there are.
        """
        shards = [shard for shard in self.shards if shard.split == name]
        if not shards:
            there = ", ".join(dict.fromkeys(shard.split for shard in self.shards))
            raise DataError(
                f"{self.directory}: no split {name!r}; choose one of: {there}; "
                "or ingest again with --test-fraction to set a test split aside"
            )
        return ShardSet(self.directory, self.manifest, shards, self.threads)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of every image; ``None`` when they differ in size."""
        return self.manifest.shape

    @property
    def labelled(self) -> bool:
        """Whether each image has a label."""
        return self.manifest.labelled

    @property
    def checksum(self) -> str:
        """The identity of the whole data set, all splits together (hexadecimal SHA-256)."""
        return self.manifest.checksum

    def fixed_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image.

        Raises:
            DataError: when the images differ in size.
        """
        if self.shape is None:
            raise DataError(
                f"{self.directory}: the images differ in size and cannot be put in one batch; "
                "ingest with --size to give them all one size"
            )
        return self.shape

    def read(self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> Rows:
        """Gather images and labels in the order asked for; any order, repeats allowed.

        Args:
            rows: int64 [n], each in 0..len-1.
            out: uint8 [n, height, width, channels] to put the images in; a new array otherwise.

        Raises:
            DataError: naming the shard, when it is missing or damaged or an image cannot be decoded; or when
                the images differ in size.
            IndexError: for a row out of range.
        """
        image = np.empty((len(rows), *self.fixed_shape()), np.uint8) if out is None else out
        label = np.empty(len(rows), np.int64) if self.labelled else None
        for file, where, local in self._by_file(rows):
            if label is not None:
                label[where] = file.labels(local)
            if self.manifest.encoding == "raw":
                image[where] = file.pixels(local)
        if self.manifest.encoding == "encoded":
            self._decode(rows, image)
        return Rows(image, label)

    def encoded(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The untouched bytes of encoded images, in the order asked for.

        Raises:
            DataError: when the data set holds raw pixels, or a shard is missing or damaged.
            IndexError: for a row out of range.
        """
        if self.manifest.encoding != "encoded":
            raise DataError(
                f"{self.directory}: holds raw pixels; ingest with --encoding encoded to keep the files' bytes"
            )
        return [blob.tobytes() for blob in self._blobs(rows)]

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """The name each image had in its source, in the order asked for.

        Raises:
            DataError: when a shard is missing or damaged.
            IndexError: for a row out of range.
        """
        keys = np.empty(len(rows), object)
        for file, where, local in self._by_file(rows):
            keys[where] = file.keys(local)
        return keys.tolist()

    def columns(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Label, where images have one, and attributes, without the images, in the order asked for.

        Returns:
            For each column [n]: int64, or float64 for an attribute of that kind.

        Raises:
            DataError: when a shard is missing or damaged.
            IndexError: for a row out of range.
        """
        real = {attribute.name for attribute in self.manifest.attributes if attribute.kind == "float"}
        names = [name for name in self.manifest.columns if name not in ("image", "key")]
        columns = {name: np.empty(len(rows), np.float64 if name in real else np.int64) for name in names}
        for file, where, local in self._by_file(rows):
            for name, column in columns.items():
                column[where] = file.column(name, local)
        return columns

    def verify(self, on_shard: Callable[[Shard], object] | None = None) -> None:
        """Check every byte: the manifest, and each shard's size, blocks and SHA-256, as they are on disk now.

        Args:
            on_shard: Called after each shard that is sound, to show progress.

        Raises:
            DataError: naming the first file that is missing or damaged.
        """
        manifest = self.directory / FILE_NAME
        Manifest.load(self.directory)
        if json_bytes(read_json(manifest)) != manifest.read_bytes():
            raise DataError(f"{manifest}: not as genlab wrote it; {AGAIN}")
        for shard in self.shards:
            _ShardFile(self.directory / shard.file, shard, self.manifest).verify()
            if on_shard is not None:
                on_shard(shard)

    def _by_file(self, rows: NDArray[np.int64]) -> Iterator[tuple["_ShardFile", Any, NDArray[np.int64]]]:
        """For each shard touched: the shard, the positions in ``rows`` it answers, and its own row numbers there."""
        index = np.searchsorted(self._starts, rows, side="right") - 1
        counts = np.bincount(index + 1, minlength=len(self.shards) + 2)
        if counts[0] or counts[-1]:
            raise IndexError(f"{self.directory}: row out of range 0..{len(self) - 1}")
        touched = np.flatnonzero(counts[1:-1]).tolist()
        for i in touched:
            if i not in self._files:
                self._files[i] = _ShardFile(self.directory / self.shards[i].file, self.shards[i], self.manifest)
            where = slice(None) if len(touched) == 1 else np.flatnonzero(index == i)
            yield self._files[i], where, rows[where] - self._starts[i]

    def _blobs(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        blobs = np.empty(len(rows), object)
        for file, where, local in self._by_file(rows):
            blobs[where] = file.blobs(local)
        return blobs.tolist()

    def _decode(self, rows: NDArray[np.int64], image: NDArray[np.uint8]) -> None:
        # Here, because they take seconds to import, and writing shards and reading raw ones need neither.
        import torch
        from torchvision.io import ImageReadMode, decode_image

        blobs, target = self._blobs(rows), torch.from_numpy(image)
        mode = ImageReadMode.GRAY if self.manifest.channels == 1 else ImageReadMode.RGB

        def decode(part: NDArray[np.int64]) -> None:
            for i in part.tolist():
                try:
                    pixels = decode_image(torch.from_numpy(blobs[i].copy()), mode).permute(1, 2, 0)
                except RuntimeError as error:
                    raise DataError(f"{self._name(rows[i])} cannot be decoded ({error}); {AGAIN}") from None
                if pixels.shape != target.shape[1:] or pixels.dtype != torch.uint8:
                    raise DataError(
                        f"{self._name(rows[i])} is {pixels.dtype} {tuple(pixels.shape)}, not {self.shape}; {AGAIN}"
                    )
                target[i].copy_(pixels)

        for _ in self._pool.map(decode, np.array_split(np.arange(len(rows)), self.threads)):
            pass

    def _name(self, row: np.int64) -> str:
        (file, _, local), *_ = self._by_file(np.array([row]))
        return f"{file.path}: image {file.keys(local)[0]!r}"

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="genlab-decode")


class _ShardFile:
    """One shard's bytes, and where each row lies in them, known once its block was checked."""

    def __init__(self, path: UPath, shard: Shard, manifest: Manifest) -> None:
        self.path = path
        self._shard = shard
        self._raw = manifest.encoding == "raw"
        self._labelled = manifest.labelled
        self._bytes = _read_bytes(path, shard.bytes)
        self._schema = self._checked_schema(manifest)
        self._starts = np.cumsum([0] + [block.rows for block in shard.blocks])
        # The first byte of each row's image; -1 where the block was not checked yet.
        self._begin = np.full(shard.rows, -1, np.int64)
        self._label = np.empty(shard.rows if self._labelled else 0, np.int64)
        if self._raw:
            assert manifest.shape is not None
            self._image_shape = manifest.shape
            # Every run of an image's length in the file, overlapping: indexing it by first byte gathers any rows at
            # once. Each is one opaque item, because NumPy copies those twice as fast as rows of bytes.
            self._length = math.prod(manifest.shape)
            self._windows = np.lib.stride_tricks.as_strided(
                self._bytes[: self._length].view(f"V{self._length}"),
                (len(self._bytes) - self._length + 1,),
                (1,),
                writeable=False,
            )
        else:
            self._end = np.empty(shard.rows, np.int64)

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Raw images, uint8 [n, height, width, channels]."""
        self._check(rows)
        return self._windows[self._begin[rows]].view(np.uint8).reshape(len(rows), *self._image_shape)

    def blobs(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Encoded images, each a read-only view of the file's bytes."""
        self._check(rows)
        spans = zip(self._begin[rows].tolist(), self._end[rows].tolist(), strict=True)
        return [self._bytes[begin:end] for begin, end in spans]

    def labels(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels, int64 [n]."""
        self._check(rows)
        return self._label[rows]

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """Keys, parsed from the blocks each time: they are asked for a few at a time."""
        block = self._block_of(rows)
        columns = {i: self._record_batch(i)["key"] for i in np.unique(block).tolist()}
        return [columns[i][row - self._starts[i]].as_py() for i, row in zip(block.tolist(), rows.tolist(), strict=True)]

    def column(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Values of a column of numbers, [n], parsed from the blocks each time."""
        block = self._block_of(rows)
        values = np.empty(len(rows), self._schema.field(name).type.to_pandas_dtype())
        for i in np.unique(block).tolist():
            where = block == i
            values[where] = self._record_batch(i)[name].to_numpy()[rows[where] - self._starts[i]]
        return values

    def verify(self) -> None:
        """Check every block, then the whole file, footer and padding included."""
        for index in range(len(self._shard.blocks)):
            self._check_block(index)
        if sha256(self._bytes.data) != self._shard.sha256:
            raise self._damaged("its SHA-256 does not match")

    def _check(self, rows: NDArray[np.int64]) -> None:
        unchecked = self._begin[rows] < 0
        if unchecked.any():
            for index in np.unique(self._block_of(rows[unchecked])).tolist():
                self._check_block(index)

    def _block_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._starts, rows, side="right") - 1

    def _check_block(self, index: int) -> None:
        batch = self._record_batch(index)
        image = batch["image"]
        rows = slice(self._starts[index], self._starts[index + 1])
        if self._labelled:
            self._label[rows] = np.frombuffer(batch["label"].buffers()[1], np.int64, len(image))
        if self._raw:
            base = self._position(image.storage.values.buffers()[1])
            begin = base + np.arange(len(image)) * self._length
        else:
            _, offsets, data = image.buffers()
            edges = self._position(data) + np.frombuffer(offsets, np.int64, len(image) + 1)
            begin, self._end[rows] = edges[:-1], edges[1:]
        # Last, for it says to other threads that the rest is in place.
        self._begin[rows] = begin

    def _position(self, buffer: pa.Buffer) -> int:
        position = int(buffer.address - self._bytes.ctypes.data)
        if not 0 <= position <= len(self._bytes) - buffer.size:
            raise self._damaged("its record batches are compressed, which genlab never does")
        return position

    def _record_batch(self, index: int) -> pa.RecordBatch:
        message = self._checked_bytes(self._shard.blocks[index], f"record batch {index}")
        try:
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(message), self._schema)
            batch.validate()
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._damaged(f"record batch {index} cannot be parsed: {error}") from None
        if len(batch) != self._shard.blocks[index].rows:
            raise self._damaged(f"record batch {index} has {len(batch)} rows, not those of the manifest")
        return batch

    def _checked_schema(self, manifest: Manifest) -> pa.Schema:
        message = self._checked_bytes(self._shard.schema, "the schema")
        try:
            schema = pa.ipc.read_schema(message)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._damaged(f"the schema cannot be parsed: {error}") from None
        known = arrow_schema(manifest.encoding, manifest.shape, self._labelled, manifest.attributes)
        if schema.names != list(manifest.columns) or any(
            schema.field(field.name).type != field.type for field in known
        ):
            raise self._damaged(f"its columns are not those of the manifest: {', '.join(schema.names)}")
        return schema

    def _checked_bytes(self, block: Block, what: str) -> pa.Buffer:
        data = self._bytes[block.offset : block.offset + block.bytes]
        if xxhash.xxh3_64_hexdigest(data.data) != block.xxh3:
            raise self._damaged(
                f"{what}, bytes {block.offset} to {block.offset + block.bytes}, does not match its checksum"
            )
        return pa.py_buffer(data)

    def _damaged(self, why: str) -> DataError:
        return DataError(f"{self.path}: damaged ({why}); {AGAIN}")


def _read_bytes(path: UPath, size: int) -> NDArray[np.uint8]:
    """All bytes of a shard file: memory mapped when it is local, else read into memory."""
    try:
        found = path.stat().st_size
        if found != size:
            raise DataError(f"{path}: damaged ({found:,} bytes, not {size:,}); {AGAIN}")
        if is_remote(path):
            return np.frombuffer(path.read_bytes(), np.uint8)
        with Path(str(path)).open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, though the manifest lists it; {AGAIN}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); {AGAIN}") from None
