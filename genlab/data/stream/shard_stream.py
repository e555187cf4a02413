"""ShardStream: the endless sequence of shuffled rows from which every training batch is cut, read ahead.

A position is a number of rows; :mod:`genlab.data.stream.order` says which row comes where. The state of a stream is its
position alone: everything else is a function of it, so any number of workers can go on from it.
"""

import functools
import math
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from genlab.core.errors import ConfigError
from genlab.data.format.shards import Column, RowSelection, ShardSet
from genlab.data.stream.augment import Augmentation, Draws
from genlab.data.stream.buffers import Buffers, decoders
from genlab.data.stream.order import RULE, Ints, RowSequence, group_slice
from genlab.data.stream.readahead import BlockGroups, ReadAhead

CHUNK_BYTES = 1 << 20
"""Small batches are read several at a time, as a chunk of at most so many bytes, which stay in a processor's cache."""
MOST_BATCHES = 16
"""Most batches of a chunk."""
PIECE = 1 << 14
"""Most rows of a worker that are put in order, and scheduled to be fetched, at a time: some milliseconds' work."""
READ_AHEAD = 32 << 20
"""Bytes that are fetched before they are due, by default."""


class StreamBatch(NamedTuple):
    """One rank's slice of a global batch: b rows, in their order."""

    image: torch.Tensor
    """uint8 [b, height, width, channels], 0..255."""
    columns: Mapping[str, torch.Tensor]
    """[b] each: ``label`` (int64) where images are labelled, and attributes, int64 or float64."""
    row: Ints
    """int64 [b], index of each row in the split."""
    epoch: Ints
    """int64 [b], epoch of this stream to which each row belongs: the number of passes through the data set before."""


class ShardStream(Iterator[StreamBatch]):
    """Endless iterator over one rank's slices of the global batches, read and decoded ahead by threads.

    Streams of different data sets need different seeds: two streams with the same seed and as many rows come in the
    same order. An error while reading is raised where the batch was due, or a few batches before. Close a stream
    when done (or use it as a context manager); a stream that is not closed stops when it is garbage collected.

    Args:
        shards: the rows, all of one shape; its ``threads`` decode.
        batch: rows in the global batch; at least one for each worker.
        seed: seed of the order, 0..2**64 - 1.
        rank: this worker, 0..world_size - 1.
        world_size: number of workers.
        start: position to go on from: rows of the sequence handed out so far, by all ranks together.
        window: size of the shuffle window in bytes, all workers together: rows are shuffled block by block within it
            (see :mod:`genlab.data.stream.order`). Memory holds the window and what is read ahead. ``None`` shuffles all
            rows, which lie in memory maps when they are local, and in memory when they are not.
        read_ahead: bytes of rows that this worker begins to fetch before they are due, where rows are fetched. At least
            its part of :meth:`genlab.data.stream.readahead.BlockGroups.least_ahead` is read ahead, at most an epoch.
        prefetch: batches to keep ready, at least 1.
        augmentation: changes the images at random.
        group: neighbouring rows of the global batch that go to one worker together.
        pinned: hand out images in page-locked memory, from which a GPU copies while it computes.
        rule: the rule of the order, see :data:`genlab.data.stream.order.RULE`.

    Raises:
        ConfigError: when the batch is smaller than the number of workers, or no multiple of ``group``, ``prefetch`` is
            less than 1, or ``start`` is not where a batch begins.
        DataError: when the images differ in size.
    """

    waited: float
    """Seconds spent waiting for a batch so far."""
    waited_on_storage: float
    """The part of ``waited`` in which bytes had not arrived; in the rest they were being decoded."""

    def __init__(
        self,
        shards: ShardSet,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        window: int | None = None,
        read_ahead: int = READ_AHEAD,
        prefetch: int = 2,
        augmentation: Augmentation | None = None,
        group: int = 1,
        pinned: bool = False,
        rule: int = RULE,
    ) -> None:
        if batch < world_size * group:
            least = "one row" if group == 1 else f"a group of {group} rows"
            raise ConfigError(
                f"batch = {batch} is less than {least} for each of the {world_size} workers; "
                "raise batch or use fewer workers"
            )
        if batch % group:
            raise ConfigError(f"batch = {batch} is not a multiple of the {group} rows of a group")
        if prefetch < 1:
            raise ConfigError(f"prefetch = {prefetch}: must be at least 1")
        if start % batch:
            raise ConfigError(f"start = {start} is not where a batch of {batch} begins")
        self._shards = shards
        self._shape = shards.fixed_shape()
        self._batch = batch
        self._augmentation = augmentation
        slots = group_slice(batch, rank, world_size, group)
        self._rows = slots.stop - slots.start
        self._chunk = min(MOST_BATCHES, max(1, CHUNK_BYTES // (self._rows * math.prod(self._shape))))
        self._ahead: ReadAhead | None = None
        self._horizon = 0
        windowed = None
        if window is not None:
            groups = BlockGroups.of(shards, window, batch, rule)
            windowed = groups.order(shards)
            self._ahead = ReadAhead(shards, groups, window * self._rows // batch)
            self._horizon = self._rows_ahead(-(-groups.least_ahead(shards, batch) * self._rows // batch), read_ahead)
        elif shards.remote:
            self._ahead = ReadAhead(shards, BlockGroups.requests(shards), shards.size)
            self._horizon = self._rows_ahead(self._rows * self._chunk * prefetch, read_ahead)
        sequence = RowSequence(len(shards), batch, seed, slots, windowed, rule)
        self._upcoming = _UpcomingRows(sequence, start // batch * self._rows, self._ahead)
        # Copying a few pixels out of a memory map takes less time than handing them over.
        self._heavy = shards.encoded_files or augmentation is not None
        light = not self._heavy and self._ahead is None and self._rows * math.prod(self._shape) <= CHUNK_BYTES
        self._pool = None if light else decoders(shards.threads)
        self._depth = 1 if light else prefetch + 1
        self._close = weakref.finalize(self, _close, self._pool, self._ahead)
        self._buffers = Buffers((self._chunk * self._rows, *self._shape), self._depth + 2, pinned)
        self._pending: deque[_Chunk] = deque()
        self._ready: deque[StreamBatch] = deque()
        self._position = start
        self._failure: BaseException | None = None
        self.waited = self.waited_on_storage = 0.0
        self._submit(urgent=self._rows)

    @property
    def position(self) -> int:
        """Rows of the sequence handed out so far, by all ranks together: the position to go on from.

        Rows that were read ahead but not handed out do not count.
        """
        return self._position

    def __next__(self) -> StreamBatch:
        if not self._ready:
            self._receive()
        self._position += self._batch
        return self._ready.popleft()

    def close(self) -> None:
        """Stop reading ahead; returns when the threads have ended. Closing again does nothing."""
        self._ready.clear()
        self._close()

    def __enter__(self) -> "ShardStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _rows_ahead(self, least: int, read_ahead: int) -> int:
        """Return after how many rows to come rows are fetched: those that ``read_ahead`` bytes hold, or ``least``."""
        wanted = min(read_ahead * len(self._shards) // self._shards.size, len(self._shards) * self._rows // self._batch)
        return max(least, wanted)

    def _submit(self, urgent: int = 0) -> None:
        """Begin to read chunks until as many are in work as are to be ready."""
        while len(self._pending) < self._depth:
            rows, epochs = self._upcoming.take(self._chunk * self._rows, self._horizon, urgent)
            selections = self._ahead.select(rows) if self._ahead else self._shards.select(rows)
            draws = self._augmentation.draw(epochs, rows) if self._augmentation else None
            image, columns = self._buffers.take(), self._shards.empty_columns(len(rows))
            portions = self._shards.portions(selections) if self._heavy else [selections]
            task = functools.partial(
                _work, self._shards, image=image, columns=columns, augmentation=self._augmentation, draws=draws
            )
            work: list[Callable[[], None]] = (
                [self._pool.submit(task, portion).result for portion in portions]
                if self._pool
                else [functools.partial(task, selections)]
            )
            self._pending.append(_Chunk(rows, epochs, image, columns, selections, work))
            urgent = 0

    def _receive(self) -> None:
        """Wait for the next chunk and cut it into batches."""
        if self._failure is not None:
            raise self._failure
        if not self._close.alive:
            raise ValueError("this stream is closed")
        began = time.perf_counter()
        try:
            self._submit()
            chunk = self._pending.popleft()
            submitted = time.perf_counter()
            if self._ahead:
                for selection in chunk.selections:
                    selection.source.exception()  # Waits for the bytes, or for the error that came in their place.
            arrived = time.perf_counter()
            for finish in chunk.work:
                finish()
            ended = time.perf_counter()
        except BaseException as error:
            self._failure = error
            raise
        self.waited += ended - began
        self.waited_on_storage += arrived - submitted
        if self._ahead:
            self._ahead.release(chunk.rows)
        image = torch.from_numpy(chunk.image)
        columns = {name: torch.from_numpy(values) for name, values in chunk.columns.items()}
        parts = {name: values.split(self._rows) for name, values in columns.items()}
        for number, pixels in enumerate(image.split(self._rows)):
            part = slice(number * self._rows, (number + 1) * self._rows)
            self._ready.append(
                StreamBatch(
                    pixels,
                    {name: values[number] for name, values in parts.items()},
                    chunk.rows[part],
                    chunk.epochs[part],
                )
            )


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A few batches that are being read."""

    rows: Ints
    epochs: Ints
    image: NDArray[np.uint8]
    columns: Mapping[str, Column]
    selections: Sequence[RowSelection]
    work: Sequence[Callable[[], None]]
    """Functions to be called when the chunk is due: each does a part of the work, or waits for it."""


class _UpcomingRows:
    """The rows that one worker takes, in order; schedules the fetching of their blocks.

    Args:
        sequence: the sequence of rows.
        taken: how many rows this worker took before.
        ahead: fetches blocks; ``None`` where rows are read from memory maps.
    """

    def __init__(self, sequence: RowSequence, taken: int, ahead: ReadAhead | None) -> None:
        self._ahead = ahead
        self._taken = self._end = taken
        self._pieces = sequence.pieces(taken, PIECE)
        # How many rows are taken before a piece, its epoch, and its rows.
        self._known: deque[tuple[int, int, Ints]] = deque()

    def take(self, count: int, horizon: int, urgent: int) -> tuple[Ints, Ints]:
        """Return the next rows and their epochs, int64 [count] each, and begin to fetch rows to come.

        Args:
            count: how many rows to take.
            horizon: how many rows after these to begin to fetch.
            urgent: how many of these rows to fetch before all others.
        """
        begin, end = self._taken, self._taken + count
        while self._end < end + horizon:
            self._load()
        if self._ahead:
            self._ahead.advance(end + horizon, begin + urgent if urgent else 0)
        rows, epochs = [], []
        for first, epoch, order in self._known:
            part = order[max(0, begin - first) : max(0, end - first)]
            rows.append(part)
            epochs.append(np.full(len(part), epoch))
        self._taken = end
        while self._known and self._known[0][0] + len(self._known[0][2]) <= end:
            self._known.popleft()
        return np.concatenate(rows), np.concatenate(epochs)

    def _load(self) -> None:
        epoch, rows = next(self._pieces)
        if self._ahead:
            self._ahead.schedule(self._end, rows, epoch)
        self._known.append((self._end, epoch, rows))
        self._end += len(rows)


def _work(
    shards: ShardSet,
    selections: Sequence[RowSelection],
    image: NDArray[np.uint8],
    columns: Mapping[str, Column],
    augmentation: Augmentation | None,
    draws: Draws | None,
) -> None:
    """Read, decode and augment rows, in one of the pool's threads.

    This is no method, because the pool must not refer to the stream: a stream that is not closed is then garbage
    collected.
    """
    shards.fill(selections, image, columns)
    if augmentation is None or draws is None:
        return
    places = np.sort(np.concatenate([selection.places for selection in selections]))
    together = places[-1] - places[0] == len(places) - 1
    here = slice(int(places[0]), int(places[-1]) + 1) if together else places
    changed = image[here]  # a view if they lie together, else a copy
    pixels = torch.from_numpy(changed)
    augmentation.apply(pixels, Draws(draws.top[here], draws.left[here], draws.flip[here]), out=pixels)
    if not together:
        image[here] = changed


def _close(pool: ThreadPoolExecutor | None, ahead: ReadAhead | None) -> None:
    if ahead:
        ahead.blocks.close()
    if pool:
        pool.shutdown(cancel_futures=True)
