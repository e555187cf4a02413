"""StyleGAN's generator: the published networks to the parameter, and what users steer it by."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.cli.describe import main as describe
from genlab.models.equalized import Resampling, upsample
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.style_model import spherical_interpolation
from genlab.models.stylegan import (
    Form,
    LatentInterpolationOptions,
    SamplingOptions,
    StyleGAN,
    StyleGANArchitecture,
)
from genlab.models.stylegan_discriminator import Discriminator
from genlab.models.stylegan_layers import NoiseInput, Styles
from genlab.store import model_directory

SMALL = StyleGANArchitecture(channel_base=32, channel_max=8, latent_dim=6, mapping_layers=2)
PROGRESSIVE = replace(SMALL, styles="adain", form="progressive")
TRADITIONAL = replace(PROGRESSIVE, styles="none", mapping_layers=0, constant=False, resampling="nearest")
ARCHITECTURES = {
    "stylegan2": SMALL,
    "residual": replace(SMALL, form="residual"),
    "stylegan": PROGRESSIVE,
    "traditional": TRADITIONAL,
    "conditional": replace(SMALL, classes=3),
}
STYLED = [name for name in ARCHITECTURES if name != "traditional"]


def make(architecture: StyleGANArchitecture, side: int = 16, colours: int = 3) -> StyleGAN:
    """A generator of which every parameter counts: strengths of noise and biases are 0 before training."""
    torch.manual_seed(0)
    model = StyleGAN((side, side, colours), architecture).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("strength", "bias")) and not name.startswith("mapping"):
                parameter.add_(0.3 * torch.randn(parameter.shape))
        to_colours: Any = model.synthesis.to_colours
        for layer in to_colours.values():
            layer.convolution.weight.mul_(0.3)  # so that few pixels are clipped
        model.mean_style.copy_(0.1 * torch.randn(model.style_dim))
    return model


def sample(model: StyleGAN, count: int, seed: int = 0, **options: Any) -> Tensor:
    return model.sample(count, seed, options=SamplingOptions(**options))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def assert_same_pictures(one: Tensor, other: Tensor) -> None:
    """Equal but for rounding, to which the number of images that go through together belongs."""
    assert one.shape == other.shape
    assert one.float().std() > 10, "the pictures are of something"
    assert (one.int() - other.int()).abs().max() <= 1


def test_stylegan_has_the_published_parameters() -> None:
    architecture = StyleGANArchitecture(channel_base=8192, styles="adain", form="progressive")
    with torch.device("meta"):
        generator = StyleGAN((1024, 1024, 3), architecture)
        discriminator = Discriminator((1024, 1024, 3), architecture, "progressive", "bilinear", 4, 0)
    assert parameters(generator.mapping) == 2_101_248
    assert parameters(generator) == 26_219_627
    assert parameters(discriminator) == 23_087_249
    assert len(generator.synthesis.to_colours) == len(discriminator.from_colours) == 9
    assert (generator.synthesis.styles, len(generator.synthesis.noise_sizes)) == (18, 18)


def test_stylegan2_has_the_published_parameters() -> None:
    architecture = StyleGANArchitecture(channel_base=16384)
    with torch.device("meta"):
        generator = StyleGAN((1024, 1024, 3), architecture)
        discriminator = Discriminator((1024, 1024, 3), architecture, "residual", "bilinear", 4, 0)
    assert parameters(generator) == 30_370_060
    assert parameters(discriminator) == 29_012_513
    assert (generator.synthesis.styles, len(generator.synthesis.noise_sizes)) == (18, 17)


@pytest.mark.parametrize(
    ("preset", "counts"),
    [("stylegan", (2_101_248, 26_219_627, 23_087_249)), ("stylegan2", (2_101_248, 30_370_060, 29_012_513))],
)
def test_describe_prints_them(preset: str, counts: tuple[int, int, int], capsys: pytest.CaptureFixture[str]) -> None:
    describe(["stylegan", "--preset", preset, "--side", "1024"])
    printed = capsys.readouterr().out
    totals = [int(found.replace(",", "")) for found in re.findall(r"│ total .* ([\d,]+) │", printed)]
    mapping, generator, discriminator = counts
    assert totals == [mapping, generator - mapping, discriminator]
    assert f"in all {generator + discriminator:,} parameters" in printed


@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize(
    ("styles", "constant"), [*((styles, False) for styles in get_args(Styles)), ("demodulate", True), ("adain", True)]
)
@pytest.mark.parametrize("noise", [False, True])
def test_every_parameter_that_is_built_is_used(form: Any, styles: Any, constant: bool, noise: bool) -> None:
    """A progressive network uses all in its last fade, but for the colours of 4x4."""
    architecture = replace(SMALL, form=form, styles=styles, constant=constant, noise=noise, classes=2)
    model = make(architecture)
    w = model.map_latents(torch.randn(2, 6), torch.tensor([0, 1]))[:, None].expand(-1, model.synthesis.styles, -1)
    layers = [torch.randn(2, 1, size, size) for size in model.synthesis.noise_sizes]
    resolution, fade = (16, torch.tensor(0.5)) if form == "progressive" else (None, None)
    model.synthesis(w, layers, resolution, fade).square().sum().backward()
    unused = {
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    }
    if form == "progressive":
        unused -= {name for name in unused if name.startswith("synthesis.to_colours.4.")}
    assert unused == set()


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("side", "colours"), [(8, 1), (32, 3)])
def test_samples_are_pictures_of_the_shape_of_the_data_and_the_first_is_that_of_many(
    name: str, side: int, colours: int
) -> None:
    model = make(ARCHITECTURES[name], side, colours)
    cases: list[dict[str, Any]] = [{}, {"truncation": 0.5, "noise": "fixed", "latents": 3}]
    for options in cases:
        many = sample(model, 5, 3, **options)
        assert many.shape == (5, side, side, colours)
        assert many.dtype == torch.uint8
        assert_same_pictures(sample(model, 1, 3, **options), many[:1])
        assert torch.equal(sample(model, 5, 3, **options), many)
        assert not torch.equal(sample(model, 5, 4, **options), many)
        assert len(many.flatten(1).unique(dim=0)) == 5


@pytest.mark.parametrize("name", ["stylegan2", "residual", "stylegan", "traditional"])
def test_no_truncation_changes_nothing_and_full_truncation_draws_the_mean_style(name: str) -> None:
    model = make(ARCHITECTURES[name])
    whole = sample(model, 4, noise="none")
    with torch.inference_mode():
        w = model.map_latents(Noise(0, range(4)).normal("z", 6), None)
        assert torch.equal(model.truncate(w, 1.0), w)
        assert_same_pictures(whole, from_signed(model.synthesise(w, None)))
        mean = from_signed(model.synthesise(model.mean_style[None], None))
    average = sample(model, 4, truncation=0.0, noise="none")
    assert_same_pictures(average, mean.expand(4, -1, -1, -1))
    assert torch.equal(sample(model, 4, 9, truncation=0.0, noise="none"), average), "whatever z is"
    nearer = [(sample(model, 4, truncation=psi, noise="none").float() - mean).abs().mean() for psi in (0.3, 0.7, 1)]
    assert 0 < nearer[0] < nearer[1] < nearer[2]


@pytest.mark.parametrize("name", ["stylegan2", "stylegan"])
def test_noise_varies_pictures_as_far_as_its_strengths_go(name: str) -> None:
    model = make(ARCHITECTURES[name])
    drawn = {mode: sample(model, 3, truncation=0.0, noise=mode) for mode in ("random", "fixed", "none")}
    assert not torch.equal(drawn["random"][0], drawn["random"][1]), "each picture has its own"
    assert torch.equal(drawn["fixed"][0], drawn["fixed"][1]), "all pictures have the same"
    assert torch.equal(drawn["none"][0], drawn["none"][1])
    assert not torch.equal(drawn["fixed"], drawn["none"])
    assert torch.equal(sample(model, 3, 8, truncation=0.0, noise="fixed"), drawn["fixed"]), "of all seeds"
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, NoiseInput):
                module.strength.zero_()
    assert torch.equal(sample(model, 3), sample(model, 3, noise="none"))
    assert torch.equal(sample(model, 3, noise="fixed"), sample(model, 3, noise="none"))


def test_each_layer_gets_noise_of_its_own() -> None:
    for model in (make(SMALL), make(PROGRESSIVE)):
        layers = model.draw_noise(Noise(0, range(2)))
        assert [layer.shape for layer in layers] == [(2, 1, size, size) for size in model.synthesis.noise_sizes]
        assert not torch.equal(layers[-1], layers[-2])
    silent = make(replace(SMALL, noise=False))
    assert not any("strength" in name for name, _ in silent.named_parameters())
    assert torch.equal(sample(silent, 2), sample(silent, 2, noise="none"))


class SameLatents(Noise):
    """Noise of which all latent vectors of a picture are the same."""

    def normal(self, name: str, *shape: int) -> Tensor:
        return super().normal("z" if name.startswith("z ") else name, *shape)


@pytest.mark.parametrize("name", STYLED)
def test_mixing_a_latent_with_itself_changes_nothing(name: str) -> None:
    model = make(ARCHITECTURES[name])
    label = torch.tensor([0, 1, 2, 0]) if model.classes else None

    def draw(noise: type[Noise], latents: int) -> Tensor:
        with torch.inference_mode():
            return model.draw(noise(0, range(4)), label, SamplingOptions(latents=latents))

    for latents in (2, 4, 8):
        assert_same_pictures(draw(SameLatents, latents), draw(Noise, 1))
        assert (draw(Noise, latents).int() - draw(Noise, 1).int()).abs().float().mean() > 2


def test_latents_change_at_places_drawn_at_random() -> None:
    """Of 2000 pictures: the first place is the first latent's; the others begin anywhere, in their order."""
    model = make(replace(SMALL, mapping_layers=0))
    noise, count = Noise(0, range(2000)), 2000
    first = model.map_latents(noise.normal("z", 6), None)
    for latents in (2, 3, 8):
        w = model._mixed(noise, first, None, latents)
        assert torch.equal(w[:, 0], first)
        drawn = [first] + [model.map_latents(noise.normal(f"z {n}", 6), None) for n in range(2, latents + 1)]
        which = (w[:, :, None] == torch.stack(drawn, 1)[:, None]).all(3).int().argmax(2)
        changes = which.diff(dim=1)
        assert changes.unique().tolist() in ([0, 1], [1]), "in the order of the latents"
        expected = min(latents - 1, model.synthesis.styles - 1)
        assert changes.sum(1).eq(expected).all(), "all of them, as far as there are places"
        share = changes.float().mean(0)
        allowed = 5 * (0.25 / count) ** 0.5
        assert (share - expected / (model.synthesis.styles - 1)).abs().max() < allowed, "at any place"


@pytest.mark.parametrize("name", ["stylegan2", "residual", "stylegan"])
def test_each_place_styles_layers_of_its_own(name: str) -> None:
    """The first latent styles the coarse layers, and the second the fine ones, from each place on."""
    model = make(ARCHITECTURES[name], 32)
    one, other = (model.map_latents(latent[None], None) for latent in torch.randn(2, 6))
    pictures = []
    for start in range(model.synthesis.styles + 1):
        styles = torch.cat([one.expand(start, -1), other.expand(model.synthesis.styles - start, -1)])[None]
        pictures.append(model.synthesise(styles, None).detach())
    torch.testing.assert_close(pictures[0], model.synthesise(other, None).detach())
    torch.testing.assert_close(pictures[-1], model.synthesise(one, None).detach())
    for before, after in itertools.pairwise(pictures):
        assert (before - after).abs().max() > 1e-3


@pytest.mark.parametrize("space", ["w", "z"])
@pytest.mark.parametrize("noise", ["random", "fixed", "none"])
@pytest.mark.parametrize("name", ["stylegan2", "stylegan", "traditional", "conditional"])
def test_an_interpolation_ends_in_the_samples_of_its_seeds(name: str, noise: Any, space: Any) -> None:
    model = make(ARCHITECTURES[name])
    options = {"truncation": 0.8, "noise": noise}
    label = torch.tensor([2, 2]) if model.classes else None
    way = model.interpolate_draws((5, 7), label, LatentInterpolationOptions(steps=5, space=space, **options))
    assert way.shape == (5, 16, 16, 3)
    for end, seed in ((way[:1], 5), (way[-1:], 7)):
        chosen = None if label is None else label[:1]
        assert_same_pictures(end, model.sample(1, seed, chosen, SamplingOptions(**options)))
    steps = (way[1:].float() - way[:-1].float()).abs().mean((1, 2, 3))
    assert steps.max() < (way[-1].float() - way[0].float()).abs().mean(), "a way, not a jump"


def test_the_ways_between_latents() -> None:
    begin, end = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    half = torch.tensor([[0.0], [0.5], [1.0]])
    expected = torch.tensor([[3.0, 0.0], [2**0.5, 2**0.5], [0.0, 1.0]])
    torch.testing.assert_close(spherical_interpolation(begin, end, half), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(spherical_interpolation(begin, begin, half), begin.expand(3, -1))


def test_in_w_the_way_is_a_straight_line_of_styles() -> None:
    model = make(SMALL)
    with torch.inference_mode():
        ends = [model.map_latents(Noise(seed, range(1)).normal("z", 6), None) for seed in (5, 7)]
        middle = from_signed(model.synthesise((ends[0] + ends[1]) / 2, None))
    way = model.interpolate_draws((5, 7), None, LatentInterpolationOptions(steps=3, noise="none"))
    assert_same_pictures(way[1:2], middle)


def test_a_conditional_model_draws_the_class_it_is_told() -> None:
    model = make(ARCHITECTURES["conditional"])
    drawn = [model.sample(2, 0, torch.full((2,), label)) for label in range(3)]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    in_turn = model.sample(3, 0)
    for label in range(2):
        assert_same_pictures(in_turn[label : label + 1], drawn[label][label : label + 1])


@pytest.mark.parametrize("name", ["stylegan2", "stylegan", "conditional"])
def test_a_saved_model_draws_the_same(name: str, tmp_path: Path) -> None:
    model = make(ARCHITECTURES[name])
    if name == "stylegan":
        model.growth.fill_(3.25)
    names = ("a", "b", "c")[: model.classes]
    model_directory.save(
        tmp_path / "model", model, model_directory.Provenance("run", 1, 1, {}, {}, {}, label_names=names)
    )
    loaded: Any = model_directory.load(tmp_path / "model")
    assert isinstance(loaded, StyleGAN)
    assert torch.equal(loaded.mean_style, model.mean_style)
    assert loaded.stage() == model.stage()
    cases: list[dict[str, Any]] = [{}, {"truncation": 0.3, "latents": 2, "noise": "fixed"}]
    for options in cases:
        assert torch.equal(sample(loaded, 3, **options), sample(model, 3, **options))


@pytest.mark.parametrize("resampling", get_args(Resampling))
@pytest.mark.parametrize("form", ["skip", "residual"])
def test_the_forms_of_stylegan2_are_the_papers(form: Any, resampling: Any) -> None:
    """Figure 7, b and c: a style and a noise for each layer, and the style of the next layer for the colours."""
    model = make(replace(SMALL, form=form, resampling=resampling))
    synthesis: Any = model.synthesis
    w = model.map_latents(torch.randn(2 * synthesis.styles, 6), None).view(2, synthesis.styles, 6)
    noise = model.draw_noise(Noise(1, range(2)))
    features = synthesis.layers[0](synthesis.input(w[:, 0]), w[:, 0], noise[0])
    image: Any = synthesis.to_colours["4"](features, w[:, 1]) if form == "skip" else None
    for first, size in ((1, 8), (3, 16)):
        start = features
        for layer in (first, first + 1):
            features = synthesis.layers[layer](features, w[:, layer], noise[layer])
        if form == "residual":
            features = (features + synthesis.shortcuts[str(size)](start)) / 2**0.5
        else:
            image = upsample(image, resampling) + synthesis.to_colours[str(size)](features, w[:, first + 2])
    if form == "residual":
        image = synthesis.to_colours["16"](features, w[:, 5])
    torch.testing.assert_close(model.synthesise(w, Noise(1, range(2))), image)


def blocks(model: StyleGAN, w: Tensor, layers: list[Tensor]) -> dict[int, Tensor]:
    """The picture of each resolution of a progressive network, layer by layer."""
    synthesis: Any = model.synthesis
    found: dict[int, Tensor] = {}
    features = synthesis.input_finish(synthesis.input(w), w, layers[0])
    features = synthesis.layers[0](features, w, layers[1])
    found[4] = synthesis.to_colours["4"](features, w)
    for number, size in enumerate(synthesis.resolutions[1:], 1):
        for layer in (2 * number - 1, 2 * number):
            features = synthesis.layers[layer](features, w, layers[layer + 1])
        found[size] = synthesis.to_colours[str(size)](features, w)
    return found


@pytest.mark.parametrize("name", ["stylegan", "traditional"])
@pytest.mark.parametrize(
    ("growth", "resolution", "fade"),
    [(2, 4, 1), (2.5, 8, 0.5), (3, 8, 1), (3.25, 16, 0.25), (4.875, 32, 0.875), (5, 32, 1)],
)
def test_a_progressive_network_fades_in_its_resolutions(name: str, growth: float, resolution: int, fade: float) -> None:
    model = make(ARCHITECTURES[name], 32)
    model.growth.fill_(growth)
    w, noise = model.map_latents(torch.randn(2, 6), None), Noise(1, range(2))
    images = blocks(model, w, model.draw_noise(noise))
    expected = images[resolution]
    if fade < 1:
        expected = fade * expected + (1 - fade) * F.interpolate(images[resolution // 2], scale_factor=2.0)
    expected = F.interpolate(expected, size=(32, 32))
    drawn = model.synthesise(w, noise)
    assert drawn.shape == (2, 3, 32, 32), "of the last resolution from the beginning"
    torch.testing.assert_close(drawn, expected)


@pytest.mark.parametrize("name", ["stylegan", "traditional"])
def test_nothing_jumps_where_a_fade_begins_or_ends(name: str) -> None:
    model = make(ARCHITECTURES[name], 32)
    w, noise = model.map_latents(torch.randn(2, 6), None), Noise(1, range(2))

    def drawn(growth: float) -> Tensor:
        model.growth.fill_(growth)
        return model.synthesise(w, noise)

    for level in (3, 4):
        torch.testing.assert_close(drawn(level + 1e-5), drawn(level), atol=1e-3, rtol=0)
        assert (drawn(level + 0.1) - drawn(level)).abs().max() > 1e-2
    torch.testing.assert_close(drawn(5 - 1e-5), drawn(5), atol=1e-3, rtol=0)


def test_a_network_that_does_not_grow_has_no_such_state() -> None:
    assert "growth" not in make(SMALL).state_dict()
    assert make(PROGRESSIVE, 32).stage() == (32, None), "a fresh one draws all of its resolutions"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pictures_in_bf16_are_those_in_fp32_but_for_rounding(name: str) -> None:
    """From the first step on, in which StyleGAN's constant hardly varies."""
    torch.manual_seed(0)
    model = StyleGAN((32, 32, 3), ARCHITECTURES[name])
    if name == "stylegan":
        with torch.no_grad():
            model.synthesis.input.constant.add_(0.002 * torch.randn_like(model.synthesis.input.constant))
    label = torch.arange(16) % 3 if model.classes else None
    w = model.map_latents(torch.randn(16, 6), label)
    exact = model.synthesise(w, Noise(1, range(16)))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.synthesise(w, Noise(1, range(16)))
    # Most pixels: a pixel of few channels that are all small is enlarged with its error by the norm of pixels.
    error = (rounded.float() - exact).abs().median() / exact.std()
    assert 0 < error < 0.03


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((32, 48, 3), r"32x48 images: StyleGAN draws square ones; ingest with --size 32"),
        ((48, 48, 3), r"48x48 images: .* a power of two from 8 on; ingest with --size (32|64)"),
        ((4, 4, 3), r"4x4 images: .* a power of two from 8 on; ingest with --size 8"),
    ],
)
def test_images_that_no_stylegan_draws_are_refused(shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        StyleGAN(shape, SMALL)
    assert "\n" not in str(raised.value)
