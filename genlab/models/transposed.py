"""Transposed convolution with a faster backward pass on CPUs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d``, whose bias's gradient is summed apart, in training on a CPU.

    PyTorch's own takes as long as all the rest of the backward pass where tensors lie channels last. All results are
    the same to the bit but that gradient, which is summed in another order.
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
        return F.conv_transpose2d(input, weight, bias, *geometry)

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
