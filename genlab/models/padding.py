"""Reflection padding: of any length, and with a gradient that is deterministic on a GPU too."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ReflectionPad2d(nn.ReflectionPad2d):
    """``nn.ReflectionPad2d``, whose gradient is summed in one fixed order on a GPU.

    PyTorch's own gradient uses atomic additions there, and raises under deterministic algorithms. Values are the same.
    """

    def __init__(self, pad: int) -> None:
        super().__init__(pad)
        self._pad = pad

    def forward(self, input: Tensor) -> Tensor:
        """Pad float [N, C, H, W], H and W larger than ``pad``: [N, C, H + 2 pad, W + 2 pad]."""
        if input.device.type != "cuda" or not torch.is_grad_enabled():
            return super().forward(input)
        output: Tensor = Reflection.apply(input, self._pad)
        return output


class Reflection(torch.autograd.Function):
    """Reflection padding whose gradient is computed by slices and sums, and so has derivatives itself."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, pad: int) -> Tensor:
        """Pad [N, C, H, W] to [N, C, H + 2 pad, W + 2 pad]."""
        ctx.pad = pad
        return F.pad(input, (pad, pad, pad, pad), mode="reflect")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Add the gradients of the borders to those of the rows and columns that they mirror."""
        pad = ctx.pad
        for axis in (2, 3):
            side = gradient.shape[axis] - 2 * pad
            before, inner, after = gradient.split([pad, side, pad], axis)
            gradient = inner.clone()
            gradient.narrow(axis, 1, pad).add_(before.flip(axis))
            gradient.narrow(axis, side - 1 - pad, pad).add_(after.flip(axis))
        return gradient, None


def reflection_indices(side: int, padded: int, device: torch.device) -> Tensor:
    """Return the indices that pad a side by reflection, back and forth: int64 [padded].

    A side of 4 pixels becomes 0 1 2 3 2 1 0 1 ..., also where that is longer than ``F.pad`` can reflect. The padding is
    a reflection because the statistics of an instance norm over a picture and its reflection are close to those of the
    picture; with a replicated edge, which may be most of the padded picture, they would be those of the edge.

    Args:
        side: number of pixels, at least 1.
        padded: number of pixels wanted.
        device: device of the result.
    """
    return reflected(torch.arange(padded, device=device), side)


def reflected(places: Tensor, side: int) -> Tensor:
    """Return which pixels of a side are at ``places`` of its reflection, int64: in 0..side - 1, for any integers."""
    # In an exported graph a side is symbolic, and ONNX has a remainder of tensors only.
    period = torch.full((), cast("int", torch.sym_max(2 * side - 2, 1)), device=places.device)
    place = places % period
    return torch.minimum(place, period - place)
