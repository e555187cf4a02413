"""Extents: stretches of a shard's bytes, out of which rows are taken once the blocks they lie in were checked."""

import math

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from upath import UPath

from genlab.core.errors import DataError
from genlab.data.format.manifest import Block, Manifest, Shard
from genlab.data.format.schema import arrow_schema

TAKE_BYTES = 1 << 16
"""Images are copied by way of an array of about this size, which malloc need not ask the kernel for."""

FEW = 16
"""Up to so many stretches, looking for each one's rows is faster than sorting rows."""

AGAIN = "restore the file or ingest the data again"


class Extent:
    """The bytes of consecutive blocks of one shard, and where each row lies in them. Safe to use from many threads.

    Args:
        path: the shard's file, for messages.
        manifest: the data set's manifest.
        shard: the shard.
        blocks: numbers of the shard's blocks that are in it, consecutive.
        data: uint8 [n], the bytes of the file from ``offset`` on.
        offset: where ``data`` begins in the file.
    """

    def __init__(
        self, path: UPath, manifest: Manifest, shard: Shard, blocks: range, data: NDArray[np.uint8], offset: int
    ) -> None:
        self.path = path
        self.data = data
        self._shard = shard
        self._blocks = blocks
        self._offset = offset
        self._raw = manifest.encoding == "raw"
        self._schema = arrow_schema(manifest.encoding, manifest.shape, manifest.labelled, manifest.attributes)
        self._starts = np.cumsum([0] + [shard.blocks[block].rows for block in blocks])
        # The first byte of each row's image; -1 where the block was not checked yet.
        self._begin = np.full(self._starts[-1], -1, np.int64)
        self._unchecked = len(self._begin)
        self._columns = {
            field.name: np.empty(self._starts[-1], field.type.to_pandas_dtype())
            for field in self._schema
            if field.name not in ("image", "key")
        }
        if self._raw:
            assert manifest.shape is not None
            # Every run of an image's length in the file, overlapping: indexing it by first byte gathers any rows at
            # once. Each is one opaque item, because NumPy copies those twice as fast as rows of bytes.
            self._length = math.prod(manifest.shape)
            self._windows = np.lib.stride_tricks.as_strided(
                data[: self._length].view(f"V{self._length}"),
                (len(data) - self._length + 1,),
                (1,),
                writeable=False,
            )
        else:
            self._end = np.empty(self._starts[-1], np.int64)

    def take(self, rows: NDArray[np.int64], out: NDArray[np.uint8], where: NDArray[np.int64]) -> None:
        """Copy raw images to the places ``where`` in ``out``, uint8 [n, height, width, channels]."""
        self.check(rows)
        images, begin = out.reshape(-1).view(f"V{self._length}"), self._begin[rows]
        step = max(1, TAKE_BYTES // self._length)
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            images[where[part]] = self._windows[begin[part]]

    def blobs(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Encoded images, each a read-only view of the file's bytes."""
        self.check(rows)
        spans = zip(self._begin[rows].tolist(), self._end[rows].tolist(), strict=True)
        return [self.data[begin:end] for begin, end in spans]

    def column(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.float64]:
        """Labels (``label``) or an attribute's values, [n]."""
        self.check(rows)
        return self._columns[name][rows]

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """Keys, parsed from the blocks each time: they are asked for a few at a time."""
        block = np.searchsorted(self._starts, rows, side="right") - 1
        columns = {i: self._record_batch(i)["key"] for i in np.unique(block).tolist()}
        return [columns[i][row - self._starts[i]].as_py() for i, row in zip(block.tolist(), rows.tolist(), strict=True)]

    def check(self, rows: NDArray[np.int64]) -> None:
        """Check the blocks of ``rows`` that were not checked before.

        Raises:
            DataError: naming the file and the block that does not match its checksum.
        """
        if self._unchecked == 0:
            return
        unchecked = self._begin[rows] < 0
        if unchecked.any():
            for index in np.unique(np.searchsorted(self._starts, rows[unchecked], side="right") - 1).tolist():
                self._check_block(index)

    def check_all(self) -> None:
        """Check every block, whether it was before or not."""
        for index in range(len(self._blocks)):
            self._check_block(index)

    def check_schema(self) -> None:
        """Check that the shard's columns are those of the manifest; the extent must begin at the file's begin."""
        message = self._checked_bytes(self._shard.schema, "the schema")
        try:
            schema = pa.ipc.read_schema(message)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self.damaged(f"the schema cannot be parsed: {error}") from None
        if schema.names != self._schema.names or schema.types != self._schema.types:
            raise self.damaged(f"its columns are not those of the manifest: {', '.join(schema.names)}")

    def damaged(self, why: str) -> DataError:
        """The error that says so."""
        return DataError(f"{self.path}: damaged ({why}); {AGAIN}")

    def _check_block(self, index: int) -> None:
        batch = self._record_batch(index)
        image = batch["image"]
        rows = slice(self._starts[index], self._starts[index + 1])
        for name, values in self._columns.items():
            values[rows] = np.frombuffer(batch[name].buffers()[1], values.dtype, len(image))
        if self._raw:
            begin = self._position(image.storage.values.buffers()[1]) + np.arange(len(image)) * self._length
        else:
            _, offsets, data = image.buffers()
            edges = self._position(data) + np.frombuffer(offsets, np.int64, len(image) + 1)
            begin, self._end[rows] = edges[:-1], edges[1:]
        # Last, for it says to other threads that the rest is in place.
        self._begin[rows] = begin
        self._unchecked = int(np.count_nonzero(self._begin < 0))

    def _position(self, buffer: pa.Buffer) -> int:
        position = int(buffer.address - self.data.ctypes.data)
        if not 0 <= position <= len(self.data) - buffer.size:
            raise self.damaged("its record batches are compressed, which genlab never does")
        return position

    def _record_batch(self, index: int) -> pa.RecordBatch:
        number = self._blocks[index]
        block = self._shard.blocks[number]
        message = self._checked_bytes(block, f"record batch {number}")
        try:
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(message), self._schema)
            batch.validate()
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self.damaged(f"record batch {number} cannot be parsed: {error}") from None
        if len(batch) != block.rows:
            raise self.damaged(f"record batch {number} has {len(batch)} rows, not those of the manifest")
        return batch

    def _checked_bytes(self, block: Block, what: str) -> pa.Buffer:
        data = self.data[block.offset - self._offset : block.offset - self._offset + block.bytes]
        if xxhash.xxh3_64_hexdigest(data.data) != block.xxh3:
            raise self.damaged(
                f"{what}, bytes {block.offset} to {block.offset + block.bytes}, does not match its checksum"
            )
        return pa.py_buffer(data)


def split_by(starts: NDArray[np.int64], rows: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Sort rows by the stretch they lie in.

    Args:
        starts: int64 [stretches + 1], the first row of each, and the number of rows.
        rows: int64 [n].

    Returns:
        For each stretch touched, ascending: its number, and which of ``rows`` lie in it.
    """
    if len(rows) == 0:
        return []
    if len(starts) == 2:
        return [(0, np.arange(len(rows)))]
    index = np.searchsorted(starts, rows, side="right") - 1
    if len(starts) <= FEW:
        places = ((stretch, np.flatnonzero(index == stretch)) for stretch in range(len(starts) - 1))
        return [(stretch, where) for stretch, where in places if len(where)]
    order = np.argsort(index, kind="stable")
    touched, first = np.unique(index[order], return_index=True)
    return list(zip(touched.tolist(), np.split(order, first[1:]), strict=True))
