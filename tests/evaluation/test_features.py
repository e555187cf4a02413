"""Features of data sets are kept, and FID and KID carry what they were measured with."""

from pathlib import Path

import pytest
import torch

from genlab.core.storage import cache_folder
from genlab.evaluation.features import extract, features_of, measure_distances
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Measurement
from tests.evaluation.support import Levels, colours, held_out


@pytest.fixture
def held_out_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeldOut:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    return held_out(tmp_path / "digits")


def test_features_of_a_data_set_are_taken_once(held_out_images: HeldOut) -> None:
    extractor = Levels()
    features = features_of(held_out_images, extractor)
    expected = torch.cat([extractor.features(rows.image) for rows in held_out_images.batches()])
    assert torch.equal(features, expected)
    again = Levels()
    assert torch.equal(features_of(held_out_images, again), features)
    assert again.seen == 0


def test_other_weights_or_code_or_rows_or_a_damaged_file_are_taken_anew(held_out_images: HeldOut) -> None:
    features_of(held_out_images, Levels())
    other = Levels()
    other.weights = "1" * 64
    features_of(held_out_images, other)
    assert other.seen == len(held_out_images)
    newer = Levels()
    newer.version = "2.0"
    features_of(held_out_images, newer)
    assert newer.seen == len(held_out_images)
    train = Levels()
    features_of(HeldOut(held_out_images.shards, "another"), train)
    assert train.seen == len(held_out_images)
    for file in (cache_folder() / "features").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    again = Levels()
    features_of(held_out_images, again)
    assert again.seen == len(held_out_images)


def test_a_cache_that_cannot_be_written_costs_no_measurement(
    held_out_images: HeldOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "file"))
    assert len(features_of(held_out_images, Levels())) == len(held_out_images)


def test_distances_carry_their_settings(held_out_images: HeldOut) -> None:
    extractor = Levels()
    reference = features_of(held_out_images, extractor)
    noise = extract(extractor, iter(colours(90, 28, 28, 1).split(40)), 90, "noise")
    measurements = measure_distances(extractor, reference, held_out_images.settings, noise, seed=3)
    fid, endless, kid = measurements["fid"], measurements["fid_infinity"], measurements["kid"]
    assert list(measurements) == ["kid", "fid", "fid_infinity"], "the one that few images do for leads"
    for measurement in (fid, endless, kid):
        assert (
            measurement.settings.items()
            >= {
                "data": held_out_images.shards.checksum,
                "split": "test",
                "rows": len(held_out_images),
                "extractor": "levels",
                "extractor_weights": "0" * 64,
                "extractor_version": "1.0",
                "resizer": "none",
                "samples": 90,
                "seed": 3,
            }.items()
        )
    for measurement in (endless, kid):
        assert measurement.interval is not None
        assert measurement.interval[0] < measurement.value < measurement.interval[1]
    assert endless.value < fid.value
    assert fid.caution == ""
    assert fid.interval is None, "it is biased, however many images there are"
    same = measure_distances(extractor, reference, held_out_images.settings, reference, seed=3)
    assert same["fid"].value == pytest.approx(0, abs=1e-6)
    assert same["kid"].value < 0.01 * kid.value


def test_few_images_give_no_interval_and_fid_is_marked(held_out_images: HeldOut) -> None:
    extractor = Levels()
    reference = features_of(held_out_images, extractor)

    def measured(count: int) -> dict[str, Measurement]:
        return measure_distances(extractor, reference, held_out_images.settings, reference[:count], seed=0)

    for count, caution in ((4, "4 images for 4 features: singular"), (7, "7 images for 4 features: too few"), (8, "")):
        found = measured(count)
        assert found["fid"].caution.startswith(caution)
        assert bool(found["fid"].caution) == (count < 8)
        assert found["kid"].caution == ""
        assert found["kid"].interval is None
        assert found.keys() == {"kid", "fid"}
    assert measured(24)["kid"].interval is None
    assert measured(25)["kid"].interval is not None
    assert measured(25)["fid_infinity"].interval is not None
    extractor.dimension = 13
    assert measured(25).keys() == {"kid", "fid"}
    assert measured(26).keys() == {"kid", "fid", "fid_infinity"}


def test_the_groups_of_the_jackknife_are_drawn_from_the_seed(held_out_images: HeldOut) -> None:
    extractor = Levels()
    reference = features_of(held_out_images, extractor)

    def measured(seed: int) -> Measurement:
        return measure_distances(extractor, reference, {}, reference[:30] + 1, seed)["fid_infinity"]

    assert measured(0) == measured(0)
    assert measured(0).value != measured(1).value
