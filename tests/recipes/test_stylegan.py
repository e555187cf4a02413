"""One step of StyleGAN: its losses written down a second time, image by image, and its penalties by differences."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.core.config import override
from genlab.core.errors import ConfigError
from genlab.models.pixels import to_signed
from genlab.models.stylegan import Form
from genlab.recipes.augmentation import ADJUSTMENT_STEPS, UNIFORMS, Augmentation, augment
from genlab.recipes.recipe import DomainInfo, preset_values
from genlab.recipes.stylegan import (
    CHANGES,
    DRIFT,
    MEAN_STYLE_IMAGES,
    PATH_LENGTH_DECAY,
    PRESETS,
    StyleGANConfig,
    StyleGANRecipe,
)
from genlab.training.plan import build_on_meta
from genlab.training.step_context import LoopStepContext
from tests.recipes.support import RecordingStepContext, batch
from tests.training.support import QuietSession

ROWS = 4
LATENT = 6
SMALL: dict[str, Any] = {
    "run.batch": ROWS,
    "model.channel_base": 32,
    "model.channel_max": 8,
    "model.latent_dim": LATENT,
    "model.mapping_layers": 2,
    "model.group": 2,
    "objective.mixing": 0.5,
}
PROGRESSIVE = {
    "model.form": "progressive",
    "model.styles": "adain",
    "growth.stable_images": 100,
    "growth.fade_images": 80,
}
AT_3_25 = 30
"""The step at which these networks, grown from 8x8 pixels, have faded in a quarter of 16x16."""
NAMES = ("a", "b", "c")


def make(changes: Mapping[str, Any] | None = None, side: int = 16, colours: int = 3, labels: int = 0) -> Any:
    """A recipe of which every parameter counts: biases and strengths of noise are 0 at first."""
    torch.manual_seed(0)
    config = override(StyleGANConfig(), SMALL | dict(changes or {}))
    recipe = StyleGANRecipe(config, {"images": DomainInfo(100, (side, side, colours), NAMES[:labels])})
    with torch.no_grad():
        for name, parameter in recipe.networks.named_parameters():
            if name.endswith(("strength", "bias")) and "mapping" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    recipe.path_length_mean.fill_(0.7)
    return recipe


def batches(side: int = 16, colours: int = 3, classes: int = 0) -> dict[str, Any]:
    return {"images": batch(ROWS, side, side, colours, seed=0, classes=classes)}


def losses(recipe: Any, batches: Any, step: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss of each phase, with its graph, and all metrics."""
    found: dict[str, Tensor] = {}
    metrics: dict[str, Tensor] = {}
    for phase in recipe.phases():
        found[phase.name], values = phase.loss(batches, step)
        assert not any(value.requires_grad for value in values.values())
        assert not metrics.keys() & values.keys()
        metrics |= values
    return found, metrics


def draw(recipe: Any, step: Any, name: str, label: Tensor | None = None, level: float | None = None) -> Any:
    """Styles and pictures of a phase, drawn one row at a time."""
    generator, config = recipe.generator, recipe.config
    places = generator.synthesis.styles
    active = places if level is None else 2 * (math.ceil(level) - 1)
    one = generator.mapping(step.noise(f"z of {name}", LATENT), label)
    other = generator.mapping(step.noise(f"second z of {name}", LATENT), label)
    chance = step.uniform(f"mixing of {name}", 2)
    sizes = [size for size in generator.synthesis.noise_sizes if level is None or size <= 2 ** math.ceil(level)]
    drawn = step.noise(f"noise of {name}", sum(size**2 for size in sizes))
    styles, pictures = [], []
    for row in range(len(one)):
        first = places
        if chance[row, 0] < config.objective.mixing:
            first = 1 + int(chance[row, 1] * (active - 1))
        w = torch.cat([one[row].expand(first, -1), other[row].expand(places - first, -1)])[None]
        layers, taken = [], 0
        for size in sizes:
            layers.append(drawn[row, taken : taken + size**2].view(1, 1, size, size))
            taken += size**2
        fade = None if level is None or level == int(level) else torch.tensor(level % 1)
        pictures.append(generator.synthesis(w, layers, level and 2 ** math.ceil(level), fade))
        styles.append(w)
    return torch.cat(styles), torch.cat(pictures)


@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize("labels", [0, 3])
def test_the_logistic_losses_are_the_papers(form: Any, labels: int) -> None:
    changes: dict[str, Any] = PROGRESSIVE if form == "progressive" else {"model.form": form}
    recipe = make(changes | {"model.conditional": labels > 0}, labels=labels)
    step, data, level = RecordingStepContext(recipe, ROWS), batches(classes=labels), None
    if form == "progressive":
        step.index, level = AT_3_25, 3.25
    found, metrics = losses(recipe, data, step)

    label = data["images"].label
    real = to_signed(data["images"].image)
    stage: tuple[Any, ...] = ()
    if level:
        stage = (16, torch.tensor(0.25))
        real = torch.lerp(F.interpolate(F.avg_pool2d(real, 2), scale_factor=2.0), real, 0.25)

    def judge(images: Tensor) -> Tensor:
        logits: Tensor = recipe.discriminator(images, label, *stage)
        return logits

    with torch.no_grad():
        of_real = judge(real)
        of_fake = judge(draw(recipe, step, "discriminator", label, level)[1])
        expected = -judge(draw(recipe, step, "generator", label, level)[1]).sigmoid().log().mean()
    torch.testing.assert_close(found["generator"].detach(), expected)
    total = -of_real.sigmoid().log().mean() - (1 - of_fake.sigmoid()).log().mean()
    torch.testing.assert_close(found["discriminator"].detach(), total)
    torch.testing.assert_close(metrics["generator"], expected)
    torch.testing.assert_close(metrics["discriminator"], total)
    torch.testing.assert_close(metrics["real_logit"], of_real.mean())
    torch.testing.assert_close(metrics["fake_logit"], of_fake.mean())
    torch.testing.assert_close(metrics["real_sign"], of_real.sign().mean())


def test_wgan_gp_is_the_papers() -> None:
    recipe = make({"objective.loss": "wgan-gp", "objective.gradient_penalty": 7.0, "objective.r1": 5.0})
    assert [phase.name for phase in recipe.phases()] == ["generator", "path_length", "discriminator"], "without R1"
    step, data = RecordingStepContext(recipe, ROWS), batches()
    found, metrics = losses(recipe, data, step)
    real = to_signed(data["images"].image)
    with torch.no_grad():
        fake = draw(recipe, step, "discriminator")[1]
        of_real, of_fake = recipe.discriminator(real, None), recipe.discriminator(fake, None)
        expected = -recipe.discriminator(draw(recipe, step, "generator")[1], None).mean()
    share = step.uniform("gradient penalty", 1, 1, 1)
    between = (real + share * (fake - real)).requires_grad_()
    lengths = []
    for first in range(0, ROWS, 2):  # a group of two
        slope = torch.autograd.grad(recipe.discriminator(between[first : first + 2], None).sum(), between)[0]
        lengths += [slope[row].norm() for row in (first, first + 1)]
    penalty = (torch.stack(lengths) - 1).square().mean()
    total = of_fake.mean() - of_real.mean() + 7 * penalty + DRIFT * of_real.square().mean()
    torch.testing.assert_close(found["generator"].detach(), expected)
    torch.testing.assert_close(found["discriminator"].detach(), total)
    torch.testing.assert_close(metrics["gradient_penalty"], penalty)
    torch.testing.assert_close(metrics["discriminator"], of_fake.mean() - of_real.mean())


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def slope_along(function: Callable[[], Tensor], parameters: list[Tensor], size: float) -> tuple[float, list[Tensor]]:
    """The slope of a function along a random direction of its parameters, by a central difference."""
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(parameter.shape, generator=generator) for parameter in parameters]
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, step in zip(parameters, direction, strict=True):
                parameter.add_(step, alpha=sign * size)
        values.append(float(function()))
    with torch.no_grad():
        for parameter, step in zip(parameters, direction, strict=True):
            parameter.add_(step, alpha=size)
    return (values[0] - values[1]) / (2 * size), direction


def assert_gradient(loss: Tensor, network: Any, function: Callable[[], Tensor]) -> None:
    """The gradient of ``loss`` is that of ``function``, which computes it by other means."""
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    expected, direction = slope_along(function, parameters, 1e-5)
    pairs = zip(gradients, direction, strict=True)
    found = sum(float((gradient * step).sum()) for gradient, step in pairs if gradient is not None)
    assert abs(expected) > 1e-3
    # A difference is not exact where a leaky ReLU has its kink between its ends.
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("form", get_args(Form))
def test_r1_is_the_squared_slope_at_real_images(form: Any) -> None:
    changes: dict[str, Any] = PROGRESSIVE if form == "progressive" else {"model.form": form}
    recipe = make(changes | {"objective.r1": 3.0, "objective.r1_every": 5}, side=8, colours=1)
    data = batches(8, 1)
    loss = losses(recipe, data, RecordingStepContext(recipe, ROWS))[0]["r1"]

    def r1() -> Tensor:
        """Of each pixel of each image by a central difference of the sum of its group's logits."""
        real, total = to_signed(data["images"].image), torch.zeros(())
        offsets = 1e-5 * torch.eye(64).view(64, 1, 8, 8)
        for row in range(ROWS):
            group = real[row // 2 * 2 :][:2]
            sums = []
            for sign in (1, -1):
                images = group.repeat(64, 1, 1, 1)
                images[row % 2 :: 2] += sign * offsets
                with torch.no_grad():
                    sums.append(recipe.discriminator(images, None).view(64, 2).sum(1))
            total += ((sums[0] - sums[1]) / 2e-5).square().sum()
        return 5 * 3.0 / 2 * total / ROWS

    assert float(loss.detach()) == pytest.approx(float(r1()), rel=1e-6)
    assert_gradient(loss, recipe.discriminator, r1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("styles", ["demodulate", "adain"])
def test_the_path_length_is_how_far_a_step_in_w_moves_the_image(styles: str) -> None:
    """Of every other row; a step in all of the styles of the places, of which the mean square counts."""
    weights = {"objective.path_length": 3.0, "objective.path_length_every": 5}
    recipe = make({"model.styles": styles, "model.channel_max": 4} | weights, side=8, colours=1)
    data = batches(8, 1)
    step = RecordingStepContext(recipe, ROWS)
    found, metrics = losses(recipe, data, step)
    generator, chosen = recipe.generator, [0, 2]
    directions = step.noise("path length directions", 1, 8, 8)[chosen] / 8
    sizes = generator.synthesis.noise_sizes
    layers = [
        part.view(-1, 1, size, size)[chosen]
        for part, size in zip(
            step.noise("noise of path length", sum(s**2 for s in sizes)).split([s**2 for s in sizes], 1),
            sizes,
            strict=True,
        )
    ]

    def lengths() -> Tensor:
        with torch.no_grad():
            w = draw(recipe, step, "path length")[0][chosen]
            slopes = []
            for place in range(generator.synthesis.styles):
                for one in range(LATENT):
                    offset = torch.zeros_like(w)
                    offset[:, place, one] = 1e-5
                    ends = [(generator.synthesis(w + sign * offset, layers) * directions) for sign in (1, -1)]
                    slopes.append((ends[0] - ends[1]).sum((1, 2, 3)) / 2e-5)
            return (torch.stack(slopes).square().sum(0) / generator.synthesis.styles).sqrt()

    def penalty() -> Tensor:
        return 5 * 3.0 * (lengths() - 0.7).square().mean()

    assert float(found["path_length"].detach()) == pytest.approx(float(penalty()), rel=1e-6)
    assert float(metrics["path_length"]) == pytest.approx(float(lengths().mean()), rel=1e-6)
    assert float(metrics["path_length_loss"]) == pytest.approx(float(penalty()) / 15, rel=1e-6)
    mean = 0.7 + PATH_LENGTH_DECAY * (float(lengths().mean()) - 0.7)
    assert float(recipe.path_length_mean) == pytest.approx(mean, rel=1e-6)
    assert_gradient(found["path_length"], generator, penalty)


def test_the_mean_style_follows_the_styles_of_the_generators_phase() -> None:
    whole = MEAN_STYLE_IMAGES
    for index, half_life, init in (
        (0, 0.2, None),
        (100, 404 / 20, None),
        (10**6, whole, None),
        (0, whole, "runs/other"),
    ):
        recipe = make({"run.init": init})
        recipe.generator.mean_style.fill_(3.0)
        step = RecordingStepContext(recipe, ROWS)
        step.index = index
        expected = draw(recipe, step, "generator")[0][:, 0].mean(0).detach()
        losses(recipe, batches(), step)
        kept = 0.5 ** (ROWS / half_life)
        torch.testing.assert_close(recipe.generator.mean_style, kept * 3 + (1 - kept) * expected)


def _rows_of(rows: slice, rank: int) -> slice:
    return rows


def take(recipe: Any, data: Any, splits: list[slice], rows: int) -> dict[str, Any]:
    """A step by the loop's own contexts on one rank whose rows come in parts: losses, gradients and metrics."""
    found: dict[str, Any] = {}
    steps = [
        LoopStepContext(
            QuietSession(),
            index=3,
            batch=rows,
            rows_of=partial(_rows_of, own),
            key=(0, "noise", 3),
            precision="fp32",
        )
        for own in splits
    ]
    for phase in recipe.phases():
        parameters = list(recipe.networks[phase.network].parameters())
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for step in steps:
            loss, metrics = phase.loss({"images": data["images"][step.rows]}, step)
            gradients = torch.autograd.grad(loss * step.fraction, parameters, allow_unused=True)
            for one, gradient in zip(total, gradients, strict=True):
                one += 0 if gradient is None else gradient
            for name, value in {f"loss of {phase.name}": loss.detach(), **metrics}.items():
                found[name] = found.get(name, 0) + value * step.fraction
        found[f"gradients of {phase.name}"] = total
    return found | {"mean style": recipe.generator.mean_style, "mean length": recipe.path_length_mean}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss", ["nonsaturating", "wgan-gp"])
@pytest.mark.parametrize(
    ("rows", "group", "starts"),
    [(6, 1, [0, 3]), (6, 1, [0, 1, 2, 3, 4, 5]), (5, 1, [0, 1, 4]), (8, 2, [0, 2, 6]), (6, 3, [0, 3])],
)
def test_a_step_does_not_depend_on_how_its_rows_are_divided(
    loss: str, rows: int, group: int, starts: list[int]
) -> None:
    data = {"images": batch(rows, 8, 8, 1, seed=0)}
    changes = {"run.batch": rows, "model.group": group, "objective.loss": loss}
    whole = take(make(changes, 8, 1), data, [slice(0, rows)], rows)
    parts = [slice(*ends) for ends in zip(starts, [*starts[1:], rows], strict=True)]
    torch.testing.assert_close(take(make(changes, 8, 1), data, parts, rows), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_of_an_odd_batch_the_path_length_is_the_mean_of_the_rows_it_is_taken_of() -> None:
    recipe = make({"run.batch": 5, "model.group": 1, "objective.mixing": 0.0}, 8, 1)
    recipe.path_length_mean.zero_()
    step = RecordingStepContext(recipe, 5)
    _, metrics = losses(recipe, {"images": batch(5, 8, 8, 1, seed=0)}, step)
    assert float(recipe.path_length_mean) == pytest.approx(PATH_LENGTH_DECAY * float(metrics["path_length"]))
    images = recipe.generator.synthesis
    w = recipe.generator.mapping(step.noise("z of path length", LATENT), None)
    w = w[:, None].expand(-1, images.styles, -1).detach().requires_grad_()
    sizes = images.noise_sizes
    drawn = step.noise("noise of path length", sum(size**2 for size in sizes)).split([size**2 for size in sizes], 1)
    layers = [part.view(-1, 1, size, size) for part, size in zip(drawn, sizes, strict=True)]
    moved = (images(w, layers) * step.noise("path length directions", 1, 8, 8)).sum() / 8
    lengths = torch.autograd.grad(moved, w)[0].square().sum(2).mean(1).sqrt()
    assert float(metrics["path_length"]) == pytest.approx(float(lengths[::2].mean()))


@pytest.mark.parametrize(("probability", "level"), [(0.3, None), (1.0, None), (0.9, 3.0), (0.9, 3.25)])
def test_styles_are_mixed_by_the_probability_at_any_place(probability: float, level: float | None) -> None:
    changes: dict[str, Any] = {} if level is None else PROGRESSIVE
    rows = 4000
    recipe = make(changes | {"objective.mixing": probability, "model.mapping_layers": 0}, 32)
    step = RecordingStepContext(recipe, rows)
    step.index = AT_3_25 if level == 3.25 else 0
    w = recipe._map(step, "generator", None)
    places = recipe.generator.synthesis.styles
    assert w.shape == (rows, places, LATENT)
    changed = (w.diff(dim=1) != 0).any(2)
    assert changed.sum(1).max() == 1
    share = changed.float().mean(0)
    active = places if level is None else {3.0: 4, 3.25: 6}[level]
    expected = probability / (active - 1)
    assert (share[: active - 1] - expected).abs().max() < 5 * (expected * (1 - expected) / rows) ** 0.5 + 1e-9
    assert not share[active - 1 :].any(), "layers that do not draw yet have no place of their own"


def test_without_mixing_or_styles_all_places_have_one_latent() -> None:
    for changes in ({"objective.mixing": 0.0}, {"model.styles": "none", "model.constant": False}):
        recipe = make(changes)
        w = recipe._map(RecordingStepContext(recipe, 64), "generator", None)
        assert torch.equal(w, w[:, :1].expand_as(w))


@pytest.mark.parametrize("form", get_args(Form))
def test_each_phase_moves_its_own_network(form: Any) -> None:
    recipe = make((PROGRESSIVE if form == "progressive" else {"model.form": form}) | {"growth.first": 16})
    found, _ = losses(recipe, batches(), RecordingStepContext(recipe, ROWS))
    assert list(found) == ["generator", "path_length", "discriminator", "r1"]
    for phase in recipe.phases():
        parameters = dict(recipe.networks[phase.network].named_parameters())
        gradients = torch.autograd.grad(found[phase.name], list(parameters.values()), allow_unused=True)
        still = {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None}
        if phase.name in ("generator", "discriminator") and form != "progressive":
            assert still == set(), phase.name
        assert len(still) < len(parameters) / 2
    assert all(parameter.grad is None for parameter in recipe.parameters())


def test_the_generator_draws_nothing_of_the_discriminators_gradient() -> None:
    recipe = make()
    found, _ = losses(recipe, batches(), RecordingStepContext(recipe, ROWS))
    parameters = list(recipe.generator.parameters())
    for name in ("discriminator", "r1"):
        gradients = torch.autograd.grad(found[name], parameters, allow_unused=True)
        assert all(gradient is None for gradient in gradients), name


def test_lazy_phases_come_seldom_and_their_networks_take_smaller_steps() -> None:
    recipe = make({"objective.r1_every": 4, "objective.path_length_every": 8, "optimization.beta1": 0.5})
    assert {phase.name: phase.every for phase in recipe.phases()} == {
        "generator": 1,
        "path_length": 8,
        "discriminator": 1,
        "r1": 4,
    }
    for network, every in (("generator", 8), ("discriminator", 4)):
        options, power = recipe.optimization(network), every / (every + 1)
        assert options.learning_rate == pytest.approx(2.5e-3 * power)
        assert (options.beta1, options.beta2) == (pytest.approx(0.5**power), pytest.approx(0.99**power))
        assert options.ema_images == recipe.config.optimization.ema_images
    plain = make({"objective.r1": 0.0, "objective.path_length": 0.0})
    assert [phase.name for phase in plain.phases()] == ["generator", "discriminator"]
    assert plain.optimization("generator") == plain.optimization("discriminator") == plain.config.optimization


def test_a_regularisation_of_every_step_is_part_of_the_loss() -> None:
    def found(every: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        recipe = make({"objective.r1": 3.0, "objective.r1_every": every, "objective.path_length_every": every})
        return recipe, *losses(recipe, batches(), RecordingStepContext(recipe, ROWS))

    recipe, together, metrics = found(1)
    _, apart, same_metrics = found(2)
    assert list(together) == ["generator", "discriminator"]
    for network, lazy in (("generator", "path_length"), ("discriminator", "r1")):
        torch.testing.assert_close(together[network], apart[network] + apart[lazy] / 2)
        assert recipe.optimization(network) == recipe.config.optimization
    torch.testing.assert_close(metrics, same_metrics)


def test_what_the_discriminator_is_shown_is_augmented_by_the_probability() -> None:
    """Reals and fakes alike, in all phases; the probability follows the outputs for augmented reals."""
    recipe = make({"augmentation.adaptive": True, "augmentation.target": -1.0, "augmentation.adjustment_images": 64})
    recipe.augmentation.probability.fill_(0.8)
    step, data = RecordingStepContext(recipe, ROWS), batches()
    found, metrics = losses(recipe, data, step)
    shown = {
        name: augment(images, torch.tensor(0.8), step.uniform(f"augmentation of {name}", UNIFORMS), Augmentation())
        for name, images in {
            "real": to_signed(data["images"].image),
            "fake": draw(recipe, step, "discriminator")[1],
            "generator": draw(recipe, step, "generator")[1],
        }.items()
    }
    assert not torch.equal(shown["real"], to_signed(data["images"].image))
    logits = {name: recipe.discriminator(images, None).detach() for name, images in shown.items()}
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(found["generator"].detach(), softplus(-logits["generator"]).mean())
    expected = softplus(-logits["real"]).mean() + softplus(logits["fake"]).mean()
    torch.testing.assert_close(found["discriminator"].detach(), expected)
    real = to_signed(data["images"].image).requires_grad_()
    uniform = step.uniform("augmentation of r1", UNIFORMS)
    judged = recipe.discriminator(augment(real, torch.tensor(0.8), uniform, Augmentation()), None)
    (slopes,) = torch.autograd.grad(judged.sum(), real)
    torch.testing.assert_close(metrics["r1"], slopes.square().sum((1, 2, 3)).mean())
    assert float(metrics["augmentation"]) == pytest.approx(0.8)

    signs = float(logits["real"].sign().mean())
    assert signs > -1
    for _ in range(ADJUSTMENT_STEPS - 1):
        assert float(recipe.augmentation.probability) == pytest.approx(0.8)
        recipe._discriminator_loss(data, step)
    change = ADJUSTMENT_STEPS * ROWS / 64
    assert float(recipe.augmentation.probability) == pytest.approx(min(1, 0.8 + change))


def test_few_images_are_advised_to_be_augmented() -> None:
    assert "try --augmentation.adaptive" in make().advice()[0]
    assert make({"augmentation.adaptive": True}).advice() == []


def test_the_weight_of_r1_follows_pixels_and_batch() -> None:
    objective = StyleGANConfig().objective
    assert objective.r1_weight(64 * 64, 32) == pytest.approx(0.0002 * 4096 / 32)
    assert override(StyleGANConfig(), {"objective.r1": 0.5}).objective.r1_weight(64 * 64, 32) == 0.5


def test_networks_grow_with_the_images_seen() -> None:
    """From 8x8 pixels: 100 images, then 16x16 over the next 80, in batches of 4."""
    recipe = make(PROGRESSIVE, 32)
    seen: list[tuple[int, ...]] = []
    for module in (recipe.generator.synthesis, recipe.discriminator):
        module.register_forward_hook(lambda module, inputs, output: seen.append((inputs[-2] or 32, inputs[-1])))
    step = RecordingStepContext(recipe, ROWS)
    for step.index, stage in (
        (0, (8, None)),
        (25, (8, None)),
        (AT_3_25, (16, 0.25)),
        (45, (16, None)),
        (90, (32, None)),
    ):
        seen.clear()
        losses(recipe, batches(32), step)
        assert {(size, None if fade is None else round(float(fade), 6)) for size, fade in seen} == {stage}
        resolution, fade = recipe.generator.stage()
        assert (resolution, None if fade is None else float(fade)) == stage, "the model that is saved then"


def test_no_loss_jumps_where_a_resolution_begins_or_has_faded_in() -> None:
    """Of the same latents, with the noise of the layers, whose numbers change with their count, off."""
    changes = PROGRESSIVE | {"growth.fade_images": 4 * 10**6, "growth.stable_images": 4 * 10**6, "model.noise": False}

    def at(index: int) -> dict[str, float]:
        recipe = make(changes | {"objective.path_length": 0.0, "objective.mixing": 0.0, "objective.r1": 1.0})
        step = RecordingStepContext(recipe, ROWS)
        step.index = index
        return {name: float(loss.detach()) for name, loss in losses(recipe, batches(), step)[0].items() if name != "r1"}

    for edge in (10**6, 2 * 10**6):
        assert at(edge + 1) == pytest.approx(at(edge), rel=1e-4)
        assert at(edge) == pytest.approx(at(edge - 1), rel=1e-4)
    assert at(1_500_000) != pytest.approx(at(10**6), rel=1e-3)


def test_optimisers_begin_anew_with_each_resolution() -> None:
    recipe = make(PROGRESSIVE, 32)
    assert [images for images in range(0, 2000, 4) if recipe.restarts(images)] == [104, 284]
    recipe = make(side=32)
    assert not any(recipe.restarts(images) for images in range(0, 2000, 4))


def test_held_out_images_are_judged_as_the_networks_have_grown() -> None:
    recipe, data = make(PROGRESSIVE), batches()
    step = RecordingStepContext(recipe, ROWS)
    step.index = AT_3_25
    _, metrics = losses(recipe, data, step)
    step.index = 0  # of held-out rows the number of the step is another
    torch.testing.assert_close(recipe.test_metrics(data, step)["real_logit"].detach(), metrics["real_logit"])


def test_held_out_images_are_augmented_as_training_images_are() -> None:
    recipe, data = make({"augmentation.adaptive": True}), batches()
    step = RecordingStepContext(recipe, ROWS)
    plain = recipe.test_metrics(data, step)["real_logit"]
    recipe.augmentation.probability.fill_(1.0)
    assert recipe.test_metrics(data, step)["real_logit"] != plain


def test_a_path_length_needs_no_mapping_network() -> None:
    for styles in ("demodulate", "adain"):
        recipe = make({"model.mapping_layers": 0, "model.styles": styles})
        found, _ = losses(recipe, batches(), RecordingStepContext(recipe, ROWS))
        assert found["path_length"].requires_grad


def test_networks_that_will_not_grow_up_are_told_what_would_make_them() -> None:
    def advice(**more: Any) -> str:
        changes = PROGRESSIVE | {"augmentation.adaptive": True, "run.steps": 50} | more
        return " ".join(make(changes, side=64).advice())

    assert advice() == (
        "growth: after 200 images the networks draw 16x16 of 64x64 pixels; with --growth.stable-images 28 "
        "--growth.fade-images 28 they grow up"
    )
    assert not advice(**{"growth.stable_images": 28, "growth.fade_images": 28})
    assert "8x8 of 64x64" in advice(**{"run.steps": None, "run.epochs": 1})
    assert advice(**{"run.init": "runs/other"}).endswith("--growth.first 64 goes on with networks that have grown up")
    assert not advice(**{"run.init": "runs/other", "growth.first": 64})
    assert not advice(**{"model.form": "skip", "model.styles": "demodulate"})


def test_pictures_are_of_the_first_samples_and_of_truncated_ones() -> None:
    recipe = make().eval()
    pictures = recipe.figures(batches())
    assert pictures.keys() == {"samples", "truncated"}
    for picture in pictures.values():
        assert picture.dtype == "uint8"
        assert picture.shape[0] >= 4 * 16
        assert picture.shape[1] >= 8 * 16
    assert (pictures["samples"] != pictures["truncated"]).any()


def test_the_model_saved_is_the_generator_and_is_averaged() -> None:
    recipe = make()
    assert recipe.model() is recipe.networks["generator"]
    assert recipe.averaged == ("generator",)
    assert StyleGANConfig().optimization.ema_images > 0


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_config_whose_networks_can_be_built(name: str) -> None:
    config = override(StyleGANConfig(), preset_values("stylegan", name))
    build_on_meta("stylegan", config, {"images": DomainInfo(1000, (32, 32, 3), ())})


def test_the_rows_of_table_1_change_what_the_paper_names() -> None:
    configs = {row: override(StyleGANConfig(), preset_values("stylegan", row)) for row in "ABCDEF"}

    def changed(before: str, after: str) -> dict[str, Any]:
        one, other = PRESETS[before], PRESETS[after]
        return {name: other.get(name) for name in one.keys() | other.keys() if one.get(name) != other.get(name)}

    first = configs["A"]
    assert (first.model.form, first.model.styles, first.model.mapping_layers) == ("progressive", "none", 0)
    assert (first.model.constant, first.model.noise, first.model.resampling) == (False, False, "nearest")
    assert (first.objective.loss, first.objective.mixing, first.objective.path_length) == ("wgan-gp", 0, 0)
    assert changed("A", "B") == {
        "model.resampling": "bilinear",
        "optimization.learning_rate": 2.5e-3,
        "objective.loss": None,
    }
    assert configs["B"].objective.loss == "nonsaturating"
    assert changed("B", "C") == {"model.mapping_layers": 8, "model.styles": "adain"}
    assert changed("C", "D") == {"model.constant": True}
    assert changed("D", "E") == {"model.noise": True}
    assert changed("E", "F") == {"objective.mixing": 0.9}
    assert set(CHANGES) == set("BCDEF")
    assert all(
        name in ("model.channel_base", "objective.r1", "objective.r1_every") for name in changed("F", "stylegan")
    ), "at the paper's size"


@pytest.mark.parametrize(
    ("changes", "shape", "labels", "message"),
    [
        ({}, (32, 48, 3), 0, r"data\.images: 32x48 images: StyleGAN draws square ones; ingest with --size 32"),
        ({}, (48, 48, 3), 0, r"data\.images: 48x48 images: .* a power of two from 8 on; ingest with --size"),
        ({"model.conditional": True}, (16, 16, 3), 0, r"model\.conditional: data\.images has no labels"),
        (
            {"model.form": "progressive", "model.discriminator": "residual"},
            (16, 16, 3),
            0,
            r"model\.discriminator = 'residual', model\.form = 'progressive': both networks grow or none",
        ),
        (
            {"model.discriminator": "progressive"},
            (16, 16, 3),
            0,
            r"model\.discriminator = 'progressive', model\.form = 'skip': both networks grow or none",
        ),
        (
            PROGRESSIVE | {"growth.first": 12},
            (16, 16, 3),
            0,
            r"growth\.first = 12: must be a power of two of at most 16",
        ),
        (
            PROGRESSIVE | {"growth.first": 32},
            (16, 16, 3),
            0,
            r"growth\.first = 32: must be a power of two of at most 16",
        ),
        (
            {"model.styles": "none"},
            (16, 16, 3),
            0,
            r"model\.styles = 'none', model\.constant = True: no picture would depend on z",
        ),
        (
            {"model.styles": "adain", "model.clamp": 256.0},
            (16, 16, 3),
            0,
            r"model\.clamp = 256, model\.styles = 'adain': only demodulate has a clamp",
        ),
        (
            {f"augmentation.{name}": name == "adaptive" for name in ("adaptive", "blitting", "geometry", "colour")},
            (16, 16, 3),
            0,
            r"augmentation\.adaptive: blitting, geometry and colour are all off",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    changes: dict[str, Any], shape: tuple[int, int, int], labels: int, message: str
) -> None:
    config = override(StyleGANConfig(), SMALL | changes)
    with pytest.raises(ConfigError, match=message) as raised:
        build_on_meta("stylegan", config, {"images": DomainInfo(100, shape, NAMES[:labels])})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"growth.first": 2}, r"growth\.first = 2: "),
        ({"objective.mixing": 1.5}, r"objective\.mixing = 1\.5: "),
        ({"objective.r1": math.nan}, r"objective\.r1 = nan: "),
        ({"model.group": 0}, r"model\.group = 0: "),
        ({"model.form": "stacked"}, r"model\.form = 'stacked': "),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(StyleGANConfig(), changes)
