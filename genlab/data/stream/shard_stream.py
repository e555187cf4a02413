"""ShardStream: the endless line of shuffled rows from which every training batch is cut, read ahead.

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
from genlab.data.format.shards import Column, Piece, ShardSet
from genlab.data.stream.augment import Augmentation, Draws
from genlab.data.stream.buffers import Buffers, decoders
from genlab.data.stream.order import Ints, Line, Windowed, lane_count, rank_slice
from genlab.data.stream.readahead import ReadAhead, Units

CHUNK_BYTES = 1 << 20
MOST_BATCHES = 16
"""Small batches are read several at a time, up to so many bytes, which stay in a processor's cache, and batches."""


class StreamBatch(NamedTuple):
    """One rank's slice of a global batch; its b rows lie in the order of the line."""

    image: torch.Tensor
    """uint8 [b, height, width, channels], 0..255; in pinned memory where there is a GPU."""
    columns: Mapping[str, torch.Tensor]
    """[b] each: ``label`` (int64) where images are labelled, and attributes, int64 or float64."""
    row: Ints
    """int64 [b], index of each row in the split."""
    epoch: Ints
    """int64 [b], epoch in which each row comes here."""
    first: int
    """Position in the line of the first row of the global batch."""

    @property
    def label(self) -> torch.Tensor | None:
        """int64 [b]; ``None`` when the images are not labelled."""
        return self.columns.get("label")


class ShardStream(Iterator[StreamBatch]):
    """Endless iterator over one rank's slices of the global batches, read and decoded ahead by threads.

    Streams of different data sets need different seeds: with the same one, and as many rows, they would come in
    the same order. An error while reading is raised where the batch was due, or a few batches before. Close a stream
    when done (or use it as a context manager); a forgotten one stops when it is collected.

    Args:
        shards: The rows, all of one shape; its ``threads`` decode.
        batch: Rows in the global batch; at least one for each worker.
        seed: Seed of the order, 0..2**64 - 1.
        rank: This worker, 0..world_size - 1.
        world_size: Number of workers.
        start: Position to go on from: rows of the line handed out so far, by all ranks together.
        window: Bytes, over all workers, across which rows are shuffled block by block (see
            :mod:`genlab.data.stream.order`); they are what memory holds, plus about half of it that is read ahead.
            ``None`` shuffles all rows, which lie in memory maps when they are local, and in memory when they are not.
        prefetch: Batches to keep ready, at least 1.
        augmentation: Changes the images at random.

    Raises:
        ConfigError: when the batch is smaller than the number of workers, ``prefetch`` is less than 1, or ``start`` is
            not where a batch begins.
        DataError: when the images differ in size.
    """

    waited: float
    """Seconds spent waiting for a batch so far."""
    waited_on_storage: float
    """The part of them in which bytes had not arrived; in the rest they were being decoded."""

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
        prefetch: int = 2,
        augmentation: Augmentation | None = None,
    ) -> None:
        if batch < world_size:
            raise ConfigError(
                f"batch = {batch} is less than one row for each of the {world_size} workers; "
                "raise batch or use fewer workers"
            )
        if prefetch < 1:
            raise ConfigError(f"prefetch = {prefetch}: must be at least 1")
        if start % batch:
            raise ConfigError(f"start = {start} is not where a batch of {batch} begins")
        self._shards = shards
        self._shape = shards.fixed_shape()
        self._batch = batch
        self._augmentation = augmentation
        columns = rank_slice(batch, rank, world_size)
        self._rows = columns.stop - columns.start
        self._chunk = min(MOST_BATCHES, max(1, CHUNK_BYTES // (self._rows * math.prod(self._shape))))
        self._ahead: ReadAhead | None = None
        self._horizon = 0
        windowed = None
        if window is not None:
            lanes = lane_count(batch)
            units = Units.of(shards, window, lanes)
            firsts = shards.block_starts[[run.start for run in units.runs]]
            windowed = Windowed(np.append(firsts, len(shards)), units.window)
            self._ahead = ReadAhead(shards, units, window * self._rows // batch)
            # A unit of each lane: lanes come to their next unit at about the same time.
            self._horizon = -(-lanes * len(shards) // len(units.runs) * self._rows // batch)
        elif shards.remote:
            blocks = len(shards.block_starts) - 1
            self._ahead = ReadAhead(shards, Units(tuple(shards.runs(range(blocks))), 1), shards.size)
            self._horizon = self._rows * self._chunk * prefetch
        self._feed = _Feed(Line(len(shards), batch, seed, columns, windowed), start // batch * self._rows, self._ahead)
        # Copying a few pixels out of a memory map takes less time than handing them over.
        self._heavy = shards.encoded_files or augmentation is not None
        light = not self._heavy and self._ahead is None and self._rows * math.prod(self._shape) <= CHUNK_BYTES
        self._pool = None if light else decoders(shards.threads)
        self._depth = 1 if light else prefetch + 1
        self._close = weakref.finalize(self, _close, self._pool, self._ahead)
        self._buffers = Buffers((self._chunk * self._rows, *self._shape), self._depth + 2)
        self._pending: deque[_Chunk] = deque()
        self._ready: deque[StreamBatch] = deque()
        self._position = start
        self._submitted = start
        self._failure: BaseException | None = None
        self.waited = self.waited_on_storage = 0.0
        self._submit(urgent=self._rows)

    @property
    def position(self) -> int:
        """Rows of the line handed out so far, by all ranks together: the place to go on from. Rows read ahead but
        not handed out do not count.
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

    def _submit(self, urgent: int = 0) -> None:
        """Begin the work on as many chunks as are to be ready."""
        while len(self._pending) < self._depth:
            rows, epochs = self._feed.take(self._chunk * self._rows, self._horizon, urgent)
            pieces = self._ahead.pieces(rows) if self._ahead else self._shards.pieces(rows)
            draws = self._augmentation.draw(epochs, rows) if self._augmentation else None
            image, columns = self._buffers.take(), self._shards.empty_columns(len(rows))
            shares = self._shards.shares(pieces) if self._heavy else [pieces]
            task = functools.partial(
                _work, self._shards, image=image, columns=columns, augmentation=self._augmentation, draws=draws
            )
            work: list[Callable[[], None]] = (
                [self._pool.submit(task, share).result for share in shares]
                if self._pool
                else [functools.partial(task, pieces)]
            )
            self._pending.append(_Chunk(self._submitted, rows, epochs, image, columns, pieces, work))
            self._submitted += self._chunk * self._batch
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
                for piece in chunk.pieces:
                    piece.extent.exception()
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
                    chunk.first + number * self._batch,
                )
            )


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A few batches in work."""

    first: int
    rows: Ints
    epochs: Ints
    image: NDArray[np.uint8]
    columns: Mapping[str, Column]
    pieces: Sequence[Piece]
    work: Sequence[Callable[[], None]]
    """To be called when the chunk is due: does the work, or waits for it."""


class _Feed:
    """The rows that one worker takes, in order, as they are asked for; tells the read-ahead of those to come."""

    def __init__(self, line: Line, taken: int, ahead: ReadAhead | None) -> None:
        self._line = line
        self._ahead = ahead
        self._taken = taken
        self._next = line.epoch_of(taken)
        self._known: deque[tuple[int, int, Ints]] = deque()

    def take(self, count: int, horizon: int, urgent: int) -> tuple[Ints, Ints]:
        """The next ``count`` rows and their epochs; those up to ``horizon`` further ones are being fetched.

        The first ``urgent`` of them are fetched before all else.
        """
        begin, end = self._taken, self._taken + count
        while not self._known or self._known[-1][0] + len(self._known[-1][2]) < end + horizon:
            self._load()
        if self._ahead:
            self._ahead.advance(end + horizon, begin + urgent if urgent else 0)
        rows, epochs = [], []
        for first, epoch, order in self._known:
            part = order[max(0, begin - first) : max(0, end - first)]
            rows.append(part)
            epochs.append(np.full(len(part), epoch))
        self._taken = end
        while self._known[0][0] + len(self._known[0][2]) <= end:
            self._known.popleft()
            if not self._known:
                break
        return np.concatenate(rows), np.concatenate(epochs)

    def _load(self) -> None:
        epoch, self._next = self._next, self._next + 1
        first, order = self._line.begin(epoch), self._line.epoch(epoch)
        skipped = max(0, self._taken - first) if not self._known else 0
        if self._ahead:
            self._ahead.plan(first + skipped, order[skipped:])
        self._known.append((first, epoch, order))


def _work(
    shards: ShardSet,
    pieces: Sequence[Piece],
    image: NDArray[np.uint8],
    columns: Mapping[str, Column],
    augmentation: Augmentation | None,
    draws: Draws | None,
) -> None:
    """What the pool's threads do; nothing here refers to the stream, so that a forgotten one can be collected."""
    shards.fill(pieces, image, columns)
    if augmentation is None or draws is None:
        return
    places = np.sort(np.concatenate([piece.where for piece in pieces]))
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
