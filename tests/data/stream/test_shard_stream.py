import gc
import threading
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from genlab.core.errors import ConfigError, DataError
from genlab.data.format.shard_bytes import ShardBytes
from genlab.data.format.shards import ShardSet
from genlab.data.stream import shard_stream
from genlab.data.stream.augment import Augmentation
from genlab.data.stream.order import RowSequence
from genlab.data.stream.readahead import BlockGroups
from genlab.data.stream.shard_stream import ShardStream, StreamBatch
from tests.data.support import block_bytes

MakeData = Callable[..., UPath]

ROWS = 23
IMAGES = np.random.default_rng(0).integers(0, 256, (ROWS, 6, 7, 3), dtype=np.uint8)
LABELS = [row * 7 % 10 for row in range(ROWS)]


WINDOWS = st.sampled_from([None, 1, 5000])


@pytest.fixture
def shards(make_data: MakeData) -> ShardSet:
    return ShardSet.open(make_data(IMAGES, LABELS, splits=("train", "train")))


@pytest.fixture
def threads() -> set[threading.Thread]:
    """The threads there are before the test."""
    gc.collect()
    return set(threading.enumerate())


def take(shards: ShardSet, count: int, **options: Any) -> list[StreamBatch]:
    with ShardStream(shards, seed=5, **options) as stream:
        return list(islice(stream, count))


def rows_of(batches: list[StreamBatch]) -> list[int]:
    return [row for batch in batches for row in batch.row.tolist()]


def five_epochs(batch: int) -> list[int]:
    """The rows of the first five epochs in their whole order."""
    sequence = RowSequence(ROWS, batch, 5, slice(0, batch))
    return [row for epoch in range(5) for row in sequence.order(epoch).tolist()]


def test_a_batch_holds_the_images_labels_and_epochs_of_its_rows(shards: ShardSet) -> None:
    batches = take(shards, 6, batch=10)
    for first, batch in zip(range(0, 60, 10), batches, strict=True):
        label = batch.columns["label"]
        assert (batch.image.dtype, label.dtype, batch.row.dtype) == (torch.uint8, torch.int64, np.int64)
        np.testing.assert_array_equal(batch.image.numpy(), IMAGES[batch.row])
        np.testing.assert_array_equal(label.numpy(), np.array(LABELS)[batch.row])
        assert batch.epoch.tolist() == [position // ROWS for position in range(first, first + 10)]
    assert rows_of(batches) == five_epochs(10)[:60]


def test_unlabelled_images_stream_without_labels(make_data: MakeData) -> None:
    (batch,) = take(ShardSet.open(make_data(IMAGES)), 1, batch=4)
    assert not batch.columns


@pytest.mark.parametrize("window", [None, 1, 5000])
@pytest.mark.parametrize("batch", [5, 10, 60])
@pytest.mark.parametrize("world_size", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_workers_share_the_batches_of_one(shards: ShardSet, batch: int, world_size: int, window: int | None) -> None:
    alone = take(shards, 6, batch=batch, window=window)
    ranks = [
        take(shards, 6, batch=batch, window=window, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    for whole, *parts in zip(alone, *ranks, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.row for part in parts]), whole.row)
        assert torch.equal(torch.cat([part.image for part in parts]), whole.image)
        np.testing.assert_array_equal(np.concatenate([part.epoch for part in parts]), whole.epoch)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    batch=st.integers(2, 60),
    world_size=st.integers(1, 2),
    before=st.integers(0, 20),
    steps=st.integers(0, 4),
    window=WINDOWS,
)
def test_a_stream_goes_on_where_another_stopped(
    shards: ShardSet, batch: int, world_size: int, before: int, steps: int, window: int | None
) -> None:
    options = {"batch": batch, "rank": world_size - 1, "world_size": world_size, "window": window}
    start = before * batch
    unbroken = take(shards, steps + 3, start=start, **options)
    with ShardStream(shards, seed=5, start=start, batch=batch, window=window) as stream:
        assert stream.position == start
        for _ in range(steps):
            next(stream)
        position = stream.position
    assert position == start + steps * batch
    resumed = take(shards, 3, start=position, **options)
    assert [part.epoch.tolist() for part in resumed] == [part.epoch.tolist() for part in unbroken[steps:]]
    assert rows_of(resumed) == rows_of(unbroken[steps:])


def test_more_workers_than_rows_in_a_batch_are_refused(shards: ShardSet) -> None:
    with pytest.raises(ConfigError, match=r"batch = 2 .* 3 workers"):
        ShardStream(shards, batch=2, seed=0, world_size=3)


def test_images_of_different_sizes_are_refused(make_data: MakeData) -> None:
    shards = ShardSet.open(make_data([b"a", b"b"], encoding="encoded"))
    with pytest.raises(DataError, match="--size"):
        ShardStream(shards, batch=2, seed=0)


def test_a_start_within_a_batch_is_refused(shards: ShardSet) -> None:
    with pytest.raises(ConfigError, match=r"start = 3 .* batch of 2"):
        ShardStream(shards, batch=2, seed=0, start=3)


@pytest.mark.parametrize("window", [None, 5000])
def test_an_error_while_reading_comes_out_as_it_was(shards: ShardSet, window: int | None) -> None:
    (shards.directory / "shard-00001.arrow").unlink()
    with ShardStream(shards, batch=ROWS, seed=0, window=window) as stream:
        for _ in range(2):
            with pytest.raises(DataError, match=r"shard-00001\.arrow: no such file"):
                next(stream)
        assert stream.position == 0


@pytest.mark.parametrize("window", [None, 5000])
@pytest.mark.parametrize("consumed", [0, 3])
def test_closing_ends_the_threads(
    make_data: MakeData, threads: set[threading.Thread], consumed: int, window: int | None
) -> None:
    stream = ShardStream(ShardSet.open(make_data(IMAGES, encoding="encoded")), batch=4, seed=0, window=window)
    assert set(threading.enumerate()) - threads
    for _ in range(consumed):
        next(stream)
    stream.close()
    stream.close()
    assert set(threading.enumerate()) == threads
    with pytest.raises(ValueError, match="closed"):
        next(stream)


@pytest.mark.parametrize("window", [None, 5000])
def test_a_forgotten_stream_ends_its_threads(
    make_data: MakeData, threads: set[threading.Thread], window: int | None
) -> None:
    stream = ShardStream(ShardSet.open(make_data(IMAGES, encoding="encoded")), batch=4, seed=0, window=window)
    next(stream)
    del stream
    gc.collect()
    assert set(threading.enumerate()) == threads


def test_waiting_is_counted(shards: ShardSet) -> None:
    with ShardStream(shards, batch=4, seed=0, window=5000) as stream:
        assert stream.waited == 0
        next(stream)
        assert stream.waited > stream.waited_on_storage > 0


@pytest.mark.parametrize("encoding", ["raw", "encoded"])
@pytest.mark.parametrize("window", [None, 3000])
@pytest.mark.parametrize("url", [None, "memory://stream/data"])
def test_any_store_and_any_order_give_the_right_pixels(
    make_data: MakeData, encoding: str, window: int | None, url: str | None
) -> None:
    where = f"{url}-{encoding}-{window}" if url else None
    shards = ShardSet.open(make_data(IMAGES, LABELS, encoding=encoding, splits=("train", "train"), url=where))
    batches = take(shards, 20, batch=6, window=window)
    for batch in batches:
        np.testing.assert_array_equal(batch.image.numpy(), IMAGES[batch.row])
        np.testing.assert_array_equal(batch.columns["label"].numpy(), np.array(LABELS)[batch.row])
    rows = rows_of(batches)
    for epoch in range(len(rows) // ROWS):
        assert sorted(rows[epoch * ROWS : (epoch + 1) * ROWS]) == list(range(ROWS))


def test_batches_that_are_kept_are_not_written_over(make_data: MakeData) -> None:
    shards = ShardSet.open(make_data(IMAGES, encoding="encoded"))
    with ShardStream(shards, batch=4, seed=5) as stream:
        kept, part = [], []
        for number in range(200):
            batch = next(stream)
            if number % 3 == 0:
                kept.append(batch)
            elif number % 3 == 1:
                part.append((batch.image[1:3], batch.row[1:3]))
    for batch in kept:
        np.testing.assert_array_equal(batch.image.numpy(), IMAGES[batch.row])
    for image, row in part:
        np.testing.assert_array_equal(image.numpy(), IMAGES[row])


@pytest.mark.parametrize("encoding", ["raw", "encoded"])
@pytest.mark.parametrize("window", [None, 3000])
def test_augmentation_is_a_function_of_seed_epoch_and_row(
    make_data: MakeData, encoding: str, window: int | None
) -> None:
    shards = ShardSet.open(make_data(IMAGES, encoding=encoding))
    augmentation = Augmentation(flip=True, jitter=2, seed=9)

    def seen(**options: Any) -> dict[tuple[int, int], bytes]:
        batches = take(shards, 12, batch=4, augmentation=augmentation, **options)
        return {
            (epoch, row): image.numpy().tobytes()
            for batch in batches
            for epoch, row, image in zip(batch.epoch.tolist(), batch.row.tolist(), batch.image, strict=True)
        }

    alone = seen(window=window)
    assert alone == seen(rank=0, world_size=2, window=window) | seen(rank=1, world_size=2, window=window)
    for (epoch, row), image in alone.items():
        draws = augmentation.draw(np.array([epoch]), np.array([row]))
        expected = augmentation.apply(torch.from_numpy(IMAGES[row : row + 1]), draws)
        assert image == expected.numpy().tobytes()


class Watched(ShardSet):
    """A data set that counts what is fetched of it."""

    @staticmethod
    def of(shards: ShardSet) -> "Watched":
        watched = Watched(shards.directory, shards.manifest, shards.shards, shards.threads)
        watched.fetched = []
        return watched

    fetched: list[int]

    def fetch(self, blocks: range) -> list[ShardBytes]:
        self.fetched += blocks
        return super().fetch(blocks)


@pytest.mark.parametrize(("world_size", "piece"), [(1, 16_384), (2, 16_384), (3, 100), (4, 16_384), (1, 100), (7, 40)])
def test_the_workers_fetch_the_data_set_about_once_an_epoch(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, world_size: int, piece: int
) -> None:
    monkeypatch.setattr(shard_stream, "PIECE", piece)
    images = np.random.default_rng(0).integers(0, 256, (600, 6, 7, 3), dtype=np.uint8)
    shards = ShardSet.open(make_data(images, splits=("train", "train", "train")))
    blocks, epochs = len(shards.block_starts) - 1, 3
    fetched = 0
    for rank in range(world_size):
        watched = Watched.of(shards)
        options: Any = {"rank": rank, "world_size": world_size, "window": 40_000, "read_ahead": 0}
        with ShardStream(watched, batch=12, seed=5, **options) as stream:
            for _ in range(epochs * 600 // 12):
                next(stream)
            horizon = stream._horizon
        sizes = block_bytes(shards)
        fetched += sum(sizes[block] for block in watched.fetched)
        assert horizon < 600
    ahead = 40_000  # what was read ahead of the next epoch when the stream was closed
    assert shards.size * epochs * 0.5 < fetched <= 1.1 * shards.size * epochs + ahead
    assert blocks > 60


@pytest.mark.parametrize("rule", [1, 2])
def test_the_order_follows_the_rule_that_is_asked_for(shards: ShardSet, rule: int) -> None:
    windowed = BlockGroups.of(shards, 5000, 70, rule).order(shards)
    assert windowed.substreams == (35 if rule == 1 else 64)
    sequence = RowSequence(ROWS, 70, 5, slice(0, 70), windowed)
    expected = np.concatenate([sequence.order(epoch) for epoch in range(4)])[:70]
    assert rows_of(take(shards, 1, batch=70, window=5000, rule=rule)) == expected.tolist()


def test_memory_holds_the_window_and_not_the_data_set(make_data: MakeData) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12000, 6, 7, 3), dtype=np.uint8)
    shards = ShardSet.open(make_data(images))
    window = shards.size // 10
    most = 0
    with ShardStream(shards, batch=8, seed=5, window=window, read_ahead=0) as stream:
        assert stream._ahead is not None
        for _ in range(12000 // 8):
            next(stream)
            most = max(most, stream._ahead.blocks.bytes)
    assert window / 2 < most < 2 * window


@pytest.mark.parametrize("world_size", [1, 8])
def test_each_worker_reads_as_far_ahead_as_it_is_told(make_data: MakeData, world_size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12000, 6, 7, 3), dtype=np.uint8)
    watched = Watched.of(ShardSet.open(make_data(images)))
    options: Any = {"batch": 8, "rank": world_size - 1, "world_size": world_size, "window": 20_000}
    read_ahead = watched.size // 20
    with ShardStream(watched, seed=5, read_ahead=read_ahead, **options) as stream:
        next(stream)
        assert stream._ahead is not None
        requested = stream._ahead.blocks._slots
        sizes = block_bytes(watched)
        bytes_ahead = sum(sizes[block] for block in requested)
        assert read_ahead < bytes_ahead < 2 * read_ahead
        rows = [next(stream).row.tolist() for _ in range(3000 // 8)]
    assert rows == [batch.row.tolist() for batch in take(watched, 3000 // 8 + 1, read_ahead=0, **options)[1:]]
