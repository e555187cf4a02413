import gzip
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

from genlab.core.errors import ConfigError, DataError, StorageError
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.sources import Source, open_source
from genlab.data.ingest.sources.base import Entry
from genlab.data.ingest.sources.files import Folder
from genlab.data.ingest.sources.synthetic import Synthetic
from genlab.data.ingest.synthetic import scene_attributes
from genlab.imaging.images import ImageError, encode_png


def png(value: int) -> bytes:
    return encode_png(np.full((4, 5, 3), value, np.uint8))


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def write_idx(file: Path, array: np.ndarray) -> None:
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)


def write_mnist(directory: Path, half: str = "t10k", count: int = 5, suffix: str = "") -> np.ndarray:
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
    write_idx(directory / f"{half}-images-idx3-ubyte{suffix}", images)
    write_idx(directory / f"{half}-labels-idx1-ubyte{suffix}", np.arange(count, dtype=np.uint8) % 3)
    return images


def field(number: int, data: bytes) -> bytes:
    """A protobuf field that has a length."""
    length, size = len(data), b""
    while length >= 0x80:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + data


def example(**features: bytes) -> bytes:
    """A serialised tf.train.Example, with a float and an int64 feature among those given."""
    content = {name: field(1, field(1, value)) for name, value in features.items()}
    content |= {"width": field(3, field(1, b"\x80\x02")), "score": field(2, field(1, b"\0\0\x80\x3f"))}
    return field(1, b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in content.items()))


def write_tfrecord(file: Path, examples: list[bytes]) -> None:
    with file.open("wb") as stream:
        writer = RecordWriter(stream)
        for data in examples:
            writer.write(data)


def load_all(source: Source) -> dict[str, Any]:
    """key → image, in the order of the keys, through a pickled copy as on a cluster."""
    copy = pickle.loads(pickle.dumps(source))
    with copy.reader() as load:
        return {entry.key: load(entry).image for entry in sorted(copy.entries(), key=lambda entry: entry.key)}


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_pixels_labels_and_published_splits(tmp_path: Path, suffix: str) -> None:
    test, train = write_mnist(tmp_path, "t10k", 4, suffix), write_mnist(tmp_path, "train", 5, suffix)
    source = open_source(f"mnist:{tmp_path}")
    images = load_all(source)
    assert list(images) == [f"t10k-0000{i}" for i in range(4)] + [f"train-0000{i}" for i in range(5)]
    np.testing.assert_array_equal(np.stack(list(images.values()))[..., 0], np.concatenate([test, train]))
    assert {entry.key: entry.split for entry in source.entries()}["t10k-00003"] == "test"
    assert sum(entry.split == "train" for entry in source.entries()) == 5
    assert source.label_names() == ("0", "1", "2")
    with source.reader() as load:
        assert [load(entry).label for entry in source.entries() if entry.split == "train"] == [0, 1, 2, 0, 1]


def test_mnist_needs_only_one_half(tmp_path: Path) -> None:
    write_mnist(tmp_path, "train", 3)
    assert {entry.split for entry in open_source(f"mnist:{tmp_path}").entries()} == {"train"}


@pytest.mark.parametrize("missing", ["images-idx3", "labels-idx1"])
def test_mnist_images_and_labels_come_in_pairs(tmp_path: Path, missing: str) -> None:
    write_mnist(tmp_path)
    (tmp_path / f"t10k-{missing}-ubyte").unlink()
    with pytest.raises(DataError, match=f"t10k-{missing}-ubyte: missing"):
        list(open_source(f"mnist:{tmp_path}").entries())


def test_mnist_counts_must_agree(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(4, np.uint8))
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: 4 labels for 5 images"):
        load_all(open_source(f"mnist:{tmp_path}"))


def test_a_wrong_idx_magic_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    file = tmp_path / "t10k-images-idx3-ubyte"
    file.write_bytes(b"\x89PNG" + file.read_bytes()[4:])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte: begins with 0x89504e47.*0x00000803"):
        load_all(open_source(f"mnist:{tmp_path}"))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_truncated_idx_file_is_named(tmp_path: Path, suffix: str) -> None:
    write_mnist(tmp_path, suffix=suffix)
    file = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=file.name):
        load_all(open_source(f"mnist:{tmp_path}"))


FILES = {
    "b.png": png(1),
    "sub/a.PNG": png(2),
    "a.jpg": png(3),
    "notes.txt": b"x",
    ".hidden.png": b"",
    ".git/c.png": b"",
}


def test_a_folder_is_read_recursively_by_relative_path(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    images = load_all(open_source(f"folder:{tmp_path}"))
    assert images == {"a.jpg": png(3), "b.png": png(1), "sub/a.PNG": png(2)}


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    write_files(tmp_path / "elsewhere", {"a.png": png(1)})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    assert list(load_all(open_source(f"folder:{tmp_path / 'data'}"))) == ["link/a.png"]


def test_a_zip_holds_what_its_folder_held(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name, data in (FILES | {"__MACOSX/._b.png": b"x"}).items():
            archive.writestr(name, data)
    write_files(tmp_path / "folder", FILES)
    assert load_all(open_source(f"zip:{tmp_path}/images.zip")) == load_all(open_source(f"folder:{tmp_path}/folder"))


def test_a_damaged_member_of_a_zip_is_a_bad_image(tmp_path: Path) -> None:
    file = tmp_path / "images.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", png(1))
    file.write_bytes(file.read_bytes().replace(png(1)[-30:], bytes(30)))
    with pytest.raises(ImageError, match="cannot be unpacked"):
        load_all(open_source(str(file)))


def test_a_truncated_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"images\.zip: not a zip archive"):
        list(open_source(str(tmp_path / "images.zip")).entries())


@pytest.mark.parametrize(
    ("names", "test"),
    [
        (["train/a.png", "test/b.png"], ["test/b.png"]),
        (["set/train/x/a.png", "set/test/y/b.png"], ["set/test/y/b.png"]),
        (["test/b.png"], ["test/b.png"]),
        (["train/a.png", "test/b.png", "val/c.png"], []),
        (["train/a.png", "test/b.png", "c.png"], []),
        (["cats/train/a.png", "dogs/test/b.png"], []),
    ],
)
def test_folders_named_train_and_test_are_published_splits(tmp_path: Path, names: list[str], test: list[str]) -> None:
    write_files(tmp_path, dict.fromkeys(names, png(0)))
    entries = open_source(f"folder:{tmp_path}").entries()
    assert [entry.key for entry in entries if entry.split == "test"] == test
    assert {entry.split for entry in entries if entry.key not in test} <= {"train"}


def test_tfrecords_yield_the_stored_bytes_by_name(tmp_path: Path) -> None:
    write_tfrecord(tmp_path / "b.tfrec", [example(image=png(1), image_name=b"two", target=b"monet")])
    write_tfrecord(tmp_path / "a.tfrec", [example(image_name=b"one", image=png(2)), example(image=png(3))])
    images = load_all(open_source(f"tfrecord:{tmp_path}"))
    assert images == {"a-000001": png(3), "one": png(2), "two": png(1)}
    assert load_all(open_source(str(tmp_path / "b.tfrec"))) == {"two": png(1)}


@pytest.mark.parametrize(("cut", "record"), [(5, 1), (14, 1), (60, 1), (-5, 1), (-1, 1)])
def test_a_truncated_tfrecord_names_file_and_record(tmp_path: Path, cut: int, record: int) -> None:
    file = tmp_path / "x.tfrec"
    write_tfrecord(file, [example(image=png(1))])
    first = file.stat().st_size
    write_tfrecord(file, [example(image=png(1)), example(image=png(2))])
    file.write_bytes(file.read_bytes()[: first + cut if cut > 0 else cut])
    with pytest.raises(DataError, match=rf"x\.tfrec: truncated in record {record}"):
        list(open_source(str(file)).entries())


def test_a_flipped_bit_in_a_record_is_a_bad_image(tmp_path: Path) -> None:
    file = tmp_path / "x.tfrec"
    write_tfrecord(file, [example(image=png(1), image_name=b"one")])
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    with pytest.raises(ImageError, match="does not match its checksum"):
        load_all(open_source(str(file)))


@pytest.mark.parametrize("data", [bytes(100), b"\x1f\x8b" + bytes(100)])
def test_what_is_no_tfrecord_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tfrec").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.tfrec: the length of record 0 does not match"):
        list(open_source(str(tmp_path / "x.tfrec")).entries())


@pytest.mark.parametrize(
    ("record", "message"), [(example(picture=png(1)), "there are: picture"), (b"no message", "not a tf.train.Example")]
)
def test_a_record_without_an_image_is_a_bad_image(tmp_path: Path, record: bytes, message: str) -> None:
    write_tfrecord(tmp_path / "x.tfrec", [record])
    with pytest.raises(ImageError, match=message):
        load_all(open_source(str(tmp_path / "x.tfrec")))


def test_the_kaggle_monets_are_jpegs_of_the_pictures_in_their_folder(sample_data: Path) -> None:
    records = load_all(open_source(str(sample_data / "monet2photo" / "monet_tfrec")))
    files = load_all(open_source(str(sample_data / "monet2photo" / "monet_jpg")))
    assert len(records) == 55
    shared = [name for name in records if f"{name}.jpg" in files]
    assert shared
    for name in shared:  # Kaggle compressed the two differently
        record, file = (Image.open(io.BytesIO(data)) for data in (records[name], files[f"{name}.jpg"]))
        assert record.format == "JPEG"
        difference = np.asarray(record).astype(int) - np.asarray(file)
        assert np.abs(difference).mean() < 10


def test_a_path_is_recognised_by_what_is_there(tmp_path: Path) -> None:
    for name in "mnist", "tfrecord", "folder":
        (tmp_path / name).mkdir()
    write_mnist(tmp_path / "mnist")
    write_tfrecord(tmp_path / "tfrecord" / "x.tfrecord-00000-of-00001", [example(image=png(1))])
    write_files(tmp_path / "folder", {"deep/down/a.png": png(1), "readme.md": b""})
    with zipfile.ZipFile(tmp_path / "zip.zip", "w") as archive:
        archive.writestr("a.png", png(1))
    paths = ["mnist", "tfrecord", "tfrecord/x.tfrecord-00000-of-00001", "folder", "zip.zip"]
    assert [open_source(str(tmp_path / path)).kind for path in paths] == [
        "mnist", "tfrecord", "tfrecord", "folder", "zip"
    ]  # fmt: skip


def test_a_relative_path_may_hold_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, {"run:1/a.png": png(1)})
    assert open_source("run:1").kind == "folder"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lmdb:x", "unknown scheme lmdb; there are: mnist, folder, zip, tfrecord, webdataset, parquet, hf, synthetic"),
        ("synthetic:cats", "there are: scenes-a, scenes-b, digits"),
        ("{}/missing", "missing: no such file or directory"),
        ("folder:{}/missing", "missing: no such directory"),
        ("mnist:{}/missing", "missing: no such directory"),
        ("zip:{}/missing", "missing: no such file"),
        ("tfrecord:{}/missing", "missing: no such"),
        ("{}", "nothing in it is recognised"),
        ("folder:{}", "no images in it"),
        ("mnist:{}", "no idx files"),
        ("tfrecord:{}", "no files ending in .tfrec"),
    ],
)
def test_what_cannot_be_a_source_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=message):
        list(open_source(text.format(tmp_path)).entries())


def test_count_and_seed_are_for_synthetic_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--count is for synthetic sources only"):
        open_source(str(tmp_path), count=3)


def test_a_relative_source_is_refused_in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="relative path"):
        open_source("folder:photos")


def test_the_two_domains_of_scenes_are_unpaired() -> None:
    sources = [open_source(f"synthetic:scenes-{domain}", count=20) for domain in "ab"]
    keys = [{entry.key for entry in source.entries()} for source in sources]
    assert [len(names) for names in keys] == [20, 20]
    assert not keys[0] & keys[1]


def test_scenes_are_drawn_at_the_size_and_from_the_seed_asked_for() -> None:
    images = [load_all(open_source("synthetic:scenes-a", size=32, count=2, seed=seed)) for seed in (0, 0, 1)]
    assert [image.shape for image in images[0].values()] == [(32, 32, 3)] * 2
    np.testing.assert_array_equal(images[0]["scene-00000001"], images[1]["scene-00000001"])
    assert (images[0]["scene-00000001"] != images[2]["scene-00000001"]).any()


def test_scenes_have_their_attributes_as_columns(tmp_path: Path) -> None:
    ingest(IngestConfig("synthetic:scenes-b", str(tmp_path / "data"), size=32, count=5, seed=3, label="season"))
    shards = ShardSet.open(str(tmp_path / "data"))
    assert shards.manifest.label_names == ("spring", "summer", "autumn")
    assert [(one.name, one.kind) for one in shards.manifest.attributes] == [
        ("horizon", "float"),
        ("sun_x", "float"),
        ("lake", "int"),
        ("houses", "int"),
    ]
    rows = np.arange(5)
    columns = shards.columns(rows)
    columns["season"] = np.array(shards.manifest.label_names)[columns.pop("label")]
    for row, key in enumerate(shards.keys(rows)):
        expected = scene_attributes(int(key.removeprefix("scene-")), seed=3)
        assert {name: values[row] for name, values in columns.items()} == expected._asdict()


def test_digits_have_labels() -> None:
    source = open_source("synthetic:digits", count=3)
    assert isinstance(source, Synthetic)
    assert source.label_names() == tuple("0123456789")
    with source.reader() as load:
        samples = [load(entry) for entry in source.entries()]
    assert all(sample.label in range(10) for sample in samples)
    assert [entry.key for entry in source.entries()] == ["digit-00000000", "digit-00000001", "digit-00000002"]


def test_an_archive_that_cannot_be_read_any_more_is_no_bad_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.png", encode_png(np.zeros((8, 8, 3), np.uint8)))
    source = open_source(f"zip:{tmp_path}/images.zip")
    with source.reader() as load:
        monkeypatch.setattr(zipfile.ZipFile, "read", mock.Mock(side_effect=OSError(5, "Input/output error")))
        with pytest.raises(DataError, match=r"images\.zip: cannot be read \(Input/output error\)") as raised:
            load(next(source.entries()))
    assert not isinstance(raised.value, ImageError)


def test_a_store_that_is_away_makes_no_bad_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    away = StorageError("s3://bucket/folder/a.png: gave up")
    monkeypatch.setattr("genlab.data.ingest.sources.files.read_bytes", mock.Mock(side_effect=away))
    with Folder("s3://bucket/folder").reader() as load, pytest.raises(StorageError):
        load(Entry("a.png", ""))
