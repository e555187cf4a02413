"""Read-ahead: fetch the blocks that a stream will need before it needs them, in the order in which it will."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genlab.data.format.block_fetcher import BlockFetcher
from genlab.data.format.shards import REQUEST_BYTES, RowSelection, ShardSet
from genlab.data.stream.order import MOST_SUBSTREAMS, Ints

GROUPS_PER_WINDOW = 4
"""Fewest block groups in a substream's shuffle window, if blocks are small enough. The windowed order depends on it."""


def order_constants() -> dict[str, int]:
    """Return the constants of genlab that a windowed order depends on, by name."""
    return {
        "request_bytes": REQUEST_BYTES,
        "groups_per_window": GROUPS_PER_WINDOW,
        "most_substreams": MOST_SUBSTREAMS,
    }


@dataclass(frozen=True)
class BlockGroups:
    """Neighbouring blocks that are shuffled and fetched together."""

    ranges: tuple[range, ...]
    """The blocks of each group."""
    window: int
    """How many groups the shuffle window of a substream holds."""

    @staticmethod
    def of(shards: ShardSet, window: int, substreams: int) -> "BlockGroups":
        """Cut ``shards`` into block groups.

        Args:
            shards: the data set.
            window: size of the shuffle window in bytes, all substreams together.
            substreams: how many there are.
        """
        part = window / substreams
        size = min(REQUEST_BYTES, int(part / GROUPS_PER_WINDOW))
        ranges = shards.block_ranges(range(len(shards.block_starts) - 1), size)
        mean = shards.size / len(ranges)
        return BlockGroups(tuple(ranges), max(1, round(part / mean)))


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
        # The group of each block.
        self._group = np.repeat(np.arange(len(groups.ranges)), [len(blocks) for blocks in groups.ranges]).tolist()
        # The blocks to come, in order: after how many rows each is needed, its number, and its epoch.
        self._coming: deque[tuple[int, int, _Epoch]] = deque()

    def schedule(self, begin: int, rows: Ints) -> None:
        """Take note of the rows of an epoch.

        Args:
            begin: how many rows are taken before these.
            rows: int64 [n], row numbers in the order in which they will be taken.
        """
        if self._shards.cache is not None:
            self._shards.cache.next_pass()
        block = np.searchsorted(self._shards.block_starts, rows, side="right") - 1
        touched, first, counts = np.unique(block, return_index=True, return_counts=True)
        epoch = _Epoch(dict(zip(touched.tolist(), counts.tolist(), strict=True)), {})
        for number in touched.tolist():
            epoch.groups.setdefault(self._group[number], []).append(number)
        order = np.argsort(first)
        for taken, number in zip((begin + first[order]).tolist(), touched[order].tolist(), strict=True):
            self._coming.append((taken, number, epoch))

    def advance(self, end: int, urgent: int = 0) -> None:
        """Begin to fetch the blocks of the first ``end`` rows, and the rest of their block groups.

        The blocks of the first ``urgent`` rows are requested before all others, one by one.
        """
        later: list[tuple[_Epoch, int]] = []
        while self._coming and self._coming[0][0] < end:
            taken, block, epoch = self._coming.popleft()
            if block not in epoch.uses:
                continue
            if taken < urgent:
                self._request(epoch, [block])
                later.append((epoch, self._group[block]))
            else:
                self._request(epoch, epoch.groups[self._group[block]])
        for epoch, group in later:
            self._request(epoch, epoch.groups[group])

    def select(self, rows: Ints) -> list[RowSelection]:
        """Return where to read rows that were scheduled, and advanced to."""
        return self._shards.select_fetched(self.blocks, rows)

    def release(self, rows: Ints) -> None:
        """Take note that rows have been read."""
        block = np.searchsorted(self._shards.block_starts, rows, side="right") - 1
        for number, uses in zip(*(part.tolist() for part in np.unique(block, return_counts=True)), strict=True):
            self.blocks.release(number, uses)

    def _request(self, epoch: "_Epoch", blocks: Sequence[int]) -> None:
        wanted = [block for block in blocks if block in epoch.uses]
        for neighbours in self._shards.block_ranges(wanted):
            self.blocks.request(neighbours, [epoch.uses.pop(block) for block in neighbours])


@dataclass(frozen=True)
class _Epoch:
    """The blocks of an epoch that are needed, and those of them that were not requested yet."""

    uses: dict[int, int]
    """Block not requested yet → rows of it to be taken."""
    groups: dict[int, list[int]]
    """Block group → its blocks that are needed, ascending."""
