"""Blocks of a data set in memory: fetched ahead in runs by a few threads, dropped when they are no longer wanted."""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from genlab.data.format.extent import Extent

REQUESTS = 16
"""Requests in flight: enough to hide the latency of an object store."""

Fetch = Callable[[range], Sequence[Extent]]
"""Reads neighbouring blocks of one shard in one request; an extent for each."""


@dataclass
class _Slot:
    extent: "Future[Extent]"
    uses: int


class Blocks:
    """The blocks that are in memory or on their way.

    A block stays while it has uses to come. After that it stays as long as all blocks together keep within the budget,
    the latest used longest.

    Args:
        fetch: reads a run of blocks.
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
        """Bytes of the blocks that are here."""
        return self._bytes

    def request(self, run: range, uses: Sequence[int]) -> None:
        """Begin to fetch those blocks of ``run`` that are not here; each will be used so many more times."""
        with self._lock:
            missing = []
            for block, count in zip(run, uses, strict=True):
                slot = self._slots.get(block)
                if slot is None or (slot.extent.done() and slot.extent.exception() is not None):
                    slot = self._slots[block] = _Slot(Future(), 0)
                    missing.append(block)
                slot.uses += count
                self._idle.pop(block, None)
            for part in consecutive(missing):
                self._pool.submit(self._run, part, [self._slots[block].extent for block in part])

    def extent(self, block: int) -> "Future[Extent]":
        """The block, here or on its way; it was requested."""
        with self._lock:
            return self._slots[block].extent

    def release(self, block: int, uses: int) -> None:
        """Say that ``uses`` uses of a block, which is here, are over."""
        with self._lock:
            slot = self._slots[block]
            slot.uses -= uses
            if slot.uses > 0:
                return
            self._idle[block] = len(slot.extent.result().data)
            while self._bytes > self._budget and self._idle:
                oldest, size = self._idle.popitem(last=False)
                del self._slots[oldest]
                self._bytes -= size

    def close(self) -> None:
        """Fetch nothing more, and wait for what is on its way; who waits for the rest gets a ``CancelledError``."""
        self._pool.shutdown(cancel_futures=True)
        for slot in self._slots.values():
            slot.extent.cancel()

    def _run(self, run: range, waiting: "list[Future[Extent]]") -> None:
        try:
            extents = self._fetch(run)
        except BaseException as error:
            for future in waiting:
                future.set_exception(error)
            return
        with self._lock:
            self._bytes += sum(len(extent.data) for extent in extents)
        for future, extent in zip(waiting, extents, strict=True):
            future.set_result(extent)


def consecutive(numbers: Sequence[int]) -> list[range]:
    """Ascending numbers as runs without gaps."""
    breaks = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    edges = [0, *breaks, len(numbers)] if numbers else [0]
    return [range(numbers[begin], numbers[end - 1] + 1) for begin, end in itertools.pairwise(edges)]
