"""Read-ahead: fetch the blocks that a stream will need before it needs them, in the order in which it will."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genlab.data.format.block_fetcher import BlockFetcher
from genlab.data.format.shards import REQUEST_BYTES, RowSelection, ShardSet
from genlab.data.stream.order import PERMUTED_AT_ONCE, ROUNDS, RULE, Ints, WindowedOrder

GROUPS_PER_WINDOW = 4
"""Fewest block groups in a substream's shuffle window, if blocks are small enough. The windowed order depends on it."""
SUBSTREAMS = 64
"""Most substreams of a windowed order of rule 1; by rule 2 there may be as many even if the window does not hold a
block of each. The windowed order depends on it."""
FIXED_FROM = 4
"""Windows that a data set must hold for its groups to stay in their substreams in all epochs, by rule 2: in a smaller
one too few groups would be shuffled with one another. The windowed order depends on it."""


def order_constants(windowed: bool, rule: int = RULE) -> dict[str, int]:
    """Return the constants of genlab that an order depends on, by name.

    Args:
        windowed: whether rows are shuffled within a window; else all of them.
        rule: the rule of the order.
    """
    if not windowed:
        return {} if rule == 1 else {"rule": rule, "permuted_at_once": PERMUTED_AT_ONCE, "rounds": ROUNDS}
    constants = {
        "request_bytes": REQUEST_BYTES,
        "groups_per_window": GROUPS_PER_WINDOW,
        "most_substreams": SUBSTREAMS,
    }
    return constants if rule == 1 else {"rule": rule} | constants | {"fixed_from": FIXED_FROM}


@dataclass(frozen=True)
class BlockGroups:
    """Neighbouring blocks that are shuffled and fetched together."""

    starts: Ints
    """int64 [groups + 1], the first block of each group, and the number of blocks."""
    window: float
    """How many groups the shuffle window of a substream holds, at least 1."""
    substreams: int
    """How many substreams there are."""
    fixed: bool
    """Whether a group stays in its substream in all epochs."""

    @staticmethod
    def of(shards: ShardSet, window: int, batch: int, rule: int = RULE) -> "BlockGroups":
        """Cut ``shards`` into block groups.

        By rule 2 there is a substream for each row of the global batch, if there are few or the window holds a block of
        each; so any number of workers divides them.

        Args:
            shards: the data set.
            window: size of the shuffle window in bytes, all substreams together.
            batch: rows of the global batch.
            rule: the rule of the order.
        """
        blocks = len(shards.block_starts) - 1
        mean = shards.size / blocks
        if rule == 1:
            substreams = next(count for count in range(min(batch, SUBSTREAMS), 0, -1) if batch % count == 0)
        else:
            substreams = min(batch, max(SUBSTREAMS, round(window / mean)))
        part = window / substreams
        size = min(REQUEST_BYTES, int(part / GROUPS_PER_WINDOW))
        each = substreams > SUBSTREAMS and size < mean
        starts = np.arange(blocks + 1) if each else _starts(shards, size)
        groups = part / (shards.size / (len(starts) - 1))
        if rule == 1 or groups >= GROUPS_PER_WINDOW:
            groups = round(groups)
        groups = max(1, groups)
        enough = FIXED_FROM * max(GROUPS_PER_WINDOW, groups) * substreams
        fixed = rule > 1 and substreams > 1 and len(starts) - 1 >= enough
        return BlockGroups(starts, groups, substreams, fixed)

    @staticmethod
    def requests(shards: ShardSet) -> "BlockGroups":
        """Return groups of as many blocks as one request reads, for rows that come in any order."""
        return BlockGroups(_starts(shards, REQUEST_BYTES), 1, 1, False)

    def order(self, shards: ShardSet) -> WindowedOrder:
        """Return what the order of the rows depends on."""
        firsts = shards.block_starts
        if len(self.starts) < len(firsts):
            firsts = firsts[self.starts]
        return WindowedOrder(firsts, self.window, self.substreams, self.fixed)

    def least_ahead(self, shards: ShardSet, batch: int) -> int:
        """Return how many rows to come are fetched at least, of all workers together.

        It is a block group of each substream, since substreams may come to their next group at the same time, or an
        eighth of the window: many substreams do not, as each begins somewhere within a group.
        """
        rows = len(shards) / (len(self.starts) - 1) * self.substreams
        return max(batch, int(min(rows, rows * self.window / 8)))


def _starts(shards: ShardSet, size: int) -> Ints:
    """Cut ``shards`` into groups of at most ``size`` bytes; return where they start, and the number of blocks."""
    blocks = len(shards.block_starts) - 1
    return np.array([*(group.start for group in shards.block_ranges(range(blocks), size)), blocks])


class ReadAhead:
    """Fetches the blocks of the rows to come, and drops each when its last row of the epoch was taken.

    Args:
        shards: the data set.
        groups: blocks that are fetched together.
        budget: bytes that blocks may fill that are no longer needed in their epoch.
    """

    def __init__(self, shards: ShardSet, groups: BlockGroups, budget: int) -> None:
        self.blocks = BlockFetcher(shards.fetch, budget)
        self._shards = shards
        self._groups = groups
        # The blocks to come, in order: after how many rows each is needed, its number, and its piece of an epoch.
        self._coming: deque[tuple[int, int, _Piece]] = deque()
        self._epoch = -1

    def schedule(self, begin: int, rows: Ints, epoch: int) -> None:
        """Take note of rows to come.

        Args:
            begin: how many rows are taken before these.
            rows: int64 [n], row numbers in the order in which they will be taken.
            epoch: the epoch of them all.
        """
        if self._shards.cache is not None and epoch != self._epoch:
            self._shards.cache.next_pass()
        self._epoch = epoch
        block = np.searchsorted(self._shards.block_starts, rows, side="right") - 1
        touched, first, counts = np.unique(block, return_index=True, return_counts=True)
        group = (np.searchsorted(self._groups.starts, touched, side="right") - 1).tolist()
        piece = _Piece(dict(zip(touched.tolist(), counts.tolist(), strict=True)), {}, {})
        for number, its_group in zip(touched.tolist(), group, strict=True):
            piece.group[number] = its_group
            piece.blocks.setdefault(its_group, []).append(number)
        order = np.argsort(first)
        for taken, number in zip((begin + first[order]).tolist(), touched[order].tolist(), strict=True):
            self._coming.append((taken, number, piece))

    def advance(self, end: int, urgent: int = 0) -> None:
        """Begin to fetch the blocks of the first ``end`` rows, and the rest of their block groups.

        The blocks of the first ``urgent`` rows are requested before all others, one by one.
        """
        later: list[tuple[_Piece, int]] = []
        while self._coming and self._coming[0][0] < end:
            taken, block, piece = self._coming.popleft()
            if block not in piece.uses:
                continue
            if taken < urgent:
                self._request(piece, [block])
                later.append((piece, piece.group[block]))
            else:
                self._request(piece, piece.blocks[piece.group[block]])
        for piece, group in later:
            self._request(piece, piece.blocks[group])

    def select(self, rows: Ints) -> list[RowSelection]:
        """Return where to read rows that were scheduled, and advanced to."""
        return self._shards.select_fetched(self.blocks, rows)

    def release(self, rows: Ints) -> None:
        """Take note that rows have been read."""
        block = np.searchsorted(self._shards.block_starts, rows, side="right") - 1
        for number, uses in zip(*(part.tolist() for part in np.unique(block, return_counts=True)), strict=True):
            self.blocks.release(number, uses)

    def _request(self, piece: "_Piece", blocks: Sequence[int]) -> None:
        wanted = [block for block in blocks if block in piece.uses]
        for neighbours in self._shards.block_ranges(wanted):
            self.blocks.request(neighbours, [piece.uses.pop(block) for block in neighbours])


@dataclass(frozen=True)
class _Piece:
    """The blocks of some rows that follow one another in an epoch, and those of them that were not requested yet."""

    uses: dict[int, int]
    """Block not requested yet → rows of it to be taken."""
    group: dict[int, int]
    """Block → its block group."""
    blocks: dict[int, list[int]]
    """Block group → its blocks that are needed, ascending."""
