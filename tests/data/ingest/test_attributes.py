"""Further columns of file sources: from names, from a CSV file, as the label; and what is wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.cli import ingest as ingest_module
from genlab.cli import inspect as inspect_module
from genlab.core.errors import ConfigError, DataError
from genlab.data.format.manifest import Attribute
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.attributes import AttributesConfig
from genlab.data.ingest.ingest import IngestConfig, ingest

UTKFACE = r"(?P<age>\d+)_(?P<gender>\d)_(?P<race>\d)_[^/]*$"


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Pictures named as UTKFace names them: age, gender, race, time."""
    for number, name in enumerate(("9_1_0_1.png", "30_0_2_2.png", "100_1_1_3.png")):
        file = tmp_path / "faces" / "part" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(file)
    return tmp_path / "faces"


def make(faces: Path, **options: Any) -> ShardSet:
    label, skip_bad = options.pop("label", None), options.pop("skip_bad", False)
    dest = str(faces.parent / "data")
    ingest(IngestConfig(str(faces), dest, label=label, skip_bad=skip_bad, attributes=AttributesConfig(**options)))
    shards = ShardSet.open(dest)
    shards.verify()
    return shards


def columns(shards: ShardSet) -> dict[str, list[Any]]:
    """Key → values by column."""
    rows = np.arange(len(shards))
    return {"key": shards.keys(rows)} | {name: column.tolist() for name, column in shards.columns(rows).items()}


def table(faces: Path, *lines: str) -> str:
    file = faces.parent / "faces.csv"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_names_of_files_give_attributes(faces: Path) -> None:
    shards = make(faces, pattern=UTKFACE, kinds=("gender=category",))
    assert shards.manifest.attributes == (
        Attribute("age", "int"),
        Attribute("gender", "category", ("0", "1")),
        Attribute("race", "int"),
    )
    assert columns(shards) == {
        "key": ["part/100_1_1_3.png", "part/30_0_2_2.png", "part/9_1_0_1.png"],
        "age": [100, 30, 9],
        "gender": [1, 0, 1],
        "race": [1, 2, 0],
    }


def test_the_faces_of_utkface(sample_data: Path, tmp_path: Path) -> None:
    source = sample_data / "utkface" / "utkface_64px.zip"
    ingest(IngestConfig(str(source), str(tmp_path / "data"), attributes=AttributesConfig(pattern=UTKFACE)))
    found = columns(ShardSet.open(str(tmp_path / "data")))
    assert len(found["key"]) == 559
    for key, *values in zip(*found.values(), strict=True):
        assert values == [int(text) for text in key.split("/")[1].split("_")[:3]]


def test_one_of_them_is_the_label(faces: Path) -> None:
    shards = make(faces, pattern=UTKFACE, columns=("age",), label="race")
    assert shards.manifest.label_names == ("0", "1", "2")
    assert [attribute.name for attribute in shards.manifest.attributes] == ["age"]
    assert columns(shards)["label"] == [1, 2, 0]


def test_a_table_gives_attributes_by_the_names_of_files(faces: Path) -> None:
    lines = ["name,mood,height,label", "9_1_0_1.png,sad,1.5,cat", "30_0_2_2.png,glad,2,dog"]
    shards = make(faces, csv=table(faces, *lines, "100_1_1_3.png,sad,-1e3,cat", "elsewhere.png,odd,0,cow"))
    assert shards.manifest.attributes == (Attribute("mood", "category", ("glad", "sad")), Attribute("height", "float"))
    assert shards.manifest.label_names == ("cat", "dog")
    found = columns(shards)
    assert (found["mood"], found["height"], found["label"]) == ([1, 0, 1], [-1000.0, 2.0, 1.5], [0, 1, 0])


def test_a_table_may_state_kinds_names_keys_and_splits(faces: Path) -> None:
    head = 'file_name,key,split,weight:float,"mood:[""sad"", ""glad"", ""none""]"'
    lines = [head, "part/9_1_0_1.png,nine,test,1,glad", "30_0_2_2.png,thirty,train,2,sad"]
    shards = make(faces, csv=table(faces, *lines, "100_1_1_3.png,hundred,train,3,sad"))
    assert shards.manifest.attributes == (
        Attribute("weight", "float"),
        Attribute("mood", "category", ("sad", "glad", "none")),
    )
    assert shards.manifest.splits == {"train": 2, "test": 1}
    assert columns(shards) == {"key": ["hundred", "thirty", "nine"], "weight": [3.0, 2.0, 1.0], "mood": [0, 0, 1]}


def test_a_table_may_tell_splits_alone(faces: Path) -> None:
    lines = ("9_1_0_1.png,test", "30_0_2_2.png,train", "100_1_1_3.png,train")
    shards = make(faces, csv=table(faces, "file_name,split", *lines))
    assert shards.manifest.splits == {"train": 2, "test": 1}
    assert shards.keys(np.arange(3)) == ["part/100_1_1_3.png", "part/30_0_2_2.png", "part/9_1_0_1.png"]


GOOD = ("name,age", "9_1_0_1.png,9", "30_0_2_2.png,30", "100_1_1_3.png,100")


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (GOOD[:3], {}, r"100_1_1_3\.png: .*faces\.csv has no row for it; .*--skip-bad"),
        ((*GOOD[:3], "100_1_1_3.png,"), {}, r"100_1_1_3\.png: its attribute age has no value"),
        ((*GOOD[:3], "100_1_1_3.png,old"), {"kinds": ("age=int",)}, r"100_1_1_3\.png: its attribute age is 'old', not"),
        ((*GOOD[:3], f"100_1_1_3.png,{2**63}"), {"kinds": ("age=int",)}, "not an int of 64 bits"),
        ((*GOOD[:3], "100_1_1_3.png,nan"), {"kinds": ("age=float",)}, "not a finite float"),
        ((*GOOD, "9_1_0_1.png,8"), {}, r"faces\.csv: lines 2 and 5 are both about '9_1_0_1\.png'"),
        ((*GOOD, "a,b,c"), {}, r"faces\.csv: line 5 has 3 cells, not 2"),
        (("name,age,age",), {}, r"faces\.csv: its first line should name each column once"),
        (("",), {}, r"faces\.csv: empty"),
        (('name,"mood:[1"',), {}, "does not state names"),
        (("name,image", *GOOD[1:]), {}, "an attribute cannot be called 'image'"),
        (GOOD, {"pattern": "(?P<age>.)"}, "two columns 'age'"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(
    faces: Path, lines: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        make(faces, csv=table(faces, *lines), **options)
    assert not (faces.parent / "data").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "("}, r"--attributes.pattern \(: not a regular expression"),
        ({"pattern": "[0-9]"}, "has no named groups"),
        ({"pattern": r"(?P<age>\d{3})_"}, r"30_0_2_2\.png: its key part/30_0_2_2\.png does not match --attributes"),
        ({"csv": "/nowhere.csv"}, r"/nowhere\.csv: cannot be read"),
        ({"pattern": UTKFACE, "columns": ("size",)}, "--attributes.columns size: no such column; there are: age"),
        ({"pattern": UTKFACE, "kinds": ("age=number",)}, "should be NAME=KIND"),
        ({"pattern": UTKFACE, "kinds": ("size=int",)}, "kinds size=int: no such column"),
        ({"label": "age"}, "--label age: .* has no columns"),
        ({"pattern": r"(?P<key>\d+)_"}, "cannot be called 'key'"),
        ({"pattern": r"(?P<age>\d+)_", "kinds": ("age=float",), "label": "age"}, "'age' cannot be the label"),
    ],
)
def test_options_that_do_not_fit_are_named(faces: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        make(faces, **options)


def test_images_without_a_value_are_left_out_when_told_to(faces: Path) -> None:
    lines = (*GOOD[:2], "30_0_2_2.png,unknown")
    shards = make(faces, csv=table(faces, *lines), kinds=("age=int",), skip_bad=True)
    assert columns(shards) == {"key": ["part/9_1_0_1.png"], "age": [9]}
    whys = {skipped.key: skipped.why for skipped in shards.manifest.skipped}
    assert "has no row" in whys["part/100_1_1_3.png"]
    assert "'unknown'" in whys["part/30_0_2_2.png"]


def test_too_many_different_texts_are_no_category(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlab.data.ingest.attributes.MOST_NAMES", 2)
    pattern = r"(?P<name>\d+_.*)\.png"
    with pytest.raises(DataError, match=r"'name' has 3 different texts.*--attributes.columns"):
        make(faces, pattern=pattern)
    assert len(make(faces, pattern=pattern, kinds=("name=category",)).manifest.attributes[0].names) == 3


def test_the_commands_take_and_tell_attributes(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (faces / "part" / "7_0_0_[bold]4.png").write_bytes(b"no picture")
    words = [str(faces), str(faces.parent / "[data]"), "--attributes.pattern", UTKFACE, "--skip-bad"]
    ingest_module.main([*words, "--attributes.kinds", "gender=category", "race=float"])
    capsys.readouterr()
    inspect_module.main([str(faces.parent / "[data]")])
    said = capsys.readouterr().out
    for fact in ("age (int)", "9 to 100, mean 46.33", "gender 1", "race (float)", "7_0_0_[bold]4.png"):
        assert fact in said
