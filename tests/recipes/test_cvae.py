"""The conditional VAE in training."""

import pytest
import torch

from genlab.config import override
from genlab.models.cvae import CVAE
from genlab.recipes.cvae import CVAEConfig, CVAERecipe
from genlab.recipes.recipe import DomainInfo
from tests.recipes.support import Onlooker, batch

ROWS = 6
TEN = tuple("0123456789")


def make(names: tuple[str, ...] = TEN, **changes: object) -> CVAERecipe:
    torch.manual_seed(0)
    config = override(CVAEConfig(), {f"model.{name}": value for name, value in changes.items()})
    return CVAERecipe(config, {"images": DomainInfo(100, (28, 28, 1), names)})


def test_it_has_as_many_classes_as_the_data() -> None:
    model = make(("cat", "dog", "eel")).model()
    assert isinstance(model, CVAE)
    assert model.classes == 3
    assert make(("cat",), classes=4).config.model.classes == 4
    with pytest.raises(ValueError, match=r"model\.classes = 2: the data set has 10"):
        make(classes=2)
    with pytest.raises(ValueError, match="needs labelled images"):
        make(())


def test_a_step_reaches_every_weight_of_both_networks() -> None:
    recipe = make()
    step = Onlooker(recipe, ROWS)
    metrics = recipe.step({"images": batch(ROWS, 28, 28, 1, seed=0, classes=10)}, step)
    assert [name for name, gradient in step.gradients["vae"].items() if gradient is None or not gradient.any()] == []
    torch.testing.assert_close(step.losses["vae"], metrics["neg_elbo"])


def test_the_label_matters_to_the_loss() -> None:
    recipe, given = make(), batch(ROWS, 28, 28, 1, seed=0, classes=10)
    assert given.label is not None
    wrong = type(given)(given.image, given.label.flip(0))
    figures = [recipe.test_metrics({"images": one}, Onlooker(recipe, ROWS))["neg_elbo"] for one in (given, wrong)]
    assert figures[0] != figures[1]


def test_pictures_are_drawn_with_labels() -> None:
    pictures = make().figures({"images": batch(ROWS, 28, 28, 1, seed=0, classes=10)})
    assert pictures.keys() == {"reconstructions", "samples"}
