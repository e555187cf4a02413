"""The classifier in training."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from genlab.core.config import override
from genlab.data.format.manifest import Attribute
from genlab.data.stream.batches import Batch
from genlab.models.classifier import Classifier, ClassifierArchitecture
from genlab.recipes.classifier import ClassifierConfig, ClassifierRecipe
from genlab.recipes.recipe import DomainInfo, Spread
from tests.recipes.support import RecordingStepContext, batch

ROWS = 6
TEN = tuple("0123456789")


def make(
    names: tuple[str, ...] = TEN, shape: tuple[int, int, int] = (28, 28, 1), **changes: object
) -> ClassifierRecipe:
    torch.manual_seed(0)
    config = override(ClassifierConfig(), {f"model.{name}": value for name, value in changes.items()})
    return ClassifierRecipe(config, {"images": DomainInfo(100, shape, names)})


FACES = DomainInfo(
    100,
    (16, 16, 3),
    ("man", "woman"),
    (Attribute("age", "int"), Attribute("pose", "float"), Attribute("light", "category", ("day", "dusk", "night"))),
    label_column="gender",
    spreads={"age": Spread(30.0, 20.0), "pose": Spread(0.0, 0.5)},
)


def make_for_faces(*targets: str, faces: DomainInfo = FACES) -> ClassifierRecipe:
    torch.manual_seed(0)
    changes = {"objective.targets": list(targets), "model.width": 4, "model.features": 12}
    return ClassifierRecipe(override(ClassifierConfig(), changes), {"images": faces})


def faces_batch() -> Batch:
    attributes = {
        "age": torch.tensor([1, 20, 33, 40, 61, 90]),
        "pose": torch.linspace(-1, 1, ROWS, dtype=torch.float64),
        "light": torch.tensor([0, 1, 2, 2, 1, 0]),
    }
    return dataclasses.replace(batch(ROWS, 16, 16, 3, seed=0, classes=2), attributes=attributes)


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


def test_a_number_is_regressed_in_its_units_and_learnt_in_deviations() -> None:
    recipe, given = make_for_faces("age"), faces_batch()
    recipe.eval()
    step = RecordingStepContext(recipe, ROWS)
    metrics = step.take({"images": given})
    errors = (recipe.classifier.predict(given.image)["age"] - given.attributes["age"]).abs()
    assert metrics.keys() == {"mean_absolute_error_age"}
    torch.testing.assert_close(metrics["mean_absolute_error_age"], errors.mean())
    torch.testing.assert_close(step.losses["classifier"], errors.mean() / 20)
    with torch.no_grad():
        recipe.classifier.head.weight.zero_()
        recipe.classifier.head.bias.fill_(0.5)
    assert recipe.classifier.predict(given.image)["age"].tolist() == [40.0] * ROWS  # half a deviation above the mean


def test_one_network_learns_several_columns() -> None:
    recipe, given = make_for_faces("age", "gender", "light", "pose"), faces_batch()
    recipe.eval()
    step = RecordingStepContext(recipe, ROWS)
    metrics = step.take({"images": given})
    seen = recipe.classifier.predict(given.image)
    assert {name: tuple(one.shape) for name, one in seen.items()} == {
        "label": (ROWS, 2),
        "age": (ROWS,),
        "light": (ROWS, 3),
        "pose": (ROWS,),
    }
    assert given.label is not None
    torch.testing.assert_close(metrics["cross_entropy"], F.cross_entropy(seen["label"], given.label))
    assert metrics["accuracy_light"] == (seen["light"].argmax(1) == given.attributes["light"]).float().mean()
    parts = metrics["cross_entropy"] + metrics["cross_entropy_light"]
    parts = parts + metrics["mean_absolute_error_age"] / 20 + metrics["mean_absolute_error_pose"] / 0.5
    torch.testing.assert_close(step.losses["classifier"], parts)
    assert [name for name, one in step.gradients["classifier"].items() if one is None or not one.any()] == []
    torch.testing.assert_close(recipe.classifier.logits(given.image), seen["label"])


def test_a_column_that_cannot_be_learnt_is_refused() -> None:
    with pytest.raises(ValueError, match="no column 'height'; there are: gender, age, pose, light, label"):
        make_for_faces("height")
    with pytest.raises(ValueError, match=r"objective\.targets names 'label' twice"):
        make_for_faces("gender", "label")
    everyone_is_30 = dataclasses.replace(FACES, spreads={"age": Spread(30.0, 0.0)})
    with pytest.raises(ValueError, match="column 'age' is 30 in all rows"):
        make_for_faces("age", faces=everyone_is_30)
    with pytest.raises(ValueError, match="a classifier needs labelled images"):
        make_for_faces("age", "label", faces=dataclasses.replace(FACES, label_names=()))
