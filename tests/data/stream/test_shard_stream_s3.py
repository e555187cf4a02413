"""The stream from a real S3 server: what it reads, and what it withstands."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upath import UPath

from genlab.core.errors import DataError
from genlab.data.format import writer
from genlab.data.format.shards import ShardSet
from genlab.data.stream.cache import BlockCache
from genlab.data.stream.shard_stream import ShardStream, StreamBatch
from tests.s3 import READ_FAULTS, Bucket, FaultProxy, hurry

MakeData = Callable[..., UPath]

ROWS = 1500
IMAGES = np.random.default_rng(0).integers(0, 256, (ROWS, 12, 14, 3), dtype=np.uint8)
LABELS = [row * 7 % 10 for row in range(ROWS)]
BATCH = 12
WINDOW = 100_000


@pytest.fixture
def url(s3: Bucket, fault_proxy: FaultProxy, make_data: MakeData) -> str:
    """A data set of some 750 blocks in three shards, on S3; from memory, as moto would copy a shard for each block."""
    made = str(make_data(IMAGES, LABELS, splits=("train", "train", "train"), url=f"{s3.url}/data"))
    fault_proxy.reset()
    fault_proxy.remember()
    return made


def one_epoch(shards: ShardSet, **options: Any) -> list[StreamBatch]:
    with ShardStream(shards, batch=BATCH, seed=5, window=WINDOW, **options) as stream:
        return [next(stream) for _ in range(ROWS // BATCH)]


def assert_right(batches: list[StreamBatch]) -> None:
    rows = [row for batch in batches for row in batch.row.tolist()]
    assert sorted(rows) == list(range(ROWS))
    for batch in batches:
        np.testing.assert_array_equal(batch.image.numpy(), IMAGES[batch.row])
        np.testing.assert_array_equal(batch.columns["label"].numpy(), np.array(LABELS)[batch.row])


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults", [150, pytest.param(1000, marks=pytest.mark.reliability)], ids=lambda number: f"{number}-faults"
)
def test_a_failing_store_costs_nothing_but_time(
    url: str, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, faults: int
) -> None:
    hurry(monkeypatch)
    fault_proxy.plan(rate=0.5, kinds=READ_FAULTS, seed=7, method="GET")
    broken = 0
    while broken < faults:
        assert_right(one_epoch(ShardSet.open(url)))
        broken = sum(fault_proxy.traffic().faults.values())
    assert set(fault_proxy.traffic().faults) == set(READ_FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_workers_together_read_the_data_set_once_an_epoch(
    url: str, fault_proxy: FaultProxy, world_size: int
) -> None:
    for rank in range(world_size):
        one_epoch(ShardSet.open(url), rank=rank, world_size=world_size)
    read = fault_proxy.traffic().sent("GET", ".arrow")
    size = ShardSet.open(url).size
    # What was read ahead of the next epoch when the streams were closed is not this epoch's.
    assert 0.95 * size < read <= 1.1 * size + WINDOW


@pytest.mark.slow
def test_a_stream_begins_with_the_manifest_and_the_blocks_of_its_rows(url: str, fault_proxy: FaultProxy) -> None:
    fault_proxy.latency(0.5)
    shards = ShardSet.open(url)
    with ShardStream(shards, batch=BATCH, seed=5, window=WINDOW) as stream:
        first = next(stream)
        traffic = fault_proxy.traffic()
    np.testing.assert_array_equal(first.image.numpy(), IMAGES[first.row])
    assert traffic.count("GET", "manifest.json") == traffic.count("GET", "index.arrow") == 1
    assert traffic.count("GET", ".arrow") + 1 == traffic.count(), "no listing and no HEAD"


@pytest.mark.slow
def test_a_cache_spares_the_store_and_is_not_trusted_blindly(url: str, fault_proxy: FaultProxy, tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache", 1 << 30)
    assert_right(one_epoch(ShardSet.open(url, cache=cache)))
    shards = ShardSet.open(url, cache=cache)
    shards.read(np.arange(ROWS))
    fault_proxy.reset()
    assert_right(one_epoch(shards))
    assert fault_proxy.traffic().count("GET", ".arrow") == 0
    for number, entry in enumerate(sorted((tmp_path / "cache").rglob("*-*"))):
        data = bytearray(entry.read_bytes())
        data[number % len(data)] ^= 1
        entry.write_bytes(data)
    assert_right(one_epoch(ShardSet.open(url, cache=cache)))
    assert fault_proxy.traffic().count("GET", ".arrow") > 0


@pytest.mark.slow
def test_a_cache_of_half_the_data_set_spares_half_of_the_reads(
    url: str, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    cache = BlockCache(tmp_path / "cache", 1 << 30)
    one_epoch(ShardSet.open(url, cache=cache))
    half = len(list((tmp_path / "cache").rglob("*-*"))) // 2 * 4096  # Each entry takes a page.
    shards = ShardSet.open(url, cache=BlockCache(tmp_path / "half", half))
    sent = []
    with ShardStream(shards, batch=BATCH, seed=5, window=WINDOW) as stream:
        for _ in range(4):
            fault_proxy.reset()
            for _ in range(ROWS // BATCH):
                next(stream)
            sent.append(fault_proxy.traffic().sent("GET", ".arrow"))
    assert max(sent[1:]) < 0.65 * sent[0]


@pytest.mark.slow
def test_a_block_that_is_damaged_where_it_lies_is_named(url: str) -> None:
    shards = ShardSet.open(url)
    file = shards.directory / "shard-00001.arrow"
    data = bytearray(file.read_bytes())
    blocks = shards.index.blocks(shards.shards[1])
    data[blocks.offset[3] + blocks.bytes[3] // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"shard-00001\.arrow: damaged \(record batch 3,"):
        one_epoch(shards)


PEAK = """
import resource, sys
from genlab.data.format.shards import ShardSet
from genlab.data.stream.shard_stream import ShardStream
with ShardStream(ShardSet.open(sys.argv[1]), batch=64, seed=0, window=8 << 20) as stream:
    for _ in range(20):
        next(stream)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(len(stream._shards) // 64):
        next(stream)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


@pytest.mark.slow
def test_peak_memory_is_bounded_on_a_data_set_larger_than_the_window(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BLOCK_BYTES", 1 << 17)
    images = np.random.default_rng(0).integers(0, 256, (10_000, 64, 64, 3), dtype=np.uint8)
    directory = make_data(images, splits=("train",) * 4)
    grown = int(subprocess.check_output([sys.executable, "-c", PEAK, str(directory)], env=dict(os.environ), text=True))
    assert ShardSet.open(directory).size > 100 << 20
    assert grown < 24 << 20
