"""Batches: the rows that a stream hands out and the rows that are read by number are the same."""

import itertools

import pytest
import torch
from PIL import Image

from genlab.data.format.shards import ShardSet
from genlab.data.ingest.attributes import AttributesConfig
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.stream.batches import Batch, DeviceBatches, read_batch
from genlab.data.stream.shard_stream import ShardStream


@pytest.fixture(scope="module")
def batched_shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Twelve grey images with an age and a sex in their names."""
    root = tmp_path_factory.mktemp("batches")
    (root / "faces").mkdir()
    for number in range(12):
        Image.new("L", (8, 8), number).save(root / "faces" / f"{20 + number}_{'fm'[number % 2]}.png")
    pattern = AttributesConfig(pattern=r"(?P<age>\d+)_(?P<sex>[fm])")
    ingest(IngestConfig(f"folder:{root}/faces", str(root / "data"), channels=1, encoding="raw", attributes=pattern))
    return ShardSet.open(str(root / "data")).split("train")


def assert_equal(one: Batch, other: Batch) -> None:
    assert torch.equal(one.image, other.image)
    assert one.label is None
    assert other.label is None
    assert one.attributes.keys() == other.attributes.keys() == {"age", "sex"}
    assert all(torch.equal(one.attributes[name], other.attributes[name]) for name in one.attributes)
    assert one.rows.tolist() == other.rows.tolist()


def test_a_streams_batches_are_those_read_by_their_row_numbers(batched_shards: ShardSet) -> None:
    with DeviceBatches(ShardStream(batched_shards, batch=5, seed=1), torch.device("cpu")) as batches:
        for batch in itertools.islice(batches, 4):
            assert len(batch) == 5
            assert_equal(batch, read_batch(batched_shards, batch.rows))


def test_part_of_a_batch_has_part_of_everything(batched_shards: ShardSet) -> None:
    batch = read_batch(batched_shards, torch.arange(12).numpy())
    assert_equal(batch[3:7], read_batch(batched_shards, torch.arange(3, 7).numpy()))
