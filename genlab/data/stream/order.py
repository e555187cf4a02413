"""The order in which rows are trained on: pure functions from integers to orders.

An epoch here is one pass through the stream's own data set; a run's epoch is one through its longest domain. Epochs
follow one another without end in one sequence of rows, and the global batch is the next ``batch`` rows of it, so there
is no partial batch and each row comes once an epoch. A row's index within its global batch is its *slot*; each worker
takes a contiguous range of slots, so the rows of a global batch are the same for any number of workers.

There are two orders of an epoch:

* whole: a permutation of all rows. For data that can be read row by row (memory mapped).
* windowed: for data that are read block by block, from a disk or an object store. The data set is cut into *block
  groups* (neighbouring blocks that are fetched together); their random order is cut into *substreams*, one for each
  slot (or for a few neighbouring slots, :func:`substream_count`). Within a substream, rows are shuffled across a
  sliding window of block groups: a group may come anywhere in the epoch, and each of its rows up to ``window`` groups
  of its substream after the group's turn. So a block is read by the one worker that has its substream; the workers
  together read each block once, except for the few blocks in which a substream ends at a boundary between workers,
  which two of them read.

Random numbers are the raw output of NumPy's Philox bit generator, which never changes between versions, as
``Generator.permutation`` may.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MOST_SUBSTREAMS = 64
"""Most substreams of a windowed order: more would cut the shuffle window into parts too small to be read in one
request. The windowed order depends on it.
"""


def permutation(seed: int, epoch: int, rows: int) -> Ints:
    """Return the whole order of one epoch, int64 [rows].

    Args:
        seed: 0..2**64 - 1.
        epoch: 0, 1, ...
        rows: number of rows.
    """
    return _sorted_by(_random(seed, epoch, 0, rows))


def evenly_spaced(rows: int, count: int) -> Ints:
    """Return ``count`` of the row numbers 0..rows - 1 at even distances, ascending, or all if they are fewer.

    In a split that is stored class by class, as one of a folder a class is, these rows are of all classes.
    """
    count = min(rows, count)
    return np.arange(count) * rows // max(1, count)


def rank_slice(count: int, rank: int, world_size: int) -> slice:
    """Return the part of ``count`` rows that ``rank`` takes.

    Parts are contiguous; their sizes differ by at most one, and larger ones come first.
    """
    size, extra = divmod(count, world_size)
    begin = rank * size + min(rank, extra)
    return slice(begin, begin + size + (rank < extra))


def group_slice(count: int, rank: int, world_size: int, group: int) -> slice:
    """Return the part of ``count`` rows that ``rank`` takes when each ``group`` neighbouring rows stay together.

    It is :func:`rank_slice` of the groups; ``count`` is a multiple of ``group``.
    """
    part = rank_slice(count // group, rank, world_size)
    return slice(part.start * group, part.stop * group)


def pieces_of_batches(rows: range, batch: int, largest: int) -> list[range]:
    """Cut neighbouring rows where batches of ``batch`` rows begin, and into pieces of at most ``largest`` rows.

    The same rows, cut for more workers, lie in the same batches.
    """
    pieces, start = [], rows.start
    while start < rows.stop:
        stop = min(rows.stop, start + largest, (start // batch + 1) * batch)
        pieces.append(range(start, stop))
        start = stop
    return pieces


def substream_count(batch: int) -> int:
    """Return how many substreams a windowed order has: the largest divisor of ``batch`` up to 64.

    A number of workers that divides it reads every block once; another number reads up to (workers - 1) substreams
    twice.
    """
    return next(count for count in range(min(batch, MOST_SUBSTREAMS), 0, -1) if batch % count == 0)


@dataclass(frozen=True)
class WindowedOrder:
    """The block groups and the shuffle window that a windowed order depends on, besides seed and epoch."""

    starts: Ints
    """int64 [groups + 1]: the first row of each block group, and the number of rows."""
    window: int
    """Block groups of a substream across which rows are shuffled, at least 1."""


@dataclass(frozen=True)
class RowSequence:
    """The endless sequence of rows, as far as one worker takes part in it."""

    rows: int
    """Rows of the data set, at least 1: an epoch has each of them once."""
    batch: int
    """Rows of a global batch."""
    seed: int
    """0..2**64 - 1."""
    slots: slice
    """This worker's slots of each global batch."""
    windowed: WindowedOrder | None = None
    """How rows are shuffled within a window; ``None`` for the whole order."""

    def taken_before(self, epoch: int) -> int:
        """Return how many rows this worker takes before ``epoch``."""
        batches, slot = divmod(epoch * self.rows, self.batch)
        width = self.slots.stop - self.slots.start
        return batches * width + min(max(slot - self.slots.start, 0), width)

    def epoch_of(self, taken: int) -> int:
        """Return the epoch of the row that this worker takes after ``taken`` rows."""
        batches, slot = divmod(taken, self.slots.stop - self.slots.start)
        return (batches * self.batch + self.slots.start + slot) // self.rows

    def order(self, epoch: int) -> Ints:
        """Return the rows that this worker takes in ``epoch``, in order: int64 [n], row numbers of the data set."""
        first, end = epoch * self.rows, (epoch + 1) * self.rows
        batches = np.arange(first // self.batch, -(-end // self.batch))
        slots = np.arange(self.slots.start, self.slots.stop)
        position = (batches[:, None] * self.batch + slots).ravel()
        position = position[np.searchsorted(position, first) : np.searchsorted(position, end)]
        if self.windowed is None:
            return permutation(self.seed, epoch, self.rows)[position - first]
        return self._windowed(self.windowed, epoch, position)

    def _windowed(self, windowed: WindowedOrder, epoch: int, position: Ints) -> Ints:
        """Return the rows at positions of the sequence, int64 [n], all of ``epoch`` and in this worker's slots."""
        count = substream_count(self.batch)
        width = self.batch // count
        first, end = epoch * self.rows, (epoch + 1) * self.rows
        # How many rows each substream has: the epoch may begin and end within a batch.
        edges = np.arange(count + 1) * width
        before, after = (np.diff(np.minimum(edges, boundary % self.batch)) for boundary in (first, end))
        sizes = (end // self.batch - first // self.batch) * width + after - before
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        groups = _sorted_by(_random(self.seed, epoch, 0, len(windowed.starts) - 1))

        mine = range(self.slots.start // width, -(-self.slots.stop // width))
        parts = [
            self._substream(windowed, epoch, number, groups, bounds[number], bounds[number + 1]) for number in mine
        ]
        offset = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        slot = position % self.batch
        substream = slot // width
        index = (position // self.batch - first // self.batch) * width + slot % width - before[substream]
        return np.concatenate(parts)[offset[substream - mine.start] + index]

    def _substream(self, windowed: WindowedOrder, epoch: int, number: int, groups: Ints, begin: int, end: int) -> Ints:
        """Return the rows of a substream, shuffled within the window, int64 [end - begin].

        Args:
            windowed: block groups and window.
            epoch: number of the epoch.
            number: number of the substream.
            groups: int64 [groups], the block groups in their random order.
            begin: where the substream begins among the rows of the groups in that order.
            end: where it ends there.
        """
        if begin == end:
            return np.empty(0, np.int64)
        group_rows = np.diff(windowed.starts)[groups]
        group_ends = np.cumsum(group_rows)
        group_begins = group_ends - group_rows
        first_group = int(np.searchsorted(group_ends, begin, side="right"))
        last_group = int(np.searchsorted(group_ends, end, side="left"))
        # The group of each row, an index into ``groups``; the first and the last group may lie partly outside.
        group = np.repeat(np.arange(first_group, last_group + 1), group_rows[first_group : last_group + 1])
        group = group[begin - group_begins[first_group] : end - group_begins[first_group]]
        rows = windowed.starts[groups[group]] + np.arange(begin, end) - group_begins[group]
        random = _random(self.seed, epoch, number + 1, len(rows))
        group_count = last_group - first_group + 1
        if group_count <= windowed.window:
            return rows[_sorted_by(random)]
        # Rows are sorted by the turn of their group (0 for the group that comes first) plus window x uniform, uniform
        # in [0, 1): so a row comes up to ``window`` groups after its group's turn.
        # Neighbouring substreams run towards each other, so that both want a group they share at the same time.
        turn = group - first_group if number % 2 == 0 else last_group - group
        uniform = (random >> np.uint64(11)) * 2.0**-53
        sort_key = turn + windowed.window * uniform
        # Keys are below group_count + window; they are scaled to the range of uint64.
        scaled = (sort_key * (2.0**63 / (group_count + windowed.window))).astype(np.uint64) << np.uint64(1)
        return rows[_sorted_by(scaled)]


def _sorted_by(keys: NDArray[np.uint64]) -> Ints:
    """Return the order that sorts ``keys`` by all but their log2(n) lowest bits, int64 [n]; equal ones stay in order.

    The index takes the place of the low bits: sorting numbers is ten times as fast as sorting indices by numbers.
    """
    bits = np.uint64(max(0, len(keys) - 1).bit_length())
    packed = keys >> bits << bits | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    return (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def _random(seed: int, epoch: int, stream: int, count: int) -> NDArray[np.uint64]:
    """Return raw random numbers, uint64 [count], of one of the random streams of (seed, epoch)."""
    counter, key = np.array([0, 0, stream, 0], np.uint64), np.array([seed, epoch], np.uint64)
    return np.random.Philox(counter=counter, key=key).random_raw(count)
