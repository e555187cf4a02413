"""The order in which rows are trained on: pure functions from integers to orders.

Epochs follow one another without end on one line of rows, and the global batch is the next ``batch`` rows of it, so
there is no partial batch and each row comes once an epoch. A row's place in a batch is its *column*; each worker takes
a contiguous slice of the columns, so the rows of a global batch are the same for any number of workers.

There are two orders of an epoch:

* whole: a permutation of all rows. For data that can be read row by row (memory mapped).
* windowed: for data that are read block by block, from a disk or an object store. Blocks are put in a random order
  that is cut into *lanes*, one for each column (or for a few columns side by side, :func:`lane_count`). Within a lane,
  rows are shuffled across a sliding window of *units* (runs of neighbouring blocks): a unit may come anywhere in the
  epoch, and each of its rows up to ``window`` units of its lane after the unit's turn. So a block is read by the one
  worker that has its lane; the workers together read each block once, except for the few blocks in which a lane ends at
  a boundary between workers, which two of them read.

Random numbers are the raw output of NumPy's Philox bit generator, which never changes between versions, as
``Generator.permutation`` may.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MOST_LANES = 64
"""More would cut the window into pieces too small to be read at once. The windowed order depends on it."""


def permutation(seed: int, epoch: int, rows: int) -> Ints:
    """The whole order of one epoch, int64 [rows].

    Args:
        seed: 0..2**64 - 1.
        epoch: 0, 1, ...
        rows: number of rows.
    """
    return _sorted_by(_random(seed, epoch, 0, rows))


def evenly(rows: int, count: int) -> Ints:
    """``count`` of the rows, or all if they are fewer, at even distances, ascending.

    Of a split that lies class by class, as folders do, that is some of each class.
    """
    count = min(rows, count)
    return np.arange(count) * rows // max(1, count)


def rank_slice(count: int, rank: int, world_size: int) -> slice:
    """The part of ``count`` rows that is ``rank``'s: contiguous, sizes differ by at most one, larger ones first."""
    share, extra = divmod(count, world_size)
    begin = rank * share + min(rank, extra)
    return slice(begin, begin + share + (rank < extra))


def lane_count(batch: int) -> int:
    """Lanes of a windowed order: the largest divisor of ``batch`` up to 64.

    Worlds whose size divides it read every block once; others read up to (workers - 1) lanes twice.
    """
    return next(lanes for lanes in range(min(batch, MOST_LANES), 0, -1) if batch % lanes == 0)


@dataclass(frozen=True)
class Windowed:
    """What a windowed order is a function of, besides seed and epoch."""

    starts: Ints
    """int64 [units + 1]: the first row of each unit, and the number of rows."""
    window: int
    """Units of a lane across which rows are shuffled, at least 1."""


@dataclass(frozen=True)
class Line:
    """The endless line of rows, seen from the columns of one worker."""

    rows: int
    """Rows of an epoch, at least 1."""
    batch: int
    """Rows of a global batch."""
    seed: int
    """0..2**64 - 1."""
    columns: slice
    """This worker's columns of each global batch."""
    windowed: Windowed | None = None
    """How rows are shuffled within a window; ``None`` for the whole order."""

    def begin(self, epoch: int) -> int:
        """How many rows this worker takes before ``epoch``."""
        batches, column = divmod(epoch * self.rows, self.batch)
        width = self.columns.stop - self.columns.start
        return batches * width + min(max(column - self.columns.start, 0), width)

    def epoch_of(self, taken: int) -> int:
        """The epoch of the row that this worker takes after ``taken`` rows."""
        batches, column = divmod(taken, self.columns.stop - self.columns.start)
        return (batches * self.batch + self.columns.start + column) // self.rows

    def epoch(self, epoch: int) -> Ints:
        """The rows this worker takes in ``epoch``, in order: int64 [n], row numbers of the data set."""
        first, end = epoch * self.rows, (epoch + 1) * self.rows
        batches = np.arange(first // self.batch, -(-end // self.batch))
        columns = np.arange(self.columns.start, self.columns.stop)
        place = (batches[:, None] * self.batch + columns).ravel()
        place = place[np.searchsorted(place, first) : np.searchsorted(place, end)]
        if self.windowed is None:
            return permutation(self.seed, epoch, self.rows)[place - first]
        return self._windowed(self.windowed, epoch, place)

    def _windowed(self, how: Windowed, epoch: int, place: Ints) -> Ints:
        lanes = lane_count(self.batch)
        width = self.batch // lanes
        first, end = epoch * self.rows, (epoch + 1) * self.rows
        # How many rows each lane has: the epoch may begin and end within a batch.
        edges = np.arange(lanes + 1) * width
        before, after = (np.diff(np.minimum(edges, position % self.batch)) for position in (first, end))
        sizes = (end // self.batch - first // self.batch) * width + after - before
        slots = np.concatenate([[0], np.cumsum(sizes)])
        units = _sorted_by(_random(self.seed, epoch, 0, len(how.starts) - 1))

        mine = range(self.columns.start // width, -(-self.columns.stop // width))
        parts = [self._lane(how, epoch, lane, units, slots[lane], slots[lane + 1]) for lane in mine]
        offset = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        column = place % self.batch
        lane = column // width
        index = (place // self.batch - first // self.batch) * width + column % width - before[lane]
        return np.concatenate(parts)[offset[lane - mine.start] + index]

    def _lane(self, how: Windowed, epoch: int, lane: int, units: Ints, begin: int, end: int) -> Ints:
        """The rows in slots ``begin`` to ``end`` of the shuffled units, shuffled within the window."""
        sizes = np.diff(how.starts)[units]
        ends = np.cumsum(sizes)
        touched = np.arange(np.searchsorted(ends, begin, side="right"), np.searchsorted(ends, end, side="left") + 1)
        if begin == end:
            return np.empty(0, np.int64)
        turn = np.repeat(touched, sizes[touched])
        slot = np.arange(ends[touched[0]] - sizes[touched[0]], ends[touched[-1]])
        inside = slice(begin - slot[0], end - slot[0])
        turn, slot = turn[inside], slot[inside]
        rows = how.starts[units[turn]] + slot - (ends - sizes)[turn]
        # Neighbouring lanes run towards each other, so that a unit they share is wanted by both at one time.
        turn = turn - touched[0] if lane % 2 == 0 else touched[-1] - turn
        random = _random(self.seed, epoch, lane + 1, len(rows))
        if len(touched) > how.window:
            span = len(touched) + how.window
            random = ((turn + how.window * ((random >> np.uint64(11)) * 2.0**-53)) * (2.0**63 / span)).astype(np.uint64)
            random <<= np.uint64(1)
        return rows[_sorted_by(random)]


def _sorted_by(keys: NDArray[np.uint64]) -> Ints:
    """The order that sorts ``keys`` by all but their log2(n) lowest bits, int64 [n]; equal ones stay in order.

    The index takes the place of the low bits: sorting numbers is ten times as fast as sorting indices by numbers.
    """
    bits = np.uint64(max(0, len(keys) - 1).bit_length())
    packed = keys >> bits << bits | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    return (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def _random(seed: int, epoch: int, stream: int, count: int) -> NDArray[np.uint64]:
    """Raw random numbers, uint64 [count], of one of the streams of (seed, epoch)."""
    counter, key = np.array([0, 0, stream, 0], np.uint64), np.array([seed, epoch], np.uint64)
    return np.random.Philox(counter=counter, key=key).random_raw(count)
