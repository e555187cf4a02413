"""Reflection padding: by any length, and with a gradient that is the same every time on a GPU too."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class ReflectionPad2d(nn.ReflectionPad2d):
    """``nn.ReflectionPad2d``, whose gradient is summed in one fixed order on a GPU.

    PyTorch's own adds atomically there, and raises under deterministic algorithms. All values are the same.
    """

    def __init__(self, pad: int) -> None:
        super().__init__(pad)
        self._pad = pad

    def forward(self, input: Tensor) -> Tensor:
        """Float [N, C, H, W] → [N, C, H + 2 pad, W + 2 pad]; H and W larger than ``pad``."""
        if input.device.type != "cuda" or not torch.is_grad_enabled():
            return super().forward(input)
        output: Tensor = Reflection.apply(input, self._pad)
        return output


class Reflection(torch.autograd.Function):
    """Reflection padding, with a gradient of slices and sums."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, pad: int) -> Tensor:
        """[N, C, H, W] → [N, C, H + 2 pad, W + 2 pad]."""
        ctx.pad = pad
        return F.pad(input, (pad, pad, pad, pad), mode="reflect")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Fold the borders back onto the rows and columns that they mirror."""
        pad = ctx.pad
        for axis in (2, 3):
            side = gradient.shape[axis] - 2 * pad
            before, inner, after = gradient.split([pad, side, pad], axis)
            gradient = inner.clone()
            gradient.narrow(axis, 1, pad).add_(before.flip(axis))
            gradient.narrow(axis, side - 1 - pad, pad).add_(after.flip(axis))
        return gradient, None


def reflection_indices(side: int, padded: int, device: torch.device) -> Tensor:
    """Which of ``side`` pixels, at least 1, stand in their place and in that of what follows: int64 [padded].

    Of 4 pixels 0 1 2 3 2 1 0 1 ...: beyond what ``F.pad`` can reflect, back and forth. Reflection, for the statistics
    of an instance norm over a picture and its reflection are about those of the picture; of a replicated edge, which
    may be most of what the network sees, they are the edge's.
    """
    # A side of an exported graph is symbolic, and the remainder of one that is no tensor is not known in ONNX.
    period = torch.full((), cast("int", torch.sym_max(2 * side - 2, 1)), device=device)
    place = torch.arange(padded, device=device) % period
    return torch.minimum(place, period - place)
