"""The parts of StyleGAN's generator against the formulas of the papers."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.equalized import convolve
from genlab.models.stylegan_layers import (
    MAPPING_RATE,
    DemodulatedLayer,
    Finish,
    Mapping,
    ToColours,
    normalise_pixels,
)


def randomised(module: nn.Module) -> Any:
    """The module in float64 with no parameter at its first value, such as biases of 0."""
    generator = torch.Generator().manual_seed(3)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return module


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_pixels_are_scaled_to_a_mean_square_of_one() -> None:
    features = random(3, 5, 4, 4)
    expected = features / features.square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(normalise_pixels(features), expected, rtol=1e-6, atol=1e-6)
    assert normalise_pixels(torch.zeros(1, 5)).eq(0).all()


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_demodulation_is_a_convolution_with_each_images_own_weights(up: bool, noisy: bool) -> None:
    """Equations 1 and 3 of StyleGAN2, by a grouped convolution; then noise, bias and leaky ReLU with a gain of √2."""
    count, inputs, outputs, side = 3, 4, 5, 6
    layer = randomised(DemodulatedLayer(inputs, outputs, 7, noise=True, up=up, resampling="bilinear"))
    features, w = random(count, inputs, side, side), random(count, 7, seed=1)
    noise = random(count, 1, side * (1 + up), side * (1 + up), seed=2) if noisy else None

    style = F.linear(w, layer.style.weight / 7**0.5, layer.style.bias)
    modulated = layer.convolution.weight / (inputs * 9) ** 0.5 * style[:, None, :, None, None]
    demodulated = modulated / (modulated.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    if up:
        convolved = torch.cat(
            [
                convolve(one[None], weight, None, "up", "bilinear")
                for one, weight in zip(features, demodulated, strict=True)
            ]
        )
    else:
        grouped = F.conv2d(features.view(1, -1, side, side), demodulated.flatten(0, 1), padding=1, groups=count)
        convolved = grouped.view(count, outputs, side, side)
    if noise is not None:
        convolved = convolved + layer.noise.strength * noise
    expected = F.leaky_relu(convolved + layer.bias[:, None, None], 0.2) * 2**0.5
    torch.testing.assert_close(layer(features, w, noise), expected)


@pytest.mark.parametrize("noisy", [False, True])
def test_adain_is_an_instance_norm_that_a_style_scales_and_shifts(noisy: bool) -> None:
    finish = randomised(Finish(4, 7, noise=True))
    features, w = random(3, 4, 6, 6), random(3, 7, seed=1)
    noise = random(3, 1, 6, 6, seed=2) if noisy else None
    before = features + finish.bias[:, None, None]
    if noise is not None:
        before = before + finish.noise.strength[:, None, None] * noise
    before = F.leaky_relu(before, 0.2)
    scale, shift = F.linear(w, finish.style.weight / 7**0.5, finish.style.bias).chunk(2, 1)
    mean, deviation = before.mean((2, 3), keepdim=True), before.std((2, 3), correction=0, keepdim=True)
    expected = (1 + scale)[:, :, None, None] * (before - mean) / deviation + shift[:, :, None, None]
    torch.testing.assert_close(finish(features, w, noise), expected, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        finish.style.weight.zero_()
        finish.style.bias.zero_()
    torch.testing.assert_close(finish(features, w, noise), F.instance_norm(before, eps=1e-8))


@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (1, 0), (1, 0.02), (30, 1)])
def test_adain_in_bf16_is_as_exact_as_its_inputs(mean: float, deviation: float) -> None:
    """Also of channels that hardly vary, such as the constant before training, or whose mean is large."""
    torch.manual_seed(0)
    finish = Finish(8, 7, noise=False)
    features, w = (mean + deviation * torch.randn(4, 8, 16, 16)).bfloat16(), torch.randn(4, 7)
    expected = finish(features.float(), w, None)
    with torch.autocast("cpu", torch.bfloat16):
        found = finish(features, w, None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2**-7, atol=0.02)


def test_without_styles_the_norm_is_that_of_pixels() -> None:
    finish = randomised(Finish(4, None, noise=False))
    features = random(3, 4, 6, 6)
    expected = normalise_pixels(F.leaky_relu(features + finish.bias[:, None, None], 0.2))
    torch.testing.assert_close(finish(features, random(3, 7), None), expected)


def test_colours_are_a_modulated_convolution_without_demodulation() -> None:
    layer = randomised(ToColours(4, 3, 7))
    features, w = random(2, 4, 5, 5), random(2, 7, seed=1)
    style = F.linear(w, layer.style.weight / 7**0.5, layer.style.bias)
    weight = layer.convolution.weight / 2
    expected = torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], features * style[:, :, None, None])
    torch.testing.assert_close(layer(features, w), expected + layer.convolution.bias[:, None, None])


@pytest.mark.parametrize("classes", [0, 3])
def test_the_mapping_normalises_z_and_runs_through_dense_layers(classes: int) -> None:
    mapping = randomised(Mapping(6, 2, classes))
    z, label = random(4, 6), torch.tensor([0, 2, 1, 2]) if classes else None
    features = z if label is None else torch.cat([z, mapping.embedding.weight.T[label]], dim=1)
    features = features / features.square().mean(1, keepdim=True).sqrt()
    for layer in mapping.layers:
        weight = layer.weight * MAPPING_RATE * 2**0.5 / features.shape[1] ** 0.5
        features = F.leaky_relu(F.linear(features, weight, layer.bias * MAPPING_RATE), 0.2)
    torch.testing.assert_close(mapping(z, label), features, rtol=1e-6, atol=1e-6)


def test_a_separate_embedding_is_normalised_by_itself() -> None:
    """As in StyleGAN2-ADA: a dense layer with biases for the class, and z by itself."""
    mapping = randomised(Mapping(6, 1, 3, "separate"))
    z, label = random(4, 6), torch.tensor([0, 2, 1, 2])
    embedded = mapping.embedding.weight.T[label] / 3**0.5 + mapping.embedding.bias
    features = torch.cat([normalise_pixels(z), normalise_pixels(embedded)], dim=1)
    layer = mapping.layers[0]
    expected = F.linear(features, layer.weight * MAPPING_RATE * 2**0.5 / 12**0.5, layer.bias * MAPPING_RATE)
    torch.testing.assert_close(mapping(z, label), F.leaky_relu(expected, 0.2), rtol=1e-6, atol=1e-6)


def test_a_clamp_limits_what_layers_give() -> None:
    features, w = random(2, 4, 5, 5), random(2, 7, seed=1)
    layers = DemodulatedLayer(4, 4, 7, noise=False, resampling="bilinear", clamp=0.5), ToColours(4, 3, 7, clamp=0.5)
    for layer in map(randomised, layers):
        arguments = (features, w, None) if isinstance(layer, DemodulatedLayer) else (features, w)
        found, layer.clamp = layer(*arguments), None
        expected = layer(*arguments)
        assert expected.abs().max() > 0.5
        torch.testing.assert_close(found, expected.clamp(-0.5, 0.5))


def test_without_layers_w_is_the_normalised_z() -> None:
    mapping = Mapping(6, 0, 0)
    z = torch.randn(4, 6)
    assert mapping.outputs == 6
    torch.testing.assert_close(mapping(7 * z, None), normalise_pixels(z))
    assert Mapping(6, 0, 3).outputs == 12, "z beside the learned vector of a class"


def test_a_style_keeps_the_variance_of_what_it_scales() -> None:
    """At first: outputs of all layers have about the standard deviation that goes in, whatever the style."""
    torch.manual_seed(0)
    layer = DemodulatedLayer(64, 128, 32, noise=False, resampling="bilinear")
    features, w = torch.randn(16, 64, 12, 12), 3 * torch.randn(16, 32)
    outputs = layer(features, w, None)[:, :, 1:-1, 1:-1]
    assert outputs.square().mean().sqrt().item() == pytest.approx(1, rel=0.05)
    mapping = Mapping(256, 8, 0)
    w = mapping(torch.randn(64, 256), None)
    assert w.square().mean().sqrt().item() == pytest.approx(1, rel=0.2)
