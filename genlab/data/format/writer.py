"""The one writer of image shards.

A shard is an Arrow IPC file that any Arrow implementation opens, in record batches ("blocks") of about 1 MiB, each with
its byte range and checksum in the index (:mod:`genlab.data.format.index`).
"""

import hashlib
import io
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import AtomicFile
from genlab.data.format.manifest import Attribute, Block, Shard
from genlab.data.format.schema import MAGIC_BYTES, arrow_schema
from genlab.imaging.images import Encoding

BLOCK_BYTES = 1 << 20
"""Pixels or encoded bytes in one record batch, at most (a larger image has a batch to itself)."""

UNHASHED_BLOCKS = 8
"""Most blocks that wait in memory for the SHA-256 thread."""

Image = NDArray[np.uint8] | bytes


class ShardWriter:
    """Writes one shard, image by image; the same input gives the same bytes.

    Memory holds a few blocks. The file comes to its place, whole, by :meth:`close`; :meth:`drop` leaves nothing of it.

    Args:
        path: the file to write; an existing one is replaced.
        split: split to which all rows belong.
        encoding: ``raw`` stores pixels, ``encoded`` stores the bytes of JPEG, PNG or WebP files.
        shape: (height, width, channels) of every image; needed for ``raw``.
        labelled: whether images have labels.
        attributes: further columns.
    """

    def __init__(
        self,
        path: UPath,
        *,
        split: str,
        encoding: Encoding,
        shape: tuple[int, int, int] | None,
        labelled: bool,
        attributes: Sequence[Attribute] = (),
    ) -> None:
        self._name, self._split = path.name, split
        self._shape = shape if encoding == "raw" else None
        self._labelled = labelled
        self._schema = arrow_schema(encoding, shape, labelled, attributes)
        self._images: list[Image] = []
        self._size = 0
        self._columns: list[list[str | float]] = [[] for _ in self._schema.names[1:]]
        self._blocks: list[Block] = []
        self._file = AtomicFile(path)
        self._sink = _Sink(self._file, self._schema.serialize().size)
        self._batches = pa.ipc.new_file(self._sink, self._schema)

    def add(self, image: Image, key: str, label: int | None, values: Sequence[int | float] = ()) -> None:
        """Append one row.

        Args:
            image: uint8 [height, width, channels] for ``raw``, else bytes.
            key: the image's name in its source.
            label: number of the image's label; ``None`` if images are not labelled.
            values: the value of each attribute; for a category, the index of its name.

        Raises:
            DataError: when a raw image is not uint8 of the shape.
        """
        if isinstance(image, bytes):
            length = len(image)
        elif self._shape is None or image.dtype != np.uint8 or image.shape != self._shape:
            raise DataError(f"{key}: a raw shard holds uint8 images of one shape, {self._shape}; ingest with --size")
        else:
            length = image.nbytes
        if self._images and self._size + length > BLOCK_BYTES:
            self._flush()
        self._images.append(image)
        self._size += length
        row = (key, cast("int", label), *values) if self._labelled else (key, *values)
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)

    def close(self) -> Shard:
        """Put the file in its place and return its entry for the manifest; there must be one row at least."""
        self._flush()
        self._batches.close()
        self._file.commit()
        schema, *_ = self._sink.schema
        return Shard(
            file=self._name,
            split=self._split,
            rows=sum(block.rows for block in self._blocks),
            bytes=self._sink.position,
            sha256=self._sink.sha256(),
            schema=schema,
            blocks=tuple(self._blocks),
        )

    def drop(self) -> None:
        """Remove the file and end the thread, unless the shard was closed."""
        self._sink.drop()
        self._file.drop()

    def _flush(self) -> None:
        columns = [_image_array(self._images, self._schema)]
        columns += [
            pa.array(values, field.type) for values, field in zip(self._columns, list(self._schema)[1:], strict=True)
        ]
        self._batches.write_batch(pa.record_batch(columns, schema=self._schema))
        self._blocks.append(self._sink.block(len(self._images)))
        self._images, self._size, self._columns = [], 0, [[] for _ in self._columns]


class _Sink(io.RawIOBase):
    """A file for Arrow to write to, which computes checksums of the whole, the schema message, and each batch.

    SHA-256 takes longer than all the rest of writing, so another thread computes it.
    """

    def __init__(self, file: AtomicFile, schema_bytes: int) -> None:
        self.position = self._begin = 0
        self.schema: list[Block] = []
        self._file = file
        self._part = xxhash.xxh3_64()
        self._schema_end = MAGIC_BYTES + schema_bytes
        self._sha256 = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "genlab-sha256")
        self._unhashed: list[Any] = []
        self._hashing: deque[Future[None]] = deque()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        # Arrow writes each message by itself, the schema with the first batch.
        if self.position == MAGIC_BYTES:
            self.block(0)
        elif self.position == self._schema_end and not self.schema:
            self.schema.append(self.block(0))
        self._unhashed.append(data)
        with memoryview(data) as view:
            self._file.write(view)
            self._part.update(view)
            self.position += len(view)
            return len(view)

    def block(self, rows: int) -> Block:
        """Return the manifest entry of the bytes written since the last call, which hold ``rows`` rows."""
        block = Block(self._begin, self.position - self._begin, rows, self._part.hexdigest())
        self._begin = self.position
        self._part.reset()
        self._hashing.append(self._thread.submit(self._hash, self._unhashed))
        self._unhashed = []
        if len(self._hashing) > UNHASHED_BLOCKS:
            self._hashing.popleft().result()
        return block

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of the whole file, once all is written, and end the thread."""
        self._thread.submit(self._hash, self._unhashed).result()
        self._thread.shutdown()
        return self._sha256.hexdigest()

    def drop(self) -> None:
        """End the thread without a checksum."""
        self._thread.shutdown(cancel_futures=True)

    def _hash(self, buffers: Sequence[Any]) -> None:
        for buffer in buffers:
            self._sha256.update(buffer)


def _image_array(images: Sequence[Image], schema: pa.Schema) -> pa.Array:
    kind = schema.field("image").type
    if kind == pa.large_binary():
        blobs = cast("Sequence[bytes]", images)
        offsets = np.zeros(len(blobs) + 1, np.int64)
        np.cumsum([len(blob) for blob in blobs], out=offsets[1:])
        return pa.Array.from_buffers(kind, len(blobs), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(blobs))])
    pixels = pa.array(np.stack(cast("Any", images)).reshape(-1))
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pixels, type=kind.storage_type))
