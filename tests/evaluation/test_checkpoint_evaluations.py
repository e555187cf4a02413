"""Evaluations of a run's checkpoints, in ``evaluations.jsonl``."""

import re
from pathlib import Path

import pytest

from genlab.core.errors import RunError
from genlab.core.storage import locate
from genlab.evaluation.checkpoint_evaluations import (
    CheckpointEvaluation,
    best_of,
    measure_model,
    read_evaluations,
    write_evaluations,
)
from genlab.evaluation.measurements import Measurement
from genlab.models.classifier import Classifier, ClassifierArchitecture
from genlab.models.noise import RULE
from genlab.store.model_directory import Provenance, save
from tests.evaluation.support import held_out

WRITTEN_BEFORE = (
    '{"step": 3, "images": 12, "epoch": 1.5, "weights": "ffff", "figures": {"kid": {"title": "KID", "value": 0.25, '
    '"passport": {"data_a_to_b": "aaaa", "seed": 0}, "unit": "", "better": "lower", "interval": [0.125, 0.375], '
    '"caution": ""}, "cycle_a": {"title": "cycle error", "value": 0.5, "passport": {"data": "aaaa"}, "unit": "", '
    '"better": null, "interval": [0.25, 0.75], "caution": ""}}}\n'
)


def test_a_file_written_before_is_read_and_written_in_the_same_words(tmp_path: Path) -> None:
    file = tmp_path / "evaluations.jsonl"
    file.write_text(WRITTEN_BEFORE)
    evaluations = read_evaluations(locate(tmp_path))
    kid = Measurement("KID", 0.25, {"data_a_to_b": "aaaa", "seed": 0}, "", "lower", (0.125, 0.375))
    cycle = Measurement("cycle error", 0.5, {"data": "aaaa"}, interval=(0.25, 0.75))
    assert evaluations == [CheckpointEvaluation(3, 12, 1.5, "ffff", {"kid": kid, "cycle_a": cycle})]
    assert best_of(evaluations, "kid") is evaluations[0]
    write_evaluations(locate(tmp_path), evaluations)
    assert file.read_text() == WRITTEN_BEFORE


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evaluations.jsonl").write_text(WRITTEN_BEFORE.replace('"value": 0.25', '"value": "much"'))
    with pytest.raises(RunError, match=re.escape(f"{tmp_path / 'evaluations.jsonl'}: damaged (1 fault); delete it")):
        read_evaluations(locate(tmp_path))
    (tmp_path / "evaluations.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(RunError, match=r"damaged \(.*\); delete it"):
        read_evaluations(locate(tmp_path))


@pytest.mark.slow
def test_a_model_that_draws_is_measured_by_its_samples(
    gan_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    rows = held_out(tmp_path / "digits")
    measurements = measure_model(str(gan_run / "model"), {"images": str(tmp_path / "digits")}, "test", False, 0)
    assert measurements.keys() >= {"fid", "kid"}
    settings = measurements["kid"].settings
    assert settings.items() >= {"samples": len(rows), "noise": RULE, "sample_truncation": 1.0}.items()


def test_a_model_that_makes_no_pictures_is_refused(tmp_path: Path) -> None:
    model = Classifier((8, 8, 1), ClassifierArchitecture(width=2, features=2, classes=2))
    origin = Provenance(run="", step=0, images=0, data={}, config={}, metrics={}, label_names=())
    save(locate(tmp_path / "model"), model, origin)
    with pytest.raises(RunError, match="a classifier model neither samples nor translates"):
        measure_model(str(tmp_path / "model"), {}, "test", False, 0)
