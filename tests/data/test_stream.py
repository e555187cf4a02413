import gc
import threading
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from genlab.data.shards import ShardSet
from genlab.data.stream import ShardStream, StreamBatch, batch_rows, permutation, rank_slice
from genlab.errors import ConfigError, DataError

MakeData = Callable[..., UPath]

ROWS = 23
IMAGES = np.random.default_rng(0).integers(0, 256, (ROWS, 6, 7, 3), dtype=np.uint8)
LABELS = [row * 7 % 10 for row in range(ROWS)]


@pytest.fixture
def shards(make_data: MakeData) -> ShardSet:
    return ShardSet.open(make_data(IMAGES, LABELS, splits=("train", "train")))


@pytest.fixture
def threads() -> set[threading.Thread]:
    """The threads there are before the test."""
    gc.collect()
    return set(threading.enumerate())


def take(shards: ShardSet, count: int, **options: int) -> list[StreamBatch]:
    with ShardStream(shards, seed=5, **options) as stream:
        return list(islice(stream, count))


def rows_of(batches: list[StreamBatch]) -> list[int]:
    return [row for batch in batches for row in batch.row.tolist()]


def test_the_order_of_an_epoch_never_changes() -> None:
    assert permutation(3, 0, 10).tolist() == [6, 1, 8, 5, 2, 7, 9, 4, 3, 0]
    assert permutation(3, 2, 10).tolist() == [8, 2, 4, 1, 3, 6, 5, 0, 7, 9]
    assert permutation(2**64 - 1, 0, 10).tolist() == [8, 9, 0, 7, 4, 2, 6, 3, 1, 5]


@settings(deadline=None)
@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 1000), rows=st.integers(1, 300))
def test_each_epoch_has_every_row_once(seed: int, epoch: int, rows: int) -> None:
    assert sorted(permutation(seed, epoch, rows).tolist()) == list(range(rows))


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


@settings(deadline=None)
@given(rows=st.integers(1, 40), start=st.integers(0, 200), first=st.integers(0, 100), second=st.integers(0, 100))
def test_the_line_is_the_epochs_one_after_another(rows: int, start: int, first: int, second: int) -> None:
    line = np.concatenate([permutation(9, epoch, rows) for epoch in range((start + first + second) // rows + 1)])
    assert batch_rows(9, rows, start, first).tolist() == line[start : start + first].tolist()
    parts = [*batch_rows(9, rows, start, first), *batch_rows(9, rows, start + first, second)]
    assert parts == line[start : start + first + second].tolist()


@settings(deadline=None)
@given(count=st.integers(0, 100), world_size=st.integers(1, 12))
def test_slices_are_those_of_array_split(count: int, world_size: int) -> None:
    for rank, part in enumerate(np.array_split(np.arange(count), world_size)):
        assert np.arange(count)[rank_slice(count, rank, world_size)].tolist() == part.tolist()


def test_a_batch_holds_the_images_labels_and_epochs_of_its_rows(shards: ShardSet) -> None:
    batches = take(shards, 6, batch=10)
    assert [batch.first for batch in batches] == [0, 10, 20, 30, 40, 50]
    for batch in batches:
        assert batch.label is not None
        assert (batch.image.dtype, batch.label.dtype, batch.row.dtype) == (torch.uint8, torch.int64, torch.int64)
        np.testing.assert_array_equal(batch.image.numpy(), IMAGES[batch.row.numpy()])
        np.testing.assert_array_equal(batch.label.numpy(), np.array(LABELS)[batch.row.numpy()])
        assert batch.epoch.tolist() == [position // ROWS for position in range(batch.first, batch.first + 10)]
    assert rows_of(batches) == batch_rows(5, ROWS, 0, 60).tolist()


def test_unlabelled_images_stream_without_labels(make_data: MakeData) -> None:
    (batch,) = take(ShardSet.open(make_data(IMAGES)), 1, batch=4)
    assert batch.label is None


@pytest.mark.parametrize("batch", [5, 10, 60])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_workers_share_the_batches_of_one(shards: ShardSet, batch: int, world_size: int) -> None:
    alone = take(shards, 6, batch=batch)
    ranks = [take(shards, 6, batch=batch, rank=rank, world_size=world_size) for rank in range(world_size)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(torch.cat([part.row for part in parts]), whole.row)
        assert torch.equal(torch.cat([part.image for part in parts]), whole.image)
        assert torch.equal(torch.cat([part.epoch for part in parts]), whole.epoch)
        assert {part.first for part in parts} == {whole.first}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(batch=st.integers(2, 60), world_size=st.integers(1, 2), start=st.integers(0, 100), steps=st.integers(0, 4))
def test_a_stream_goes_on_where_another_stopped(
    shards: ShardSet, batch: int, world_size: int, start: int, steps: int
) -> None:
    options = {"batch": batch, "rank": world_size - 1, "world_size": world_size}
    unbroken = take(shards, steps + 3, start=start, **options)
    with ShardStream(shards, seed=5, start=start, batch=batch) as stream:
        assert stream.position == start
        for _ in range(steps):
            next(stream)
        position = stream.position
    assert position == start + steps * batch
    resumed = take(shards, 3, start=position, **options)
    assert [part.first for part in resumed] == [part.first for part in unbroken[steps:]]
    assert rows_of(resumed) == rows_of(unbroken[steps:])


def test_more_workers_than_rows_in_a_batch_are_refused(shards: ShardSet) -> None:
    with pytest.raises(ConfigError, match=r"batch = 2 .* 3 workers"):
        ShardStream(shards, batch=2, seed=0, world_size=3)


def test_images_of_different_sizes_are_refused(make_data: MakeData) -> None:
    shards = ShardSet.open(make_data([b"a", b"b"], encoding="encoded"))
    with pytest.raises(DataError, match="--size"):
        ShardStream(shards, batch=2, seed=0)


def test_an_error_while_reading_comes_out_as_it_was(shards: ShardSet) -> None:
    (shards.directory / "shard-00001.arrow").unlink()
    with ShardStream(shards, batch=ROWS, seed=0) as stream:
        for _ in range(2):
            with pytest.raises(DataError, match=r"shard-00001\.arrow: no such file"):
                next(stream)
        assert stream.position == 0


@pytest.mark.parametrize("consumed", [0, 3])
def test_closing_ends_the_thread(shards: ShardSet, threads: set[threading.Thread], consumed: int) -> None:
    stream = ShardStream(shards, batch=4, seed=0, prefetch=1)
    assert len(set(threading.enumerate()) - threads) == 1
    for _ in range(consumed):
        next(stream)
    stream.close()
    stream.close()
    assert set(threading.enumerate()) == threads
    with pytest.raises(ValueError, match="closed"):
        next(stream)


def test_a_forgotten_stream_ends_its_thread(shards: ShardSet, threads: set[threading.Thread]) -> None:
    stream = ShardStream(shards, batch=4, seed=0)
    next(stream)
    del stream
    gc.collect()
    assert set(threading.enumerate()) == threads


def test_waiting_is_counted(shards: ShardSet) -> None:
    with ShardStream(shards, batch=4, seed=0) as stream:
        assert stream.waited == 0
        next(stream)
        assert stream.waited > 0
