"""Images of more than 8 bits: the range that is given or found, what becomes of it, and warnings without one."""

import dataclasses
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genlab.cli import export as export_command
from genlab.cli import ingest as ingest_command
from genlab.cli import inspect as inspect_command
from genlab.core.errors import ConfigError, DataError
from genlab.core.ray_cluster import connected
from genlab.data.format.manifest import Manifest
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.shard_makers import make_locally, make_on_ray, measure_on_ray
from genlab.data.ingest.shard_task import ShardResult, ShardTask, ShardTasks
from genlab.imaging.value_range import ValueRange
from tests.data.ingest.children import ingest_and_die
from tests.data.ingest.test_restart import SPAWN
from tests.imaging.support import deep_png, tiff


def values(number: int) -> np.ndarray:
    """One picture of a camera of 12 bits."""
    return np.random.default_rng(number).integers(200, 3000, (8, 8)).astype(np.uint16)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Twelve 16-bit PNG files that use 12 bits, in published splits: the least value, 100, in test, the greatest, 4000,
    in train."""
    for number in range(12):
        picture = values(number)
        if number in (3, 11):
            picture[2, 5] = {3: 4000, 11: 100}[number]
        file = tmp_path / "scans" / ("test" if number > 8 else "train") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return tmp_path / "scans"


def options(scans: Path, name: str = "data", **changes: Any) -> IngestConfig:
    """An ingest into five small shards beside the scans."""
    return IngestConfig(str(scans), str(scans.parent / name), channels=1, encoding="raw", shard_size=3e-4, **changes)


def pixels(data: str | Path) -> np.ndarray:
    shards = ShardSet.open(str(data))
    shards.verify()
    return shards.read(np.arange(len(shards))).image


def files(data: str | Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(data).iterdir()}


def never(tasks: Sequence[ShardTask]) -> Iterator[ValueRange | None]:
    raise AssertionError("measured")


def test_a_range_is_mapped_and_recorded(scans: Path) -> None:
    manifest = ingest(options(scans, range="200:3200"), measure_shards=never)
    assert manifest.value_range == (200, 3200)
    assert manifest.origin.options["range"] == "200:3200"
    assert manifest == Manifest.load(str(scans.parent / "data"))
    expected = np.rint(np.clip(values(0).astype(float) - 200, 0, 3000) * 255 / 3000)
    np.testing.assert_array_equal(pixels(scans.parent / "data")[0, :, :, 0], expected)


def test_auto_takes_the_least_and_the_greatest_value_of_all_splits(scans: Path) -> None:
    (scans / "train" / "float.tif").write_bytes(tiff(np.full((8, 8), 3000, "<f4")))
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(scans / "train" / "8-bit.png")
    found = ingest(options(scans, range="auto"))
    assert found.value_range == (100, 4000)
    given = ingest(options(scans, "given", range="100:4000"))
    assert found.shards == given.shards
    images = pixels(scans.parent / "data")
    assert (images.min(), images.max()) == (0, 255)


def test_float_and_32_bit_pictures_are_mapped_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, kind in (("a", "<f4"), ("b", "<i4"), ("c", "<i2"), ("d", ">u2")):
        low = 0 if kind == ">u2" else -500
        (folder / f"{name}.tif").write_bytes(tiff(np.array([[low, 500, 1500]], kind)))
    manifest = ingest(IngestConfig(str(folder), str(tmp_path / "data"), channels=1, range="-500:1500"))
    assert manifest.converted == {"depth": 4, "format": 4}
    assert pixels(tmp_path / "data")[:, 0, :, 0].tolist() == [[0, 128, 255]] * 3 + [[64, 128, 255]]


def killed(config: IngestConfig, moment: int) -> tuple[int | None, int]:
    """Exit code of a process that dies at that touch of DEST, and how often it touched it."""
    counted = SPAWN.Value("i", 0)
    process = SPAWN.Process(target=ingest_and_die, args=(config, moment, counted))
    process.start()
    process.join()
    return process.exitcode, counted.value


@pytest.mark.slow
def test_killed_and_run_again_it_makes_the_same_without_another_pass(scans: Path) -> None:
    code, moments = killed(options(scans, "whole", range="auto"), 0)
    assert code == 0
    went_on = 0
    for moment in range(2, moments, moments // 5):
        config = options(scans, f"data-{moment}", range="auto")
        assert killed(config, moment)[0] == -signal.SIGKILL
        if Path(config.dest, "ingest.json").exists():
            ingest(config, measure_shards=never)
            went_on += 1
        else:
            ingest(config)
        assert files(config.dest) == files(scans.parent / "whole")
    assert went_on > 2


def interrupted(tasks: ShardTasks) -> Iterator[ShardResult]:
    """Make two shards, then be stopped."""
    for count, result in enumerate(make_locally(tasks)):
        yield result
        if count == 1:
            raise KeyboardInterrupt


def test_another_range_for_an_unfinished_data_set_is_refused(scans: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ingest(options(scans, range="auto"), interrupted)
    plan = json.loads((scans.parent / "data" / "ingest.json").read_text())
    assert plan["range of values"] == [100, 4000]
    with pytest.raises(DataError, match=r"unfinished ingest.*--range 'auto' then, '0:4095' now.*--start-over"):
        ingest(options(scans, range="0:4095"))
    with pytest.raises(DataError, match=r"unfinished ingest.*--range 'auto' then, None now"):
        ingest(options(scans))
    again = ingest(options(scans, range="0:4095", start_over=True))
    assert again.value_range == (0, 4095)


def test_without_a_range_nothing_is_written_that_was_not_before(scans: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ingest(options(scans), interrupted)
    plan = json.loads((scans.parent / "data" / "ingest.json").read_text())
    assert "range of values" not in plan
    manifest = ingest(options(scans), measure_shards=never)
    written = json.loads((scans.parent / "data" / "manifest.json").read_text())
    assert not [name for name in (*written, *written["origin"]["options"]) if "range" in name]
    assert manifest.value_range is None
    np.testing.assert_array_equal(pixels(scans.parent / "data")[0, :, :, 0], values(0) >> 8)


def test_bad_images_stop_the_pass_or_are_left_out(scans: Path) -> None:
    (scans / "train" / "nan.tif").write_bytes(tiff(np.full((8, 8), np.nan, "<f4")))
    (scans / "train" / "torn.png").write_bytes((scans / "train" / "00.png").read_bytes()[:60])
    (scans / "train" / "colour.png").write_bytes(deep_png(np.zeros((8, 8, 3), np.uint16)))
    for name, message in (("colour.png", "only the upper 8"), ("nan.tif", "not finite"), ("torn.png", "decoded")):
        with pytest.raises(DataError, match=rf"{name}: .*{message}.*--skip-bad"):
            ingest(options(scans, range="auto"))
        assert not (scans.parent / "data" / "manifest.json").exists()
        (scans / "train" / name).rename(scans.parent / name)
    for name in ("colour.png", "nan.tif", "torn.png"):
        (scans.parent / name).rename(scans / "train" / name)
    manifest = ingest(options(scans, range="auto", skip_bad=True))
    assert manifest.value_range == (100, 4000)
    assert [one.key for one in manifest.skipped] == ["train/colour.png", "train/nan.tif", "train/torn.png"]


def test_where_there_is_no_range_auto_says_so(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "photos" / "8-bit.png")
    config = IngestConfig(str(tmp_path / "photos"), str(tmp_path / "data"), range="auto")
    with pytest.raises(DataError, match="none of its images has more than 8 bits; leave out --range auto"):
        ingest(config)
    Image.fromarray(np.full((4, 4), 700, np.uint16)).save(tmp_path / "photos" / "16-bit.png")
    with pytest.raises(DataError, match=r"hold one value only, 700; .* --range LO:HI"):
        ingest(config)
    assert ingest(dataclasses.replace(config, range="0:700")).value_range == (0, 700)


def test_a_range_is_for_image_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--range is for image files; leave it out for synthetic:digits"):
        ingest(IngestConfig("synthetic:digits", str(tmp_path / "data"), range="auto"))


def test_what_is_no_range_ends_the_command(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ingest_command.main([str(scans), str(scans.parent / "data"), "--range", "4095"])
    assert "range = '4095': should be LO:HI" in capsys.readouterr().err


def test_tables_are_measured_too(scans: Path) -> None:
    images = [{"bytes": file.read_bytes()} for file in sorted(scans.rglob("*.png"))]
    pq.write_table(pa.table({"image": images}), scans.parent / "train.parquet", row_group_size=5)
    assert ingest(options(scans.parent / "train.parquet", range="auto")).value_range == (100, 4000)


def test_a_warning_names_the_way_out_where_most_of_16_bits_is_unused(
    scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ingest(options(scans, "whole"))
    warning = capsys.readouterr().err
    assert "its 16-bit grey images are at most 4,000 of 65,535" in warning
    assert "--range 0:4095 or --range auto" in warning
    assert warning.count("\n") == 1
    with pytest.raises(KeyboardInterrupt):
        ingest(options(scans), interrupted)
    assert ingest(options(scans)) == whole
    assert capsys.readouterr().err == warning.replace("whole", "data")
    ingest(options(scans, "ranged", range="auto"))
    Image.fromarray(np.full((8, 8), 2**14, np.uint16)).save(scans / "train" / "bright.png")
    ingest(options(scans, "bright"))
    assert capsys.readouterr().err == ""


def test_a_warning_for_16_bit_colour_does_not_name_the_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "12-bit.png").write_bytes(deep_png(np.full((4, 4, 3), 4000, np.uint16)))
    ingest(IngestConfig(str(tmp_path / "photos"), str(tmp_path / "data")))
    assert "16-bit colour images are at most 4,095 of 65,535" in capsys.readouterr().err


def test_the_range_is_told_and_outlasts_an_export(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = str(scans.parent / "data"), str(scans.parent / "folder")
    ingest_command.main([str(scans), data, "--range", "-50.5:4000"])
    assert "range: -50.5:4000\n" in capsys.readouterr().out
    inspect_command.main([data])
    assert "-50.5:4000" in capsys.readouterr().out
    export_command.main([data, folder])
    command = next(line for line in capsys.readouterr().out.splitlines() if "genlab ingest" in line)
    *_, words = command.partition("genlab ingest ")
    again = str(scans.parent / "again")
    ingest_command.main([again if word == "DEST" else word for word in words.split()])
    assert Manifest.load(again).value_range == (-50.5, 4000)
    np.testing.assert_array_equal(pixels(again), pixels(data))


@pytest.mark.cluster
def test_a_cluster_finds_the_same_range_and_makes_the_same_bytes(scans: Path) -> None:
    local = ingest(options(scans, "local", range="auto"))
    with connected():
        assert ingest(options(scans, "ray", range="auto"), make_on_ray, measure_on_ray) == local
        assert files(scans.parent / "ray") == files(scans.parent / "local")
        (scans / "train" / "nan.tif").write_bytes(tiff(np.full((8, 8), np.nan, "<f4")))
        with pytest.raises(DataError, match=r"nan\.tif: has values that are not finite"):
            ingest(options(scans, "bad", range="auto"), make_on_ray, measure_on_ray)
