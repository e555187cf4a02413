"""Transposed convolution that trains faster on CPUs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FOLDED = 4
"""Output channels up to which a product and a fold are faster than oneDNN's transposed convolution: about twice."""


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d``, in training on a CPU with two parts done otherwise.

    The bias's gradient is summed apart: PyTorch's own takes as long as all the rest of the backward pass where tensors
    lie channels last. And an output of few channels, an image, is folded from the product of all pixels with the
    kernel. Results differ from PyTorch's by rounding.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Float [N, in, H, W] → [N, out, H', W']."""
        if input.device.type != "cpu" or not torch.is_grad_enabled() or self.bias is None or output_size is not None:
            return super().forward(input, output_size)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            input, weight, bias = input.to(dtype), weight.to(dtype), bias.to(dtype)
        geometry = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        output: Tensor = _Transposed.apply(input, weight, bias, geometry)
        return output


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, geometry: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = geometry
        if weight.shape[1] > FOLDED or input.dtype == torch.bfloat16 or geometry[3] > 1:
            return F.conv_transpose2d(input, weight, bias, *geometry)
        stride, padding, output_padding, _, dilation = geometry
        sizes = tuple(
            (length - 1) * step - 2 * pad + spread * (kernel - 1) + more + 1
            for length, step, pad, spread, kernel, more in zip(
                input.shape[2:], stride, padding, dilation, weight.shape[2:], output_padding, strict=True
            )
        )
        patches = weight.flatten(1).t() @ input.flatten(2)
        return F.fold(patches, sizes, tuple(weight.shape[2:]), dilation, padding, stride) + bias[:, None, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        stride, padding, output_padding, groups, dilation = ctx.geometry
        wanted = (*ctx.needs_input_grad[:2], False)
        to_input, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, input, weight, None, stride, padding, dilation, True, output_padding, groups, wanted
        )
        return to_input, to_weight, gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None
