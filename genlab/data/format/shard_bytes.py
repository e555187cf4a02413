"""Bytes of a shard in memory, out of which rows are taken once the blocks (Arrow record batches) they lie in were
checked against their checksums.
"""

import math

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from upath import UPath

from genlab.core.errors import DataError
from genlab.data.format.manifest import RESTORE, Blocks, Manifest, Shard
from genlab.data.format.schema import arrow_schema

COPY_BYTES = 1 << 16
"""Raw images are copied through an array of about this size, which malloc need not ask the kernel for."""

FEW_INTERVALS = 16
"""Up to this many intervals, :func:`split_by` scans once per interval; beyond, it sorts the rows."""


class ShardBytes:
    """The bytes of consecutive blocks of one shard, and where each row lies in them. Safe to use from many threads.

    Rows are numbered 0, 1, ... through these blocks.

    Args:
        path: the shard's file, for messages.
        manifest: the data set's manifest.
        shard: the shard.
        blocks: the blocks of the shard that ``data`` holds, consecutive.
        first: number of the first of them in the shard.
        data: uint8 [n], the bytes of the file from ``offset`` on.
        offset: where ``data`` begins in the file.
    """

    def __init__(
        self,
        path: UPath,
        manifest: Manifest,
        shard: Shard,
        blocks: Blocks,
        data: NDArray[np.uint8],
        *,
        first: int,
        offset: int,
    ) -> None:
        self.path = path
        self.data = data
        self._shard = shard
        self._blocks = blocks
        self._first = first
        self._offset = offset
        self._raw = manifest.encoding == "raw"
        self._schema = arrow_schema(manifest.encoding, manifest.shape, manifest.labelled, manifest.attributes)
        self._starts = np.concatenate([[0], np.cumsum(blocks.rows)])
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
            # A view of ``data`` with an item for each byte: the bytes of an image that begins there. So indexing by the
            # images' first bytes gathers any rows at once. Items are opaque (type V), because NumPy copies those twice
            # as fast as rows of bytes.
            self._length = math.prod(manifest.shape)
            self._images = np.lib.stride_tricks.as_strided(
                data[: self._length].view(f"V{self._length}"),
                (len(data) - self._length + 1,),
                (1,),
                writeable=False,
            )
        else:
            self._end = np.empty(self._starts[-1], np.int64)

    def copy_images(self, rows: NDArray[np.int64], out: NDArray[np.uint8], places: NDArray[np.int64]) -> None:
        """Copy the raw images of ``rows`` to ``places`` in ``out``, uint8 [n, height, width, channels]."""
        self.check(rows)
        images, begin = out.reshape(-1).view(f"V{self._length}"), self._begin[rows]
        step = max(1, COPY_BYTES // self._length)
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            images[places[part]] = self._images[begin[part]]

    def encoded_images(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the image files of ``rows``, uint8 [bytes] each, as read-only views of the shard's bytes."""
        self.check(rows)
        spans = zip(self._begin[rows].tolist(), self._end[rows].tolist(), strict=True)
        return [self.data[begin:end] for begin, end in spans]

    def column(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.float64]:
        """Return the labels (``label``) of ``rows`` or the values of an attribute, [n]."""
        self.check(rows)
        return self._columns[name][rows]

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the keys of ``rows``. They are parsed anew each time, because callers ask for a few only."""
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
        """Check every block, also those that were checked before.

        Raises:
            DataError: naming the file and the block that does not match its checksum.
        """
        for index in range(len(self._blocks)):
            self._check_block(index)

    def check_schema(self) -> None:
        """Check that the shard's columns are those of the manifest. ``data`` must begin where the file begins.

        Raises:
            DataError: naming the file.
        """
        schema = self._shard.schema
        message = self._checked_bytes("the schema", schema.offset, schema.bytes, int(schema.xxh3, 16))
        try:
            found = pa.ipc.read_schema(message)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self.damaged(f"the schema cannot be parsed: {error}") from None
        if found.names != self._schema.names or found.types != self._schema.types:
            raise self.damaged(f"its columns are not those of the manifest: {', '.join(found.names)}")

    def damaged(self, why: str) -> DataError:
        """Return the error that says that the shard is damaged."""
        return DataError(f"{self.path}: damaged ({why}); {RESTORE}")

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
        # Last, because other threads take it as the sign that all else of the block is set.
        self._begin[rows] = begin
        self._unchecked = int(np.count_nonzero(self._begin < 0))

    def _position(self, buffer: pa.Buffer) -> int:
        position = int(buffer.address - self.data.ctypes.data)
        if not 0 <= position <= len(self.data) - buffer.size:
            raise self.damaged("its record batches are compressed, which genlab never does")
        return position

    def _record_batch(self, index: int) -> pa.RecordBatch:
        number, blocks = self._first + index, self._blocks
        place = int(blocks.offset[index]), int(blocks.bytes[index]), int(blocks.xxh3[index])
        message = self._checked_bytes(f"record batch {number}", *place)
        try:
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(message), self._schema)
            batch.validate()
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self.damaged(f"record batch {number} cannot be parsed: {error}") from None
        if len(batch) != blocks.rows[index]:
            raise self.damaged(f"record batch {number} has {len(batch)} rows, not those of the manifest")
        return batch

    def _checked_bytes(self, what: str, offset: int, length: int, xxh3: int) -> pa.Buffer:
        data = self.data[offset - self._offset : offset - self._offset + length]
        if xxhash.xxh3_64_intdigest(data.data) != xxh3:
            raise self.damaged(f"{what}, bytes {offset} to {offset + length}, does not match its checksum")
        return pa.py_buffer(data)


def split_by(starts: NDArray[np.int64], rows: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Sort rows by the interval (block or shard) that they lie in.

    Args:
        starts: int64 [intervals + 1], the first row of each interval, and the number of rows.
        rows: int64 [n], row numbers.

    Returns:
        For each interval that has any of ``rows``, ascending: its number, and the indices into ``rows`` of those in it,
        int64 [m].
    """
    if len(rows) == 0:
        return []
    if len(starts) == 2:
        return [(0, np.arange(len(rows)))]
    index = np.searchsorted(starts, rows, side="right") - 1
    if len(starts) <= FEW_INTERVALS:
        found = ((interval, np.flatnonzero(index == interval)) for interval in range(len(starts) - 1))
        return [(interval, places) for interval, places in found if len(places)]
    order = np.argsort(index, kind="stable")
    touched, first = np.unique(index[order], return_index=True)
    return list(zip(touched.tolist(), np.split(order, first[1:]), strict=True))
