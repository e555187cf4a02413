import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import from_numpy
from torchvision.io import encode_jpeg
from upath import UPath

from genlab.core.errors import DataError
from genlab.data.format import writer
from genlab.data.format.index import BlockIndex
from genlab.data.format.manifest import Block, Blocks, Manifest
from genlab.data.format.shards import ShardSet
from genlab.imaging.images import Encoding
from tests.data.support import indexed, write_shard

MakeData = Callable[..., UPath]

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 7, 3), dtype=np.uint8)
LABELS = [row * 7 % 10 for row in range(40)]
ALL = np.arange(40)


@pytest.fixture(params=["raw", "encoded"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return request.param


@pytest.fixture
def stored(make_data: MakeData, encoding: Encoding) -> UPath:
    return make_data(IMAGES, LABELS, encoding=encoding, splits=("train", "train", "test"))


def blocks_of_first_shard(directory: UPath) -> Blocks:
    manifest = Manifest.load(directory)
    return BlockIndex(directory, manifest).blocks(manifest.shards[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, 39)))
def test_any_rows_come_back_in_the_order_asked_for(stored: UPath, rows: list[int]) -> None:
    shard_set = ShardSet.open(stored)
    index = np.array(rows, np.int64)
    found = shard_set.read(index)
    np.testing.assert_array_equal(found.image, IMAGES[index])
    np.testing.assert_array_equal(found.columns["label"], np.array(LABELS)[index])
    assert shard_set.keys(index) == [f"image-{row:02}" for row in rows]


def test_read_fills_the_array_it_is_given(stored: UPath) -> None:
    out = np.zeros((3, 6, 7, 3), np.uint8)
    assert ShardSet.open(stored).read(np.array([39, 0, 20]), out=out).image is out
    np.testing.assert_array_equal(out, IMAGES[[39, 0, 20]])


@pytest.mark.parametrize("row", [-1, 40])
def test_a_row_out_of_range_is_an_index_error(stored: UPath, row: int) -> None:
    with pytest.raises(IndexError, match=r"0\.\.39"):
        ShardSet.open(stored).read(np.array([0, row]))


def test_unlabelled_images_have_no_label(make_data: MakeData) -> None:
    shard_set = ShardSet.open(make_data(IMAGES))
    assert not shard_set.labelled
    assert not shard_set.read(ALL).columns


def test_grey_images_keep_one_channel(make_data: MakeData, encoding: Encoding) -> None:
    grey = IMAGES[..., :1]
    np.testing.assert_array_equal(ShardSet.open(make_data(grey, encoding=encoding)).read(ALL).image, grey)


def test_encoded_bytes_are_untouched_whatever_their_sizes(make_data: MakeData) -> None:
    files = [encode_jpeg(from_numpy(IMAGES[0].transpose(2, 0, 1)[:, : 2 + n % 5].copy())) for n in range(40)]
    blobs = [file.numpy().tobytes() for file in files]
    shard_set = ShardSet.open(make_data(blobs, encoding="encoded", splits=("a", "b")))
    assert shard_set.shape is None
    assert shard_set.encoded(ALL[::-1]) == blobs[::-1]
    with pytest.raises(DataError, match="--size"):
        shard_set.read(ALL)


def test_raw_data_has_no_encoded_bytes(make_data: MakeData) -> None:
    with pytest.raises(DataError, match="--encoding encoded"):
        ShardSet.open(make_data(IMAGES)).encoded(ALL)


def test_an_image_that_cannot_be_decoded_is_named(make_data: MakeData, tmp_path: Path) -> None:
    directory = make_data([b"not an image"], encoding="encoded")
    dataclasses.replace(Manifest.load(directory), shape=(6, 7, 3)).save(directory)
    with pytest.raises(DataError, match=r"shard-00000\.arrow: image 'image-00' cannot be decoded"):
        ShardSet.open(directory).read(np.array([0]))


def test_an_image_of_another_size_than_the_manifest_says_is_refused(make_data: MakeData) -> None:
    directory = make_data(IMAGES, encoding="encoded")
    dataclasses.replace(Manifest.load(directory), shape=(6, 6, 3)).save(directory)
    with pytest.raises(DataError, match="'image-00'"):
        ShardSet.open(directory).read(np.array([0]))


def test_split_counts_its_own_rows_and_names_the_others(stored: UPath) -> None:
    test = ShardSet.open(stored).split("test")
    assert len(test) == 13
    np.testing.assert_array_equal(test.read(np.arange(13)).image, IMAGES[27:])
    assert test.checksum == ShardSet.open(stored).checksum
    with pytest.raises(DataError, match=r"'valid'.*train, test.*--test-fraction"):
        ShardSet.open(stored).split("valid")


def test_the_file_is_plain_arrow(make_data: MakeData) -> None:
    directory = make_data(IMAGES, LABELS)
    with pa.ipc.open_file(str(directory / "shard-00000.arrow")) as file:
        table = file.read_all()
        assert file.num_record_batches == Manifest.load(directory).shards[0].block_count > 1
    assert table.schema.field("image").type == pa.fixed_shape_tensor(pa.uint8(), (6, 7, 3))
    np.testing.assert_array_equal(table["image"].combine_chunks().to_numpy_ndarray(), IMAGES)
    assert table["label"].to_pylist() == LABELS
    assert table["key"].to_pylist() == [f"image-{row:02}" for row in range(40)]


def test_blocks_hold_the_stated_bytes_and_a_larger_image_stands_alone(tmp_path: Path) -> None:
    sizes = [400_000, 400_000, 400_000, 3_000_000, 1]
    shard = write_shard(
        UPath(tmp_path) / "s.arrow",
        split="train",
        encoding="encoded",
        shape=None,
        images=[bytes(size) for size in sizes],
        keys=list("abcde"),
        labels=None,
    )
    assert writer.BLOCK_BYTES == 1 << 20
    assert [block.rows for block in shard.blocks] == [2, 1, 1, 1]


def test_the_same_input_gives_the_same_bytes(make_data: MakeData, encoding: Encoding, tmp_path: Path) -> None:
    one = make_data(IMAGES, LABELS, encoding=encoding, url=str(tmp_path / "one"))
    two = make_data(IMAGES, LABELS, encoding=encoding, url=str(tmp_path / "two"))
    assert (one / "shard-00000.arrow").read_bytes() == (two / "shard-00000.arrow").read_bytes()
    assert ShardSet.open(one).checksum == ShardSet.open(two).checksum


def test_a_raw_image_of_another_shape_is_refused(make_data: MakeData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"odd\.png"):
        write_shard(
            UPath(tmp_path) / "s.arrow",
            split="train",
            encoding="raw",
            shape=(6, 7, 3),
            images=[IMAGES[0], IMAGES[0, :, :6]],
            keys=["even.png", "odd.png"],
            labels=None,
        )
    assert not list(tmp_path.iterdir())


def test_shards_on_another_file_system(make_data: MakeData, encoding: Encoding) -> None:
    directory = make_data(IMAGES, LABELS, encoding=encoding, splits=("a", "b"), url=f"memory://{encoding}/data")
    shard_set = ShardSet.open(str(directory))
    shard_set.verify()
    np.testing.assert_array_equal(shard_set.read(ALL[::-1]).image, IMAGES[::-1])


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.reliability)], ids="{}-flips".format)
def test_any_flipped_byte_is_found_and_no_wrong_row_comes_out(stored: UPath, count: int) -> None:
    rng = np.random.default_rng(count)
    files = sorted(Path(str(stored)).iterdir())
    places = np.cumsum([file.stat().st_size for file in files])
    ShardSet.open(stored).verify()
    for place in rng.integers(0, places[-1], count).tolist():
        number = int(np.searchsorted(places, place, side="right"))
        file, whole = files[number], files[number].read_bytes()
        damaged = bytearray(whole)
        damaged[place - int(places[number])] ^= int(rng.integers(1, 256))
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=file.name):
            ShardSet.open(stored).verify()
        assert _wrong_rows(stored) == []
        file.write_bytes(whole)
    ShardSet.open(stored).verify()


def _wrong_rows(stored: UPath) -> list[int]:
    try:
        shard_set = ShardSet.open(stored)
    except DataError:
        return []
    wrong = []
    for row in range(40):
        try:
            found = shard_set.read(np.array([row]))
            (key,) = shard_set.keys(np.array([row]))
        except DataError:
            continue
        label = found.columns["label"][0]
        if (found.image[0] != IMAGES[row]).any() or label != LABELS[row] or key != f"image-{row:02}":
            wrong.append(row)
    return wrong


def test_a_damaged_block_leaves_the_others_readable(stored: UPath) -> None:
    blocks = blocks_of_first_shard(stored)
    file = Path(str(stored)) / "shard-00000.arrow"
    damaged = bytearray(file.read_bytes())
    damaged[blocks.offset[1] + blocks.bytes[1] // 2] ^= 1
    file.write_bytes(damaged)
    shard_set = ShardSet.open(stored)
    np.testing.assert_array_equal(shard_set.read(np.array([0])).image, IMAGES[:1])
    first = blocks.rows[0]
    with pytest.raises(DataError, match=r"shard-00000\.arrow: damaged \(record batch 1,"):
        shard_set.read(np.array([first]))


def test_a_truncated_shard_is_named(stored: UPath) -> None:
    file = Path(str(stored)) / "shard-00001.arrow"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"shard-00001\.arrow: damaged"):
        ShardSet.open(stored).read(ALL)


def test_a_missing_shard_is_named(stored: UPath) -> None:
    (stored / "shard-00001.arrow").unlink()
    with pytest.raises(DataError, match=r"shard-00001\.arrow: no such file"):
        ShardSet.open(stored).read(ALL)
    with pytest.raises(DataError, match=r"shard-00001\.arrow: no such file"):
        ShardSet.open(stored).verify()
    (stored / "index.arrow").unlink()
    with pytest.raises(DataError, match=r"index\.arrow: no such file"):
        ShardSet.open(stored).read(ALL)


def test_swapped_shards_are_refused(make_data: MakeData) -> None:
    directory = Path(str(make_data(IMAGES, LABELS, splits=("train", "test"))))
    one, two = directory / "shard-00000.arrow", directory / "shard-00001.arrow"
    assert one.stat().st_size == two.stat().st_size
    shutil.move(one, directory / "aside")
    shutil.move(two, one)
    shutil.move(directory / "aside", two)
    for row in (0, 39):
        with pytest.raises(DataError, match="damaged"):
            ShardSet.open(str(directory)).read(np.array([row]))


def test_columns_other_than_the_manifest_says_are_refused(make_data: MakeData) -> None:
    directory = make_data(IMAGES, LABELS)
    dataclasses.replace(Manifest.load(directory), shape=(7, 6, 3)).save(directory)
    with pytest.raises(DataError, match=r"shard-00000\.arrow: damaged \(its columns"):
        ShardSet.open(directory).read(ALL)


def test_compressed_record_batches_are_refused(make_data: MakeData) -> None:
    directory = make_data(np.zeros_like(IMAGES))
    manifest, file = Manifest.load(directory), directory / "shard-00000.arrow"
    with pa.ipc.open_file(file.read_bytes()) as whole:
        batch = whole.get_batch(0)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_batch(batch)
    message = sink.getvalue().to_pybytes()[batch.schema.serialize().size :]
    start = blocks_of_first_shard(directory).offset[0]
    stored = file.read_bytes()[:start] + message
    file.write_bytes(stored)
    block = Block(start, len(message), batch.num_rows, xxhash.xxh3_64_hexdigest(message))
    shard = dataclasses.replace(manifest.shards[0], bytes=len(stored), rows=batch.num_rows, blocks=(block,))
    index, shards = indexed(directory, [shard])
    dataclasses.replace(manifest, shards=shards, index=index).save(directory)
    with pytest.raises(DataError, match=r"shard-00000\.arrow: damaged .*compressed"):
        ShardSet.open(directory).read(np.array([0]))


def test_another_format_version_is_refused(stored: UPath) -> None:
    manifest = stored / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"version": 3}))
    with pytest.raises(DataError, match=r"manifest\.json: shard format 3; this genlab reads formats 1 and 2"):
        ShardSet.open(stored)
    manifest.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"manifest\.json: damaged \(it is not as genlab wrote it"):
        ShardSet.open(stored)


def test_a_directory_without_a_manifest_is_not_a_data_set(stored: UPath) -> None:
    (stored / "manifest.json").unlink()
    with pytest.raises(DataError, match="genlab ingest"):
        ShardSet.open(stored)


def test_verify_tells_of_each_shard(stored: UPath) -> None:
    seen: list[str] = []
    ShardSet.open(stored).verify(lambda shard: seen.append(shard.file))
    assert seen == ["shard-00000.arrow", "shard-00001.arrow", "shard-00002.arrow"]
