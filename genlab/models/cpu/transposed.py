"""Transposed convolution that trains faster on CPUs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FOLDED = 4
"""Output channels up to which a product and a fold are faster than oneDNN's transposed convolution: about twice."""
FEW_PIXELS = 128
"""Input pixels, of all images together, up to which they are with any number of channels: a kernel's worth of memory is
then most of the work, and oneDNN reorders it. Forward and back, up to three times (U-Net's innermost levels)."""

_Sizes = tuple[int, ...]
_Geometry = tuple[_Sizes, _Sizes, _Sizes, int, _Sizes]
"""Stride, padding, output padding, groups, dilation."""


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d``, in training on a CPU with three parts done otherwise.

    The bias's gradient is summed apart: PyTorch's own takes as long as all the rest of the backward pass where tensors
    lie channels last. An output of few channels, an image, is folded from the product of all pixels with the kernel;
    and so is that of few pixels, whose gradients are products as well. Results differ from PyTorch's by rounding.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Float [N, in, H, W] → [N, out, H', W']."""
        trains = torch.is_grad_enabled() and not torch.compiler.is_exporting()
        if input.device.type != "cpu" or not trains or output_size is not None:
            return super().forward(input, output_size)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            input, weight = input.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        geometry = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        output: Tensor = _Transposed.apply(input, weight, bias, geometry)
        return output


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = geometry
        stride, padding, output_padding, groups, dilation = geometry
        foldable = groups == 1 and input.dtype != torch.bfloat16
        ctx.products = foldable and len(input) * input.shape[2] * input.shape[3] <= FEW_PIXELS
        if not ctx.products and not (foldable and weight.shape[1] <= FOLDED):
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
    """[N, C, pixels] → [C, N * pixels], so that one product goes through the kernel once for all images."""
    return columns.transpose(0, 1).flatten(1)


def _unstacked(columns: Tensor, images: int) -> Tensor:
    """The way back: [C, N * pixels] → [N, C, pixels]."""
    return columns.unflatten(1, (images, -1)).transpose(0, 1)
