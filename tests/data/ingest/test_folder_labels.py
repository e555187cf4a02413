"""Labels from the folders that images lie in: ``--label folder``."""

import dataclasses
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genlab.cli import export as export_module
from genlab.cli import ingest as ingest_module
from genlab.core.errors import ConfigError, DataError
from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.attributes import AttributesConfig
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.shard_task import ShardResult, ShardTask, make_shard
from tests.data.ingest.test_sources import png, write_files
from tests.data.ingest.test_tables import write_tar
from tests.s3 import Bucket

ANIMALS = ("animals/cat/1.png", "animals/dog/1.png", "plants/cat/1.png", "plants/cat/2.png")


def write(folder: Path, names: Sequence[str]) -> Path:
    write_files(folder, {name: png(number) for number, name in enumerate(names)})
    return folder


def made(source: str | Path, dest: str | Path, **options: Any) -> ShardSet:
    ingest(IngestConfig(str(source), str(dest), **({"label": "folder"} | options)))
    shards = ShardSet.open(str(dest))
    shards.verify()
    return shards


def classes(shards: ShardSet) -> dict[str, str]:
    """Key → name of its class."""
    rows = np.arange(len(shards))
    labels = shards.columns(rows)["label"].tolist()
    return {key: shards.manifest.label_names[label] for key, label in zip(shards.keys(rows), labels, strict=True)}


def test_a_class_is_the_path_of_folders(tmp_path: Path) -> None:
    shards = made(write(tmp_path / "photos", ANIMALS), tmp_path / "data")
    assert shards.manifest.label_names == ("animals/cat", "animals/dog", "plants/cat")
    assert classes(shards) == {name: name.rpartition("/")[0] for name in ANIMALS}
    assert shards.manifest.attributes == ()
    assert shards.manifest.origin.options["label"] == "folder"


def test_the_last_folder_alone_may_be_the_class(tmp_path: Path) -> None:
    shards = made(write(tmp_path / "photos", ANIMALS), tmp_path / "data", label_last_folder=True)
    assert shards.manifest.label_names == ("cat", "dog")
    assert classes(shards) == {name: name.split("/")[1] for name in ANIMALS}
    assert shards.manifest.origin.options["label_last_folder"] is True


@pytest.mark.parametrize("above", ["", "set/"])
def test_folders_count_below_that_of_the_split(tmp_path: Path, above: str) -> None:
    names = [
        f"{above}{name}" for name in ("train/a/cat/1.png", "train/dog/1.png", "test/a/cat/2.png", "test/dog/2.png")
    ]
    shards = made(write(tmp_path / "photos", names), tmp_path / "data")
    assert shards.manifest.label_names == ("a/cat", "dog")
    assert shards.manifest.splits == {"train": 2, "test": 2}
    assert set(classes(shards.split("test")).values()) == {"a/cat", "dog"}


def test_without_splits_folders_count_from_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write(tmp_path / "photos", ["train/cat/1.png", "test/cat/2.png", "val/cat/3.png"])
    shards = made(photos, tmp_path / "data")
    assert shards.manifest.label_names == ("test/cat", "train/cat", "val/cat")
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("--label folder")]
    assert "test/cat is taken as a class" in note
    assert made(photos, tmp_path / "last", label_last_folder=True).manifest.label_names == ("cat",)
    assert "--label folder" not in capsys.readouterr().out
    made(write(tmp_path / "others", ["Training/cat/1.png", "Validation/cat/3.png"]), tmp_path / "others-data")
    assert "Training/cat is taken as a class" in capsys.readouterr().out


def test_a_zip_and_a_tar_are_labelled_as_their_folder(tmp_path: Path) -> None:
    names = [f"train/{name}" for name in ANIMALS]
    folder = made(write(tmp_path / "photos", names), tmp_path / "folder")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in names:
            archive.write(tmp_path / "photos" / name, name)
    packed = made(tmp_path / "photos.zip", tmp_path / "zip")
    assert classes(packed) == classes(folder)
    assert packed.manifest.label_names == folder.manifest.label_names
    for part in range(2):  # archives that share keys, which their names then lead
        write_tar(tmp_path / "tars" / f"{part}.tar", {name: png(part) for name in names})
    tars = made(tmp_path / "tars", tmp_path / "tar")
    assert tars.manifest.label_names == folder.manifest.label_names
    assert classes(tars) == {
        f"{part}/train/{name.removesuffix('.png')}": name.rpartition("/")[0] for part in range(2) for name in ANIMALS
    }


@pytest.mark.slow
def test_folders_on_s3(tmp_path: Path, s3: Bucket) -> None:
    for name in ANIMALS:
        (locate(s3.url) / "photos" / "test" / name).write_bytes(png(1))
    shards = made(f"folder:{s3.url}/photos", f"{s3.url}/data")
    assert shards.manifest.splits == {"test": 4}
    assert classes(shards) == {f"test/{name}": name.rpartition("/")[0] for name in ANIMALS}


@pytest.mark.parametrize(
    ("stray", "why"),
    [
        ("x.png", r"x\.png: lies beside folders of classes, such as animals/cat"),
        ("plants/x.png", r"plants/x\.png: lies beside folders of classes, such as plants/cat"),
    ],
)
def test_images_beside_the_folders_are_refused_or_left_out(tmp_path: Path, stray: str, why: str) -> None:
    photos = write(tmp_path / "photos", [*ANIMALS, stray])
    with pytest.raises(DataError, match=rf"{why}.*--skip-bad"):
        made(photos, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    shards = made(photos, tmp_path / "data", skip_bad=True)
    assert set(classes(shards)) == set(ANIMALS)
    assert shards.manifest.label_names == ("animals/cat", "animals/dog", "plants/cat")
    (skipped,) = shards.manifest.skipped
    assert skipped.key == stray
    assert "lies beside folders of classes" in skipped.why


def test_images_beside_the_folders_of_a_split_are_refused(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", ["train/cat/1.png", "train/dog/1.png", "train/x.png"])
    with pytest.raises(DataError, match=r"train/x\.png: lies beside folders of classes, such as cat"):
        made(photos, tmp_path / "data", label_last_folder=True)


@pytest.mark.parametrize("names", [["1.png", "2.png"], ["train/1.png", "test/2.png"]])
def test_images_in_no_folders_have_no_such_label(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--label folder: the images of .*photos do not lie in folders of classes"):
        made(write(tmp_path / "photos", names), tmp_path / "data")


def test_a_column_called_folder_goes_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write(tmp_path / "photos", ["cat/1.png", "dog/2.png"])
    (tmp_path / "x.csv").write_text("file,folder\ncat/1.png,left\ndog/2.png,right\n")
    image = pa.array([png(1), png(2)], pa.binary())
    pq.write_table(pa.table({"image": image, "folder": ["left", "right"]}), tmp_path / "x.parquet")
    samples = {"cat/1.png": png(1), "cat/1.json": b'{"folder": "left"}', "dog/2.png": png(2)}
    tar = write_tar(tmp_path / "x.tar", samples | {"dog/2.json": b'{"folder": "right"}'})
    pattern = AttributesConfig(pattern=r"/(?P<folder>\d)\.")
    for number, (source, attributes, names) in enumerate(
        [
            (photos, AttributesConfig(csv=str(tmp_path / "x.csv")), ("left", "right")),
            (photos, pattern, ("0", "1", "2")),
            (tmp_path / "x.parquet", AttributesConfig(), ("left", "right")),
            (tar, AttributesConfig(), ("left", "right")),
        ]
    ):
        capsys.readouterr()
        shards = made(source, tmp_path / f"data-{number}", attributes=attributes)
        assert shards.manifest.label_names == names
        assert capsys.readouterr().out.count("the label is the column called folder, not the folders") == 1


def test_folders_and_other_columns_go_together(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", ["cat/1.png", "dog/2.png"])
    attributes = AttributesConfig(pattern=r"/(?P<number>\d)\.")
    shards = made(photos, tmp_path / "data", attributes=attributes)
    assert shards.manifest.label_names == ("cat", "dog")
    assert shards.columns(np.arange(2))["number"].tolist() == [1, 2]


def test_folders_that_are_numbers_may_be_told_in_their_order(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", ["0/a.png", "2/b.png", "10/c.png"])
    assert made(photos, tmp_path / "texts").manifest.label_names == ("0", "10", "2")
    numbers = made(photos, tmp_path / "numbers", attributes=AttributesConfig(kinds=("folder=int",)))
    assert numbers.manifest.label_names == tuple(str(number) for number in range(11))
    assert {key: int(name) for key, name in classes(numbers).items()} == {"0/a.png": 0, "2/b.png": 2, "10/c.png": 10}


def test_the_last_folder_goes_with_the_label_folder(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", ANIMALS)
    with pytest.raises(ConfigError, match="--label-last-folder goes with --label folder"):
        made(photos, tmp_path / "data", label=None, label_last_folder=True)


def test_ingest_points_at_folders_where_no_label_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write(tmp_path / "photos", [*ANIMALS, "x.png"])
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label", *(f"{name},{number % 2}" for number, name in enumerate(ANIMALS))]))
    flat, one = write(tmp_path / "flat", ["1.png", "2.png"]), write(tmp_path / "one", ["part/1.png", "part/2.png"])
    cases: list[tuple[Path, list[str], bool]] = [
        (photos, [], True),
        (photos, ["--label", "folder", "--skip-bad"], False),
        (photos, ["--attributes.csv", str(table), "--skip-bad"], False),
        (flat, [], False),
        (one, [], False),
    ]
    for number, (source, options, hint) in enumerate(cases):
        ingest_module.main([str(source), str(tmp_path / f"data-{number}"), *options])
        lines = [line for line in capsys.readouterr().out.splitlines() if "--label folder" in line]
        expected = "no labels: the images lie in 3 folders, such as animals/cat and animals/dog"
        assert [line.startswith(expected) for line in lines] == [True] * hint


class _PowerCutError(BaseException):
    pass


def test_a_restarted_ingest_makes_the_same_shards(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", ANIMALS)
    config = IngestConfig(str(photos), str(tmp_path / "whole"), label="folder", shard_size=1e-5)
    whole = ingest(config)
    assert len(whole.shards) == 4

    def die(tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
        yield make_shard(tasks[0])
        raise _PowerCutError

    again = dataclasses.replace(config, dest=str(tmp_path / "again"))
    with pytest.raises(_PowerCutError):
        ingest(again, die)
    first = tmp_path / "again" / "shard-00000.arrow"
    before = first.stat().st_mtime_ns
    with pytest.raises(DataError, match=r"unfinished ingest.*--label-last-folder False then, True now"):
        ingest(dataclasses.replace(again, label_last_folder=True))
    assert ingest(again) == whole
    assert first.stat().st_mtime_ns == before


def test_an_ingest_that_was_begun_before_an_option_existed_is_gone_on_with(tmp_path: Path) -> None:
    config = IngestConfig(str(write(tmp_path / "photos", ANIMALS)), str(tmp_path / "data"), shard_size=1e-5)

    def die(tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
        yield make_shard(tasks[0])
        specification = tmp_path / "data" / "ingest.json"
        content = json.loads(specification.read_bytes())
        del content["--label-last-folder"]
        specification.write_text(json.dumps(content))
        raise _PowerCutError

    with pytest.raises(_PowerCutError):
        ingest(config, die)
    first = tmp_path / "data" / "shard-00000.arrow"
    before = first.stat().st_mtime_ns
    assert len(ingest(config).shards) == 4
    assert first.stat().st_mtime_ns == before


@pytest.mark.parametrize("last", [False, True])
def test_labels_come_back_from_an_export(tmp_path: Path, last: bool, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write(tmp_path / "photos", [f"{split}/{name}" for split in ("train", "test") for name in ANIMALS])
    shards = made(photos, tmp_path / "data", label_last_folder=last)
    export_module.main([str(tmp_path / "data"), str(tmp_path / "files")])
    command = re.sub(r"\bDEST\b", str(tmp_path / "again"), capsys.readouterr().out.splitlines()[-1]).split()
    assert command[:2] == ["genlab", "ingest"]
    ingest_module.main(command[2:])
    by_table, by_folders = ShardSet.open(str(tmp_path / "again")), tmp_path / "by-folders"
    (tmp_path / "files" / "metadata.csv").unlink()
    for again in (by_table, made(tmp_path / "files", by_folders, label_last_folder=last)):
        assert again.manifest.label_names == shards.manifest.label_names
        assert again.manifest.splits == shards.manifest.splits
        assert classes(again) == classes(shards)
