import dataclasses
import json
from pathlib import Path

import pytest
from upath import UPath

from genlab.core.errors import DataError
from genlab.data.format.manifest import Manifest


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


@pytest.mark.parametrize("file", ["/etc/passwd", "../shard-00000.arrow", "a/b.arrow", "a\\b", "..", "."])
def test_a_shard_outside_the_data_sets_folder_is_refused(tmp_path: Path, file: str) -> None:
    _write_earlier(tmp_path)
    manifest = Manifest.load(UPath(tmp_path))
    dataclasses.replace(manifest, shards=(dataclasses.replace(manifest.shards[0], file=file),)).save(UPath(tmp_path))
    with pytest.raises(
        DataError, match=r"manifest\.json: damaged \(shard file .*: not the name of a file in"
    ) as refusal:
        Manifest.load(UPath(tmp_path))
    assert repr(file) in str(refusal.value)
