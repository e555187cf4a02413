"""Pixels are uint8 tensors [N, H, W, C], as in the shards and on the wire; networks see float [N, C, H, W].

The permuted float tensor is in channels-last memory order, for free.
"""

import torch
from torch import Tensor


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 [N, H, W, C] → float32 (PyTorch's default dtype) [N, C, H, W] in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).to(torch.get_default_dtype()) / 255


def from_unit(images: Tensor) -> Tensor:
    """Float [N, C, H, W] in [0, 1] (clipped) → uint8 [N, H, W, C], rounded to the nearest level."""
    return (images.float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 [N, H, W, C] → float32 (PyTorch's default dtype) [N, C, H, W] in [-1, 1]."""
    return to_unit(pixels) * 2 - 1


def from_signed(images: Tensor) -> Tensor:
    """Float [N, C, H, W] in [-1, 1] (clipped) → uint8 [N, H, W, C], rounded to the nearest level."""
    return from_unit((images.float() + 1) / 2)
