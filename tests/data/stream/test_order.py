import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genlab.data.stream.order import (
    Ints,
    RowSequence,
    WindowedOrder,
    evenly_spaced,
    group_slice,
    permutation,
    permuted,
    pieces_of_batches,
    rank_slice,
)


def starts_of(rows: int, seed: int, most: int = 12) -> Ints:
    """Starts of block groups of 1 to ``most`` rows each."""
    edges = np.cumsum(np.random.default_rng(seed).integers(1, most + 1, rows))
    return np.concatenate([[0], edges[edges < rows], [rows]]).astype(np.int64)


def sequences(
    rows: int, batch: int, world_size: int, windowed: WindowedOrder | None, seed: int = 5
) -> list[RowSequence]:
    """The sequence of rows as each of the workers sees it."""
    return [RowSequence(rows, batch, seed, rank_slice(batch, rank, world_size), windowed) for rank in range(world_size)]


def test_the_whole_order_of_an_epoch_never_changes() -> None:
    assert permutation(3, 0, 10).tolist() == [6, 1, 8, 5, 2, 7, 9, 4, 3, 0]
    assert permutation(3, 2, 10).tolist() == [8, 2, 4, 1, 3, 6, 5, 0, 7, 9]
    assert permutation(2**64 - 1, 0, 10).tolist() == [8, 9, 0, 7, 4, 2, 6, 3, 1, 5]


def test_the_windowed_order_of_an_epoch_never_changes() -> None:
    sequence = RowSequence(18, 4, 3, slice(0, 4), WindowedOrder(np.array([0, 4, 6, 10, 13, 18]), 1, 4))
    assert sequence.order(0).tolist() == [5, 13, 17, 0, 4, 16, 11, 2, 8, 14, 12, 1, 6, 15, 10, 3, 7, 9]
    assert sequence.order(1).tolist() == [2, 4, 10, 17, 0, 5, 11, 14, 3, 9, 12, 16, 1, 7, 13, 15, 6, 8]


@pytest.mark.parametrize(
    ("rows", "batch", "world_size", "window", "substreams", "digest"),
    [
        (20_000, 16, 1, 4, 16, "78751ef463c7d4cf"),
        (20_000, 16, 3, 7, 16, "afc1a7453d101e95"),
        (30_000, 128, 5, 2, 64, "f6deb05ba0d4f791"),
        (4_001, 7, 2, 1, 7, "83f5ca03603bec47"),
        (300, 60, 4, 5, 60, "30d792a545dcf0aa"),
    ],
)
def test_the_windowed_order_is_that_of_earlier_versions(
    rows: int, batch: int, world_size: int, window: int, substreams: int, digest: str
) -> None:
    ranks = sequences(rows, batch, world_size, WindowedOrder(starts_of(rows, 3), window, substreams), seed=11)
    orders = [rank.order(epoch).astype("<i8").tobytes() for epoch in range(3) for rank in ranks]
    assert hashlib.sha256(b"".join(orders)).hexdigest().startswith(digest)


def test_the_orders_of_large_data_sets_never_change() -> None:
    assert permuted(3, 0, 10, np.arange(10)).tolist() == [0, 3, 9, 1, 4, 5, 6, 7, 2, 8]
    assert permuted(3, 1, 10**8, np.arange(4)).tolist() == [29414617, 94622546, 17641798, 2312269]
    sequence = RowSequence(18, 3, 3, slice(0, 3), WindowedOrder(np.array([0, 4, 6, 10, 13, 18]), 1.5, 2, fixed=True))
    assert sequence.order(0).tolist() == [5, 4, 1, 8, 9, 2, 6, 7, 3, 17, 15, 0, 10, 14, 12, 16, 13, 11]
    assert sequence.order(1).tolist() == [10, 13, 11, 15, 16, 1, 8, 9, 12, 14, 17, 3, 6, 7, 0, 5, 4, 2]


@settings(deadline=None)
@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 1000), rows=st.integers(1, 300))
def test_a_pseudorandom_permutation_has_every_row_once(seed: int, epoch: int, rows: int) -> None:
    assert sorted(permuted(seed, epoch, rows, np.arange(rows)).tolist()) == list(range(rows))


def test_a_pseudorandom_permutation_is_as_uniform_as_chance() -> None:
    found = np.zeros((10, 10))
    for seed in range(400):
        found[np.arange(10), permuted(seed, 0, 10, np.arange(10))] += 1
    assert ((found - 40) ** 2 / 40).sum() < 135  # chi-squared of 81 degrees of freedom: one in 10,000 is larger
    order = permuted(1, 0, 100_000, np.arange(100_000))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02


def test_a_part_of_the_order_of_very_many_rows_takes_little_memory() -> None:
    sequence = RowSequence(10**8, 2048, 1, slice(10, 12))
    tracemalloc.start()
    epoch, rows = next(sequence.pieces(sequence.taken_before(3) + 5, 4096))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert epoch == 3
    assert len(np.unique(rows)) == 4096
    assert rows.min() >= 0
    assert rows.max() < 10**8
    assert peak < 2 << 20


@settings(deadline=None)
@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 1000), rows=st.integers(1, 300))
def test_a_whole_epoch_has_every_row_once(seed: int, epoch: int, rows: int) -> None:
    assert sorted(permutation(seed, epoch, rows).tolist()) == list(range(rows))


def test_epochs_and_seeds_differ() -> None:
    starts = starts_of(50, 0)
    for how in (None, WindowedOrder(starts, 2, 5), WindowedOrder(starts, 2, 5, fixed=True)):
        orders = {
            tuple(RowSequence(50, 5, seed, slice(0, 5), how).order(epoch)) for seed in range(10) for epoch in range(10)
        }
        assert len(orders) == 100


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 300),
    batch=st.integers(1, 70),
    world_size=st.integers(1, 5),
    window=st.sampled_from([0, 1, 1.4, 2, 5]),
    substreams=st.integers(1, 70),
    fixed=st.booleans(),
    seed=st.integers(0, 100),
)
def test_workers_share_each_epoch_and_every_batch(
    rows: int, batch: int, world_size: int, window: float, substreams: int, fixed: bool, seed: int
) -> None:
    world_size = min(world_size, batch)
    windowed = WindowedOrder(starts_of(rows, seed), window, min(substreams, batch), fixed) if window else None
    (alone,), ranks = sequences(rows, batch, 1, windowed), sequences(rows, batch, world_size, windowed)
    epochs = 3
    for epoch in range(epochs):
        assert sorted(row for rank in ranks for row in rank.order(epoch).tolist()) == list(range(rows))
        for rank in ranks:
            assert rank.taken_before(epoch + 1) - rank.taken_before(epoch) == len(rank.order(epoch))
            if len(rank.order(epoch)):
                assert (
                    rank.epoch_of(rank.taken_before(epoch)) == rank.epoch_of(rank.taken_before(epoch + 1) - 1) == epoch
                )
    whole = np.concatenate([alone.order(epoch) for epoch in range(epochs)])
    parts = [np.concatenate([rank.order(epoch) for epoch in range(epochs)]) for rank in ranks]
    for step in range(epochs * rows // batch):
        slices = [
            part[step * (rank.slots.stop - rank.slots.start) :][: rank.slots.stop - rank.slots.start]
            for part, rank in zip(parts, ranks, strict=True)
        ]
        assert np.concatenate(slices).tolist() == whole[step * batch : (step + 1) * batch].tolist()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**64 - 1), rows=st.integers(10**8 - 1000, 10**8 + 1000))
def test_no_row_of_a_hundred_million_comes_twice(seed: int, rows: int) -> None:
    places = np.unique(np.random.default_rng(seed).integers(0, rows, 50_000))
    found = permuted(seed, 1, rows, places)
    assert len(np.unique(found)) == len(places)
    assert 0 <= found.min() <= found.max() < rows


@pytest.fixture(scope="module")
def hundred_million() -> dict[bool, WindowedOrder | None]:
    """The two orders of 10^8 rows: of local data, and within a window of a GiB of blocks of 41 rows."""
    return {False: None, True: WindowedOrder(np.append(np.arange(0, 10**8, 41), 10**8), 1024, 1024, fixed=True)}


@pytest.mark.slow
@settings(deadline=None, max_examples=6)
@given(windowed=st.booleans(), rank=st.integers(0, 1023), step=st.integers(0, 4 * 10**8 // 2048))
def test_one_of_1024_workers_has_its_part_of_any_step(
    hundred_million: dict[bool, WindowedOrder | None], windowed: bool, rank: int, step: int
) -> None:
    order, slots = hundred_million[windowed], rank_slice(2048, rank, 1024)
    assert slots.stop - slots.start == 2
    alone, mine = (RowSequence(10**8, 2048, 5, part, order) for part in (slice(0, 2048), slots))
    epoch, whole = next(alone.pieces(step * 2048, 3 * 2048))
    same_epoch, piece = next(mine.pieces(step * 2, 3 * 2))
    steps = min(len(whole) // 2048, len(piece) // 2)
    assert piece[: 2 * steps].tolist() == whole[: 2048 * steps].reshape(-1, 2048)[:, slots].ravel().tolist()
    assert epoch == same_epoch or not steps


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 20_000),
    batch=st.integers(1, 300),
    rank=st.integers(0, 299),
    world_size=st.integers(1, 300),
    window=st.sampled_from([0, 1, 1.4, 4]),
    fixed=st.booleans(),
    taken=st.integers(0, 30_000),
    most=st.integers(1, 3000),
)
def test_a_sequence_goes_on_anywhere(
    rows: int, batch: int, rank: int, world_size: int, window: float, fixed: bool, taken: int, most: int
) -> None:
    world_size = min(world_size, batch)
    windowed = WindowedOrder(starts_of(rows, 1), window, min(batch, 100), fixed) if window else None
    sequence = sequences(rows, batch, world_size, windowed)[rank % world_size]
    found: list[int] = []
    for (epoch, piece), _ in zip(sequence.pieces(taken, most), range(4), strict=False):
        begin = taken + len(found) - sequence.taken_before(epoch)
        assert piece.tolist() == sequence.order(epoch)[begin : begin + len(piece)].tolist()
        found += piece.tolist()


def blocks_read(sequence: RowSequence, epoch: int, block: int) -> set[int]:
    """The blocks, of ``block`` rows each, that a worker reads in an epoch."""
    return set((sequence.order(epoch) // block).tolist())


@pytest.mark.parametrize(
    ("batch", "world_size"), [(16, 1), (16, 3), (128, 4), (256, 100), (256, 256), (202, 101), (254, 127), (2048, 1024)]
)
@pytest.mark.parametrize("fixed", [True, False])
def test_workers_together_read_each_block_about_once(batch: int, world_size: int, fixed: bool) -> None:
    rows, block = 160_000 if batch < 1000 else 1_200_000, 40
    windowed = WindowedOrder(np.append(np.arange(0, rows, block), rows), 1, min(batch, 1024), fixed)
    ranks = sequences(rows, batch, world_size, windowed)[:: max(1, world_size // 6)]
    taken = sum(rank.taken_before(4) - rank.taken_before(3) for rank in ranks)
    assert sum(len(blocks_read(rank, 3, block)) for rank in ranks) <= 1.1 * taken / block


def test_workers_read_their_own_blocks_in_every_epoch() -> None:
    rows, block, batch, world_size = 160_000, 40, 64, 8
    windowed = WindowedOrder(np.append(np.arange(0, rows, block), rows), 1, 64, fixed=True)
    for rank in sequences(rows, batch, world_size, windowed)[::3]:
        first = blocks_read(rank, 0, block)
        for epoch in (1, 5):
            assert len(first & blocks_read(rank, epoch, block)) >= 0.98 * len(first)
        assert rank.order(0).tolist() != rank.order(2).tolist()


@pytest.mark.parametrize("fixed", [True, False])
def test_a_row_comes_within_the_window_of_its_substream(fixed: bool) -> None:
    rows, batch, group, window = 19_200, 8, 60, 4
    windowed = WindowedOrder(np.arange(0, rows + 1, group), window, batch, fixed)
    order = RowSequence(rows, batch, 1, slice(0, batch), windowed).order(0)
    for slot in range(batch):
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for place, row in enumerate(order[slot::batch].tolist()):
            first.setdefault(row // group, place)
            last[row // group] = place
        spans = [last[number] - first[number] for number in first]
        # A group's rows are spread over the window, and no farther; they are not read in one go either.
        assert max(spans) <= (window + 1) * group
        assert np.median(spans) > window * group / 2
        # Groups come in any order.
        assert list(first) != sorted(first)


def test_a_window_as_large_as_the_substream_shuffles_all_of_it() -> None:
    rows, batch, group = 9_600, 4, 60
    windowed = WindowedOrder(np.arange(0, rows + 1, group), 40, batch)
    places = np.zeros(rows)
    for epoch in range(20):
        order = RowSequence(rows, batch, 1, slice(0, batch), windowed).order(epoch)
        places[order] += np.arange(rows)
    assert np.abs(places / 20 - rows / 2).max() < 6 * rows / np.sqrt(12 * 20)


@settings(deadline=None)
@given(count=st.integers(0, 100), world_size=st.integers(1, 12))
def test_slices_are_those_of_array_split(count: int, world_size: int) -> None:
    for rank, part in enumerate(np.array_split(np.arange(count), world_size)):
        assert np.arange(count)[rank_slice(count, rank, world_size)].tolist() == part.tolist()


def test_rows_at_even_distances_are_of_the_whole_split() -> None:
    assert evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly_spaced(3, 5).tolist() == [0, 1, 2]
    assert evenly_spaced(7, 0).tolist() == []


@given(groups=st.integers(1, 60), group=st.integers(1, 9), world_size=st.integers(1, 9))
def test_groups_fall_whole_on_the_ranks(groups: int, group: int, world_size: int) -> None:
    count = groups * group
    slices = [group_slice(count, rank, world_size, group) for rank in range(world_size)]
    assert [row for one in slices for row in range(one.start, one.stop)] == list(range(count))
    assert all(one.start % group == one.stop % group == 0 for one in slices)
    sizes = [one.stop - one.start for one in slices]
    assert max(sizes) - min(sizes) <= group


@given(rows=st.integers(0, 100), batch=st.integers(1, 40), world_size=st.integers(1, 5), largest=st.integers(1, 40))
def test_pieces_of_any_number_of_ranks_lie_in_the_same_batches(
    rows: int, batch: int, world_size: int, largest: int
) -> None:
    shares = [rank_slice(rows, rank, world_size) for rank in range(world_size)]
    pieces = [piece for one in shares for piece in pieces_of_batches(range(one.start, one.stop), batch, largest)]
    assert [row for piece in pieces for row in piece] == list(range(rows))
    for piece in pieces:
        assert 0 < len(piece) <= largest
        assert piece[0] // batch == piece[-1] // batch
