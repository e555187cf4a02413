"""Blocks in memory: those that are used, and as many others as the budget has room for."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from genlab.data.format.block_fetcher import BlockFetcher

SIZE = 100


def fetch(blocks: range) -> Sequence[Any]:
    return [SimpleNamespace(data=bytes(SIZE)) for _ in blocks]


def test_blocks_that_nobody_uses_make_room_for_those_that_come() -> None:
    fetcher = BlockFetcher(fetch, budget=4 * SIZE)
    for blocks in (range(4), range(4, 8)):
        fetcher.request(blocks, [1] * 4)
        for block in blocks:
            fetcher.get(block).result()
        assert fetcher.bytes == 4 * SIZE
        if blocks.start == 0:
            for block in blocks:
                fetcher.release(block, 1)
            assert fetcher.bytes == 4 * SIZE, "they stay while there is room"
    fetcher.close()


def test_a_block_that_could_not_be_fetched_is_let_go_like_others() -> None:
    fetcher = BlockFetcher(lambda blocks: 1 / 0, budget=SIZE)  # type: ignore[arg-type, return-value]
    fetcher.request(range(2), [1, 1])
    for block in range(2):
        assert isinstance(fetcher.get(block).exception(), ZeroDivisionError)
        fetcher.release(block, 1)
    fetcher.close()
