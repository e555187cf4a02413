"""Conversion between pixels, uint8 [N, H, W, C] in 0..255, and the float [N, C, H, W] that networks take.

Pixels have this form in shards, in operations of models and in requests to the server. The float tensors are permuted
views, so they lie channels last in memory at no cost.
"""

import torch
from torch import Tensor


def to_unit(pixels: Tensor) -> Tensor:
    """Convert uint8 [N, H, W, C] to [N, C, H, W] in [0, 1], of PyTorch's default dtype (float32)."""
    return pixels.permute(0, 3, 1, 2).to(torch.get_default_dtype()) / 255


def from_unit(images: Tensor) -> Tensor:
    """Convert float [N, C, H, W] in [0, 1] to uint8 [N, H, W, C], rounded to the nearest level and clipped."""
    return (images.float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def to_signed(pixels: Tensor) -> Tensor:
    """Convert uint8 [N, H, W, C] to [N, C, H, W] in [-1, 1], of PyTorch's default dtype (float32)."""
    return to_unit(pixels) * 2 - 1


def from_signed(images: Tensor) -> Tensor:
    """Convert float [N, C, H, W] in [-1, 1] to uint8 [N, H, W, C], rounded to the nearest level and clipped."""
    return from_unit((images.float() + 1) / 2)
