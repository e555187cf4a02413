"""What is measured of a model, and what it is measured on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from genlab.core.errors import ConfigError, DataError, RunError
from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.evaluation.evaluate import (
    EvaluationOptions,
    default_extractor,
    evaluate,
    require_fit,
    require_measurable,
    require_same_classes,
)
from genlab.evaluation.extractors import ClassifierFeatures, EfficientNetLite
from genlab.evaluation.held_out import HeldOut
from genlab.models.model import Model
from genlab.store import model_directory
from tests.evaluation.support import (
    Levels,
    classifier,
    cvae,
    cyclegan,
    held_out,
    save,
    scenes,
    trained_classifier,
    vae,
)

FEW = EvaluationOptions(samples=20, bound_images=2, seed=3)


@pytest.fixture
def evaluated_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeldOut:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    return held_out(tmp_path / "digits")


@pytest.mark.usefixtures("tf32_allowed")
def test_a_model_is_measured_with_what_it_is_handed(evaluated_data: HeldOut, tmp_path: Path) -> None:
    model = cvae()
    directory = locate(save(tmp_path / "run", model, tmp_path / "digits") / "model")
    threes = trained_classifier(always=3)
    evaluation = evaluate(directory, model, {"images": evaluated_data}, FEW, extractor=Levels(), classifier=threes)
    assert not torch.backends.cudnn.allow_tf32, "measured in fp32, on a GPU too"
    assert not torch.backends.cuda.matmul.allow_tf32
    weights = model_directory.describe(directory)["weights"]["sha256"]
    assert evaluation.name == "run"
    assert evaluation.model == {"path": str(directory), "family": "cvae", "step": 7, "weights": weights}
    settings = {name: one.settings for name, one in evaluation.measurements.items()}
    assert (
        settings["fid"].items()
        >= {"extractor": "levels", "samples": 20, "seed": 3, "rows": len(evaluated_data)}.items()
    )
    assert settings["nll_50"].items() >= {"rows": 2, "seed": 3}.items()
    assert settings["reconstruction_consistency"]["classifier_weights"] == "f" * 64
    assert evaluation.measurements["sample_consistency"].value == 0.1, "one class of ten is seen everywhere"


def test_without_a_classifier_no_class_is_asked_for(evaluated_data: HeldOut, tmp_path: Path) -> None:
    directory = locate(save(tmp_path / "run", vae(), tmp_path / "digits") / "model")
    evaluation = evaluate(directory, vae(), {"images": evaluated_data}, FEW, extractor=Levels())
    asked = {"reconstruction_consistency", "classifier_accuracy", "sample_consistency"}
    assert not asked & evaluation.measurements.keys()
    assert {"neg_elbo", "nll_1000", "mse", "fid", "kid"} <= evaluation.measurements.keys()


def test_grey_images_are_compared_in_the_features_of_their_classifier(evaluated_data: HeldOut, tmp_path: Path) -> None:
    chosen = default_extractor(vae(), {"images": evaluated_data}, trained_classifier())
    assert isinstance(chosen, ClassifierFeatures)
    assert isinstance(default_extractor(vae(), {"images": evaluated_data}, None), EfficientNetLite)
    colour = scenes(tmp_path / "scenes", "a")
    assert isinstance(default_extractor(vae(), {"images": colour}, trained_classifier()), EfficientNetLite)
    assert isinstance(default_extractor(cyclegan(), {"a": colour, "b": colour}, None), EfficientNetLite)


def test_a_classifier_of_other_images_is_refused(evaluated_data: HeldOut, tmp_path: Path) -> None:
    require_same_classes(trained_classifier(), evaluated_data.shards, "mine")
    with pytest.raises(ConfigError, match="classifier: mine was trained on other labels: class 0 is '0' in"):
        require_same_classes(trained_classifier(label_names="abcdefghij"), evaluated_data.shards, "mine")
    with pytest.raises(ConfigError, match="it takes images of 28x28x1, not images of 32x32x3"):
        require_same_classes(trained_classifier(), scenes(tmp_path / "scenes", "a").shards, "mine")


def test_a_classifier_cannot_be_evaluated() -> None:
    require_measurable(vae(), "mine")
    require_measurable(cyclegan(), "mine")
    with pytest.raises(RunError, match="mine: a classifier model; only models that sample, translate, reconstruct can"):
        require_measurable(classifier(), "mine")


@pytest.mark.parametrize(
    ("count", "model", "message"),
    [
        (20, cvae, "has 0 classes; the model is one of 10"),
        (3, vae, "images in split 'test'; 4 are needed"),
        (20, cyclegan, "images of 28x28x1; the model takes images of 32x32x3"),
    ],
)
def test_data_that_do_not_do_for_the_model_are_refused(
    count: int, model: Callable[[], Model], message: str, tmp_path: Path
) -> None:
    source = f"folder:{_pictures(tmp_path / 'pictures', count)}"
    ingest(IngestConfig(source, str(tmp_path / "plain"), test_fraction=0.5, channels=1))
    plain = HeldOut(ShardSet.open(str(tmp_path / "plain")).split("test"), "test")
    with pytest.raises(DataError, match=message):
        require_fit(model(), plain, ())


def _pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.new("L", (28, 28), 10 * number).save(folder / f"{number}.png")
    return folder
