"""A data set back to files: nothing lost, whatever its images are called."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.cli.export import main
from genlab.core.errors import DataError
from genlab.core.storage import locate
from genlab.data.format.manifest import Attribute, Manifest, Origin
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.attributes import AttributesConfig
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.to_files import export_files
from tests.data.support import write_shard

ATTRIBUTES = (
    Attribute("age", "int"),
    Attribute("weight", "float"),
    Attribute("mood", "category", ("sad", "glad, or so", 'called "none"', "unused")),
    Attribute("code", "category", ("007", "08")),
    Attribute("whole", "float"),
)
KEYS = [
    "a.png",
    "a",
    "b/c.png",
    "b",
    "../up.png",
    "/root.png",
    ".hidden.png",
    "x\ny",
    "photo.jpg",
    "ß/é.PNG",
    "b/",
    "z" * 300,
]


def write_data(directory: Path, label_names: tuple[str, ...] = ("zebra", "ant")) -> np.ndarray:
    """A raw data set with every kind of column, under keys of every kind."""
    images = np.random.default_rng(0).integers(0, 256, (len(KEYS), 5, 7, 3), np.uint8)
    rows = range(len(KEYS))
    attributes: dict[Attribute, list[Any]] = dict(
        zip(
            ATTRIBUTES,
            [
                [row - 5 for row in rows],
                [row / 3 for row in rows],
                [row % 3 for row in rows],
                [row % 2 for row in rows],
                [float(row) for row in rows],
            ],
            strict=True,
        )
    )
    order = sorted(rows, key=lambda row: KEYS[row])
    shard = write_shard(
        locate(directory / "shard-00000.arrow"),
        split="train",
        encoding="raw",
        shape=(5, 7, 3),
        images=[images[row] for row in order],
        keys=[KEYS[row] for row in order],
        labels=[row % 2 for row in order],
        attributes={one: [values[row] for row in order] for one, values in attributes.items()},
    )
    Manifest(
        encoding="raw",
        channels=3,
        shape=(5, 7, 3),
        label_names=label_names,
        attributes=ATTRIBUTES,
        shards=(shard,),
        origin=Origin("test", "", {}, {}),
        converted={},
    ).save(locate(directory))
    return images


def content(shards: ShardSet) -> tuple[Any, ...]:
    rows = np.arange(len(shards))
    columns = {name: column.tolist() for name, column in shards.columns(rows).items()}
    return shards.keys(rows), columns, shards.manifest.label_names, shards.manifest.attributes, shards.manifest.splits


def again(folder: Path, dest: Path, **options: Any) -> ShardSet:
    table = AttributesConfig(csv=str(folder / "metadata.csv"))
    ingest(IngestConfig(f"folder:{folder}", str(dest), attributes=table, **options))
    return ShardSet.open(str(dest))


@pytest.mark.parametrize("label_names", [("zebra", "ant"), ("0", "1"), ("0", "1", "2"), ("ant", "zebra")])
def test_there_and_back_again_nothing_is_lost(tmp_path: Path, label_names: tuple[str, ...]) -> None:
    write_data(tmp_path / "data", label_names)
    before = ShardSet.open(str(tmp_path / "data"))
    export_files(str(tmp_path / "data"), str(tmp_path / "files"))
    assert {file.name for file in tmp_path.iterdir()} == {"data", "files"}
    after = again(tmp_path / "files", tmp_path / "again", encoding="raw")
    assert content(after) == content(before)
    rows = np.arange(len(before))
    np.testing.assert_array_equal(after.read(rows).image, before.read(rows).image)


def test_files_are_called_by_their_keys_where_these_are_good_names(tmp_path: Path) -> None:
    images = write_data(tmp_path / "data")
    export_files(str(tmp_path / "data"), str(tmp_path / "files"))
    with (tmp_path / "files" / "metadata.csv").open(newline="") as file:
        names = {row["key"]: row["file_name"] for row in csv.DictReader(file)}
    good = {key: name for key, name in names.items() if not name.startswith("unnamed/")}
    assert good == {
        "a": "a.png", "b": "b.png", "b/c.png": "b/c.png", "photo.jpg": "photo.jpg.png", "ß/é.PNG": "ß/é.PNG"
    }  # fmt: skip
    for key, name in names.items():
        np.testing.assert_array_equal(Image.open(tmp_path / "files" / name), images[KEYS.index(key)])


def test_encoded_files_come_back_byte_by_byte_with_their_splits(tmp_path: Path) -> None:
    for number, name in enumerate(("train/a.jpg", "train/deep/b.png", "test/c.JPEG")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9 + number, 3), 50 * number, np.uint8)).save(file)
    ingest(IngestConfig(str(tmp_path / "photos"), str(tmp_path / "data")))
    export_files(str(tmp_path / "data"), str(tmp_path / "files"))
    for file in (tmp_path / "photos").rglob("*.*"):
        assert (tmp_path / "files" / file.relative_to(tmp_path / "photos")).read_bytes() == file.read_bytes()
    assert content(again(tmp_path / "files", tmp_path / "again")) == content(ShardSet.open(str(tmp_path / "data")))
    export_files(str(tmp_path / "data"), str(tmp_path / "test-only"), split="test")
    assert [file.name for file in (tmp_path / "test-only" / "test").iterdir()] == ["c.JPEG"]
    assert again(tmp_path / "test-only", tmp_path / "again-test").manifest.splits == {"test": 1}


def test_the_command_says_how_to_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest(
        IngestConfig("synthetic:digits", str(tmp_path / "data"), count=20, test_fraction=0.3, validation_fraction=0.3)
    )
    main([str(tmp_path / "data"), str(tmp_path / "files")])
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[:2] == ["genlab", "ingest"]
    from genlab.cli import ingest as ingest_module

    ingest_module.main([word if word != "DEST" else str(tmp_path / "again") for word in command[2:]])
    for file in (tmp_path / "data").glob("*.arrow"):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "mine").write_text("")
    with pytest.raises(DataError, match="files: is not empty"):
        export_files(str(tmp_path / "data"), str(tmp_path / "files"))
    assert [file.name for file in (tmp_path / "files").iterdir()] == ["mine"]
    with pytest.raises(DataError, match="mine: cannot be written"):
        export_files(str(tmp_path / "data"), str(tmp_path / "files" / "mine"))
