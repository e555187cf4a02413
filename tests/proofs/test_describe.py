"""``genlab describe``: the layers of each family's networks, from whatever names a model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from genlab.cli.describe import main
from genlab.core.config import override, to_dict
from genlab.core.families import families
from genlab.core.storage import locate, write_json
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.models.vae import VAE, VAEArchitecture
from genlab.recipes.classifier import ClassifierConfig
from genlab.recipes.cvae import CVAEConfig
from genlab.recipes.vae import VAEConfig
from genlab.store import model_directory
from genlab.training.launch import launch


def described(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(arguments)
    return capsys.readouterr().out


def totals(printed: str) -> list[int]:
    """The subtotals, and the last line's total."""
    found = [*re.findall(r"│ total .* ([\d,]+) │", printed), *re.findall(r"in all ([\d,]+) parameters", printed)]
    return [int(number.replace(",", "")) for number in found]


def rows(printed: str) -> list[str]:
    return [" ".join(line.replace("│", " ").split()) for line in printed.splitlines() if line.startswith("│")]


def test_the_reports_vae(capsys: pytest.CaptureFixture[str]) -> None:
    printed = described(capsys, "vae")
    assert totals(printed) == [69_076, 65_089, 134_165]
    assert {"features.0 Conv2d 32 x 14 x 14 320", "features.2 Conv2d 64 x 7 x 7 18,496"} <= set(rows(printed))
    assert {"mean Linear 2 34", "layers.4 ConvTranspose2d 1 x 28 x 28 289"} <= set(rows(printed))
    assert "ReLU" not in printed


def test_the_reports_cvae_and_a_change_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert totals(described(capsys, "cvae"))[-1] == 339_998
    printed = described(capsys, "cvae", "--model.latent-dim", "3")
    assert totals(printed)[-1] == 339_998 + 2 * 301 + 300
    assert "mean Linear 3 903" in rows(printed)


@pytest.mark.parametrize("family", families())
def test_every_family_is_described_whole(
    family: str, model_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = []
    if family == "encoder":  # it is one of a generator, whose pictures have the size of the data's
        ingest(IngestConfig("synthetic:digits", str(tmp_path / "data"), count=4, size=8))
        more = ["--model.generator", str(model_runs / "faces"), "--data.images", str(tmp_path / "data")]
    *parts, total = totals(described(capsys, family, *more))
    assert sum(parts) == total > 0


def test_the_discriminators_are_the_trainings(capsys: pytest.CaptureFixture[str]) -> None:
    assert "generators.a_to_b" in described(capsys, "cyclegan")
    assert "discriminators.a" in described(capsys, "cyclegan")


def test_a_run_and_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the shape and the classes of the run's own data."""
    data = tmp_path / "data"
    ingest(IngestConfig("synthetic:digits", str(data), count=4, size=20))
    config = override(CVAEConfig(), {"data.images": str(data), "model.channels": [8, 16]})
    write_json(locate(tmp_path / "run" / "config.json"), {"family": "cvae", "config": to_dict(config)})
    printed = described(capsys, str(tmp_path / "run"))
    assert "images of 20x20x1" in printed
    assert any(row.startswith("layers.3 ConvTranspose2d 1 x 20 x 20") for row in rows(printed))
    assert described(capsys, str(tmp_path / "run" / "config.json")) == printed


def test_a_run_and_a_model_that_learn_further_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = tmp_path / "scenes", tmp_path / "run"
    ingest(IngestConfig("synthetic:scenes-a", str(data), count=16, size=32, test_fraction=0.25, label="season"))
    changes = {"run.storage": str(tmp_path), "run.name": "run", "run.workers": 0, "run.batch": 8, "run.steps": 2}
    learnt = {"data.images": str(data), "model.width": 4, "objective.targets": ["season", "horizon", "lake"]}
    launch("classifier", override(ClassifierConfig(), changes | learnt))
    capsys.readouterr()
    printed = described(capsys, str(run))
    assert "head Linear 5 645" in rows(printed)
    assert described(capsys, str(run / "model")) == printed
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = next(line for line in lines if line["kind"] == "test")
    assert 0 < measured["mean_absolute_error_horizon"] < 0.2
    [horizon, lake] = model_directory.describe(run / "model")["architecture"]["targets"]
    columns = ShardSet.open(str(data)).split("train").columns(np.arange(12))
    assert horizon["mean"] == pytest.approx(columns["horizon"].mean())
    assert lake["deviation"] == pytest.approx(columns["lake"].std())


def test_a_model_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its architecture counts, whatever is known of the run that trained it."""
    architecture = VAEArchitecture(likelihood="gaussian")
    for config in (to_dict(VAEConfig(model=architecture)), {}):
        provenance = model_directory.Provenance("run", 1, 1, {}, config, {})
        model_directory.save(tmp_path / "model", VAE((28, 28, 1), architecture), provenance)
        printed = described(capsys, str(tmp_path / "model"))
        with pytest.raises(SystemExit):
            main([str(tmp_path / "model"), "--model.latent-dim", "8"])
        assert "--model.latent-dim: " in capsys.readouterr().err
        assert totals(printed) == [1, 69_076, 65_089, 134_166]
        assert "log_sigma Parameter 1" in rows(printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nothing"], "{tmp}/nothing: no run and no config.json"),
        (["diffusion"], "no recipe for family 'diffusion'; there are: "),
        (["vae", "--data.images", "{tmp}/nothing"], "data.images: {tmp}/nothing: not a data set"),
        (["vae", "--model.channels", "1", "2", "3"], "data.images: 28x28 images cannot be halved 3 times"),
    ],
)
def test_what_cannot_be_described_is_said(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([argument.format(tmp=tmp_path) for argument in arguments])
    assert ended.value.code == 2
    assert message.format(tmp=tmp_path) in capsys.readouterr().err
