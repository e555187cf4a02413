import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genlab.data.stream.order import Ints, Line, Windowed, evenly, lane_count, permutation, rank_slice


def starts_of(rows: int, seed: int, most: int = 12) -> Ints:
    """Units of 1 to ``most`` rows each."""
    edges = np.cumsum(np.random.default_rng(seed).integers(1, most + 1, rows))
    return np.concatenate([[0], edges[edges < rows], [rows]]).astype(np.int64)


def lines(rows: int, batch: int, world_size: int, windowed: Windowed | None, seed: int = 5) -> list[Line]:
    """The line as each of the workers sees it."""
    return [Line(rows, batch, seed, rank_slice(batch, rank, world_size), windowed) for rank in range(world_size)]


def test_the_whole_order_of_an_epoch_never_changes() -> None:
    assert permutation(3, 0, 10).tolist() == [6, 1, 8, 5, 2, 7, 9, 4, 3, 0]
    assert permutation(3, 2, 10).tolist() == [8, 2, 4, 1, 3, 6, 5, 0, 7, 9]
    assert permutation(2**64 - 1, 0, 10).tolist() == [8, 9, 0, 7, 4, 2, 6, 3, 1, 5]


def test_the_windowed_order_of_an_epoch_never_changes() -> None:
    line = Line(18, 4, 3, slice(0, 4), Windowed(np.array([0, 4, 6, 10, 13, 18]), 1))
    assert line.epoch(0).tolist() == [5, 13, 17, 0, 4, 16, 11, 2, 8, 14, 12, 1, 6, 15, 10, 3, 7, 9]
    assert line.epoch(1).tolist() == [2, 4, 10, 17, 0, 5, 11, 14, 3, 9, 12, 16, 1, 7, 13, 15, 6, 8]


@settings(deadline=None)
@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 1000), rows=st.integers(1, 300))
def test_a_whole_epoch_has_every_row_once(seed: int, epoch: int, rows: int) -> None:
    assert sorted(permutation(seed, epoch, rows).tolist()) == list(range(rows))


def test_epochs_and_seeds_differ() -> None:
    windowed = Windowed(starts_of(50, 0), 2)
    for how in (None, windowed):
        orders = {tuple(Line(50, 5, seed, slice(0, 5), how).epoch(epoch)) for seed in range(10) for epoch in range(10)}
        assert len(orders) == 100


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 300),
    batch=st.integers(1, 70),
    world_size=st.integers(1, 5),
    window=st.integers(0, 5),
    seed=st.integers(0, 100),
)
def test_workers_share_each_epoch_and_every_batch(
    rows: int, batch: int, world_size: int, window: int, seed: int
) -> None:
    world_size = min(world_size, batch)
    windowed = Windowed(starts_of(rows, seed), window) if window else None
    (alone,), ranks = lines(rows, batch, 1, windowed), lines(rows, batch, world_size, windowed)
    epochs = 3
    for epoch in range(epochs):
        assert sorted(row for rank in ranks for row in rank.epoch(epoch).tolist()) == list(range(rows))
        for rank in ranks:
            assert rank.begin(epoch + 1) - rank.begin(epoch) == len(rank.epoch(epoch))
            if len(rank.epoch(epoch)):
                assert rank.epoch_of(rank.begin(epoch)) == rank.epoch_of(rank.begin(epoch + 1) - 1) == epoch
    whole = np.concatenate([alone.epoch(epoch) for epoch in range(epochs)])
    parts = [np.concatenate([rank.epoch(epoch) for epoch in range(epochs)]) for rank in ranks]
    for step in range(epochs * rows // batch):
        shares = [
            part[step * (rank.columns.stop - rank.columns.start) :][: rank.columns.stop - rank.columns.start]
            for part, rank in zip(parts, ranks, strict=True)
        ]
        assert np.concatenate(shares).tolist() == whole[step * batch : (step + 1) * batch].tolist()


@pytest.mark.parametrize("batch", [16, 128])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_workers_together_read_each_block_about_once(batch: int, world_size: int) -> None:
    rows, block = 20_000, 40
    windowed = Windowed(np.append(np.arange(0, rows, 4 * block), rows), 4)
    for epoch in range(3):
        read = sum(len(np.unique(line.epoch(epoch) // block)) for line in lines(rows, batch, world_size, windowed))
        assert read <= 1.05 * rows / block


def test_a_row_comes_within_its_lanes_window() -> None:
    rows, batch, unit, window = 19_200, 8, 60, 4
    windowed = Windowed(np.arange(0, rows + 1, unit), window)
    order = Line(rows, batch, 1, slice(0, batch), windowed).epoch(0)
    lane_rows = [order[lane::batch] for lane in range(batch)]
    for lane in lane_rows:
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for place, row in enumerate(lane.tolist()):
            first.setdefault(row // unit, place)
            last[row // unit] = place
        spans = [last[number] - first[number] for number in first]
        # A unit's rows are spread over the window, and no farther; they are not read in one go either.
        assert max(spans) <= (window + 1) * unit
        assert np.median(spans) > window * unit / 2
        # Units come in any order.
        assert list(first) != sorted(first)


def test_a_window_as_large_as_the_lane_shuffles_all_of_it() -> None:
    rows, batch, unit = 9_600, 4, 60
    windowed = Windowed(np.arange(0, rows + 1, unit), 40)
    places = np.zeros(rows)
    for epoch in range(20):
        order = Line(rows, batch, 1, slice(0, batch), windowed).epoch(epoch)
        places[order] += np.arange(rows)
    assert np.abs(places / 20 - rows / 2).max() < 6 * rows / np.sqrt(12 * 20)


def test_lanes_divide_the_batch() -> None:
    assert [lane_count(batch) for batch in (1, 4, 16, 64, 97, 128, 192)] == [1, 4, 16, 64, 1, 64, 64]


@settings(deadline=None)
@given(count=st.integers(0, 100), world_size=st.integers(1, 12))
def test_slices_are_those_of_array_split(count: int, world_size: int) -> None:
    for rank, part in enumerate(np.array_split(np.arange(count), world_size)):
        assert np.arange(count)[rank_slice(count, rank, world_size)].tolist() == part.tolist()


def test_rows_at_even_distances_are_of_the_whole_split() -> None:
    assert evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly(3, 5).tolist() == [0, 1, 2]
    assert evenly(7, 0).tolist() == []
