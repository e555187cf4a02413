"""``genlab evaluate``: from a model directory and a data set to a table and a file."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from PIL import Image

from genlab.cli.compare import main as compare
from genlab.cli.evaluate import EvaluateConfig, main, open_held_out
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.evaluation.measurements import Evaluation
from genlab.models.cyclegan import DIRECTIONS
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from tests.evaluation.support import classifier, cvae, cyclegan, held_out, save, scenes, vae

LATENT = {"neg_elbo", "reconstruction", "kl", "active_units", "nll_1", "nll_50", "nll_500", "nll_1000", "mse"}
LABELLED = LATENT | {"nearest_neighbour_accuracy"}
OF_SAMPLES = {"fid", "kid", "precision", "recall"}
FEW = ["--iwae-images", "2"]


@pytest.fixture(scope="module")
def labelled_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn digits, half of them held out."""
    root = tmp_path_factory.mktemp("evaluate")
    held_out(root / "digits")
    return root / "digits"


@pytest.fixture(autouse=True)
def evaluated_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs folder of one test."""
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GENLAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("genlab.cli.classifier_training.FEWEST_STEPS", 5)
    return tmp_path / "runs"


@pytest.mark.slow
def test_a_conditional_model_gets_every_measurement_and_its_classifier_is_trained_once(
    labelled_digits: Path, evaluated_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(evaluated_runs / "digits", cvae(), labelled_digits)
    main([str(run), *FEW])
    printed = capsys.readouterr().out
    assert "training a classifier" in printed
    evaluation = Evaluation.load(str(run))
    recognised = {"reconstruction_consistency", "classifier_accuracy", "sample_consistency", *OF_SAMPLES}
    assert evaluation.measurements.keys() == LABELLED | recognised
    assert all(str(measurement) in printed for measurement in evaluation.measurements.values())
    assert "(!) FID in classifier features" in printed, "33 images are too few"
    saved = json.loads((run / "model" / "genlab.json").read_text())
    assert evaluation.name == "digits"
    assert evaluation.model["weights"] == saved["weights"]["sha256"]

    (trained,) = evaluated_runs.glob("classifier-*")
    weights = json.loads((trained / "model" / "genlab.json").read_text())["weights"]["sha256"]
    assert evaluation.measurements["fid"].settings["extractor_weights"] == weights
    first = (run / "evaluation.json").read_bytes()
    main([str(run / "model"), *FEW, "--classifier", str(trained)])
    assert "training a classifier" not in capsys.readouterr().out
    assert (run / "evaluation.json").read_bytes() == first, "a function of model, data and seed"
    main([str(run), *FEW, "--seed", "1", "--output", str(evaluated_runs / "other.json")])
    assert "training a classifier" not in capsys.readouterr().out
    assert Evaluation.load(str(evaluated_runs / "other.json")).measurements["fid"].settings["seed"] == 1


@pytest.mark.slow
def test_colour_images_without_labels_are_compared_in_efficientnets_features(
    tmp_path: Path, evaluated_runs: Path
) -> None:
    scenes = tmp_path / "scenes"
    ingest(IngestConfig("synthetic:scenes-a", str(scenes), size=32, count=10, test_fraction=0.5))
    torch.manual_seed(0)
    model = VAE((32, 32, 3), VAEArchitecture(channels=(4,), hidden=4, likelihood="gaussian"))
    run = save(evaluated_runs / "scenes", model, scenes, label_names=())
    main([str(run), *FEW, "--samples", "6"])
    measurements = Evaluation.load(str(run)).measurements
    assert measurements.keys() == LATENT | OF_SAMPLES
    assert measurements["fid"].settings["extractor"] == "efficientnet-lite0, pooled"
    assert measurements["fid"].settings["samples"] == 6
    assert not list(evaluated_runs.glob("classifier-*"))


@pytest.mark.slow
def test_a_translator_is_measured_in_both_directions_and_compared(
    evaluated_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the data that its run names; an imported model, which names none, on what it is given."""
    domains = {domain: tmp_path / domain for domain in ("a", "b")}
    for domain, folder in domains.items():
        scenes(folder, domain)
    run = save(evaluated_runs / "scenes", cyclegan(), domains)
    main([str(run)])
    printed = capsys.readouterr().out
    measurements = Evaluation.load(str(run)).measurements
    of_direction = {"fid", "kid", "psnr", "ssim", "perceptual"}
    assert measurements.keys() == {
        *(f"{kind}_{direction}" for kind in of_direction for direction in DIRECTIONS),
        *(f"untranslated_{kind}_{direction}" for kind in of_direction for direction in DIRECTIONS),
        *(f"{kind}_{direction}" for kind in ("curve_psnr", "gain") for direction in DIRECTIONS),
        *("kid", "cycle_a", "cycle_b", "identity_a", "identity_b"),
    }
    assert all(str(measurement) in printed for measurement in measurements.values())
    assert measurements["kid_b_to_a"].settings["extractor"] == "efficientnet-lite0, pooled"
    assert measurements["kid_b_to_a"].settings["source_data"] == ShardSet.open(str(domains["b"])).checksum

    imported = tmp_path / "imported"
    none = model_directory.Provenance(run="x.pth", step=0, images=0, data={}, config={}, metrics={})
    model_directory.save(str(imported), cyclegan(seed=1), none)
    main([str(imported), "--data-a", str(domains["a"]), "--data-b", str(domains["b"]), "--samples", "6"])
    assert Evaluation.load(str(imported)).measurements["fid_a_to_b"].settings["samples"] == 6
    main([str(imported), "--data-a", str(domains["a"]), "--data-b", str(domains["b"])])
    capsys.readouterr()
    compare([str(run), str(imported)])
    printed = capsys.readouterr().out
    assert "KID in EfficientNet-Lite0 features, a → b ↓" in printed
    assert "settings differ" not in printed


def test_what_a_translator_cannot_be_measured_on_is_refused(
    labelled_digits: Path, evaluated_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = tmp_path / "a"
    scenes(a, "a")
    run = str(save(evaluated_runs / "scenes", cyclegan(), {"a": a, "b": tmp_path / "gone"}))
    imported = str(tmp_path / "imported")
    none = model_directory.Provenance(run="x.pth", step=0, images=0, data={}, config={}, metrics={})
    model_directory.save(imported, cyclegan(), none)
    digits = str(save(evaluated_runs / "digits", vae(), labelled_digits))
    for arguments, message in (
        ([run], f"{tmp_path / 'gone'}: not a data set"),
        (
            [run, "--data-b", str(labelled_digits)],
            f"{labelled_digits}: images of 28x28x1; the model takes images of 32x32x3",
        ),
        ([run, "--data", str(a)], "--data: not for a cyclegan model, whose data is given by --data-a and --data-b"),
        ([run, "--classifier", "none"], "--classifier: not for a cyclegan model"),
        ([imported, "--data-a", str(a)], "does not say what it was trained on; give --data-b DATA"),
        ([digits, "--data-b", str(a)], "--data-b: not for a vae model, whose data is given by --data"),
        ([digits, "--path-lengths", "9"], "--path-lengths: not for a vae model"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_models_of_one_folder_keep_their_own_evaluations(
    labelled_digits: Path, evaluated_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = save(evaluated_runs / "classifier", classifier(), labelled_digits)
    models = [
        save(evaluated_runs / name, vae(seed=seed), labelled_digits) for seed, name in enumerate(("weak", "strong"))
    ]
    for run in models:
        shutil.move(run / "model", tmp_path / run.name)
        main([str(tmp_path / run.name), *FEW, "--classifier", str(trained)])
    assert {path.parent.name for path in tmp_path.glob("*/evaluation.json")} == {"weak", "strong"}
    capsys.readouterr()
    compare([str(tmp_path / run.name) for run in models])
    assert {"weak", "strong"} <= set(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_model_is_measured_without_a_classifier(labelled_digits: Path, evaluated_runs: Path) -> None:
    run = save(evaluated_runs / "digits", cvae(), labelled_digits)
    main([str(run), *FEW, "--samples", "4", "--classifier", "none"])
    measurements = Evaluation.load(str(run)).measurements
    assert measurements.keys() == LABELLED | OF_SAMPLES
    assert measurements["fid"].settings["extractor"] == "efficientnet-lite0, pooled"
    assert not list(evaluated_runs.glob("classifier-*"))


def test_a_model_that_is_replaced_while_it_is_measured_has_no_evaluation(
    labelled_digits: Path, evaluated_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(evaluated_runs / "digits", vae(), labelled_digits)

    def train_on(directory: object, *arguments: Any, **options: Any) -> Evaluation:
        save(run, vae(seed=1), labelled_digits)
        return Evaluation("digits", {"weights": model_directory.describe(run / "model")["weights"]["sha256"]}, {})

    with mock.patch("genlab.cli.evaluate.evaluate", train_on), pytest.raises(SystemExit):
        main([str(run), *FEW, "--classifier", "none"])
    assert "was replaced by another model while it was measured" in capsys.readouterr().err
    assert not (run / "evaluation.json").exists()


@pytest.mark.slow
def test_without_held_out_rows_nothing_is_measured_unless_another_split_is_asked_for(
    evaluated_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole"
    ingest(IngestConfig("synthetic:digits", str(whole), count=20, seed=1))
    run = save(evaluated_runs / "digits", vae(), whole)
    with pytest.raises(SystemExit):
        main([str(run), *FEW, "--classifier", "none"])
    assert "no split 'test'; choose one of: train" in capsys.readouterr().err
    main([str(run), *FEW, "--classifier", "none", "--split", "train"])
    assert Evaluation.load(str(run)).measurements["neg_elbo"].settings["split"] == "train"


def test_copies_are_measured_when_asked_for(
    labelled_digits: Path, evaluated_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = save(evaluated_runs / "classifier", classifier(), labelled_digits)
    run = save(evaluated_runs / "digits", vae(), labelled_digits)
    options = [str(run), *FEW, "--samples", "4", "--classifier", str(trained), "--copies"]
    main(options)
    copies = Evaluation.load(str(run)).measurements["copies"]
    assert copies.settings["training_split"] == "train"
    assert Image.open(run / "evaluation.nearest.png").size == (8 * 30 + 2, 8 * 30 + 2), "32 pairs"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*options, "--split", "train"])
    assert "--copies: the split 'train' holds training images; measure on another one" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    labelled_digits: Path, evaluated_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(evaluated_runs / "digits", cvae(), labelled_digits)
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "evaluation.json", tmp_path):
        with pytest.raises(SystemExit) as ended:
            main([str(run), "--output", str(output)])
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert f"{output}: cannot be written" in printed.err
        assert "--output" in printed.err
        assert "training a classifier" not in printed.out
    assert not list(tmp_path.glob("**/.*probe"))


@pytest.mark.parametrize(
    ("facts", "given", "split", "chosen"),
    [
        ({}, {}, "test", False),
        ({"chosen_on": "validation", "reported_on": "test"}, {}, "test", False),
        ({"chosen_on": "test", "reported_on": "test"}, {}, "test", True),
        ({"chosen_on": "test:validation", "reported_on": "test:reporting"}, {}, "test:reporting", False),
        ({"chosen_on": "test:validation", "reported_on": "test:reporting"}, {"split": "test"}, "test", True),
        ({"metrics": {"evaluation/kid": 0.5}}, {}, "test", True),  # as an earlier genlab wrote it
    ],
)
def test_a_model_is_measured_on_other_images_than_it_was_chosen_on_or_that_is_said(
    facts: dict[str, Any], given: dict[str, Any], split: str, chosen: bool, scenes: Path, tmp_path: Path
) -> None:
    def measured(config: EvaluateConfig) -> dict[str, tuple[str, bool]]:
        return {name: (rows.split, rows.chosen) for name, rows in open_held_out(config, model, provenance).items()}

    def known(domain: str) -> dict[str, str]:
        return {"path": str(scenes / domain), "checksum": ShardSet.open(str(scenes / domain)).checksum}

    model = cyclegan()
    of_run = {"data": {"split": "train", "test_split": "test", "flip": False}}
    provenance = {
        "config": of_run,
        "label_names": (),
        "metrics": {},
        "data": {"a": known("a"), "b": known("b")},
    } | facts
    with mock.patch("genlab.evaluation.evaluate.FEWEST", 0):
        assert measured(EvaluateConfig("run", **given)) == {"a": (split, chosen), "b": (split, chosen)}
        copy = tmp_path / "other"
        ingest(IngestConfig("synthetic:scenes-b", str(copy), size=32, count=4, test_fraction=0.5))
        on_another = measured(EvaluateConfig("run", data_b=str(copy), **given))
        assert on_another == {"a": (split, chosen), "b": ("test", False)}, "nothing was chosen on that data set"


def test_what_cannot_be_measured_is_refused(
    labelled_digits: Path, evaluated_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(labelled_digits, moved)
    run = str(save(evaluated_runs / "digits", vae(), moved))
    shutil.rmtree(moved)
    held_out(moved, count=40)
    other = tmp_path / "scenes"
    ingest(IngestConfig("synthetic:scenes-a", str(other), size=32, count=4, test_fraction=0.5))
    trained = str(save(evaluated_runs / "classifier", classifier(), labelled_digits, label_names="abcdefghij"))
    names = [*"012", "three", *"456789"]
    told = str(save(evaluated_runs / "told", cvae(), labelled_digits, label_names=names))
    for arguments, message in (
        ([run], f"{moved}: no longer the data set that the model was trained on"),
        ([run, "--data", str(other)], f"{other}: images of 32x32x3; the model takes images of 28x28x1"),
        ([run, "--data", str(labelled_digits), "--split", "dev"], "no split 'dev'"),
        ([run, "--data", str(labelled_digits), "--classifier", run], "a vae, not a classifier"),
        (
            [run, "--data", str(labelled_digits), "--classifier", trained],
            f"class 0 is '0' in {labelled_digits}, and was 'a'",
        ),
        ([told, "--data", str(labelled_digits)], f"class 3 is '3' in {labelled_digits}, and was 'three'"),
        (
            [trained, "--data", str(labelled_digits)],
            "a classifier model; only models that sample, translate, reconstruct can be evaluated",
        ),
        ([str(labelled_digits)], "not a model directory"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
