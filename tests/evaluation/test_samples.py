"""Precision and recall are of equal numbers of images, copies are found, and both say what they were measured with."""

from pathlib import Path

import pytest
import torch

from genlab.data.format.shards import ShardSet
from genlab.evaluation.features import features_of
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.samples import measure_copies, measure_precision_recall, nearest_training_images
from genlab.metrics.precision_recall import precision_recall
from tests.evaluation.support import Levels, held_out


def features(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))


def test_of_more_samples_the_first_are_taken() -> None:
    real, samples = features(40, 0), features(60, 1) + 0.5
    found = measure_precision_recall(Levels(), real, {"data": "abc"}, samples, seed=3)
    expected = precision_recall(real, samples[:40])
    assert found["precision"].value == expected.precision.value
    assert found["recall"].value == expected.recall.value
    for measurement in found.values():
        assert measurement.better == "higher"
        assert measurement.interval is not None
        assert measurement.settings == {
            "data": "abc",
            "extractor": "levels",
            "extractor_weights": "0" * 64,
            "extractor_version": "1.0",
            "resizer": "none",
            "features": 4,
            "samples": 60,
            "seed": 3,
            "images_a_side": 40,
            "neighbours": 3,
        }


def test_of_more_real_images_some_are_drawn_by_the_seed() -> None:
    """From all of them: the first may all be of one class."""
    real = torch.cat([features(40, 0), features(40, 1) + 100])

    def recall(seed: int) -> float:
        return measure_precision_recall(Levels(), real, {}, features(20, 2), seed)["recall"].value

    assert recall(0) == recall(0)
    assert all(0 < recall(seed) < 0.9 for seed in range(5))
    assert len({recall(seed) for seed in range(5)}) > 1


@pytest.fixture
def halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[HeldOut, HeldOut]:
    """Training rows and held-out rows."""
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    test = held_out(tmp_path / "digits", count=80)
    return HeldOut(ShardSet.open(str(tmp_path / "digits")).split("train"), "train"), test


def test_copies_of_training_images_are_nearer_than_held_out_ones(halves: tuple[HeldOut, HeldOut]) -> None:
    training, test = halves
    extractor = Levels()
    copied, reference = features_of(training, extractor)[:30], features_of(test, extractor)
    found = measure_copies(extractor, training, reference, test.settings, copied, seed=1)["copies"]
    assert found.value == 1
    assert found.better is None, "a model that draws nothing real has no copies either"
    settings = {"data": test.shards.checksum, "split": "test", "training_split": "train", "samples": 30, "seed": 1}
    assert found.settings.items() >= settings.items()
    assert found.settings["training_rows"] == len(training)
    unlike = measure_copies(extractor, training, reference, test.settings, copied + 500, seed=1)["copies"]
    assert unlike.value == 0
    fresh = measure_copies(extractor, training, reference, test.settings, reference, seed=1)["copies"]
    assert fresh.value == 0.5


def test_the_nearest_training_images_are_shown_below_images(halves: tuple[HeldOut, HeldOut]) -> None:
    training, _ = halves
    images = torch.cat([batch.image for batch in training.batches()])
    shown = [17, 3, 17]
    found = nearest_training_images(images[shown], training, Levels())
    assert found.rows.tolist() == shown
    assert torch.equal(found.images, images[shown])
    assert found.distances.tolist() == [0, 0, 0]
    pages = torch.from_numpy(found.sheet(images[shown] // 2, columns=2))
    assert pages.shape == (4 * 30 + 2, 2 * 30 + 2, 1), "two lines of pairs, without an image at the end"
    assert torch.equal(pages[2:30, 32:60], images[3] // 2)
    assert torch.equal(pages[32:60, 32:60], images[3])
    assert torch.equal(pages[92:120, 2:30], images[17])
    assert (pages[62:, 32:] == 255).all()
