"""Blocks of a data set in memory: fetched ahead, several in one request, and dropped when no longer needed."""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from genlab.data.format.shard_bytes import ShardBytes

REQUESTS = 16
"""Requests in flight: enough to hide the latency of an object store."""

Fetch = Callable[[range], Sequence[ShardBytes]]
"""Reads neighbouring blocks of one shard in one request; returns each block's bytes."""


@dataclass
class _Slot:
    """A block in memory or on its way."""

    block: "Future[ShardBytes]"
    uses: int
    """How many more times the block will be used."""


class BlockFetcher:
    """Fetches blocks in background threads and holds those that are in memory.

    A block stays in memory while it has uses to come. After that it stays as long as all blocks together keep within
    the budget; the least recently used ones are dropped first.

    Args:
        fetch: reads a range of blocks.
        budget: bytes that blocks without further uses may fill up to.
    """

    def __init__(self, fetch: Fetch, budget: int) -> None:
        self._fetch = fetch
        self._budget = budget
        self._slots: dict[int, _Slot] = {}
        self._idle: OrderedDict[int, int] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="genlab-fetch")

    @property
    def bytes(self) -> int:
        """Bytes of the blocks that are in memory."""
        return self._bytes

    def request(self, blocks: range, uses: Sequence[int]) -> None:
        """Begin to fetch those of ``blocks`` that are not in memory.

        Args:
            blocks: neighbouring blocks of one shard.
            uses: how many more times each of them will be used.
        """
        with self._lock:
            missing = []
            for block, count in zip(blocks, uses, strict=True):
                slot = self._slots.get(block)
                if slot is None or (slot.block.done() and slot.block.exception() is not None):
                    slot = self._slots[block] = _Slot(Future(), 0)
                    missing.append(block)
                slot.uses += count
                self._idle.pop(block, None)
            for part in consecutive(missing):
                self._pool.submit(self._run, part, [self._slots[block].block for block in part])

    def get(self, block: int) -> "Future[ShardBytes]":
        """Return a block that was requested; it may still be on its way."""
        with self._lock:
            return self._slots[block].block

    def release(self, block: int, uses: int) -> None:
        """Take note that ``uses`` uses of a block, which is in memory, are over."""
        with self._lock:
            slot = self._slots[block]
            slot.uses -= uses
            if slot.uses > 0 or slot.block.exception() is not None:
                return
            self._idle[block] = len(slot.block.result().data)
            self._make_room()

    def _make_room(self) -> None:
        """Let go of blocks that nobody uses, the oldest first, until the rest fit; with the lock held."""
        while self._bytes > self._budget and self._idle:
            oldest, size = self._idle.popitem(last=False)
            del self._slots[oldest]
            self._bytes -= size

    def close(self) -> None:
        """Stop fetching, and wait for the requests that are under way.

        Callers that wait for a block that was not fetched get a ``CancelledError``.
        """
        self._pool.shutdown(cancel_futures=True)
        for slot in self._slots.values():
            slot.block.cancel()

    def _run(self, blocks: range, waiting: "list[Future[ShardBytes]]") -> None:
        try:
            fetched = self._fetch(blocks)
        except BaseException as error:
            for future in waiting:
                future.set_exception(error)
            return
        with self._lock:
            self._bytes += sum(len(block.data) for block in fetched)
            self._make_room()
        for future, block in zip(waiting, fetched, strict=True):
            future.set_result(block)


def consecutive(numbers: Sequence[int]) -> list[range]:
    """Return ascending numbers as ranges without gaps: [1, 2, 5] as 1..2 and 5..5."""
    breaks = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    edges = [0, *breaks, len(numbers)] if numbers else [0]
    return [range(numbers[begin], numbers[end - 1] + 1) for begin, end in itertools.pairwise(edges)]
