"""Layers with an equalised learning rate, and 3x3 convolutions that also double or halve an image.

Weights are drawn from N(0, 1) and scaled when they are used by the constant of He's initialisation, so that Adam moves
all layers at the same pace (Karras et al. 2018, ICLR, arXiv:1710.10196, section 4.1).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.cpu import linear

Resampling = Literal["bilinear", "nearest"]
"""How images are doubled and halved. ``bilinear``: by the filter [1, 3, 3, 1], which is bilinear interpolation when
doubling (Karras et al. 2020, arXiv:1912.04958). ``nearest``: nearest neighbour up, average of 2x2 pixels down (Karras
et al. 2018)."""

SLOPE = 0.2
"""Slope of the leaky ReLU for negative numbers."""
ROOT_2 = math.sqrt(2)
"""Gain of He's initialisation (He et al. 2015) for layers before a (leaky) ReLU."""


class EqualizedLinear(nn.Module):
    """A dense layer with an equalised learning rate.

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
        gain: factor of the outputs' standard deviation.
        rate: factor of the learning rate, against that of other layers.
        bias: first value of the biases; ``None`` for a layer without.
    """

    def __init__(
        self, inputs: int, outputs: int, *, gain: float = 1.0, rate: float = 1.0, bias: float | None = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = None if bias is None else nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale = gain * rate / math.sqrt(inputs)
        self.rate = rate

    def forward(self, input: Tensor) -> Tensor:
        """Map float [N, inputs] to [N, outputs]."""
        bias = self.bias if self.bias is None or self.rate == 1 else self.bias * self.rate
        return linear(input, self.weight * self.scale, bias)


class EqualizedConv2d(nn.Module):
    """A convolution with an equalised learning rate that keeps, doubles or halves height and width.

    Doubling is an upsampling before the convolution, halving a downsampling after it, each done as one step with it.

    Args:
        inputs: number of channels that come in.
        outputs: number of channels that go out.
        kernel: side of the kernel, 1 or 3.
        resize: ``up`` or ``down``, or ``None`` to keep the size.
        resampling: the filter of the resizing.
        gain: factor of the outputs' standard deviation.
        bias: whether there are biases.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        resize: Literal["up", "down"] | None = None,
        resampling: Resampling = "bilinear",
        gain: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel).to(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs * kernel**2)
        self.resize = resize
        self.resampling = resampling

    def forward(self, input: Tensor) -> Tensor:
        """Convolve float [N, inputs, H, W]: [N, outputs, H', W']."""
        return convolve(input, self.weight * self.scale, self.bias, self.resize, self.resampling)


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    resize: Literal["up", "down"] | None = None,
    resampling: Resampling = "bilinear",
) -> Tensor:
    """Convolve with zero padding, after doubling or before halving height and width.

    Args:
        input: float [N, inputs, H, W].
        weight: float [outputs, inputs, K, K], K being 1 or 3.
        bias: float [outputs].
        resize: ``up``, ``down`` or ``None``.
        resampling: the filter of the resizing.

    Returns:
        float [N, outputs, H', W']; H' is H, 2 H or H / 2.
    """
    kernel = weight.shape[2]
    if resize is None:
        return F.conv2d(input, weight, bias, padding=kernel // 2)
    if kernel == 1:
        # A 1x1 kernel and the filter may change places: the convolution is done at the lower resolution.
        if resize == "up":
            return _shifted(upsample(F.conv2d(input, weight), resampling), bias)
        return F.conv2d(downsample(input, resampling), weight, bias)
    if resampling == "nearest":
        # A 3x3 convolution beside a box of 2x2 is a 4x4 convolution of stride 2 (Karras et al. 2018).
        wide = F.pad(weight, (1, 1, 1, 1))
        boxed = wide[:, :, 1:, 1:] + wide[:, :, :-1, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, :-1]
        if resize == "up":
            return F.conv_transpose2d(input, boxed.flip(2, 3).transpose(0, 1), bias, stride=2, padding=1)
        return F.conv2d(input, boxed / 4, bias, stride=2, padding=1)
    # A convolution of stride 2 costs a quarter of one at the higher resolution, and the filter acts on single channels.
    if resize == "up":
        doubled = F.conv_transpose2d(input, weight.flip(2, 3).transpose(0, 1), stride=2)
        return _shifted(_filter(doubled, padding=1, gain=4.0), bias)
    return F.conv2d(_filter(input, padding=2), weight, bias, stride=2)


def _shifted(images: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias, which comes after the filter, whose zeros around the image would weaken it at the borders."""
    return images if bias is None else images + bias.to(images.dtype)[:, None, None]


def clamped(features: Tensor, limit: float | None) -> Tensor:
    """Limit the absolute values of features, as networks trained in half precision do; ``None`` for no limit.

    Karras et al. 2020 (arXiv:2006.06676), appendix D: at 2^8, ten times what is met in practice.
    """
    return features if limit is None else features.clamp(-limit, limit)


def upsample(images: Tensor, resampling: Resampling) -> Tensor:
    """Double height and width of float [N, C, H, W]."""
    if resampling == "nearest":
        return F.interpolate(images, scale_factor=2, mode="nearest")
    channels = images.shape[1]
    kernel = _kernel(images, gain=4.0).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(images, kernel, stride=2, padding=1, groups=channels)


def downsample(images: Tensor, resampling: Resampling) -> Tensor:
    """Halve height and width of float [N, C, H, W]."""
    if resampling == "nearest":
        return F.avg_pool2d(images, 2)
    # A depthwise convolution of stride 2 has a backward pass ten times as slow on a CPU as one of stride 1.
    return _filter(images, padding=1)[:, :, ::2, ::2]


def _filter(images: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Filter each channel by [1, 3, 3, 1] in both directions, with zeros around the image."""
    channels = images.shape[1]
    kernel = _kernel(images, gain).expand(channels, 1, 4, 4).contiguous()
    return F.conv2d(images, kernel, padding=padding, groups=channels)


def _kernel(images: Tensor, gain: float) -> Tensor:
    """Return the filter [1, 3, 3, 1] in both directions, whose sum is ``gain``, in the images' dtype.

    It is made where the images are: a GPU would wait for a copy of it.
    """
    side = 4 - (2 * torch.arange(4, dtype=images.dtype, device=images.device) - 3).abs()
    return side.outer(side) * (gain / 64)
