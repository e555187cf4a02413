"""Transposed convolution that trains faster on a CPU, with three parts computed in another way than PyTorch does.

The gradient of the bias is summed apart: PyTorch's own sum takes as long as all the rest of the backward pass where
tensors lie channels last. An output of few channels, such as an image, is the product of all pixels with the kernel,
folded (col2im); and so is the output of few pixels, whose gradients are matrix products as well. Results differ from
PyTorch's by rounding.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW_CHANNELS = 4
"""Output channels up to which a product and a fold are about twice as fast as oneDNN's transposed convolution."""
FEW_PIXELS = 128
"""Input pixels, of all images together, up to which a product and a fold are faster with any number of channels. Most
of the work is then to read the kernel, which oneDNN reorders first. Forward and backward together take a third of the
time at best (the innermost levels of a U-Net)."""

_Sizes = tuple[int, ...]
_Geometry = tuple[_Sizes, _Sizes, _Sizes, int, _Sizes]
"""Stride, padding, output padding, groups and dilation of a transposed convolution; all but groups are [2]."""


def convolve(layer: nn.ConvTranspose2d, input: Tensor) -> Tensor:
    """Apply ``layer`` to a float [N, in, H, W] on a CPU: [N, out, H', W'], in autocast's dtype where that is on."""
    weight, bias = layer.weight, layer.bias
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    geometry = layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
    output: Tensor = _Transposed.apply(input, weight, bias, geometry)
    return output


class _Transposed(torch.autograd.Function):
    """Transposed convolution: [N, in, H, W], [in, out / groups, h, w] and [out] → [N, out, H', W']."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = geometry
        stride, padding, output_padding, groups, dilation = geometry
        foldable = groups == 1 and input.dtype != torch.bfloat16
        ctx.products = foldable and len(input) * input.shape[2] * input.shape[3] <= FEW_PIXELS
        if not ctx.products and not (foldable and weight.shape[1] <= FEW_CHANNELS):
            return F.conv_transpose2d(input, weight, bias, *geometry)
        sizes = tuple(
            (length - 1) * step - 2 * pad + spread * (kernel - 1) + more + 1
            for length, step, pad, spread, kernel, more in zip(
                input.shape[2:], stride, padding, dilation, weight.shape[2:], output_padding, strict=True
            )
        )
        if ctx.products:
            patches = _unstacked(weight.flatten(1).t() @ _stacked(input.flatten(2)), len(input))
        else:
            patches = weight.flatten(1).t() @ input.flatten(2)
        output = F.fold(patches, sizes, tuple(weight.shape[2:]), dilation, padding, stride)
        return output if bias is None else output + bias[:, None, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        stride, padding, output_padding, groups, dilation = ctx.geometry
        to_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        if not ctx.products:
            wanted = (*ctx.needs_input_grad[:2], False)
            to_input, to_weight, _ = torch.ops.aten.convolution_backward(
                gradient, input, weight, None, stride, padding, dilation, True, output_padding, groups, wanted
            )
            return to_input, to_weight, to_bias, None
        patches = _stacked(F.unfold(gradient, tuple(weight.shape[2:]), dilation, padding, stride))
        to_input = to_weight = None
        if ctx.needs_input_grad[0]:
            to_input = _unstacked(weight.flatten(1) @ patches, len(input)).reshape(input.shape)
        if ctx.needs_input_grad[1]:
            to_weight = (_stacked(input.flatten(2)) @ patches.t()).reshape(weight.shape)
        return to_input, to_weight, to_bias, None


def _stacked(columns: Tensor) -> Tensor:
    """Reorder [N, C, pixels] to [C, N * pixels], so that one product goes through the kernel once for all images."""
    return columns.transpose(0, 1).flatten(1)


def _unstacked(columns: Tensor, images: int) -> Tensor:
    """Reorder [C, N * pixels] to [N, C, pixels], the inverse of :func:`_stacked`."""
    return columns.unflatten(1, (images, -1)).transpose(0, 1)
