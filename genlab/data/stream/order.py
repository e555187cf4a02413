"""The order in which rows are trained on: pure functions from integers to orders.

An epoch here is one pass through the stream's own data set; a run's epoch is one through its longest domain. Epochs
follow one another without end in one sequence of rows, and the global batch is the next ``batch`` rows of it, so there
is no partial batch and each row comes once an epoch. A row's index within its global batch is its *slot*; each worker
takes a contiguous range of slots, so the rows of a global batch are the same for any number of workers.

There are two orders of an epoch:

* whole: a permutation of all rows. For data that can be read row by row (memory mapped). Up to :data:`PERMUTED_AT_ONCE`
  rows are sorted by random numbers; more are numbered by a pseudorandom permutation, which gives any part of the order
  without the rest.
* windowed: for data that are read block by block, from a disk or an object store. The data set is cut into *block
  groups* (neighbouring blocks that are fetched together); their random order is cut into *substreams*, one for each
  slot, or for a few neighbouring slots where a batch has very many. Within a substream, rows are shuffled
  across a sliding window of block groups: a group may come anywhere in the epoch, and each of its rows up to ``window``
  groups of its substream after the group's turn. So a block is read by the one worker that has its substream; the
  workers together read each block once, except for the few blocks in which a substream ends at a boundary between
  workers, which two of them read. In a large data set a group stays in its substream from epoch to epoch, so that each
  worker reads its own blocks again.

Orders are made piece by piece, as rows are taken. Random numbers are the raw output of NumPy's Philox bit generator,
which never changes between versions, as ``Generator.permutation`` may.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genlab.data.stream.mixing import mix

Ints = NDArray[np.int64]

RULE = 2
"""The rule that orders of new runs follow. By rule 1, that of runs of earlier versions, the whole order is sorted for
any number of rows, windowed orders have at most 64 substreams, a divisor of the batch, and groups change substreams in
each epoch (:meth:`genlab.data.stream.readahead.BlockGroups.of`)."""
PERMUTED_AT_ONCE = 1 << 22
"""Most rows that the whole order of rule 2 sorts: an array of 32 MiB. The order depends on it."""
SUBSTREAM_PIECE = 1 << 11
"""About how many rows of a substream are put in order at a time."""
ROUNDS = 6
"""Rounds of the pseudorandom permutation; four are enough against any test that does not know the keys (Luby & Rackoff
1988). The order depends on it."""


def permutation(seed: int, epoch: int, rows: int) -> Ints:
    """Return the whole order of one epoch, int64 [rows].

    Args:
        seed: 0..2**64 - 1.
        epoch: 0, 1, ...
        rows: number of rows.
    """
    return _sorted_by(_random(seed, epoch, 0, rows))


def permuted(seed: int, epoch: int, rows: int, place: Ints) -> Ints:
    """Return the rows at some places of a pseudorandom permutation of all rows, int64 [n].

    It is a Feistel network on the upper and the lower bits of the place. What becomes a number beyond the rows is
    permuted again until it is one (Black & Rogaway 2002, CT-RSA, "cycle walking"): less than twice on average.

    Args:
        seed: 0..2**64 - 1.
        epoch: 0, 1, ...
        rows: number of rows, at least 1.
        place: int64 [n], 0..rows - 1.
    """
    keys = _random(seed, epoch, 0, ROUNDS)
    bits = (rows - 1).bit_length()
    low = np.uint64(bits // 2)
    masks = [np.uint64((1 << count) - 1) for count in (bits - bits // 2, bits // 2)]
    found = place.astype(np.uint64)
    outside: slice | Ints = slice(None)
    while True:
        halves = [found[outside] >> low, found[outside] & masks[1]]
        for number, key in enumerate(keys):
            one = number % 2
            halves[one] ^= mix(halves[1 - one] ^ key) & masks[one]
        found[outside] = halves[0] << low | halves[1]
        outside = np.flatnonzero(found >= rows)
        if not len(outside):
            return found.astype(np.int64)


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


@dataclass(frozen=True)
class WindowedOrder:
    """The block groups and the shuffle window that a windowed order depends on, besides seed and epoch."""

    starts: Ints
    """int64 [groups + 1]: the first row of each block group, and the number of rows."""
    window: float
    """Block groups of a substream across which rows are shuffled, at least 1."""
    substreams: int
    """How many substreams there are, 1..batch."""
    fixed: bool = False
    """Whether a group stays in its substream in all epochs."""


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
    rule: int = RULE
    """The rule of the whole order."""

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
        taken, end = self.taken_before(epoch), self.taken_before(epoch + 1)
        return next(self.pieces(taken, end - taken))[1] if taken < end else np.empty(0, np.int64)

    def pieces(self, taken: int, most: int) -> Iterator[tuple[int, Ints]]:
        """Yield the rows that this worker takes after ``taken`` rows, without end, in pieces.

        Args:
            taken: how many rows this worker took before.
            most: the most rows of a piece, at least 1.

        Yields:
            An epoch, and the next rows of it, int64 [n] and not empty.
        """
        partition = None
        while True:
            epoch = self.epoch_of(taken)
            end = self.taken_before(epoch + 1)
            if self.windowed is None:
                part: _Whole | _Windowed = _Whole(self, epoch)
            else:
                if partition is None or not self.windowed.fixed:
                    partition = _Partition.of(self.windowed, self.seed, 0 if self.windowed.fixed else epoch)
                part = _Windowed(self, self.windowed, partition, epoch, self.positions(taken, taken + 1)[0])
            while taken < end:
                count = min(most, end - taken)
                yield epoch, part.at(self.positions(taken, taken + count))
                taken += count

    def positions(self, begin: int, end: int) -> Ints:
        """Return where the rows that this worker takes after ``begin`` and up to ``end`` rows lie in the sequence."""
        batches, slot = np.divmod(np.arange(begin, end), self.slots.stop - self.slots.start)
        return batches * self.batch + self.slots.start + slot


class _Whole:
    """The whole order of an epoch."""

    def __init__(self, sequence: RowSequence, epoch: int) -> None:
        self._sequence, self._epoch = sequence, epoch
        self._all = None
        if sequence.rule == 1 or sequence.rows <= PERMUTED_AT_ONCE:
            self._all = permutation(sequence.seed, epoch, sequence.rows)

    def at(self, position: Ints) -> Ints:
        """Return the rows at positions of the sequence, int64 [n], all of this epoch."""
        rows = self._sequence.rows
        place = position - self._epoch * rows
        return permuted(self._sequence.seed, self._epoch, rows, place) if self._all is None else self._all[place]


@dataclass(frozen=True)
class _Partition:
    """The block groups in a random order, which is cut into substreams."""

    groups: NDArray[np.int32] | Ints
    """[groups], the numbers of the groups in that order."""
    ends: Ints
    """int64 [groups], how many rows there are up to the end of each."""

    @staticmethod
    def of(windowed: WindowedOrder, seed: int, epoch: int) -> "_Partition":
        count = len(windowed.starts) - 1
        groups = _sorted_by(_random(seed, epoch, 0, count))
        if count < 2**31:
            groups = groups.astype(np.int32)
        ends = windowed.starts[1:][groups]
        ends -= windowed.starts[groups]
        return _Partition(groups, np.cumsum(ends, out=ends))


class _Windowed:
    """The windowed order of an epoch, as far as one worker takes part in it; its rows are taken one after the other.

    Args:
        sequence: the sequence of rows.
        windowed: block groups and window.
        partition: the order of the groups.
        epoch: number of the epoch.
        position: where the first row that is taken lies in the sequence.
    """

    def __init__(
        self, sequence: RowSequence, windowed: WindowedOrder, partition: _Partition, epoch: int, position: int
    ) -> None:
        self._batch, self._seed, self._epoch = sequence.batch, sequence.seed, epoch
        self._windowed, self._partition = windowed, partition
        count, slots = windowed.substreams, sequence.slots
        parts = [rank_slice(sequence.batch, number, count) for number in range(count)]
        self._edges = np.array([0, *(part.stop for part in parts)])
        first, end = epoch * sequence.rows, (epoch + 1) * sequence.rows
        # How many rows each substream has: the epoch may begin and end within a batch.
        before, after = (np.diff(np.minimum(self._edges, boundary % sequence.batch)) for boundary in (first, end))
        self._before, self._first_batch = before, first // sequence.batch
        sizes = (end // sequence.batch - self._first_batch) * np.diff(self._edges) + after - before
        bounds = np.concatenate([[0], np.cumsum(sizes)])

        self._mine = range(
            int(np.searchsorted(self._edges, slots.start, side="right")) - 1,
            int(np.searchsorted(self._edges, slots.stop, side="left")),
        )
        mine = np.arange(self._mine.start, self._mine.stop)
        # The first row of each substream that is still to come, by its index in the substream.
        left, right = np.maximum(self._edges[mine], slots.start), np.minimum(self._edges[mine + 1], slots.stop)
        batch, slot = divmod(position, sequence.batch)
        slot_in = np.where((left < slot) & (slot < right), slot, left) - self._edges[mine]
        batches = batch - self._first_batch + (right <= slot)
        self._taken = np.minimum(batches * np.diff(self._edges)[mine] + slot_in - before[mine], sizes[mine])
        self._substreams = [
            self._substream(number, int(bounds[number]), int(bounds[number + 1]), int(taken))
            for number, taken in zip(self._mine, self._taken, strict=True)
        ]

    def at(self, position: Ints) -> Ints:
        """Return the rows at positions of the sequence, int64 [n]: the next ones of this worker, all of this epoch."""
        batch, slot = np.divmod(position, self._batch)
        substream = np.searchsorted(self._edges, slot, side="right") - 1
        width = np.diff(self._edges)[substream]
        index = (batch - self._first_batch) * width + slot - self._edges[substream] - self._before[substream]
        substream -= self._mine.start
        ends = self._taken.copy()
        np.maximum.at(ends, substream, index + 1)
        counts = ends - self._taken
        parts = [one.take(count) for one, count in zip(self._substreams, counts.tolist(), strict=True)]
        offset = np.cumsum(counts) - counts - self._taken
        self._taken = ends
        return np.concatenate(parts)[offset[substream] + index]

    def _substream(self, number: int, begin: int, end: int, taken: int) -> "_Substream":
        """Return a substream of the epoch.

        Args:
            number: number of the substream.
            begin: where it begins among the rows of the groups in their random order.
            end: where it ends there.
            taken: how many of its rows were taken before.
        """
        starts, groups, ends = self._windowed.starts, self._partition.groups, self._partition.ends
        first = int(np.searchsorted(ends, begin, side="right"))
        last = int(np.searchsorted(ends, end, side="left"))
        chosen = groups[first : last + 1]
        begins = starts[chosen].astype(np.int64)
        rows = starts[1:][chosen] - begins
        if len(chosen):  # The first and the last group may lie partly outside.
            inside = begin - int(ends[first]) + int(rows[0])
            rows[-1] -= max(0, int(ends[last]) - end)
            begins[0] += inside
            rows[0] -= inside
        # Neighbouring substreams run towards each other, so that both want a group they share at the same time.
        backwards = number % 2 == 1
        if self._windowed.fixed:
            # In the next epoch it runs the other way, and begins with the group that it holds in memory.
            turns = np.arange(len(chosen))
            turns[1:-1] = 1 + _sorted_by(
                _random(self._seed, self._epoch, number + 1 + self._windowed.substreams, max(0, len(chosen) - 2))
            )
            turns = turns[::-1] if backwards != (self._epoch % 2 == 1) else turns
            begins, rows, backwards = begins[turns], rows[turns], False
        return _Substream(begins, rows, self._windowed.window, backwards, (self._seed, self._epoch, number + 1), taken)


class _Substream:
    """The rows of a substream in an epoch, shuffled within the window, from which as many are taken as are needed.

    Rows are sorted by the turn of their group (0 for the group that comes first) plus window x uniform, uniform in
    [0, 1): so a row comes up to ``window`` groups after its group's turn. Once all groups up to a turn are there, the
    order of the rows before it is final. Where the window holds all groups, rows are sorted by random numbers alone.

    Args:
        begins: int64 [groups], the first row of each group.
        rows: int64 [groups], how many rows of each follow.
        window: groups across which rows are shuffled, at least 1.
        backwards: whether the last group comes first.
        stream: seed, epoch and number of the stream of random numbers, one for each row.
        taken: how many rows were taken before.
    """

    def __init__(
        self, begins: Ints, rows: Ints, window: float, backwards: bool, stream: tuple[int, int, int], taken: int
    ) -> None:
        self._begins, self._window, self._backwards, self._stream = begins, window, backwards, stream
        self._edges = np.concatenate([[0], np.cumsum(rows)])
        self._groups, count = len(begins), int(self._edges[-1])
        self._bits = np.uint64(max(0, count - 1).bit_length())
        # Keys are below groups + window; they are scaled to the range of uint64.
        self._scale = 2.0**63 / (self._groups + window)
        self._waiting = np.empty(0, np.uint64)
        self._ready = np.empty(0, np.int64)
        self._next = 0
        if taken:
            before = self._rows_before(np.arange(self._groups + 1))
            turn = int(np.searchsorted(before, taken, side="right")) - 1
            self._next = max(0, turn - math.ceil(window)) if self._groups > window else 0
            # All rows of the groups before come before this turn.
            taken -= int(before[self._next])
            if turn > self._next:
                self._prepare(turn)
            self.take(taken)

    def take(self, count: int) -> Ints:
        """Return the next rows, int64 [count]."""
        ready = [self._ready]
        missing = count - len(self._ready)
        while missing > 0:
            wanted = self._rows_before(self._next) + max(missing, SUBSTREAM_PIECE)
            turns = np.arange(self._next + 1, self._groups + 1)
            reached = int(np.searchsorted(self._rows_before(turns), wanted)) + self._next + 1
            self._prepare(min(reached, self._groups))
            ready.append(self._ready)
            missing -= len(self._ready)
        rows = np.concatenate(ready) if len(ready) > 1 else self._ready
        self._ready = rows[count:]
        return rows[:count]

    def _rows_before(self, turn: Ints | int) -> Ints:
        """Return how many rows the groups before a turn have."""
        found: Ints = self._edges[-1] - self._edges[self._groups - turn] if self._backwards else self._edges[turn]
        return found

    def _prepare(self, turn: int) -> None:
        """Make ready the rows that come before ``turn``, which is after the next one, or all if it is the last."""
        if self._groups <= self._window:
            turn = self._groups
        groups = np.arange(self._next, turn)
        if self._backwards:
            groups = np.arange(self._groups - turn, self._groups - self._next)
        first, end = int(self._edges[groups[0]]), int(self._edges[groups[-1] + 1])
        index = np.arange(first, end)
        keys = _random(*self._stream, end - first, first)
        if self._groups > self._window:
            group = np.repeat(groups, np.diff(self._edges[groups[0] : groups[-1] + 2]))
            own_turn = self._groups - 1 - group if self._backwards else group
            keys = self._scaled(own_turn + self._window * ((keys >> np.uint64(11)) * 2.0**-53))
        packed = keys >> self._bits << self._bits | index.astype(np.uint64)
        waiting = np.concatenate([self._waiting, packed])
        waiting.sort()
        final = len(waiting)
        if turn < self._groups:
            limit = self._scaled(np.array([turn], np.float64)) >> self._bits << self._bits
            final = int(np.searchsorted(waiting, limit)[0])
        self._waiting = waiting[final:]
        index = (waiting[:final] & ((np.uint64(1) << self._bits) - np.uint64(1))).astype(np.int64)
        group = np.searchsorted(self._edges, index, side="right") - 1
        self._ready = self._begins[group] + index - self._edges[group]
        self._next = turn

    def _scaled(self, key: NDArray[np.float64]) -> NDArray[np.uint64]:
        return (key * self._scale).astype(np.uint64) << np.uint64(1)


def _sorted_by(keys: NDArray[np.uint64]) -> Ints:
    """Return the order that sorts ``keys`` by all but their log2(n) lowest bits, int64 [n]; equal ones stay in order.

    The index takes the place of the low bits: sorting numbers is ten times as fast as sorting indices by numbers.
    """
    bits = np.uint64(max(0, len(keys) - 1).bit_length())
    packed = keys >> bits << bits | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    return (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def _random(seed: int, epoch: int, stream: int, count: int, first: int = 0) -> NDArray[np.uint64]:
    """Return raw random numbers, uint64 [count], of one of the random streams of (seed, epoch), from ``first`` on."""
    counter, key = np.array([first // 4, 0, stream, 0], np.uint64), np.array([seed, epoch], np.uint64)
    return np.random.Philox(counter=counter, key=key).random_raw(first % 4 + count)[first % 4 :]
