"""Features of data sets are kept, and FID and KID carry what they were measured with."""

from pathlib import Path

import pytest
import torch

from genlab.evaluation.features import cache_folder, extract, held_out_features, measure_distances
from genlab.evaluation.held_out import HeldOut
from tests.evaluation.support import Levels, colours, held_out


@pytest.fixture
def held_out_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeldOut:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    return held_out(tmp_path / "digits")


def test_features_of_a_data_set_are_taken_once(held_out_images: HeldOut) -> None:
    extractor = Levels()
    features = held_out_features(held_out_images, extractor)
    expected = torch.cat([extractor.features(rows.image) for rows in held_out_images.batches()])
    assert torch.equal(features, expected)
    again = Levels()
    assert torch.equal(held_out_features(held_out_images, again), features)
    assert again.seen == 0


def test_other_weights_or_rows_or_a_damaged_file_are_taken_anew(held_out_images: HeldOut) -> None:
    held_out_features(held_out_images, Levels())
    other = Levels()
    other.weights = "1" * 64
    held_out_features(held_out_images, other)
    assert other.seen == len(held_out_images)
    train = Levels()
    held_out_features(HeldOut(held_out_images.shards, "another"), train)
    assert train.seen == len(held_out_images)
    for file in (cache_folder() / "features").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    again = Levels()
    held_out_features(held_out_images, again)
    assert again.seen == len(held_out_images)


def test_a_cache_that_cannot_be_written_costs_no_measurement(
    held_out_images: HeldOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "file"))
    assert len(held_out_features(held_out_images, Levels())) == len(held_out_images)


def test_distances_carry_their_settings(held_out_images: HeldOut) -> None:
    extractor = Levels()
    reference = held_out_features(held_out_images, extractor)
    noise = extract(extractor, iter(colours(90, 28, 28, 1).split(40)), 90, "noise")
    measurements = measure_distances(extractor, reference, held_out_images.settings, noise, seed=3)
    fid, kid = measurements["fid"], measurements["kid"]
    for measurement in (fid, kid):
        assert (
            measurement.settings.items()
            >= {
                "data": held_out_images.shards.checksum,
                "split": "test",
                "rows": len(held_out_images),
                "extractor": "levels",
                "extractor_weights": "0" * 64,
                "resizer": "none",
                "samples": 90,
                "seed": 3,
            }.items()
        )
        assert measurement.interval is not None
        assert measurement.interval[0] < measurement.value < measurement.interval[1]
    assert fid.caution == ""
    same = measure_distances(extractor, reference, held_out_images.settings, reference, seed=3)
    assert same["fid"].value == pytest.approx(0, abs=1e-6)
    assert same["kid"].value < 0.01 * kid.value


def test_fid_of_fewer_images_than_features_is_marked(held_out_images: HeldOut) -> None:
    extractor = Levels()
    reference = held_out_features(held_out_images, extractor)
    for count, caution in ((4, "4 images for 4 features: singular"), (6, "6 images for 4 features: too few"), (7, "")):
        measurements = measure_distances(extractor, reference, held_out_images.settings, reference[:count], seed=0)
        assert measurements["fid"].caution.startswith(caution)
        assert bool(measurements["fid"].caution) == (measurements["fid"].interval is None) == (count < 7)
        assert measurements["kid"].caution == ""
