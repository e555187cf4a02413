import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from upath import UPath

from genlab.data.format.manifest import Manifest, held_out_split

MakeData = Callable[..., UPath]

IMAGES = np.zeros((4, 2, 2, 1), np.uint8)


def test_models_are_measured_on_the_test_split_where_every_domain_has_one(make_data: MakeData, tmp_path: Path) -> None:
    with_test = Manifest.load(make_data(IMAGES, splits=("train", "test"), url=str(tmp_path / "a")))
    without = Manifest.load(make_data(IMAGES, splits=("train",), url=str(tmp_path / "b")))
    assert held_out_split([with_test, with_test], "test", "train") == "test"
    assert held_out_split([with_test, without], "test", "train") == "train"
    assert held_out_split([without], "test", "train") == "train"


def _write_earlier(directory: Path) -> None:
    """Write the manifest that an earlier genlab wrote: `genlab ingest synthetic:digits DEST --count 3`."""
    file = Path(__file__).with_name("manifest_without_range.json")
    (directory / "manifest.json").write_bytes(file.read_bytes())


def test_a_manifest_from_before_there_were_ranges_keeps_its_checksum(tmp_path: Path) -> None:
    _write_earlier(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    manifest = Manifest.load(UPath(tmp_path))
    assert manifest.checksum == json.loads(before)["checksum"]
    assert manifest.value_range is None
    manifest.save(UPath(tmp_path))
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_range_is_written_and_part_of_the_checksum(tmp_path: Path) -> None:
    _write_earlier(tmp_path)
    manifest = Manifest.load(UPath(tmp_path))
    ranged = dataclasses.replace(manifest, value_range=(-0.5, 4095.0))
    assert ranged.checksum != manifest.checksum
    ranged.save(UPath(tmp_path))
    assert Manifest.load(UPath(tmp_path)) == ranged
