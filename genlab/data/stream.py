"""ShardStream: the endless line of shuffled rows from which every training batch is cut.

A position is a number of rows. Epoch ``e`` is a permutation of all rows that depends on (seed, e) alone; epochs
follow one another without end, and the global batch is the next ``batch`` rows of that line, so there is no partial
batch and each row comes once an epoch. The rows of a global batch are the same for any number of workers, each of
which takes a contiguous slice.
"""

import functools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from genlab.data.shards import ShardSet
from genlab.errors import ConfigError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class StreamBatch:
    """One rank's slice of a global batch; its b rows lie in the order of the line."""

    image: torch.Tensor
    """uint8 [b, height, width, channels], 0..255; in pinned memory where there is a GPU."""
    label: torch.Tensor | None
    """int64 [b]; ``None`` when the images are not labelled."""
    row: torch.Tensor
    """int64 [b], index of each row in the split."""
    epoch: torch.Tensor
    """int64 [b], epoch in which each row comes here."""
    first: int
    """Position in the line of the first row of the global batch."""


def permutation(seed: int, epoch: int, rows: int) -> Ints:
    """The order in which all rows come in one epoch, int64 [rows]: a pure function of its arguments.

    Args:
        seed: 0..2**64 - 1.
        epoch: 0, 1, ...
        rows: Number of rows.
    """
    # The raw output of a bit generator never changes between NumPy versions; Generator.permutation may.
    keys = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(rows)
    return np.argsort(keys, kind="stable")


def batch_rows(
    seed: int, rows: int, start: int, count: int, permute: Callable[[int, int, int], Ints] = permutation
) -> Ints:
    """The rows at positions ``start .. start + count - 1`` of the line, int64 [count]; epochs may meet inside.

    Args:
        seed: 0..2**64 - 1.
        rows: Rows of the data set, at least 1.
        start: Position, 0 or more.
        count: How many.
        permute: :func:`permutation`, or the same with a memory.
    """
    found = np.empty(count, np.int64)
    done = 0
    while done < count:
        epoch, offset = divmod(start + done, rows)
        part = permute(seed, epoch, rows)[offset : offset + count - done]
        found[done : done + len(part)] = part
        done += len(part)
    return found


def rank_slice(count: int, rank: int, world_size: int) -> slice:
    """The part of ``count`` rows that is ``rank``'s: contiguous, sizes differ by at most one, larger ones first."""
    share, extra = divmod(count, world_size)
    begin = rank * share + min(rank, extra)
    return slice(begin, begin + share + (rank < extra))


class ShardStream(Iterator[StreamBatch]):
    """Endless iterator over one rank's slices of the global batches, read ahead by a thread.

    Streams of different data sets need different seeds: with the same one, and as many rows, they would come in
    the same order. An error while reading is raised where the batch was due. Close a stream when done (or use it as
    a context manager); a forgotten one stops when it is collected.

    Args:
        shards: The rows, all of one shape.
        batch: Rows in the global batch; at least one for each worker.
        seed: Seed of the permutations, 0..2**64 - 1.
        rank: This worker, 0..world_size - 1.
        world_size: Number of workers.
        start: Position to go on from: rows of the line handed out so far, by all ranks together.
        prefetch: Batches to keep ready, at least 1.

    Raises:
        ConfigError: when the batch is smaller than the number of workers, or ``prefetch`` is less than 1.
        DataError: when the images differ in size.
    """

    waited: float
    """Seconds spent waiting for a batch so far."""
    waited_on_storage: float
    """The part of ``waited`` in which bytes were being fetched; in the rest they were being decoded or augmented."""

    def __init__(
        self,
        shards: ShardSet,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        prefetch: int = 2,
    ) -> None:
        if batch < world_size:
            raise ConfigError(
                f"batch = {batch} is less than one row for each of the {world_size} workers; "
                "raise batch or use fewer workers"
            )
        if prefetch < 1:
            raise ConfigError(f"prefetch = {prefetch}: must be at least 1")
        shards.fixed_shape()
        self.waited = 0.0
        self.waited_on_storage = 0.0
        self._batch = batch
        self._position = start
        self._failure: BaseException | None = None
        self._ready: queue.Queue[StreamBatch | BaseException] = queue.Queue(prefetch)
        stop = threading.Event()
        # The thread must not hold the stream itself, or a forgotten stream would never be collected.
        batches = _batches(shards, batch, seed, rank, world_size, start)
        thread = threading.Thread(target=_produce, args=(batches, self._ready, stop), name="genlab-stream", daemon=True)
        self._close = weakref.finalize(self, _stop, thread, self._ready, stop)
        thread.start()

    @property
    def position(self) -> int:
        """Rows of the line handed out so far, by all ranks together: the place to go on from. Rows read ahead but
        not handed out do not count.
        """
        return self._position

    def __next__(self) -> StreamBatch:
        if self._failure is not None:
            raise self._failure
        if not self._close.alive:
            raise ValueError("this stream is closed")
        began = time.perf_counter()
        item = self._ready.get()
        self.waited += time.perf_counter() - began
        if isinstance(item, BaseException):
            self._failure = item
            raise item
        self._position += self._batch
        return item

    def close(self) -> None:
        """Stop reading ahead; returns when the thread has ended. Closing again does nothing."""
        self._close()

    def __enter__(self) -> "ShardStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _batches(shards: ShardSet, batch: int, seed: int, rank: int, world_size: int, start: int) -> Iterator[StreamBatch]:
    # Two, because a batch may lie in two epochs.
    permute = functools.lru_cache(maxsize=2)(permutation)
    mine = rank_slice(batch, rank, world_size)
    first = start
    while True:
        position = first + mine.start
        rows = batch_rows(seed, len(shards), position, mine.stop - mine.start, permute)
        epochs = np.arange(position, position + len(rows)) // len(shards)
        yield _read(shards, rows, epochs, first)
        first += batch


def _read(shards: ShardSet, rows: Ints, epochs: Ints, first: int) -> StreamBatch:
    image = torch.empty((len(rows), *shards.fixed_shape()), dtype=torch.uint8, pin_memory=torch.cuda.is_available())
    label = shards.read(rows, out=image.numpy()).label
    return StreamBatch(
        image=image,
        label=None if label is None else torch.from_numpy(label),
        row=torch.from_numpy(rows),
        epoch=torch.from_numpy(epochs),
        first=first,
    )


def _produce(
    batches: Iterator[StreamBatch], ready: "queue.Queue[StreamBatch | BaseException]", stop: threading.Event
) -> None:
    try:
        while not stop.is_set():
            ready.put(next(batches))
    except BaseException as error:
        ready.put(error)


def _stop(thread: threading.Thread, ready: "queue.Queue[StreamBatch | BaseException]", stop: threading.Event) -> None:
    stop.set()
    # The thread puts once more at most, so an emptied queue has room for it.
    while True:
        try:
            ready.get_nowait()
        except queue.Empty:
            break
    # A stream may be collected in any thread, its own included.
    if thread is not threading.current_thread():
        thread.join()
