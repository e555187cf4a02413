"""Data sets of resized images that are stored as JPEG or WebP files."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.cli import ingest as ingest_module
from genlab.core.errors import ConfigError
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.to_files import export_files
from genlab.imaging.images import encode_lossy


@pytest.fixture
def smooth(tmp_path: Path) -> Path:
    """Eight pictures of waves, 96x80, that JPEG and WebP store well."""
    (tmp_path / "smooth").mkdir()
    y, x = np.mgrid[:80, :96] / 80
    for number in range(8):
        waves = [np.sin((number + 2) * x + channel) * np.cos(3 * y + channel) for channel in range(3)]
        pixels = (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "smooth" / f"{number}.png")
    return tmp_path / "smooth"


def stored(source: Path, name: str, **options: object) -> ShardSet:
    config = IngestConfig(str(source), str(source.parent / name), size=64)
    ingest(dataclasses.replace(config, **options))  # type: ignore[arg-type]
    shards = ShardSet.open(str(source.parent / name))
    shards.verify()
    return shards


@pytest.mark.parametrize(("encoding", "kind"), [("jpeg", "JPEG"), ("webp", "WEBP")])
@pytest.mark.parametrize("channels", [1, 3])
def test_resized_images_are_files_of_the_format_and_quality_asked_for(
    smooth: Path, encoding: str, kind: str, channels: int
) -> None:
    rows = np.arange(8)
    raw = stored(smooth, "raw", channels=channels).read(rows).image.astype(int)
    sizes, errors = [], []
    for quality in (30, None, 98):
        shards = stored(smooth, f"{encoding}-{quality}", channels=channels, encoding=encoding, quality=quality)
        assert (shards.manifest.encoding, shards.shape) == ("encoded", (64, 64, channels))
        files = shards.encoded(rows)
        assert {Image.open(io.BytesIO(file)).format for file in files} == {kind}
        sizes.append(sum(map(len, files)))
        errors.append(float(((shards.read(rows).image - raw) ** 2).mean()))
        assert shards.manifest.origin.options["encoding"] == encoding
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 12, "30 dB and more at the default quality"
    assert sizes[1] < raw.size / 4
    assert shards.manifest.converted.keys() <= {"colour"}


def test_a_jpeg_of_the_size_keeps_its_bytes(smooth: Path) -> None:
    file = smooth / "9.jpg"
    Image.open(smooth / "0.png").resize((64, 64)).save(file, quality=40)
    shards = stored(smooth, "data", encoding="jpeg", quality=95)
    assert shards.encoded(np.array([8])) == [file.read_bytes()]


def test_shards_hold_the_bytes_asked_for(smooth: Path) -> None:
    together = sum(map(len, stored(smooth, "one", encoding="jpeg").encoded(np.arange(8))))
    shards = stored(smooth, "some", encoding="jpeg", shard_size=together / 3 / 2**20)
    assert 2 <= len(shards.shards) <= 5, "as many rows as fit by the size of a file, not by that of its pixels"


def test_an_odd_first_image_does_not_decide_how_many_rows_a_shard_has(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "noise" / "0.png")
    for number in range(1, 9):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{number}.png")
    together = sum(map(len, stored(tmp_path / "noise", "one", encoding="jpeg").encoded(np.arange(9))))
    shards = stored(tmp_path / "noise", "some", encoding="jpeg", shard_size=together / 4 / 2**20)
    assert 4 <= len(shards.shards) <= 6


def test_pixels_that_no_jpeg_makes_smaller_become_one_all_the_same() -> None:
    pixels = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (300, 300, 3))
    assert Image.open(io.BytesIO(encode_lossy(pixels, "jpeg", 90))).size == (300, 300)


def test_exported_files_are_named_by_their_format(smooth: Path, tmp_path: Path) -> None:
    shards = stored(smooth, "data", encoding="webp")
    export_files(str(tmp_path / "data"), str(tmp_path / "files"))
    found = {file.name: file.read_bytes() for file in (tmp_path / "files").glob("*.webp")}
    assert [found[f"{key}.webp"] for key in shards.keys(np.arange(8))] == shards.encoded(np.arange(8))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("smooth", {"encoding": "jpeg"}, "--encoding jpeg needs --size"),
        ("smooth", {"quality": 80}, "--quality goes with --encoding jpeg or webp; --encoding auto loses nothing"),
        ("smooth", {"quality": 80, "encoding": "raw", "size": 64}, "--encoding raw loses nothing"),
        ("smooth", {"encoding": "webp", "size": 28, "channels": 1}, "28x28 pixels take no more bytes than such a file"),
        ("synthetic:digits", {"encoding": "jpeg", "count": 3}, "--encoding jpeg is for image files"),
    ],
)
def test_it_is_refused_where_it_makes_no_sense(
    smooth: Path, source: str, options: dict[str, object], message: str
) -> None:
    place = str(smooth) if source == "smooth" else source
    config = dataclasses.replace(IngestConfig(place, str(smooth.parent / "data")), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        ingest(config)
    assert not (smooth.parent / "data").exists()


def test_the_command_refuses_a_quality_beyond_100(smooth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ingest_module.main([str(smooth), str(smooth.parent / "data"), "--size", "64", "--quality", "101"])
    assert "quality" in capsys.readouterr().err
