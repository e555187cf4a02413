"""Data sets, runs and models that genlab 0.1 wrote before its modules moved (``made_by_0_1``) still open and go on.

So does a CycleGAN that it wrote before a step had phases (``made_before_phases``): its history lay in a network.
"""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from genlab.cli import compare, report, sample, train, translate
from genlab.core.config import from_dict, override
from genlab.core.storage import locate
from genlab.data.format.held_out import HeldOutSplits
from genlab.data.format.shards import ShardSet
from genlab.evaluation.checkpoint_evaluations import read_evaluations
from genlab.evaluation.measurements import Evaluation
from genlab.inference.pictures import encode_sheet, save
from genlab.models.vae import VAE
from genlab.recipes.cyclegan import CycleGANConfig
from genlab.store import model_directory
from genlab.training.launch import launch
from genlab.training.plan import earlier_config, make_plan
from genlab.training.tracking import CLOCK_FIELDS

EARLIER = Path(__file__).parent / "made_by_0_1"
BEFORE_PHASES = Path(__file__).parent / "made_before_phases"
DIGITS = [
    *("--run.name", "digits", "--run.workers", "0", "--run.threads", "1", "--run.batch", "8", "--run.epochs", "None"),
    *("--run.log-every", "2", "--run.checkpoint-every", "2", "--run.keep", "1"),
    *("--model.channels", "4", "4", "--model.hidden", "8"),
]


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A copy of what the earlier version wrote in /tmp/fix, whose paths lead to the copy."""
    root = tmp_path / "earlier"
    shutil.copytree(EARLIER, root)
    for name in ("config.json", "genlab.json", "scores.json", "evaluation.json"):
        for file in root.rglob(name):
            file.write_text(file.read_text().replace("/tmp/fix", str(root)))
    return root


def lines(file: Path) -> list[dict[str, Any]]:
    """Metrics, without the fields that the clock decides."""
    read = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK_FIELDS} for line in read]


@pytest.mark.parametrize(("name", "rows"), [("digits", 40), ("pictures", 8), ("day", 12), ("night", 12)])
def test_a_data_set_opens_under_its_checksum(name: str, rows: int) -> None:
    shards = ShardSet.open(str(EARLIER / "data" / name))
    shards.verify()
    assert len(shards) == rows
    assert shards.checksum == json.loads((EARLIER / "data" / name / "manifest.json").read_text())["checksum"]


def test_labels_and_attributes_of_a_data_set_are_read() -> None:
    shards = ShardSet.open(str(EARLIER / "data" / "pictures"))
    rows = np.arange(len(shards))
    assert shards.keys(rows)[0] == "train/20_0.png"
    columns = shards.columns(rows)
    assert columns["label"].tolist() == [0, 1] * 4
    assert columns["age"].tolist() == list(range(20, 28))


def test_a_model_decodes_and_translates_as_it_did(earlier: Path, tmp_path: Path) -> None:
    """Samples were drawn by another rule, that of ``torch.randn``; of the same latent vectors they are the same."""
    model = cast("VAE", model_directory.load(earlier / "runs" / "digits" / "model"))
    latents = torch.randn(6, model.architecture.latent_dim, generator=torch.Generator().manual_seed(3))
    save(locate(tmp_path / "sample.png"), encode_sheet(model.decode(latents).numpy()))
    sample.main([str(earlier / "runs" / "digits"), str(tmp_path / "now.png"), "--count", "6", "--seed", "3"])
    assert (tmp_path / "now.png").exists()
    (scene,) = (earlier / "made").glob("scene-*.png")
    shards = ShardSet.open(str(earlier / "data" / "day")).split("test")
    row = shards.keys(np.arange(len(shards))).index(scene.stem)
    Image.fromarray(shards.read(np.array([row])).image[0]).save(tmp_path / "scene.png")
    translate.main([str(earlier / "runs" / "day2night"), str(tmp_path / "scene.png"), str(tmp_path / "night.png")])
    for made, known in (("sample.png", earlier / "made" / "sample.png"), ("night.png", scene)):
        now, then = (np.asarray(Image.open(file)).astype(int) for file in (tmp_path / made, known))
        assert now.shape == then.shape
        assert np.abs(now - then).max() <= 1, "another CPU rounds otherwise"


def test_a_run_goes_on_from_its_checkpoint(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = earlier / "runs" / "digits"
    before = lines(run / "metrics.jsonl")
    data = ["--data.images", str(earlier / "data" / "digits"), "--run.storage", str(earlier / "runs")]
    train.main(["vae", *DIGITS, *data, "--run.steps", "6"])
    assert "already finished at step 6" in capsys.readouterr().out
    train.main(["vae", *DIGITS, *data, "--run.steps", "10"])
    assert "goes on from the checkpoint of step 6" in capsys.readouterr().out
    after = lines(run / "metrics.jsonl")
    assert after[: len(before)] == before
    known = lines(earlier / "made" / "metrics-of-10-steps.jsonl")
    last, expected = ([line for line in found if line["step"] > 6] for found in (after, known))
    assert [line["step"] for line in last] == [line["step"] for line in expected]
    for line, wanted in zip(last, expected, strict=True):
        assert line.pop("kind") == wanted.pop("kind")
        assert line == pytest.approx(wanted, rel=1e-4)


def test_a_cyclegan_whose_history_lay_in_its_discriminators_goes_on_with_it(
    earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = earlier / "runs" / "history"
    shutil.copytree(BEFORE_PHASES / "history", run)
    before = safetensors.torch.load_file(run / "checkpoints" / "step-00000004" / "state.safetensors")
    assert before["network.discriminators.history.a.images"].any()
    written = (run / "config.json").read_text().replace("/tmp/fix", str(earlier))
    (run / "config.json").write_text(written)
    config = from_dict(CycleGANConfig, json.loads(written)["config"])
    launch("cyclegan", override(config, {"run.steps": 8}))
    assert "goes on from the checkpoint of step 4" in capsys.readouterr().out
    known = lines(BEFORE_PHASES / "metrics-of-steps-5-to-8.jsonl")
    found = [line for line in lines(run / "metrics.jsonl") if line["step"] > 4]
    assert len(found) == len(known)
    for line, wanted in zip(found, known, strict=True):
        assert line.pop("kind") == wanted.pop("kind")
        assert line == pytest.approx(wanted, rel=1e-4)


def test_evaluations_are_read(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = earlier / "runs" / "digits"
    written = json.loads((run / "evaluation.json").read_text())
    evaluation = Evaluation.load(str(run))
    assert evaluation.model["weights"] == model_directory.describe(run / "model")["weights"]["sha256"]
    assert {name: one["value"] for name, one in written["figures"].items()} == {
        name: one.value for name, one in evaluation.measurements.items()
    }
    evaluation.save(locate(run / "again.json"))
    assert json.loads((run / "again.json").read_text()) == written
    compare.main([str(run / "evaluation.json"), str(run / "again.json")])
    assert "−ELBO" in capsys.readouterr().out
    of_checkpoints = read_evaluations(locate(earlier / "runs" / "day2night"))
    assert [one.step for one in of_checkpoints] == [2, 4]
    assert all(one.measurements["kid"].settings["seed"] == 0 for one in of_checkpoints)


def test_a_run_that_chose_a_checkpoint_goes_on_choosing_on_all_its_test_rows(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the few rows are not divided anyway.
    monkeypatch.setattr("genlab.data.format.held_out.FEWEST_OF_HALF", 2)
    monkeypatch.setattr("genlab.training.plan.FEWEST", 2)
    written = json.loads((earlier / "runs" / "day2night" / "config.json").read_text())
    config = from_dict(CycleGANConfig, written["config"])
    plan = make_plan("cyclegan", config)
    assert earlier_config(plan) == written
    assert plan.held_out == HeldOutSplits("test", "test")
    new = override(config, {"run.name": "new"})
    assert make_plan("cyclegan", new).held_out == HeldOutSplits("test:validation", "test:reporting")


@pytest.mark.slow
def test_a_report_has_the_scores_that_it_had(earlier: Path) -> None:
    run = earlier / "runs" / "day2night"
    scores = json.loads((run / "scores.json").read_text())
    report.main([str(run)])
    assert "The best checkpoint is chosen on these images" in (run / "report.html").read_text()
    again = json.loads((run / "scores.json").read_text())
    assert again.keys() == scores.keys()
    for direction, known in scores["translation"].items():
        found = again["translation"][direction]
        assert found.keys() == known.keys()
        for name in ("input_psnr", "translated_psnr", "curve_psnr", "gain"):
            assert found[name] == pytest.approx(known[name], abs=1e-3), "another CPU rounds otherwise"
