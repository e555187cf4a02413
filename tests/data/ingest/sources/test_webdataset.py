"""Names of WebDataset members: which part is a sample's key, and which member is its image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genlab.core.errors import ConfigError, DataError
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.sources import open_source
from tests.data.ingest.test_sources import load_all, png
from tests.data.ingest.test_tables import write_tar

DATES = {"22.05.png": png(1), "22.05.cls": b"0", "22.06.png": png(2), "22.06.cls": b"1"}
MASKS = {"a.jpg.png": png(1), "a.seg.png": png(2), "a.cls": b"0", "b.jpg.png": png(3), "b.seg.png": png(4)}


def loaded(file: Path, **options: Any) -> dict[str, bytes]:
    return load_all(open_source(str(file), **options))


def made(source: Path, **options: Any) -> ShardSet:
    dest = str(source.parent / "data")
    ingest(IngestConfig(str(source), dest, **options))
    return ShardSet.open(dest)


def test_names_that_hold_dots_are_explained_and_parted_at_the_last(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", DATES)
    message = (
        r"x\.tar: 22 has no image \(its members: 05\.cls, 05\.png, 06\.cls, 06\.png\); a member's key is its name "
        r"up to the first dot, .*; where names themselves have dots, .* --key-ends-at last-dot"
    )
    with pytest.raises(DataError, match=message):
        loaded(file)
    assert loaded(file, key_ends_at="last-dot") == {"22.05": png(1), "22.06": png(2)}
    shards = made(file, key_ends_at="last-dot")
    assert shards.keys(np.arange(2)) == ["22.05", "22.06"]
    assert shards.columns(np.arange(2))["label"].tolist() == [0, 1]
    assert shards.manifest.origin.options["key_ends_at"] == "last-dot"


def test_images_with_longer_extensions_are_explained_and_picked(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", MASKS)
    with pytest.raises(DataError, match=r"a has no image \(its members: cls, jpg\.png, seg\.png\).*--image-member jpg"):
        loaded(file)
    assert loaded(file, image_member="jpg.png") == {"a": png(1), "b": png(3)}
    assert loaded(file, image_member="seg.png") == {"a": png(2), "b": png(4)}
    assert loaded(file, image_member=".SEG.png") == {"a": png(2), "b": png(4)}


def test_of_several_images_one_is_picked(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", {"a.jpg": png(1), "a.png": png(2), "b.png": png(3), "b.JPG": png(4)})
    with pytest.raises(DataError, match=r"a has 2 images \(its members: jpg, png\).*as in --image-member jpg"):
        loaded(file)
    shards = made(file, image_member="jpg")
    assert shards.encoded(np.arange(2)) == [png(1), png(4)]
    assert shards.manifest.origin.options["image_member"] == "jpg"


def test_a_sample_without_the_member_picked_is_named(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", {"a.jpg": png(1), "b.png": png(3)})
    with pytest.raises(DataError, match=r"x\.tar: b has no member jpg \(its members: png\).*--image-member"):
        loaded(file, image_member="jpg")


def test_what_the_last_dot_parts_from_its_image_is_named(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", {"a.jpg.png": png(1), "a.cls": b"0"})
    with pytest.raises(
        DataError, match=r"a has no image \(its members: cls\).*up to the last dot.*leave --key-ends-at"
    ):
        loaded(file, key_ends_at="last-dot")


def test_upper_case_is_the_same_and_archives_may_be_named_in_it(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "tars" / "X.TAR", {"A.PNG": png(1), "A.CLS": b"1", "a.Png": png(2), "a.Cls": b"0"})
    assert loaded(file) == loaded(file.parent) == {"A": png(1), "a": png(2)}
    shards = made(file.parent)
    assert shards.columns(np.arange(2))["label"].tolist() == [1, 0]


def test_members_that_differ_in_case_alone_are_never_taken_for_each_other(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", {"a.JPG": png(1), "a.jpg": png(2)})
    with pytest.raises(DataError, match=r"a has 2 images \(its members: JPG, jpg\); pick one"):
        loaded(file)
    assert loaded(file, image_member="jpg") == {"a": png(2)}
    assert loaded(file, image_member="JPG") == {"a": png(1)}
    with pytest.raises(DataError, match=r"a\.JPG and a\.jpg differ in upper and lower case alone; rename or remove"):
        loaded(file, image_member="Jpg")
    labels = write_tar(tmp_path / "y.tar", {"a.jpg": png(1), "a.CLS": b"1", "a.Cls": b"2"})
    with pytest.raises(DataError, match=r"a\.CLS and a\.Cls differ in upper and lower case alone"):
        loaded(labels)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG"])
def test_a_member_that_is_there_twice_is_named(tmp_path: Path, name: str) -> None:
    first, second = (write_tar(tmp_path / f"{number}.tar", {name: png(number)}).read_bytes() for number in range(2))
    end = first.rindex(b"\0" * 1024)
    while first[:end].endswith(b"\0" * 512):
        end -= 512
    (tmp_path / "x.tar").write_bytes(first[: end // 512 * 512] + second)
    with pytest.raises(DataError, match=rf"x\.tar: holds {name} twice"):
        loaded(tmp_path / "x.tar")


def test_labels_may_be_names(tmp_path: Path) -> None:
    samples = {"0.png": png(0), "0.cls": b"dog\n", "1.png": png(1), "1.cls": b"7", "2.png": png(2), "2.cls": b"cat"}
    shards = made(write_tar(tmp_path / "x.tar", samples))
    assert shards.manifest.label_names == ("7", "cat", "dog")
    assert shards.columns(np.arange(3))["label"].tolist() == [2, 0, 1]


def test_a_sample_without_a_label_is_named_or_left_out(tmp_path: Path) -> None:
    samples = {"0.png": png(0), "0.cls": b"1", "1.png": png(1), "1.cls": b"\n", "2.png": png(2)}
    file = write_tar(tmp_path / "x.tar", samples)
    with pytest.raises(DataError, match=r"x\.tar, 1: its attribute label has no value.*--skip-bad"):
        made(file)
    shards = made(file, skip_bad=True)
    assert shards.keys(np.arange(1)) == ["0"]
    assert shards.manifest.label_names == ("0", "1")
    assert [skipped.key for skipped in shards.manifest.skipped] == ["1", "2"]


def test_hidden_members_are_none_of_a_sample(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", {"./v1.0/a.b.png": png(1), "./v1.0/._a.b.png": b"x", "__meta__.b.json": b"{"})
    assert loaded(file, key_ends_at="last-dot") == {"v1.0/a.b": png(1)}


@pytest.mark.parametrize("options", [{"image_member": "jpg"}, {"key_ends_at": "last-dot"}])
def test_these_options_are_for_archives(tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    option = "--" + next(iter(options)).replace("_", "-")
    with pytest.raises(ConfigError, match=f"{option} is for webdataset only"):
        open_source(str(tmp_path), **options)


def test_a_wrong_dot_is_refused_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from genlab.cli import ingest as ingest_module

    file = write_tar(tmp_path / "x.tar", DATES)
    with pytest.raises(SystemExit):
        ingest_module.main([str(file), str(tmp_path / "data"), "--key-ends-at", "second-dot"])
    assert "last-dot" in capsys.readouterr().err
    ingest_module.main([str(file), str(tmp_path / "data"), "--key-ends-at", "last-dot"])
    assert json.loads((tmp_path / "data" / "manifest.json").read_bytes())["label_names"] == ["0", "1"]
