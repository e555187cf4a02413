"""Layers with an equalised learning rate, and convolutions that resize, against the plain way to compute them."""

import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.core.adam import Adam
from genlab.models.equalized import (
    EqualizedConv2d,
    EqualizedLinear,
    Resampling,
    convolve,
    downsample,
    upsample,
)

AROUND = 4
"""Zeros around an image, so wide that no filter here reaches beyond them."""
KERNEL = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)


def filtered(images: Tensor) -> Tensor:
    """[N, C, H, W] by [1, 3, 3, 1] / 8 in both directions, one pixel at a time: [N, C, H - 3, W - 3]."""
    kernel = KERNEL.outer(KERNEL) / 64
    height, width = images.shape[2] - 3, images.shape[3] - 3
    return sum(  # type: ignore[return-value]
        kernel[y, x] * images[:, :, y : y + height, x : x + width] for y in range(4) for x in range(4)
    )


def doubled(images: Tensor, resampling: str) -> Tensor:
    """Doubled images: by copying pixels, or by putting zeros between them and filtering with a gain of 4."""
    if resampling == "nearest":
        return images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    count, channels, height, width = images.shape
    sparse = images.new_zeros(count, channels, 2 * height, 2 * width)
    sparse[:, :, ::2, ::2] = images
    return 4 * filtered(F.pad(sparse, (2, 1, 2, 1)))


def halved(images: Tensor, resampling: str) -> Tensor:
    """Halved images: means of 2x2 pixels, or every other pixel of the filtered ones."""
    if resampling == "nearest":
        return (
            images[:, :, ::2, ::2] + images[:, :, 1::2, ::2] + images[:, :, ::2, 1::2] + images[:, :, 1::2, 1::2]
        ) / 4
    return filtered(F.pad(images, (1, 1, 1, 1)))[:, :, ::2, ::2]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("resampling", get_args(Resampling))
def test_images_are_doubled_and_halved(resampling: Any) -> None:
    images = random(2, 3, 6, 4)
    torch.testing.assert_close(upsample(images, resampling), doubled(images, resampling))
    torch.testing.assert_close(downsample(images, resampling), halved(images, resampling))
    flat = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(upsample(flat, resampling)[:, :, 1:-1, 1:-1], torch.ones(1, 1, 14, 14))
    torch.testing.assert_close(downsample(flat, resampling)[:, :, 1:-1, 1:-1], torch.ones(1, 1, 2, 2))


def test_doubling_is_bilinear_interpolation() -> None:
    images = random(1, 2, 5, 5)
    expected = F.interpolate(images, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(upsample(images, "bilinear")[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resize", ["up", "down", None])
@pytest.mark.parametrize("resampling", get_args(Resampling))
def test_a_convolution_that_resizes_is_one_beside_a_filter(
    resampling: Any, resize: Any, kernel: int, bias: bool
) -> None:
    """On images with zeros around them, of which the filter and the convolution both see as much as they reach."""
    images, weight = random(2, 3, 6, 4), random(5, 3, kernel, kernel, seed=1)
    shift = random(5, seed=2) if bias else None
    around = F.pad(images, (AROUND,) * 4)
    border = AROUND
    if resize == "up":
        around, border = doubled(around, resampling), 2 * AROUND
    around = F.conv2d(around, weight, padding=kernel // 2)
    if resize == "down":
        around, border = halved(around, resampling), AROUND // 2
    expected = around[:, :, border:-border, border:-border]
    if shift is not None:
        expected = expected + shift[:, None, None]
    torch.testing.assert_close(convolve(images, weight, shift, resize, resampling), expected)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resize", ["up", "down", None])
@pytest.mark.parametrize("resampling", get_args(Resampling))
def test_convolutions_have_first_and_second_derivatives(resampling: Any, resize: Any, kernel: int) -> None:
    arguments = [random(1, 2, 4, 4), random(2, 2, kernel, kernel, seed=1), random(2, seed=2)]
    for argument in arguments:
        argument.requires_grad_()

    def function(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve(images, weight, bias, resize, resampling)

    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


@pytest.mark.parametrize("resampling", get_args(Resampling))
@pytest.mark.parametrize("resize", [upsample, downsample])
def test_resizing_has_second_derivatives(resize: Any, resampling: Any) -> None:
    images = random(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda images: resize(images, resampling), images)
    # Of a function that is not linear, since all second derivatives of a linear one are 0.
    assert torch.autograd.gradgradcheck(lambda images: resize(images, resampling).square(), images)


@pytest.mark.parametrize(("resize", "kernel"), [(None, 1), (None, 3), ("down", 1)])
def test_outputs_have_the_standard_deviation_of_the_gain(resize: Any, kernel: int) -> None:
    torch.manual_seed(0)
    layer = EqualizedConv2d(64, 128, kernel, resize=resize, gain=2.0, resampling="nearest")
    expected = 2.0 if resize is None else 1.0  # a mean of four independent pixels has half the deviation
    outputs = layer(torch.randn(8, 64, 16, 16))
    assert outputs[:, :, 1:-1, 1:-1].std().item() == pytest.approx(expected, rel=0.03)
    dense = EqualizedLinear(256, 512, gain=2.0, rate=0.01)
    assert dense(torch.randn(512, 256)).std().item() == pytest.approx(2.0, rel=0.03)


def test_biases_begin_at_their_value_and_weights_at_one() -> None:
    torch.manual_seed(0)
    layer = EqualizedLinear(256, 512, rate=0.01, bias=0.5)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.02)
    torch.testing.assert_close(layer(torch.zeros(1, 256)), torch.full((1, 512), 0.5))
    assert EqualizedConv2d(64, 64).weight.std().item() == pytest.approx(1, rel=0.02)
    assert EqualizedLinear(4, 4, bias=None).bias is None
    assert EqualizedConv2d(4, 4, bias=False).bias is None


def test_a_step_of_adam_moves_a_slow_layer_by_its_rate() -> None:
    """Adam's first step moves every weight by the learning rate: as they are used, weights move by a share of it."""

    def moved(layer: EqualizedLinear) -> tuple[float, float]:
        inputs = torch.randn(32, 16, generator=torch.Generator().manual_seed(1))

        def used() -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                shift = layer(torch.zeros(1, 16))[0]
                return layer(torch.eye(16)) - shift, shift

        before = used()
        optimizer = Adam(dict(layer.named_parameters()), 0.0, 0.99)
        optimizer.rate = 0.1
        layer(inputs).square().sum().backward()
        optimizer.step()
        weight, shift = (float((one - other).abs().mean()) for one, other in zip(used(), before, strict=True))
        return weight, shift

    torch.manual_seed(0)
    weight, shift = moved(EqualizedLinear(16, 8, gain=2.0))
    assert weight == pytest.approx(0.1 * 2 / math.sqrt(16), rel=1e-3)
    assert shift == pytest.approx(0.1, rel=1e-3)
    slow_weight, slow_shift = moved(EqualizedLinear(16, 8, gain=2.0, rate=0.01))
    assert slow_weight == pytest.approx(0.01 * weight, rel=1e-2)
    assert slow_shift == pytest.approx(0.01 * shift, rel=1e-2)
