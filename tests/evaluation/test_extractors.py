"""Networks whose features images are compared in."""

import pickle
from pathlib import Path
from unittest import mock

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from genlab.core.errors import RunError
from genlab.core.storage import locate, sha256
from genlab.evaluation.extractors import ClassifierFeatures, EfficientNetLite, Inception
from genlab.evaluation.trained_classifier import load_classifier
from genlab.models.classifier import Classifier, ClassifierArchitecture, Target
from tests.evaluation.support import classifier, colours, save, vae

MILITARY_UNIFORM = 652
"""ImageNet's class of Grace Hopper's portrait."""


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNetLite:
    return EfficientNetLite("cpu")


def test_efficientnet_has_1280_features_of_any_size_and_grey(efficientnet: EfficientNetLite) -> None:
    grey = colours(2, 28, 28, 1)
    features = efficientnet.features(grey)
    assert features.shape == (2, efficientnet.dimension)
    assert features.dtype == torch.float32
    torch.testing.assert_close(efficientnet.features(grey.expand(-1, -1, -1, 3)), features)
    torch.testing.assert_close(efficientnet.features(grey[1:]), features[1:], atol=1e-4, rtol=1e-4)
    assert efficientnet.features(colours(1, 300, 200, 3)).shape == (1, efficientnet.dimension)


def test_efficientnet_sees_what_is_in_a_photograph(efficientnet: EfficientNetLite) -> None:
    """So its weights, its input range and its channel order are right."""
    photograph = Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"))
    features = efficientnet.features(torch.from_numpy(np.array(photograph))[None])
    assert efficientnet._network.network._fc(features).argmax() == MILITARY_UNIFORM


def test_efficientnets_layers_are_those_its_features_are_made_of(efficientnet: EfficientNetLite) -> None:
    images, network = colours(2, 40, 30, 3), efficientnet._network.network
    layers = efficientnet.layers(images)
    assert [layer.shape[2] for layer in layers] == [112, 56, 28, 14, 7]
    head = network._swish(network._bn1(network._conv_head(layers[-1])))
    torch.testing.assert_close(head.mean((2, 3)), efficientnet.features(images))


@pytest.mark.slow
def test_inception_is_torch_fidelitys_with_the_weights_given(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "inception.pth"
    with mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"), mock.patch("torch.load"):
        theirs = FeatureExtractorInceptionV3("theirs", ["2048"], "untrained")
    torch.save(theirs.state_dict(), file)
    ours, images = Inception(str(file), "cpu"), colours(2, 40, 40, 3)
    features = ours.features(images)
    assert features.shape == (2, ours.dimension)
    torch.testing.assert_close(features, theirs(images.permute(0, 3, 1, 2))[0])
    file.write_bytes(file.read_bytes() + b"\0")
    assert Inception(str(file), "cpu").weights != ours.weights


def test_a_file_of_weights_that_would_run_code_does_not(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    for name, content in (
        ("code.pth", pickle.dumps({"fc.weight": Code()}, protocol=2)),
        ("text.pth", b"not weights"),
        ("empty.pth", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RunError, match=rf"{name}.*not the weights of torch-fidelity's Inception-v3"):
            Inception(str(tmp_path / name), "cpu")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(RunError, match=r"other\.pth.*not the weights"):
        Inception(str(tmp_path / "other.pth"), "cpu")
    with pytest.raises(RunError, match=r"none\.pth.*no such file"):
        Inception(str(tmp_path / "none.pth"), "cpu")
    assert not (tmp_path / "ran").exists()


def test_a_classifiers_features_are_what_its_logits_are_made_of(tmp_path: Path) -> None:
    run = save(tmp_path / "trained", classifier(), tmp_path / "data")
    trained = load_classifier(locate(run / "model"), "cpu")
    extractor, images = ClassifierFeatures(trained), colours(5, 28, 28, 1)
    features = extractor.features(images)
    assert features.shape == (5, extractor.dimension)
    assert torch.equal(trained.model.head(features).argmax(1), trained.model.classify(images))
    assert extractor.settings["extractor_weights"] == sha256((run / "model" / "model.safetensors").read_bytes())


def test_another_model_is_no_classifier(tmp_path: Path) -> None:
    run = save(tmp_path / "vae", vae(), tmp_path / "data")
    with pytest.raises(RunError, match="a vae, not a classifier"):
        load_classifier(locate(run / "model"), "cpu")
    of_ages = Classifier((28, 28, 1), ClassifierArchitecture(width=4, targets=(Target("age"),)))
    run = save(tmp_path / "ages", of_ages, tmp_path / "data")
    with pytest.raises(RunError, match="does not predict the label"):
        load_classifier(locate(run / "model"), "cpu")
