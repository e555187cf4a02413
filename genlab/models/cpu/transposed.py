"""Transposed convolution that is faster on a CPU, with parts computed in another way than PyTorch does by default.

In training, the gradient of the bias is summed apart: PyTorch's own sum takes as long as all the rest of the backward
pass where tensors lie channels last. An output of few channels, such as an image, is the product of all pixels with the
kernel, folded (col2im); and so is the output of few pixels, whose gradients are matrix products as well.

In inference mode an output of few channels, or one of little work, is computed image by image by a kernel of PyTorch's
that it takes where there is no oneDNN: also a product and a fold. What an image gives does not depend on the batch.

Results differ from PyTorch's by rounding.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.cpu import bilinear
from genlab.models.cpu.bilinear import Gradients, Wanted

FEW_CHANNELS = 4
"""Output channels up to which a product and a fold are about twice as fast as oneDNN's transposed convolution."""
FEW_PIXELS = 128
"""Input pixels, of all images together, up to which a product and a fold are faster with any number of channels. Most
of the work is then to read the kernel, which oneDNN reorders first. Forward and backward together take a third of the
time at best (the innermost levels of a U-Net)."""

LITTLE_WORK = 250_000
"""Multiplications an image up to which that is faster in inference: oneDNN takes longer than these to begin. A layer of
5x5 from 32 to 16 channels at 4x4 takes a third of the time; a last layer to one channel at 11x11 or 25x25, a sixth."""

_Sizes = tuple[int, ...]


def convolve(layer: nn.ConvTranspose2d, input: Tensor) -> Tensor:
    """Apply ``layer`` to a float [N, in, H, W] on a CPU: [N, out, H', W'], in autocast's dtype where that is on."""
    weight, bias = layer.weight, layer.bias
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    padding = cast("_Sizes", layer.padding)
    transposed = Transposed(layer.stride, padding, layer.output_padding, layer.groups, layer.dilation)
    return bilinear.convolve(transposed, input, weight, bias)


def suits_inference(layer: nn.ConvTranspose2d, input: Tensor) -> bool:
    """Return whether :func:`infer` is faster than oneDNN for an input [N, in, H, W] on a CPU."""
    weight = layer.weight
    work = input.shape[2] * input.shape[3] * weight.numel()
    single = input.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return single and layer.groups == 1 and (weight.shape[1] <= FEW_CHANNELS or work <= LITTLE_WORK)


def infer(layer: nn.ConvTranspose2d, input: Tensor) -> Tensor:
    """Apply ``layer``, of one group, to a float32 [N, in, H, W] on a CPU, image by image: [N, out, H', W']."""
    convolved: Tensor = torch.ops.aten.slow_conv_transpose2d(
        input,
        layer.weight,
        layer.weight.shape[2:],
        layer.bias,
        layer.stride,
        layer.padding,
        layer.output_padding,
        layer.dilation,
    )
    return convolved


@dataclass(frozen=True)
class Transposed:
    """Transposed convolution: [N, in, H, W], [in, out / groups, h, w] and [out] → [N, out, H', W']."""

    stride: _Sizes
    padding: _Sizes
    output_padding: _Sizes
    groups: int
    dilation: _Sizes

    def value(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output, [N, out, H', W']."""
        few_pixels = self._few_pixels(input)
        if not few_pixels and not (self._foldable(input) and weight.shape[1] <= FEW_CHANNELS):
            return F.conv_transpose2d(
                input, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
            )
        sizes = tuple(
            (length - 1) * step - 2 * pad + spread * (kernel - 1) + more + 1
            for length, step, pad, spread, kernel, more in zip(
                input.shape[2:],
                self.stride,
                self.padding,
                self.dilation,
                weight.shape[2:],
                self.output_padding,
                strict=True,
            )
        )
        if few_pixels:
            patches = _unstacked(weight.flatten(1).t() @ _stacked(input.flatten(2)), len(input))
        else:
            patches = weight.flatten(1).t() @ input.flatten(2)
        output = F.fold(patches, sizes, tuple(weight.shape[2:]), self.dilation, self.padding, self.stride)
        return output if bias is None else output + bias[:, None, None]

    def gradients(self, gradient: Tensor, input: Tensor, weight: Tensor, wanted: Wanted) -> Gradients:
        """Return the gradients of input, weight and bias for a gradient [N, out, H', W']."""
        wants_input, wants_weight, wants_bias = wanted
        to_bias = gradient.sum((0, 2, 3)) if wants_bias else None
        if not self._few_pixels(input):
            to_input, to_weight, _ = torch.ops.aten.convolution_backward(
                gradient,
                input,
                weight,
                None,
                self.stride,
                self.padding,
                self.dilation,
                True,
                self.output_padding,
                self.groups,
                (wants_input, wants_weight, False),
            )
            return to_input, to_weight, to_bias
        patches = _stacked(F.unfold(gradient, tuple(weight.shape[2:]), self.dilation, self.padding, self.stride))
        to_input = to_weight = None
        if wants_input:
            to_input = _unstacked(weight.flatten(1) @ patches, len(input)).reshape(input.shape)
        if wants_weight:
            to_weight = (_stacked(input.flatten(2)) @ patches.t()).reshape(weight.shape)
        return to_input, to_weight, to_bias

    def broadcast(self, bias: Tensor, like: Tensor) -> Tensor:
        """Return a bias [out] in the shape of an output ``like``, [N, out, H', W']."""
        return bias[:, None, None].expand_as(like)

    def _foldable(self, input: Tensor) -> bool:
        return self.groups == 1 and input.dtype != torch.bfloat16

    def _few_pixels(self, input: Tensor) -> bool:
        return self._foldable(input) and len(input) * input.shape[2] * input.shape[3] <= FEW_PIXELS


def _stacked(columns: Tensor) -> Tensor:
    """Reorder [N, C, pixels] to [C, N * pixels], so that one product goes through the kernel once for all images."""
    return columns.transpose(0, 1).flatten(1)


def _unstacked(columns: Tensor, images: int) -> Tensor:
    """Reorder [C, N * pixels] to [N, C, pixels], the inverse of :func:`_stacked`."""
    return columns.unflatten(1, (images, -1)).transpose(0, 1)
