"""Lists of images on disk: their order and shards are those of a sort in memory, and memory holds few of them."""

import bisect
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genlab.core.errors import DataError
from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.data.ingest import spool
from genlab.data.ingest.attributes import AttributesConfig, resolve
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.shard_task import ImageFormat, ShardTasks
from genlab.data.ingest.sources import Entry
from genlab.data.ingest.sources.synthetic import Synthetic
from genlab.data.ingest.spool import SortedSpool, Spool
from tests.data.ingest.test_sources import png, write_files

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 3))
"""Items of a chunk, and chunks of a run: so few that short lists are merged of many runs."""


@pytest.fixture(autouse=True)
def _sizes() -> Iterator[None]:
    """Put the sizes back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "CHUNK", spool.CHUNK)
        patch.setattr(spool, "RUN_CHUNKS", spool.RUN_CHUNKS)
        yield


def set_sizes(sizes: tuple[int, int]) -> None:
    spool.CHUNK, spool.RUN_CHUNKS = sizes


@given(keys=st.lists(st.text(st.characters(), max_size=3)), sizes=SIZES)
def test_the_order_is_that_of_a_sort_in_memory(keys: list[str], sizes: tuple[int, int]) -> None:
    """Equal keys stay in their order, and so do keys that are no valid Unicode, as names of files may be."""
    set_sizes(sizes)
    items = [(key, number) for number, key in enumerate(keys)]
    ordered = SortedSpool(iter(items))
    expected = sorted(items, key=lambda item: item[0])
    assert len(ordered) == len(items)
    assert [list(ordered), list(ordered)] == [expected, expected]


@given(count=st.integers(0, 30), sizes=SIZES, cut=st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_parts_of_a_list_are_those_of_one_in_memory(count: int, sizes: tuple[int, int], cut: tuple[int, int]) -> None:
    set_sizes(sizes)
    items: Spool[tuple[int]] = Spool()
    for number in range(count):
        items.append((number,))
        assert list(items.items(number // 2, number + 1)) == [(each,) for each in range(number // 2, number + 1)]
    begin, end = (min(number, count) for number in sorted(cut))
    assert list(items.items(begin, end)) == [(number,) for number in range(begin, end)]


@given(
    keys=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), min_size=1, unique=True),
    sizes=SIZES,
    rows_per_shard=st.integers(1, 4),
)
@settings(max_examples=8)
def test_shards_are_slices_of_the_keys_sorted_in_memory(
    keys: list[str], sizes: tuple[int, int], rows_per_shard: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        table = pa.table(
            {"image": pa.array([png(1)] * len(keys), pa.binary()), "name": keys, "number": range(len(keys))}
        )
        pq.write_table(table, f"{place}/x.parquet")
        config = IngestConfig(
            f"{place}/x.parquet",
            f"{place}/data",
            key_column="name",
            encoding="raw",
            shard_size=rows_per_shard * png_bytes() / 2**20,
            test_fraction=0.3,
            validation_fraction=0.3,
        )
        set_sizes(sizes)
        ingest(config)
        shards = ShardSet.open(f"{place}/data")
        found = [
            (shard.split, shards.keys(np.arange(begin, begin + shard.rows)))
            for shard, begin in zip(
                shards.shards, np.cumsum([0, *(shard.rows for shard in shards.shards)]), strict=False
            )
        ]
        assert found == list(sliced(keys, rows_per_shard))
        numbers = shards.columns(np.arange(len(keys)))["number"].tolist()
        assert [keys[number] for number in numbers] == [key for _, part in found for key in part]


def png_bytes() -> int:
    """Bytes of the pixels of :func:`png`."""
    return 4 * 5 * 3


def sliced(keys: list[str], rows: int) -> Iterator[tuple[str, list[str]]]:
    """Split and keys of each shard, with 30% of the images in the splits test and validation each."""
    of_split: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for key in sorted(keys):
        number = int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) / 2**64
        of_split[("test", "train", "validation")[bisect.bisect([0.3, 1 - 0.3], number)]].append(key)
    for split, members in of_split.items():
        yield from ((split, members[begin : begin + rows]) for begin in range(0, len(members), rows))


def test_files_are_the_same_however_many_runs_there_are(tmp_path: Path) -> None:
    names = [f"train/{kind}/{number:02d}.png" for number in range(10) for kind in ("cat", "dog", "cow")]
    write_files(tmp_path / "photos", {name: png(number) for number, name in enumerate(names)})
    lines = [f"{name},{number % 3},{number / 2}" for number, name in enumerate(names)]
    (tmp_path / "x.csv").write_text("\n".join(["file,size,weight", *lines]))
    attributes = AttributesConfig(pattern=r"/(?P<number>\d+)\.", csv=str(tmp_path / "x.csv"))
    options: dict[str, Any] = {"label": "folder", "attributes": attributes, "shard_size": 4e-4, "test_fraction": 0.3}
    made = []
    for name, sizes in (("whole", (spool.CHUNK, spool.RUN_CHUNKS)), ("runs", (2, 2))):
        set_sizes(sizes)
        ingest(IngestConfig(str(tmp_path / "photos"), str(tmp_path / name), **options))
        made.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) > 5


class Key(str):
    """A key that is counted while it is in memory."""

    held: ClassVar[int] = 0
    most: ClassVar[int] = 0

    def __new__(cls, text: str) -> "Key":
        Key.held += 1
        Key.most = max(Key.most, Key.held)
        return super().__new__(cls, text)

    def __del__(self) -> None:
        Key.held -= 1


def test_memory_holds_a_run_and_a_chunk_of_each_run_however_many_images_there_are() -> None:
    count, chunk, run = 3000, 4, 128
    set_sizes((chunk, run // chunk))
    Key.most = Key.held
    entries = (Entry(Key(f"{number * 7 % count:04d}"), values={"age": number % 9}) for number in range(count))
    source = Synthetic("digits", count)
    columns = resolve(source, entries, AttributesConfig(), label=None, skip_bad=False)
    rows: Spool[Any] = Spool()
    for row in columns.rows:
        rows.append(row)
    runs = -(-count // run)
    assert Key.most < run + (runs + 2) * chunk
    image_format = ImageFormat(1, None, "keep", "raw", True, False, False, columns.attributes)
    tasks = ShardTasks(source, image_format, locate("/data"), {"train": rows}, 50)
    Key.most = Key.held
    assert [str(row.key) for task in tasks for row in task.rows] == [f"{number:04d}" for number in range(count)]
    assert Key.most < 3 * (50 + chunk)


def test_without_a_place_for_the_list_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"gone: cannot be written \(No such file or directory\).*set TMPDIR"):
        ingest(IngestConfig("synthetic:digits", str(tmp_path / "data"), count=2))
