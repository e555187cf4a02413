"""The classifier of an evaluation, trained where there is none."""

import os
from pathlib import Path

import pytest
import torch

from genlab.cli.classifier_training import split_to_train_on, trained_classifier
from genlab.cli.evaluate import main
from genlab.core.claims import ClaimError, claimed
from genlab.core.errors import DataError
from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.evaluation.trained_classifier import load_classifier
from genlab.training.plan import WORK
from tests.evaluation.support import held_out, save, sorted_by_class, vae


@pytest.fixture
def classifier_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs folder of one test."""
    monkeypatch.setenv("GENLAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("genlab.cli.classifier_training.FEWEST_STEPS", 5)
    return tmp_path / "runs"


def test_the_classifier_is_trained_on_the_models_own_split(
    classifier_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And training leaves torch as it was."""
    before = torch.get_deterministic_debug_mode(), torch.get_num_threads(), torch.backends.cudnn.benchmark
    data = tmp_path / "digits"
    held_out(data)
    shards = ShardSet.open(str(data))
    trained = load_classifier(trained_classifier(shards, "test"), "cpu")
    assert (trained.data, trained.split) == (shards.checksum, "test")
    assert (torch.get_deterministic_debug_mode(), torch.get_num_threads(), torch.backends.cudnn.benchmark) == before

    only = sorted_by_class(tmp_path / "animals", each=4)
    run = save(classifier_runs / "animals", vae(), data)
    with pytest.raises(SystemExit):
        main([str(run), "--data", str(only.shards.directory)])
    assert "no split 'train' to train a classifier on; give one with --classifier RUN" in capsys.readouterr().err


def test_of_an_imported_model_it_is_trained_on_the_usual_split(tmp_path: Path) -> None:
    shards = sorted_by_class(tmp_path / "animals", each=4).shards
    with pytest.raises(DataError, match="no split 'train' to train a classifier on"):
        split_to_train_on(shards, {"config": {}})


def test_a_classifier_that_another_process_trains_is_waited_for_or_another_named(
    classifier_runs: Path, tmp_path: Path
) -> None:
    held_out(tmp_path / "digits")
    shards = ShardSet.open(str(tmp_path / "digits"))
    run = locate(classifier_runs / f"classifier-{shards.checksum[:12]}-test")
    refused = rf"another training is at work there \(process {os.getpid()} on .*\); wait for it, or name one with --"
    with claimed(run, WORK, ""), pytest.raises(ClaimError, match=refused):
        trained_classifier(shards, "test")
