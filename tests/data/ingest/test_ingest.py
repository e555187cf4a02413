import dataclasses
import io
import os
import pickle
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.cli import ingest as ingest_module
from genlab.cli import inspect as inspect_module
from genlab.core.errors import ConfigError, DataError, GenlabError
from genlab.core.ray_cluster import connected
from genlab.data.format.manifest import Manifest
from genlab.data.format.shards import ShardSet
from genlab.data.ingest import shard_makers
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.shard_makers import make_on_ray
from genlab.data.ingest.shard_task import ShardResult, ShardTasks
from genlab.data.ingest.sources.synthetic import counterparts
from genlab.data.ingest.synthetic import draw_scene
from genlab.imaging.images import encode_png
from tests.data.ingest.test_sources import example, write_tfrecord
from tests.data.support import assert_ingest_refuses


def picture(seed: int, height: int = 12, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(folder: Path, name: str, image: np.ndarray | Image.Image, **options: Any) -> bytes:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, **options)
    return file.read_bytes()


def everything(data: Path) -> ShardSet:
    shards = ShardSet.open(str(data))
    shards.verify()
    return shards


def rows(shards: ShardSet) -> np.ndarray:
    return np.arange(len(shards))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty small PNG files in a folder."""
    for number in range(20):
        write(tmp_path / "photos", f"{number:02d}.png", picture(number))
    return tmp_path / "photos"


def test_a_folder_keeps_its_files_untouched(photos: Path, tmp_path: Path) -> None:
    manifest = ingest(IngestConfig(str(photos), str(tmp_path / "data")))
    shards = everything(tmp_path / "data")
    assert manifest == shards.manifest
    assert (manifest.encoding, manifest.shape, manifest.splits) == ("encoded", (12, 12, 3), {"train": 20})
    assert shards.keys(rows(shards)) == [f"{number:02d}.png" for number in range(20)]
    assert shards.encoded(rows(shards)) == [file.read_bytes() for file in sorted(photos.iterdir())]
    assert (manifest.origin.kind, manifest.origin.path) == ("folder", str(photos))


def test_raw_holds_the_pixels(photos: Path, tmp_path: Path) -> None:
    ingest(IngestConfig(f"folder:{photos}", str(tmp_path / "data"), encoding="raw"))
    shards = everything(tmp_path / "data")
    np.testing.assert_array_equal(shards.read(rows(shards)).image, [picture(number) for number in range(20)])


def test_the_same_input_gives_the_same_data_set_in_shards_of_the_size_asked_for(photos: Path, tmp_path: Path) -> None:
    config = IngestConfig(str(photos), "", encoding="raw", shard_size=3 * 12 * 12 * 3 / 2**20, test_fraction=0.3)
    first, second = (ingest(dataclasses.replace(config, dest=str(tmp_path / name))) for name in ("one", "two"))
    assert first == second
    assert first.checksum == second.checksum
    assert all(shard.rows <= 3 for shard in first.shards)
    splits = [shard.split for shard in first.shards]
    assert splits == sorted(splits, reverse=True)
    assert set(splits) == {"train", "test"}


def test_an_image_stays_in_its_split_when_others_come(photos: Path, tmp_path: Path) -> None:
    def test_keys(name: str) -> set[str]:
        ingest(IngestConfig(str(photos), str(tmp_path / name), test_fraction=0.4))
        shards = ShardSet.open(str(tmp_path / name)).split("test")
        return set(shards.keys(rows(shards)))

    before = test_keys("before")
    for number in range(20, 60):
        write(photos, f"{number:02d}.png", picture(number))
    after = test_keys("after")
    assert before
    assert {key for key in after if key < "20"} == before
    assert 10 < len(after) < 40


@pytest.mark.parametrize(("fraction", "splits"), [(0.0, {"train": 20}), (1.0, {"test": 20})])
def test_the_ends_of_the_test_fraction(photos: Path, tmp_path: Path, fraction: float, splits: dict[str, int]) -> None:
    manifest = ingest(IngestConfig(str(photos), str(tmp_path / "data"), test_fraction=fraction))
    assert manifest.splits == splits


def split_keys(photos: Path, dest: Path, **fractions: Any) -> dict[str, set[str]]:
    ingest(IngestConfig(str(photos), str(dest), **fractions))
    shards = everything(dest)
    parts = {split: shards.split(split) for split in shards.manifest.splits}
    return {split: set(part.keys(rows(part))) for split, part in parts.items()}


def test_a_validation_split_comes_from_the_training_images_and_leaves_the_test_split_as_it_was(
    photos: Path, tmp_path: Path
) -> None:
    without = split_keys(photos, tmp_path / "without", test_fraction=0.3)
    found = split_keys(photos, tmp_path / "with", test_fraction=0.3, validation_fraction=0.3)
    assert [*found] == ["train", "validation", "test"]
    assert found["test"] == without["test"]
    assert found["validation"]
    assert found["train"] | found["validation"] == without["train"]
    # Nor does the validation split depend on the test fraction.
    assert (
        split_keys(photos, tmp_path / "more", test_fraction=0.6, validation_fraction=0.3)["validation"]
        == (found["validation"])
    )


def test_a_validation_split_leaves_a_published_test_split_as_it_was(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / "photos", f"{'test' if number < 8 else 'train'}/{number:02d}.png", picture(number))
    found = split_keys(tmp_path / "photos", tmp_path / "data", validation_fraction=0.5)
    assert found["test"] == {f"test/{number:02d}.png" for number in range(8)}
    assert all(key.startswith("train/") for key in found["validation"])
    assert found["validation"]
    assert found["train"]


def test_fractions_of_more_than_all_images_are_refused(photos: Path, tmp_path: Path) -> None:
    config = IngestConfig(str(photos), str(tmp_path / "data"), test_fraction=0.7, validation_fraction=0.4)
    with pytest.raises(ConfigError, match=r"--test-fraction 0\.7 and --validation-fraction 0\.4 are more than all"):
        ingest(config)


def test_published_splits_are_kept(tmp_path: Path) -> None:
    for name in "test/a.png", "train/b.png", "train/c.png":
        write(tmp_path / "photos", name, picture(0))
    manifest = ingest(IngestConfig(str(tmp_path / "photos"), str(tmp_path / "data")))
    assert manifest.splits == {"train": 2, "test": 1}


def test_conversions_are_counted(photos: Path, tmp_path: Path) -> None:
    write(photos, "grey-0.png", picture(0)[:, :, 0])
    write(photos, "grey-1.jpg", picture(1)[:, :, 0])
    write(photos, "alpha.png", np.dstack([picture(2), picture(3)[:, :, :1]]))
    write(photos, "cmyk.jpg", Image.fromarray(picture(4)).convert("CMYK"))
    exif = Image.Exif()
    exif[0x0112] = 3
    write(photos, "exif.jpg", picture(5), exif=exif)
    manifest = ingest(IngestConfig(str(photos), str(tmp_path / "data")))
    assert manifest.converted == {"alpha": 1, "cmyk": 1, "exif": 1, "grey": 2}
    shards = everything(tmp_path / "data")
    assert shards.read(rows(shards)).image.shape == (25, 12, 12, 3)


def test_size_makes_raw_squares(photos: Path, tmp_path: Path) -> None:
    write(photos, "wide.png", picture(0, 10, 30))
    manifest = ingest(IngestConfig(str(photos), str(tmp_path / "data"), size=8))
    assert (manifest.encoding, manifest.shape) == ("raw", (8, 8, 3))


def test_sizes_may_differ_when_encoded(photos: Path, tmp_path: Path) -> None:
    write(photos, "wide.png", picture(0, 10, 30))
    assert ingest(IngestConfig(str(photos), str(tmp_path / "data"))).shape is None
    everything(tmp_path / "data")


def test_mixed_sizes_are_refused_when_raw(photos: Path, tmp_path: Path) -> None:
    write(photos, "wide.png", picture(0, 10, 30))
    with pytest.raises(DataError, match=r"wide\.png is 30x10 pixels, but 00\.png is 12x12.*--size") as caught:
        ingest(IngestConfig(str(photos), str(tmp_path / "data"), encoding="raw", skip_bad=True))
    assert "--encoding encoded" in str(caught.value)
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_bad_images_are_skipped_when_told_to(photos: Path, tmp_path: Path) -> None:
    (photos / "00.png").write_text("text")
    (photos / "07.png").write_bytes((photos / "07.png").read_bytes()[:200])
    manifest = ingest(IngestConfig(str(photos), str(tmp_path / "data"), skip_bad=True))
    assert [skipped.key for skipped in manifest.skipped] == ["00.png", "07.png"]
    assert "not an image" in manifest.skipped[0].why
    assert manifest.rows == 18
    assert "00.png" not in everything(tmp_path / "data").keys(np.arange(18))


def test_without_validation_a_damaged_file_passes_untouched(tmp_path: Path) -> None:
    damaged = write(tmp_path / "photos", "a.jpg", picture(0, 64, 64))[:-400]
    (tmp_path / "photos" / "a.jpg").write_bytes(damaged)
    ingest(IngestConfig(str(tmp_path / "photos"), str(tmp_path / "data"), validate=False))
    assert ShardSet.open(str(tmp_path / "data")).encoded(np.array([0])) == [damaged]


def test_a_data_set_is_never_overwritten(photos: Path, tmp_path: Path) -> None:
    ingest(IngestConfig(str(photos), str(tmp_path / "data")))
    with pytest.raises(DataError, match="holds a data set already"):
        ingest(IngestConfig(str(photos), str(tmp_path / "data"), size=4))
    assert Manifest.load(str(tmp_path / "data")).shape == (12, 12, 3)


def test_a_file_is_no_place_for_a_data_set(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(DataError, match="data: cannot be written"):
        ingest(IngestConfig(str(photos), str(tmp_path / "data")))
    assert (tmp_path / "data").read_text() == "mine"


def test_a_failed_ingest_can_be_repeated_in_its_place(photos: Path, tmp_path: Path) -> None:
    good = (photos / "19.png").read_bytes()
    (photos / "19.png").write_bytes(good[:100])
    config = IngestConfig(str(photos), str(tmp_path / "data"), shard_size=1e-3)
    with pytest.raises(DataError, match=r"19\.png: cannot be decoded.*--skip-bad"):
        ingest(config)
    assert list((tmp_path / "data").iterdir())
    (photos / "19.png").write_bytes(good)
    manifest = ingest(dataclasses.replace(config, shard_size=64))
    files = {file.name for file in (tmp_path / "data").iterdir()}
    assert files == {"manifest.json", "index.arrow"} | {shard.file for shard in manifest.shards}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"fit": "crop"}, "--fit crop needs --size"), ({"fit": "keep", "size": 4}, "--fit keep leaves images")],
)
def test_options_at_odds_are_refused(photos: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ingest(IngestConfig(str(photos), str(tmp_path / "data"), **options))


def test_two_records_of_one_name_are_refused(tmp_path: Path) -> None:
    records = [example(image=encode_png(picture(number)), image_name=b"same") for number in range(2)]
    write_tfrecord(tmp_path / "x.tfrec", records)
    with pytest.raises(DataError, match=r"record 0 .* record 1 .* have one name"):
        ingest(IngestConfig(str(tmp_path / "x.tfrec"), str(tmp_path / "data")))


def truncated_jpeg(folder: Path) -> str:
    (folder / "bad.jpg").write_bytes(write(folder, "bad.jpg", picture(0, 64, 64), quality=95)[:-400])
    return "bad.jpg"


def text_named_png(folder: Path) -> str:
    (folder / "bad.png").write_text("words")
    return "bad.png"


def truncated_tfrecord(folder: Path) -> str:
    write_tfrecord(folder / "bad.tfrec", [example(image=encode_png(picture(0)))])
    (folder / "bad.tfrec").write_bytes((folder / "bad.tfrec").read_bytes()[:-9])
    return "bad.tfrec: truncated in record 0"


def wrong_idx_magic(folder: Path) -> str:
    (folder / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x801, 1, 1, 1) + b"\0")
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 1) + b"\0")
    return "train-images-idx3-ubyte: begins with 0x00000801"


def empty_folder(folder: Path) -> str:
    return f"{folder}: nothing in it is recognised"


def no_folder(folder: Path) -> str:
    folder.rmdir()
    return f"{folder}: no such file or directory"


BAD_INPUT = [truncated_jpeg, text_named_png, truncated_tfrecord, wrong_idx_magic, empty_folder, no_folder]


@pytest.mark.parametrize("make", BAD_INPUT, ids=lambda make: make.__name__)
def test_bad_input_ends_the_command_with_one_message(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    message = make(tmp_path / "source")
    assert_ingest_refuses(tmp_path / "source", tmp_path / "data", message, capsys)


@pytest.mark.parametrize("option", ["--sice", "--size=0", "--test-fraction=2", "--channels=2"])
def test_a_wrong_option_ends_the_command(
    option: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        ingest_module.main([str(photos), str(tmp_path / "data"), option])
    assert ended.value.code == 2
    assert option.strip("-").split("=")[0].replace("-", "_") in capsys.readouterr().err.replace("-", "_")
    assert not (tmp_path / "data").exists()


def test_the_command_says_what_it_made(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest_module.main([str(photos), str(tmp_path / "data"), "--channels", "1", "--size", "8", "--fit", "resize"])
    said = capsys.readouterr().out
    assert "20 images (train 20)" in said
    assert "20 colour" in said
    assert Manifest.load(str(tmp_path / "data")).shape == (8, 8, 1)


def test_mnist_as_published(sample_data: Path, tmp_path: Path) -> None:
    manifest = ingest(IngestConfig(f"mnist:{sample_data / 'mnist'}", str(tmp_path / "data")))
    assert (manifest.splits, manifest.shape, manifest.encoding) == ({"test": 10_000}, (28, 28, 1), "raw")
    assert manifest.columns == ("image", "key", "label")
    labels = everything(tmp_path / "data").read(np.arange(10_000)).columns["label"]
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_tfrecord_jpegs_stay_untouched_and_equal_their_folder(sample_data: Path, tmp_path: Path) -> None:
    ingest(IngestConfig(str(sample_data / "monet2photo" / "monet_tfrec"), str(tmp_path / "records")))
    records = everything(tmp_path / "records")
    jpegs = records.encoded(rows(records))
    (tmp_path / "jpegs").mkdir()
    for key, data in zip(records.keys(rows(records)), jpegs, strict=True):
        assert data.startswith(b"\xff\xd8")
        (tmp_path / "jpegs" / f"{key}.jpg").write_bytes(data)
    ingest(IngestConfig(str(tmp_path / "jpegs"), str(tmp_path / "raw"), encoding="raw"))
    raw = everything(tmp_path / "raw")
    expected = [np.asarray(Image.open(io.BytesIO(data))) for data in jpegs]
    np.testing.assert_array_equal(raw.read(rows(raw)).image, expected)


@pytest.mark.parametrize(("domain", "other"), [("a", "b"), ("b", "a")])
def test_scenes_know_their_counterparts(tmp_path: Path, domain: str, other: Any) -> None:
    ingest(IngestConfig(f"synthetic:scenes-{domain}", str(tmp_path / "data"), count=3, seed=5, size=32))
    shards = everything(tmp_path / "data")
    found = counterparts(shards, np.array([2, 0]))
    first = 0 if domain == "a" else 1_000_000
    expected = [draw_scene(first + row, other, seed=5, size=32) for row in (2, 0)]
    np.testing.assert_array_equal(found, expected)


def test_only_scenes_in_colour_have_counterparts(photos: Path, tmp_path: Path) -> None:
    ingest(IngestConfig(str(photos), str(tmp_path / "photos-data")))
    ingest(IngestConfig("synthetic:scenes-a", str(tmp_path / "grey"), count=1, size=32, channels=1))
    ingest(IngestConfig("synthetic:digits", str(tmp_path / "digits"), count=2))
    for name in "photos-data", "grey", "digits":
        assert counterparts(ShardSet.open(str(tmp_path / name)), np.array([0])) is None


def test_digits_are_grey_and_labelled(tmp_path: Path) -> None:
    manifest = ingest(IngestConfig("synthetic:digits", str(tmp_path / "data"), count=6, test_fraction=0.5))
    assert manifest.shape == (28, 28, 1)
    assert manifest.label_names == tuple("0123456789")
    assert "label" in everything(tmp_path / "data").read(np.arange(6)).columns


def test_inspect_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = ingest(IngestConfig("synthetic:digits", str(tmp_path / "data"), count=40, test_fraction=0.5))
    inspect_module.main([str(tmp_path / "data"), "--verify"])
    said = capsys.readouterr().out
    for fact in (
        "28x28",
        "label 7",
        "synthetic:digits",
        manifest.checksum,
        f"{manifest.splits['test']}",
        "every checksum",
    ):
        assert fact in said


def test_inspect_finds_a_flipped_bit(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest(IngestConfig(str(photos), str(tmp_path / "data")))
    shard = tmp_path / "data" / "shard-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    inspect_module.main([str(tmp_path / "data")])
    with pytest.raises(SystemExit):
        inspect_module.main([str(tmp_path / "data"), "--verify"])
    assert "shard-00000.arrow" in capsys.readouterr().err


@pytest.mark.parametrize("wide", [False, True])
def test_inspect_draws_a_sheet(photos: Path, tmp_path: Path, wide: bool) -> None:
    if wide:
        write(photos, "wide.png", picture(0, 10, 30))
    ingest(IngestConfig(str(photos), str(tmp_path / "data")))
    inspect_module.main([str(tmp_path / "data"), "--grid", str(tmp_path / "sheet.png"), "--split", "train"])
    side = 128 if wide else 12
    page = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert page.shape == (2 + 3 * (side + 2), 2 + 8 * (side + 2), 3)
    if not wide:
        np.testing.assert_array_equal(page[2:14, 2:14], picture(0))


def test_inspect_names_the_splits_there_are(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest(IngestConfig(str(photos), str(tmp_path / "data")))
    with pytest.raises(SystemExit):
        inspect_module.main([str(tmp_path / "data"), "--split", "val"])
    assert "train" in capsys.readouterr().err


@pytest.mark.cluster
def test_a_cluster_makes_the_same_bytes_and_gives_the_same_message(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected():
        config = IngestConfig(str(photos), str(tmp_path / "local"), test_fraction=0.3, shard_size=2e-3)
        local = ingest(config)
        assert len(local.shards) > 3
        assert ingest(dataclasses.replace(config, dest=str(tmp_path / "ray")), make_on_ray) == local
        everything(tmp_path / "ray")
        # The death of workers costs nothing but time. Each shard's first worker dies before it can say that it is done.
        # Results come one by one: the last shard waits until another's is here.
        make, deaths, one_is_here = shard_makers._make, tmp_path / "deaths", tmp_path / "one is here"
        deaths.mkdir()

        def make_and_die(task: bytes) -> ShardResult | GenlabError:
            result = make(task)
            name = Path(pickle.loads(task).path).name
            if not (deaths / name).exists():
                (deaths / name).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            deadline = time.monotonic() + 60
            while name == local.shards[-1].file and not one_is_here.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            return result

        def run(tasks: ShardTasks) -> Iterator[ShardResult]:
            for result in make_on_ray(tasks):
                one_is_here.touch()
                yield result

        with monkeypatch.context() as patch:
            patch.setattr(shard_makers, "_make", make_and_die)
            assert ingest(dataclasses.replace(config, dest=str(tmp_path / "kills")), run) == local
        assert len(list(deaths.iterdir())) == len(local.shards)
        everything(tmp_path / "kills")
        (photos / "11.png").write_bytes((photos / "11.png").read_bytes()[:100])
        with pytest.raises(DataError, match=r"11\.png: cannot be decoded"):
            ingest(dataclasses.replace(config, dest=str(tmp_path / "bad")), make_on_ray)
        assert not (tmp_path / "bad" / "manifest.json").exists()
