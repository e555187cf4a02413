"""One step of CycleGAN: its losses written down a second time, without batching images together."""

from typing import Any, get_args
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.core.config import override
from genlab.core.errors import ConfigError
from genlab.models.discriminators import DiscriminatorKind
from genlab.models.pixels import to_signed
from genlab.recipes.cyclegan import CycleGANConfig, CycleGANRecipe
from genlab.recipes.recipe import DomainInfo
from tests.recipes.support import RecordingStepContext, batch

ROWS = 2
BATCHES = {"a": batch(ROWS, 32, 32, 3, seed=0), "b": batch(ROWS, 32, 32, 3, seed=1)}
INFO = {domain: DomainInfo(10, (32, 32, 3), ()) for domain in ("a", "b")}
PLAIN: dict[str, Any] = {"run.batch": ROWS, "model.width": 4, "model.discriminator_width": 4, "model.dropout": 0.0}


def make(**objective: Any) -> CycleGANRecipe:
    torch.manual_seed(0)
    config = override(CycleGANConfig(), PLAIN | {f"objective.{name}": value for name, value in objective.items()})
    return CycleGANRecipe(config, INFO)


def loss_of_logits(kind: str, logits: Tensor, target: float) -> Tensor:
    targets = torch.full_like(logits, target)
    return F.mse_loss(logits, targets) if kind == "lsgan" else F.binary_cross_entropy(logits.sigmoid(), targets)


@pytest.mark.parametrize("kind", ["lsgan", "bce"])
def test_the_losses_are_the_papers(kind: str) -> None:
    recipe = make(adversarial=kind, lambda_cycle=7.0, lambda_identity=0.25)
    step = RecordingStepContext(recipe, ROWS)
    metrics = step.take(BATCHES)

    a, b = to_signed(BATCHES["a"].image), to_signed(BATCHES["b"].image)
    forward, backward = recipe.generators.a_to_b, recipe.generators.b_to_a
    discriminator_of_a, discriminator_of_b = recipe.discriminators["a"], recipe.discriminators["b"]
    with torch.no_grad():
        fake_a, fake_b = backward(b), forward(a)
        expected = {
            "adversarial_ab": loss_of_logits(kind, discriminator_of_b(fake_b), 1.0),
            "adversarial_ba": loss_of_logits(kind, discriminator_of_a(fake_a), 1.0),
            "cycle_a": (backward(fake_b) - a).abs().mean(),
            "cycle_b": (forward(fake_a) - b).abs().mean(),
            "identity_a": (backward(a) - a).abs().mean(),
            "identity_b": (forward(b) - b).abs().mean(),
            "discriminator_a": (
                loss_of_logits(kind, discriminator_of_a(a), 1.0) + loss_of_logits(kind, discriminator_of_a(fake_a), 0.0)
            )
            / 2,
            "discriminator_b": (
                loss_of_logits(kind, discriminator_of_b(b), 1.0) + loss_of_logits(kind, discriminator_of_b(fake_b), 0.0)
            )
            / 2,
        }
    torch.testing.assert_close(metrics, expected)
    cycle, identity = (expected[f"{name}_a"] + expected[f"{name}_b"] for name in ("cycle", "identity"))
    adversarial = expected["adversarial_ab"] + expected["adversarial_ba"]
    torch.testing.assert_close(step.losses["generators"], adversarial + 7.0 * cycle + 7.0 * 0.25 * identity)
    torch.testing.assert_close(step.losses["discriminators"], expected["discriminator_a"] + expected["discriminator_b"])
    assert not any(value.requires_grad for value in metrics.values())


def test_the_defaults_are_the_papers() -> None:
    config = CycleGANConfig()
    assert (config.objective.lambda_cycle, config.objective.lambda_identity) == (10.0, 0.5)
    assert (config.optimization.learning_rate, config.optimization.beta1, config.run.batch) == (2e-4, 0.5, 1)


def test_each_step_reaches_its_own_networks_and_no_others() -> None:
    recipe = make()
    step = RecordingStepContext(recipe, ROWS)
    step.take(BATCHES)
    for network, gradients in step.gradients.items():
        assert [name for name, gradient in gradients.items() if gradient is None] == [], network
    assert all(parameter.grad is None for parameter in recipe.parameters())
    assert all(parameter.requires_grad for parameter in recipe.parameters()), "as they were before the step"


def test_the_discriminators_classify_what_the_generators_drew_before_their_step() -> None:
    class Spoiler(RecordingStepContext):
        def move(self, network: str) -> None:
            with torch.no_grad():
                for parameter in recipe.networks[network].parameters():
                    parameter.zero_()

    recipe = make()
    spoiled = Spoiler(recipe, ROWS).take(BATCHES)
    recipe = make()
    torch.testing.assert_close(spoiled, RecordingStepContext(recipe, ROWS).take(BATCHES), rtol=0, atol=0)


def test_domains_that_do_not_fit_are_refused_by_the_options_names() -> None:
    config = override(CycleGANConfig(), PLAIN)
    with pytest.raises(ConfigError, match=r"data\.a holds images of \(64, 64, 3\).*data\.b of \(64, 64, 1\)"):
        CycleGANRecipe(config, {"a": DomainInfo(9, (64, 64, 3), ()), "b": DomainInfo(9, (64, 64, 1), ())})
    small = {domain: DomainInfo(9, (16, 64, 3), ()) for domain in ("a", "b")}
    message = r"data\.a, data\.b: 16x64 images are too small for .* 'patch'; at least 32, or choose fewer .* or pixel"
    with pytest.raises(ConfigError, match=message):
        CycleGANRecipe(config, small)
    CycleGANRecipe(override(config, {"model.discriminator": "pixel"}), small)
    CycleGANRecipe(override(config, {"model.discriminator_layers": 2}), small)


def test_layers_are_a_patch_gans() -> None:
    config = override(CycleGANConfig(), PLAIN | {"model.discriminator_layers": 1})
    recipe = CycleGANRecipe(config, INFO)
    assert recipe.discriminators["a"](torch.zeros(1, 3, 32, 32)).shape == (1, 1, 14, 14)
    with pytest.raises(ConfigError, match=r"model\.discriminator_layers are a PatchGAN's, .* 'image'; leave them out"):
        CycleGANRecipe(override(config, {"model.discriminator": "image"}), INFO)


@pytest.mark.parametrize("discriminator", get_args(DiscriminatorKind))
def test_every_discriminator_classifies_what_resnets_draw(discriminator: str) -> None:
    networks = {"model.generator": "resnet-6", "model.width": 2, "model.discriminator": discriminator}
    recipe = CycleGANRecipe(override(CycleGANConfig(), PLAIN | networks), INFO)
    step = RecordingStepContext(recipe, ROWS)
    step.take(BATCHES)
    for gradients in step.gradients.values():
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert recipe.model().architecture.generator == "resnet-6"


def test_pictures_show_both_ways_there_and_back_and_the_identity() -> None:
    recipe = make().eval()
    pictures = recipe.figures(BATCHES)
    assert pictures.keys() == {"a_to_b", "b_to_a"}
    for picture in pictures.values():
        assert picture.dtype == "uint8"
        assert picture.shape[0] >= 4 * 32
        assert picture.shape[1] >= ROWS * 32


def test_the_model_served_is_the_one_trained() -> None:
    recipe = make()
    assert next(recipe.model().parameters()) is next(recipe.networks["generators"].parameters())
    assert recipe.averaged == ("generators",), "what is served is averaged"
    assert recipe.model().architecture.width == 4


def test_each_direction_may_have_weights_of_its_own() -> None:
    recipe = make(lambda_cycle=7.0, lambda_cycle_b=3.0, lambda_identity=0.25, lambda_identity_b=0.0)
    step = RecordingStepContext(recipe, ROWS)
    found = step.take(BATCHES)
    expected = found["adversarial_ab"] + found["adversarial_ba"] + 7.0 * found["cycle_a"] + 3.0 * found["cycle_b"]
    torch.testing.assert_close(step.losses["generators"], expected + 7.0 * 0.25 * found["identity_a"])


def test_a_loss_of_no_weight_is_not_added_and_an_identity_not_even_computed() -> None:
    recipe = make(lambda_cycle=7.0, lambda_identity=0.25, lambda_identity_b=0.0)
    passed = {"a_to_b": 0, "b_to_a": 0}
    for direction in passed:

        def count(network: nn.Module, images: tuple[Tensor, ...], direction: str = direction) -> None:
            passed[direction] += len(images[0])

        getattr(recipe.generators, direction).register_forward_pre_hook(count)
    found = RecordingStepContext(recipe, ROWS).take(BATCHES)
    assert passed == {"a_to_b": 2 * ROWS, "b_to_a": 3 * ROWS}
    assert "identity_a" in found
    assert "identity_b" not in found

    recipe = make(lambda_cycle=0.0)
    step = RecordingStepContext(recipe, ROWS)
    with mock.patch("genlab.recipes.cyclegan.F.l1_loss", return_value=torch.tensor(torch.inf)):
        found = step.take(BATCHES)
    assert found["cycle_a"] == torch.inf, "how it grows is worth knowing"
    torch.testing.assert_close(step.losses["generators"], found["adversarial_ab"] + found["adversarial_ba"])


@pytest.mark.slow
def test_discriminators_are_shown_older_images_in_place_of_new_ones() -> None:
    def losses(history: int, old: float) -> dict[str, Tensor]:
        recipe = make(history=history)
        step = RecordingStepContext(recipe, ROWS)
        found = []
        for step.index in range(30, 34):
            for images in recipe.history.buffers():
                images.fill_(old)
            found.append(step.take(BATCHES))
        return {name: torch.stack([losses[name] for losses in found]) for name in found[0]}

    new, grey, white = losses(0, 0.0), losses(50, 0.0), losses(50, 1.0)
    changed = {name: grey[name] != white[name] for name in new}
    assert {name for name, which in changed.items() if which.any()} == {"discriminator_a", "discriminator_b"}
    for name, which in changed.items():
        torch.testing.assert_close(new[name][~which], grey[name][~which], rtol=0, atol=0)
