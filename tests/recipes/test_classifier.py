"""The classifier in training."""

import pytest
import torch

from genlab.core.config import override
from genlab.models.classifier import Classifier, ClassifierArchitecture
from genlab.recipes.classifier import ClassifierConfig, ClassifierRecipe
from genlab.recipes.recipe import DomainInfo
from tests.recipes.support import RecordingStepContext, batch

ROWS = 6
TEN = tuple("0123456789")


def make(
    names: tuple[str, ...] = TEN, shape: tuple[int, int, int] = (28, 28, 1), **changes: object
) -> ClassifierRecipe:
    torch.manual_seed(0)
    config = override(ClassifierConfig(), {f"model.{name}": value for name, value in changes.items()})
    return ClassifierRecipe(config, {"images": DomainInfo(100, shape, names)})


def test_it_has_as_many_classes_as_the_data() -> None:
    model = make(("cat", "dog", "eel")).model()
    assert isinstance(model, Classifier)
    assert model.head.out_features == 3
    with pytest.raises(ValueError, match=r"model\.classes = 2: the data set has 10"):
        make(classes=2)
    with pytest.raises(ValueError, match="a classifier needs labelled images"):
        make((), classes=10)


def test_at_the_size_of_digits_it_has_the_parameters_it_says() -> None:
    assert sum(parameter.numel() for parameter in make().classifier.parameters()) == 467_818


@pytest.mark.parametrize("shape", [(28, 28, 1), (33, 50, 3), (5, 5, 1)])
def test_a_step_reaches_every_weight(shape: tuple[int, int, int]) -> None:
    recipe = make(shape=shape, width=4)
    step = RecordingStepContext(recipe, ROWS)
    metrics = step.take({"images": batch(ROWS, *shape, seed=0, classes=10)})
    gradients = step.gradients["classifier"]
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []
    torch.testing.assert_close(step.losses["classifier"], metrics["cross_entropy"])


def test_accuracy_is_the_share_of_rows_it_is_right_about() -> None:
    recipe, given = make(), batch(ROWS, 28, 28, 1, seed=0, classes=10)
    recipe.eval()
    assert given.label is not None
    expected = (recipe.classifier.classify(given.image) == given.label).float().mean()
    assert recipe.test_metrics({"images": given}, RecordingStepContext(recipe, ROWS))["accuracy"] == expected


def test_features_are_of_the_width_asked_for() -> None:
    model = Classifier((28, 28, 1), ClassifierArchitecture(width=4, features=12, classes=3)).eval()
    features = model.features(batch(ROWS, 28, 28, 1, seed=0).image)
    assert features.shape == (ROWS, 12)
    assert features.dtype == torch.float32
