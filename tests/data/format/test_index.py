"""The index of a data set: what is read of it, and when; data sets of format 1, which have none."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import read_range
from genlab.data.format import index as index_module
from genlab.data.format.index import BlockIndex
from genlab.data.format.manifest import Block, Blocks, Manifest, Origin, Shard
from genlab.data.format.shards import ShardSet
from tests.data.support import block_bytes, indexed

MakeData = Callable[..., UPath]

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)


def shard_of(number: int, rows: list[int], rng: np.random.Generator) -> Shard:
    """A shard that is nowhere, with a block for each number of rows."""
    sizes = (8 * rng.integers(1, 1 << 20, len(rows))).tolist()
    offsets = np.cumsum([488, *sizes]).tolist()
    sums = [f"{one:016x}" for one in rng.integers(0, 2**64, len(rows), np.uint64).tolist()]
    blocks = tuple(map(Block, offsets, sizes, rows, sums))
    schema = Block(8, 480, 0, "0" * 16)
    return Shard(f"shard-{number:05}.arrow", "train", sum(rows), offsets[-1], "", schema, blocks)


def manifest_of(directory: UPath, shards: list[Shard]) -> Manifest:
    index, entries = indexed(directory, shards)
    return Manifest("encoded", 3, None, (), (), entries, Origin("test", "", {}, {}), {}, index=index)


def equal(one: Blocks, other: Blocks) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Blocks)
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    shards=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=9),
    page=st.integers(1, 3000),
    seed=st.integers(0, 99),
)
def test_what_was_written_of_any_shards_is_read_whatever_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: list[list[int]], page: int, seed: int
) -> None:
    monkeypatch.setattr(index_module, "PAGE_BYTES", page)
    rng = np.random.default_rng(seed)
    written = [shard_of(number, rows, rng) for number, rows in enumerate(shards)]
    directory = UPath(tmp_path)
    manifest = manifest_of(directory, [written[number] for number in rng.permutation(len(written))])
    assert [shard.file for shard in manifest.shards] == [shard.file for shard in written]
    manifest.save(directory)
    assert Manifest.load(directory) == manifest
    found = BlockIndex(directory, manifest)
    for number in rng.permutation(len(written)).tolist():
        assert equal(found.blocks(manifest.shards[number]), Blocks.of(written[number].blocks))
    some = rng.permutation(len(written))[: rng.integers(0, len(written) + 1)]
    for numbers in (range(len(written)), np.sort(some).tolist(), some.tolist()):
        starts = BlockIndex(directory, manifest).starts([manifest.shards[number] for number in numbers])
        assert starts.dtype == np.int64
        assert starts.tolist() == np.cumsum([0, *(count for number in numbers for count in shards[number])]).tolist()


def test_the_index_is_plain_arrow(make_data: MakeData) -> None:
    directory = make_data(IMAGES, splits=("train", "test"))
    manifest = Manifest.load(directory)
    with pa.ipc.open_file(str(directory / "index.arrow")) as file:
        tables = [file.get_batch(number).to_pydict() for number in range(file.num_record_batches)]
    assert [sum(table["rows"]) for table in tables] == [shard.rows for shard in manifest.shards]
    assert [len(table["xxh3"]) for table in tables] == [shard.block_count for shard in manifest.shards]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each read of an index; pages hold a shard each."""
    lengths: list[int] = []

    def counted(path: UPath, offset: int, length: int) -> bytes:
        lengths.append(length)
        return read_range(path, offset, length)

    monkeypatch.setattr(index_module, "read_range", counted)
    monkeypatch.setattr(index_module, "PAGE_BYTES", 1)
    return lengths


@pytest.mark.parametrize("place", ["", "memory://index/data"])
def test_of_the_index_is_read_what_rows_need_and_once(make_data: MakeData, reads: list[int], place: str) -> None:
    opened = ShardSet.open(make_data(IMAGES, splits=("train",) * 5 + ("test",), url=place or None))
    train, test = opened.split("train"), opened.split("test")
    assert (len(train), len(test)) == (50, 10)
    assert reads == []
    for _ in range(2):
        np.testing.assert_array_equal(test.read(np.arange(10)).image, IMAGES[50:])
    assert len(reads) == 1
    np.testing.assert_array_equal(train.reader(threads=1).read(np.array([49, 0, 45])).image, IMAGES[[49, 0, 45]])
    assert len(reads) == 3
    assert opened.block_starts[-1] == 60
    assert train.block_starts[-1] == 50
    assert sum(reads) == sum(shard.index.bytes for shard in opened.shards if shard.index)
    assert len(reads) == 6


def test_a_small_index_is_one_read(make_data: MakeData, reads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "PAGE_BYTES", 1 << 20)
    ShardSet.open(make_data(IMAGES, splits=("train",) * 5, url="memory://one/data")).read(np.arange(60))
    assert len(reads) == 1


def test_a_damaged_index_is_named_and_no_row_comes_out(make_data: MakeData) -> None:
    directory = make_data(IMAGES, splits=("train", "test"))
    file = directory / "index.arrow"
    data, part = file.read_bytes(), Manifest.load(directory).shards[1].index
    assert part is not None
    for place in range(part.offset, part.offset + part.bytes, 97):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DataError, match=r"index\.arrow: damaged \(what it says of shard-00001\.arrow does not"):
            ShardSet.open(directory).split("test").read(np.array([0]))
    file.write_bytes(data[: part.offset + 10])
    with pytest.raises(DataError, match=r"index\.arrow: .*which the manifest promises"):
        ShardSet.open(directory).read(np.array([59]))


def test_another_index_is_refused(make_data: MakeData, tmp_path: Path) -> None:
    one = make_data(IMAGES, splits=("train", "test"), url=str(tmp_path / "one"))
    other = make_data(IMAGES[::-1], splits=("train", "test"), url=str(tmp_path / "other"))
    (one / "index.arrow").write_bytes((other / "index.arrow").read_bytes())
    with pytest.raises(DataError, match=r"index\.arrow: damaged"):
        ShardSet.open(one).read(np.array([0]))
    with pytest.raises(DataError, match=r"index\.arrow: damaged \(its SHA-256"):
        ShardSet.open(one).verify()


@pytest.mark.parametrize("place", ["", "memory://first/data"])
def test_a_data_set_of_format_1_has_the_same_rows(make_data: MakeData, place: str) -> None:
    directory = make_data(IMAGES, splits=("train", "test"), url=place or None)
    new = ShardSet.open(directory)
    shards = tuple(
        dataclasses.replace(shard, index=None, blocks=blocks_of(new.index.blocks(shard))) for shard in new.shards
    )
    dataclasses.replace(new.manifest, shards=shards, index=None).save(directory)
    (directory / "index.arrow").unlink()
    old = ShardSet.open(directory)
    old.verify()
    assert (old.manifest.version, new.manifest.version) == (1, 2)
    rows = np.random.default_rng(0).permutation(60)
    np.testing.assert_array_equal(old.read(rows).image, IMAGES[rows])
    assert old.block_starts.tolist() == new.block_starts.tolist()
    blocks = range(len(old.block_starts) - 1)
    for most in (1, 2000, 1 << 20):
        assert old.block_ranges(blocks, most) == new.block_ranges(blocks, most)
    assert block_bytes(old) == block_bytes(new)


def blocks_of(blocks: Blocks) -> tuple[Block, ...]:
    columns = [getattr(blocks, name).tolist() for name in ("offset", "bytes", "rows")]
    return tuple(map(Block, *columns, [f"{one:016x}" for one in blocks.xxh3.tolist()]))
