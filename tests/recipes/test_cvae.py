"""The conditional VAE in training."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.core.config import override
from genlab.models.cvae import CVAE
from genlab.recipes.cvae import CVAEConfig, CVAERecipe
from genlab.recipes.latent_pictures import class_names
from genlab.recipes.recipe import DomainInfo
from tests.recipes.support import RecordingStepContext, batch

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
    step = RecordingStepContext(recipe, ROWS)
    metrics = step.take({"images": batch(ROWS, 28, 28, 1, seed=0, classes=10)})
    assert [name for name, gradient in step.gradients["vae"].items() if gradient is None or not gradient.any()] == []
    torch.testing.assert_close(step.losses["vae"], metrics["neg_elbo"])


def test_the_label_matters_to_the_loss() -> None:
    recipe, given = make(), batch(ROWS, 28, 28, 1, seed=0, classes=10)
    assert given.label is not None
    wrong = type(given)(given.image, given.label.flip(0))
    figures = [
        recipe.test_metrics({"images": one}, RecordingStepContext(recipe, ROWS))["neg_elbo"] for one in (given, wrong)
    ]
    assert figures[0] != figures[1]


def test_pictures_are_drawn_class_by_class() -> None:
    recipe = make()
    pictures = recipe.figures({"images": batch(ROWS, 28, 28, 1, seed=0, classes=10)})
    plane = {"latent-scatter", "latent-plane", "class-by-latent"}
    assert pictures.keys() == {"reconstructions", "samples"} | plane
    rows = pictures["class-by-latent"]
    assert rows.shape == (302, 302, 1)
    for row, column in ((0, 0), (3, 9), (9, 4)):
        shown = rows[2 + 30 * row :, 2 + 30 * column :][:28, :28]
        z = torch.distributions.Normal(0, 1).icdf(torch.tensor((column + 0.5) / 10))
        means = recipe.vae.encode(*_batch(ROWS))[0]
        latents = torch.zeros(1, 2)
        latents[0, int(means.var(0).argmax())] = z
        drawn = recipe.vae.decode(latents, torch.tensor([row]))[0].numpy()
        np.testing.assert_allclose(shown.astype(int), drawn.astype(int), atol=1)


def test_pictures_are_drawn_in_double_precision_too() -> None:
    """`genlab verify-ddp` trains in it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert make().figures({"images": batch(ROWS, 28, 28, 1, seed=0, classes=10)})
    finally:
        torch.set_default_dtype(before)


def test_more_classes_than_labels_are_called_by_their_numbers() -> None:
    recipe = make(("cat", "dog"), classes=12)
    pictures = recipe.figures({"images": batch(ROWS, 28, 28, 1, seed=0, classes=2)})
    assert pictures["class-by-latent"].shape[0] == 12 * 30 + 2
    assert pictures["samples"].shape[1] == 12 * 30 + 2
    assert class_names(recipe.vae, ("cat", "dog"))[:4] == ("cat", "dog", "2", "3")


def _batch(rows: int) -> tuple[Tensor, Tensor | None]:
    found = batch(rows, 28, 28, 1, seed=0, classes=10)
    return found.image, found.label
