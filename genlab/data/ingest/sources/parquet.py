"""``parquet:FILE-OR-DIR``: Parquet files with a column of images."""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genlab.core.errors import DataError
from genlab.core.storage import locate
from genlab.data.format.manifest import Attribute
from genlab.data.ingest.sources.base import Entry, Load, Sample, container_files
from genlab.data.ingest.sources.columns import Layout, Table, image_bytes
from genlab.imaging.images import ImageError

SCAN_ROWS = 8192
"""Rows that are read at a time of the columns beside the image."""

IMAGE_ROWS = 32
"""Images read at a time: a row group may hold a million."""


@dataclasses.dataclass(frozen=True)
class Parquet(Table):
    """One file, or all ``.parquet`` files below a directory.

    The image is a column of bytes, or a struct with ``bytes`` as Hugging Face writes it; numbers and texts beside it
    are attributes. Keys count the rows, ``FILE-00000042``, unless a column holds them. Splits: as the files are named
    (``train-00000-of-00004.parquet``) or lie.
    """

    kind = "parquet"

    def _rows(self) -> Iterator[tuple[Entry, str | None]]:
        for file, (name, split) in container_files(self.path, (".parquet",)).items():
            with _opened(file) as table:
                layout = self._layout(table.schema_arrow, file)
                # Nearly all bytes of a file are images.
                size = locate(file).stat().st_size // max(1, table.metadata.num_rows)
                number = 0
                for batch in _scan(table, layout, file):
                    for key, values in layout.rows(batch, len(batch)):
                        yield Entry(f"{name}-{number:08d}", split, size, file, number, values=values), key
                        number += 1

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`."""
        cursors: dict[str, _Cursor] = {}
        with ExitStack() as stack:

            def load(entry: Entry) -> Sample:
                if entry.file not in cursors:
                    table = stack.enter_context(_opened(entry.file))
                    cursors[entry.file] = _Cursor(table, self._layout(table.schema_arrow, entry.file).image)
                try:
                    return Sample(image_bytes(cursors[entry.file].row(entry.index)))
                except (pa.ArrowException, OSError) as error:
                    raise ImageError(f"damaged: its row cannot be read ({error})") from None

            yield load

    def declared(self) -> tuple[Attribute, ...]:
        """See :meth:`Source.declared`."""
        file = next(iter(container_files(self.path, (".parquet",))))
        with _opened(file) as table:
            return self._layout(table.schema_arrow, file).declared

    def describe(self, entry: Entry) -> str:
        """See :meth:`Source.describe`."""
        return f"{entry.file}, row {entry.index} ({entry.key})"


class _Cursor:
    """A reader of the image column of one file, in small batches, so that no whole row group is in memory."""

    def __init__(self, table: pq.ParquetFile, column: str) -> None:
        self._table, self._column = table, column
        groups = [table.metadata.row_group(index).num_rows for index in range(table.num_row_groups)]
        self._starts = np.cumsum([0, *groups])
        self._begin, self._batch = sys.maxsize, pa.array([])  # before the first batch
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def row(self, row: int) -> object:
        """Return the value of a row; fast for a row shortly after the one before."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        end = self._begin + len(self._batch)
        if row < self._begin or self._starts[group] > end:
            self._batches = self._table.iter_batches(
                IMAGE_ROWS, row_groups=range(group, self._table.num_row_groups), columns=[self._column]
            )
            self._begin, self._batch = int(self._starts[group]), pa.array([])
        while row >= self._begin + len(self._batch):
            self._begin += len(self._batch)
            self._batch = next(self._batches).column(0)
        return self._batch[row - self._begin].as_py()


@contextmanager
def _opened(file: str) -> Iterator[pq.ParquetFile]:
    try:
        with locate(file).open("rb") as stream:
            # Pre-buffering would read a whole row group at once.
            yield pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
    except pa.ArrowException as error:
        raise DataError(f"{file}: truncated, or not a Parquet file ({error})") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None


def _scan(table: pq.ParquetFile, layout: Layout, file: str) -> Iterator[pa.RecordBatch]:
    """Yield the columns of numbers and texts in batches; where there are none, batches still count the rows."""
    try:
        yield from table.iter_batches(SCAN_ROWS, columns=list(layout.scalars))
    except pa.ArrowException as error:
        raise DataError(f"{file}: damaged ({error}); fetch it again") from None
