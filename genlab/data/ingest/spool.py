"""Lists on disk: what an ingest knows of its images, which may be too many for memory.

Items are tuples of plain values (texts, numbers, ``None``, and tuples and dictionaries of these): pickle writes and
reads them several times as fast as objects.
"""

import heapq
import itertools
import pickle
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar

from genlab.core.errors import DataError

T = TypeVar("T", bound=tuple[Any, ...])

CHUNK = 256
"""Items that are written and read at a time."""

RUN_CHUNKS = 512
"""Chunks that are sorted in memory at a time."""


class Spool(Generic[T]):
    """A list on disk that only grows; not thread-safe.

    Memory holds one chunk of items, and 8 bytes for each chunk on disk. The file, in Python's folder for temporary
    files (``TMPDIR``), has no name: nothing is left of it when the process ends, however it ends.

    Raises:
        DataError: the folder has no room, or cannot be written to.
    """

    def __init__(self) -> None:
        self._starts = array("q")
        self._rest: list[T] = []
        try:
            self._file = tempfile.TemporaryFile(prefix="genlab-")  # noqa: SIM115
        except OSError as error:
            raise _unwritable(error) from None
        weakref.finalize(self, self._file.close)

    def append(self, item: T) -> None:
        """Add an item at the end."""
        self._rest.append(item)
        if len(self._rest) == CHUNK:
            self._write()

    def __len__(self) -> int:
        return len(self._starts) * CHUNK + len(self._rest)

    def __iter__(self) -> Iterator[T]:
        return self.items(0, len(self))

    def items(self, begin: int, end: int) -> Iterator[T]:
        """Yield the items ``begin`` to ``end`` - 1."""
        for number in range(begin // CHUNK, -(-end // CHUNK)):
            first = number * CHUNK
            yield from self._chunk(number)[max(begin - first, 0) : end - first]

    def _chunk(self, number: int) -> Sequence[T]:
        if number == len(self._starts):
            return self._rest
        self._file.seek(self._starts[number])
        chunk: list[T] = pickle.load(self._file)
        return chunk

    def _write(self) -> None:
        try:
            self._starts.append(self._file.seek(0, 2))
            self._file.write(pickle.dumps(self._rest, pickle.HIGHEST_PROTOCOL))
            self._file.flush()
        except OSError as error:
            raise _unwritable(error) from None
        self._rest = []


class SortedSpool(Generic[T]):
    """Items sorted by their first element, on disk; those with an equal one stay in the order in which they came.

    Runs of ``CHUNK * RUN_CHUNKS`` items are sorted in memory and written. Whenever the items are iterated, which can be
    done again and again, the runs are merged, and memory holds a chunk of each.

    Args:
        items: the items, in any order.

    Raises:
        DataError: see :class:`Spool`.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._spool: Spool[T] = Spool()
        self._run = CHUNK * RUN_CHUNKS
        rest = iter(items)
        while self._add(sorted(itertools.islice(rest, self._run), key=itemgetter(0))):
            pass

    def _add(self, run: list[T]) -> bool:
        for item in run:
            self._spool.append(item)
        return bool(run)

    def __len__(self) -> int:
        return len(self._spool)

    def __iter__(self) -> Iterator[T]:
        begins = range(0, len(self), self._run)
        runs = (self._spool.items(begin, min(begin + self._run, len(self))) for begin in begins)
        return heapq.merge(*runs, key=itemgetter(0))


def _unwritable(error: OSError) -> DataError:
    return DataError(
        f"{tempfile.gettempdir()}: cannot be written ({error.strerror or error}); an ingest keeps its list of images "
        "there, so make room, or set TMPDIR to another folder"
    )
