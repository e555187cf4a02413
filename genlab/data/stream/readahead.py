"""Read-ahead: which blocks a stream will need, and when, so that they are fetched before they are."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genlab.data.format.blocks import Blocks
from genlab.data.format.shards import RUN_BYTES, Piece, ShardSet
from genlab.data.stream.order import Ints

UNITS = 4
"""Units that a lane's window is made of, at least, if blocks are small enough for that. The windowed order depends on
it."""


@dataclass(frozen=True)
class Units:
    """Runs of neighbouring blocks that are shuffled and fetched together."""

    runs: tuple[range, ...]
    window: int
    """How many of them make a lane's share of the window."""

    @staticmethod
    def of(shards: ShardSet, window: int, lanes: int) -> "Units":
        """Cut ``shards`` into units such that ``lanes`` windows of several units make ``window`` bytes together."""
        share = window / lanes
        size = min(RUN_BYTES, int(share / UNITS))
        runs = shards.runs(range(len(shards.block_starts) - 1), size)
        mean = shards.size / len(runs)
        return Units(tuple(runs), max(1, round(share / mean)))


class ReadAhead:
    """Fetches the blocks of the rows to come, and drops them when their last row of the epoch was taken.

    Args:
        shards: the data set.
        units: blocks that are fetched together.
        budget: bytes that blocks may fill that are not needed any more in their epoch.
    """

    def __init__(self, shards: ShardSet, units: Units, budget: int) -> None:
        self.blocks = Blocks(shards.fetch, budget)
        self._shards = shards
        self._unit = np.repeat(np.arange(len(units.runs)), [len(run) for run in units.runs]).tolist()
        self._coming: deque[tuple[int, int, _Epoch]] = deque()

    def plan(self, begin: int, rows: Ints) -> None:
        """Take note of an epoch's rows: those taken after ``begin`` others."""
        block = np.searchsorted(self._shards.block_starts, rows, side="right") - 1
        touched, first, counts = np.unique(block, return_index=True, return_counts=True)
        epoch = _Epoch(dict(zip(touched.tolist(), counts.tolist(), strict=True)), {})
        for number in touched.tolist():
            epoch.units.setdefault(self._unit[number], []).append(number)
        order = np.argsort(first)
        for place, number in zip((begin + first[order]).tolist(), touched[order].tolist(), strict=True):
            self._coming.append((place, number, epoch))

    def advance(self, end: int, urgent: int = 0) -> None:
        """Begin to fetch what the first ``end`` rows need, and the rest of the units it lies in.

        What the first ``urgent`` rows need is asked for before anything else, block by block.
        """
        later: list[tuple[_Epoch, int]] = []
        while self._coming and self._coming[0][0] < end:
            place, block, epoch = self._coming.popleft()
            if block not in epoch.uses:
                continue
            if place < urgent:
                self._request(epoch, [block])
                later.append((epoch, self._unit[block]))
            else:
                self._request(epoch, epoch.units[self._unit[block]])
        for epoch, unit in later:
            self._request(epoch, epoch.units[unit])

    def pieces(self, rows: Ints) -> list[Piece]:
        """Where rows that were planned, and advanced to, are to be read."""
        return self._shards.pieces_of(self.blocks, rows)

    def release(self, rows: Ints) -> None:
        """Say that rows have been read."""
        block = np.searchsorted(self._shards.block_starts, rows, side="right") - 1
        for number, uses in zip(*(part.tolist() for part in np.unique(block, return_counts=True)), strict=True):
            self.blocks.release(number, uses)

    def _request(self, epoch: "_Epoch", blocks: Sequence[int]) -> None:
        wanted = [block for block in blocks if block in epoch.uses]
        for run in self._shards.runs(wanted):
            self.blocks.request(run, [epoch.uses.pop(block) for block in run])


@dataclass(frozen=True)
class _Epoch:
    """What is needed of an epoch and was not asked for yet."""

    uses: dict[int, int]
    """Block → rows of it to be taken."""
    units: dict[int, list[int]]
    """Unit → its blocks that are needed at all, ascending."""
