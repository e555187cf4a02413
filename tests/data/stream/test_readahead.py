"""Block groups: what of a data set is shuffled and fetched together, for a batch and a window."""

import dataclasses
import itertools
from typing import Any, cast

import numpy as np
import pytest

from genlab.data.format.shards import ShardSet
from genlab.data.stream.readahead import BlockGroups

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Shards:
    """As much of a data set as block groups are made of: blocks of ``each`` bytes and 40 rows."""

    blocks: int
    each: int

    @property
    def size(self) -> int:
        return self.blocks * self.each

    @property
    def block_starts(self) -> Any:
        return np.arange(self.blocks + 1) * 40

    def block_ranges(self, blocks: range, most: int) -> list[range]:
        edges = [*range(0, self.blocks, max(1, most // self.each)), self.blocks]
        assert blocks == range(self.blocks)
        return [range(*edge) for edge in itertools.pairwise(edges)]


def groups_of(batch: int, window: int, blocks: int = 4000, each: int = MIB, rule: int = 2) -> BlockGroups:
    return BlockGroups.of(cast("ShardSet", Shards(blocks, each)), window * MIB, batch, rule)


@pytest.mark.parametrize("batch", [1, 7, 16, 64])
@pytest.mark.parametrize("window", [1, 256])
def test_up_to_64_rows_are_grouped_as_in_earlier_versions(batch: int, window: int) -> None:
    earlier, now = (groups_of(batch, window, blocks=500 if window > 1 else 3, rule=rule) for rule in (1, 2))
    assert now.starts.tolist() == earlier.starts.tolist()
    assert (now.window, now.substreams, now.fixed) == (earlier.window, earlier.substreams, False)


def test_earlier_versions_had_a_divisor_of_the_batch_for_substreams() -> None:
    found = [groups_of(batch, 256, rule=1).substreams for batch in (1, 4, 16, 64, 97, 128, 192)]
    assert found == [1, 4, 16, 64, 1, 64, 64]


@pytest.mark.parametrize(("batch", "window"), [(128, 256), (202, 256), (256, 256), (1000, 1000), (2048, 1024)])
@pytest.mark.parametrize("each", [MIB, MIB * 5 // 7])
def test_there_is_a_substream_for_each_row_that_the_window_has_a_block_for(batch: int, window: int, each: int) -> None:
    groups = groups_of(batch, window, each=each)
    assert groups.substreams == min(batch, round(window * MIB / each))
    assert len(groups.starts) == 4001, "each block is a group"
    assert groups.window * groups.substreams * each == pytest.approx(window * MIB, rel=0.02)


def test_a_small_window_leaves_as_many_substreams_as_earlier_versions_had() -> None:
    groups = groups_of(202, 0, each=4 * MIB)
    assert (groups.substreams, groups.window) == (64, 1)


def test_groups_stay_in_their_substreams_in_large_data_sets() -> None:
    assert not groups_of(256, 256, blocks=4000).fixed
    assert groups_of(256, 256, blocks=4096).fixed
