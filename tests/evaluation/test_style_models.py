"""Path lengths and separability of models whose images, styles and classes are known functions."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from genlab.evaluation.evaluate import EvaluationOptions, evaluate
from genlab.evaluation.extractors import EfficientNetLite
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Settings
from genlab.evaluation.style_models import Place, Space, measure_path_lengths, measure_separability, step_distances
from genlab.evaluation.trained_classifier import TrainedClassifier
from genlab.metrics.path_length import EPSILON
from genlab.models.model import NoOptions
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.style_model import StyleModel
from tests.evaluation.support import Levels, held_out, trained_classifier

SIDE, LATENT = 28, 6


class Plain(StyleModel):
    """w is z, and pixels are linear in w, far from black and white; noise moves all pixels of an image alike."""

    family = "plain"
    Architecture = NoOptions
    operations: ClassVar[Mapping[str, type]] = {"sample": NoOptions}
    latent_dim = LATENT

    def __init__(self, noise: float = 0.0, bend: float = 0.0) -> None:
        super().__init__((SIDE, SIDE, 1), NoOptions())
        generator = torch.Generator().manual_seed(1)
        self.matrix = nn.Parameter(torch.randn(LATENT, SIDE * SIDE, generator=generator) / 20, requires_grad=False)
        self.noise, self.bend = noise, bend

    def map_latents(self, latents: Tensor, label: Tensor | None) -> Tensor:
        return latents + self.bend * latents.flip(1).square()

    def synthesise(self, w: Tensor, noise: Noise | None) -> Tensor:
        images = (w @ self.matrix).view(-1, 1, SIDE, SIDE)
        return images if noise is None else images + self.noise * noise.normal("layer", 1, 1, 1)

    def draw(self, noise: Noise, label: Tensor | None, options: Any) -> Tensor:
        return from_signed(self.synthesise(self.map_latents(noise.normal("z", LATENT), label), noise))


class Angles:
    """One layer, in which a pixel is an angle: the squared distance of its vectors is that of near pixels."""

    batch = 64

    @property
    def layers_settings(self) -> Settings:
        return {"extractor": "angles"}

    def layers_of_floats(self, images: Tensor) -> list[Tensor]:
        angles = images.double()
        return [torch.cat([angles.cos(), angles.sin()], 1)]


def ends(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    noise = Noise(seed, range(count))
    begin, end = (noise.normal(name, LATENT).double() for name in ("z", "z of the end"))
    return begin, end, noise.uniform("share of the way", 1).double()


def lengths(model: StyleModel, space: Space, place: Place, count: int = 100, seed: int = 3) -> Tensor:
    return step_distances(model, None, Angles(), space, place, count, seed) / EPSILON**2


def slope(model: Plain, way: Any, share: Tensor) -> Tensor:
    """The mean square, over pixels, of the derivative of images by t, by central differences in float64."""
    model.double()
    step = 1e-4
    near, far = (model.synthesise(way(share + at), None) for at in (-step, step))
    model.float()
    return ((far - near) / (2 * step)).square().mean((1, 2, 3))


@pytest.mark.parametrize("bend", [0.0, 0.2])
def test_the_length_in_w_is_that_of_straight_lines_of_styles(bend: float) -> None:
    """The images are linear in w: all steps of a way are equally long."""
    model = Plain(bend=bend)
    begin, end, _ = (model.map_latents(one, None) for one in ends(100, 3))
    exact = ((end - begin) @ model.matrix.double()).square().mean(1)
    for place in get_args(Place):
        torch.testing.assert_close(lengths(model, "w", place), exact, rtol=0.02, atol=0)


@pytest.mark.parametrize("bend", [0.0, 0.2])
def test_the_length_in_z_is_that_of_great_circles(bend: float) -> None:
    model = Plain(bend=bend)
    begin, end, share = ends(100, 3)
    cosine = nn.functional.cosine_similarity(begin, end)[:, None]
    angle = cosine.acos()

    def way(at: Tensor) -> Tensor:
        """By Shoemake's formula."""
        ways = ((1 - at) * angle).sin() * normalize(begin) + (at * angle).sin() * normalize(end)
        size = begin.norm(dim=1, keepdim=True) * (1 - at) + end.norm(dim=1, keepdim=True) * at
        return model.map_latents(size * ways / angle.sin(), None)

    torch.testing.assert_close(lengths(model, "z", "full"), slope(model, way, share), rtol=0.02, atol=0)
    at_the_ends = slope(model, way, torch.zeros_like(share))
    torch.testing.assert_close(lengths(model, "z", "end"), at_the_ends, rtol=0.02, atol=0)
    assert not torch.allclose(lengths(model, "z", "full"), at_the_ends, rtol=0.1)


def test_both_images_of_a_step_have_the_same_noise() -> None:
    torch.testing.assert_close(lengths(Plain(noise=0.5), "w", "full"), lengths(Plain(), "w", "full"), rtol=0.02, atol=0)


def test_a_way_is_a_function_of_the_seed_and_its_number() -> None:
    model = Plain(noise=0.1)
    many = lengths(model, "z", "full", count=100)
    torch.testing.assert_close(lengths(model, "z", "full", count=40), many[:40], rtol=0.02, atol=0)
    assert not torch.allclose(lengths(model, "z", "full", count=40, seed=4), many[:40], rtol=0.1)


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeldOut:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    return held_out(tmp_path / "digits", count=20)


def test_path_lengths_say_what_they_were_measured_with(digits: HeldOut) -> None:
    found = measure_path_lengths(Plain(), digits, Angles(), 60, 3)
    assert list(found) == ["ppl_z_full", "ppl_z_end", "ppl_w_full", "ppl_w_end"]
    assert found["ppl_w_full"].value == pytest.approx(found["ppl_w_end"].value, rel=0.02)
    for measurement in found.values():
        assert measurement.interval is not None
        assert measurement.interval[0] < measurement.value < measurement.interval[1]
        assert "data" not in measurement.settings, "models of any data may be compared"
        settings = {"extractor": "angles", "paths": 60, "seed": 3, "epsilon": 1e-4, "truncation": "none"}
        assert measurement.settings.items() >= settings.items()
        assert measurement.settings["perceptual_distance"] == "LPIPS formula, all weights one"
        assert measurement.settings["discarded"] == "1% of the steps at each end"


class SeesBrightness(nn.Module):
    """A classifier of ten classes that sees class 0 where an image is dark, 1 where it is bright, and no other."""

    def logits(self, pixels: Tensor) -> Tensor:
        brightness = pixels.double().mean((1, 2, 3)) - 127.5
        return torch.stack([-brightness, brightness, *[torch.full_like(brightness, -1e4)] * 8], 1)


def by_brightness() -> TrainedClassifier:
    return TrainedClassifier(SeesBrightness(), "e" * 64, tuple("0123456789"), "0" * 64, "train", False)  # type: ignore[arg-type]


def test_classes_that_are_linear_in_w_are_separable_there(digits: HeldOut) -> None:
    """Brightness is linear in w, which is a bent z."""
    found = measure_separability(Plain(bend=0.8), digits, by_brightness(), 2000, 0)
    assert list(found) == ["separability_z", "separability_w"]
    in_z, in_w = found["separability_z"], found["separability_w"]
    assert in_w.value == pytest.approx(1, abs=0.05)
    assert in_z.value > in_w.value + 0.2
    assert in_z.value < math.exp(2 * math.log(2))
    assert in_z.caution == "the classifier sees 2 of 10 classes in the samples that it is surest of"
    settings = {"classifier_weights": "e" * 64, "samples": 2000, "kept": 1000, "seed": 0, "told_class": "no"}
    assert in_z.settings.items() >= settings.items()
    assert in_z.settings["attributes"] == "10 classes, each against the others"


def test_floats_go_through_efficientnet_as_pixels_do() -> None:
    """But for what rounding and clipping change."""
    network = EfficientNetLite("cpu")
    images = torch.rand(2, 1, 40, 30, generator=torch.Generator().manual_seed(0)) - 0.5
    smooth = nn.functional.avg_pool2d(images, 5, 1, 2)
    rounded = from_signed(smooth)
    exact = rounded.permute(0, 3, 1, 2) / 127.5 - 1
    for one, other in zip(network.layers(rounded), network.layers_of_floats(exact), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    first = network.layers_of_floats(smooth)[0]
    assert not torch.equal(first, network.layers_of_floats(smooth + 1e-4)[0]), "less than a level is seen"


@pytest.mark.slow
def test_a_step_is_long_enough_for_float32() -> None:
    """In EfficientNet's layers, a step ten times as long measures the same length."""
    network, model = EfficientNetLite("cpu"), Plain()
    exact = step_distances(model, None, network, "w", "end", 24, 0) / EPSILON**2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genlab.evaluation.style_models.EPSILON", 10 * EPSILON)
        longer = step_distances(model, None, network, "w", "end", 24, 0) / (10 * EPSILON) ** 2
    torch.testing.assert_close(exact.mean(), longer.mean(), rtol=0.03, atol=0)


@pytest.mark.slow
def test_a_model_with_styles_is_measured_in_them(digits: HeldOut, monkeypatch: pytest.MonkeyPatch) -> None:
    description = {"provenance": {"step": 7}, "weights": {"sha256": "f" * 64}}
    monkeypatch.setattr("genlab.store.model_directory.describe", lambda directory: description)
    options = EvaluationOptions(samples=8, paths=5)
    domains, here = {"images": digits}, digits.shards.directory
    plain = evaluate(here, Plain(), domains, options, extractor=Levels()).measurements
    assert {"ppl_z_full", "ppl_w_end", "precision", "recall", "kid"} <= plain.keys()
    assert plain["ppl_z_full"].settings["paths"] == 5
    assert "separability_w" not in plain, "there is nothing that sees classes"
    seen = evaluate(here, Plain(), domains, options, extractor=Levels(), classifier=trained_classifier()).measurements
    assert seen["separability_w"].settings["samples"] == 8
