"""Affine warps of images, without aliasing, differentiable as often as wanted and deterministic on a GPU too.

A warp is linear in the image, so its gradient is the transposed map, whose gradient is the warp again. Beyond its
borders an image goes on by reflection, back and forth without end.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genlab.models.padding import reflected

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""The scaling filter of the symlet of 6 vanishing moments (Daubechies 1992, section 8.1.1)."""
CENTRE = sum(place * weight for place, weight in enumerate(SYM6)) / math.sqrt(2)
"""The first moment of ``SYM6``: by so many fine pixels, here 5.1, the filter delays an image of a linear slope."""

CHUNK_BYTES = 1 << 20
"""On a CPU, as many images are warped at a time as have upsampled images of this size: they stay in the cache."""


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Warp each image by an affine map, as the augmentations of Karras et al. 2020 (arXiv:2006.06676) do.

    An image is upsampled twofold with ``SYM6``, looked up bilinearly, and downsampled with the same filter. The filter
    is orthogonal, so that the identity and shifts by whole pixels leave images as they are, up to rounding; and affine
    maps of a linear slope are exact. Computed in the dtype of the images, whether autocast is on or off.

    Args:
        images: float32 or float64 [N, C, H, W].
        inverse: [N, 3, 3], whose last row is 0 0 1: takes the place (x, y, 1) of a pixel of the result to its place in
            the image. Places are in pixels from the centre of the image, x to the right and y down. Constant: it gets
            no gradient.

    Returns:
        [N, C, H, W].
    """
    height, width = images.shape[2:]
    parts = len(images)
    if images.device.type == "cpu":
        fine = images[0].numel() * images.element_size() * 4 * _period(height) * _period(width) // (height * width)
        parts = max(1, CHUNK_BYTES // fine)
    warped = []
    for part, maps in zip(images.split(parts), inverse.to(images.dtype).split(parts), strict=True):
        linear = _Warp(height, width, _lookup(maps, height, width))
        warped.append(_LinearMap.apply(linear.value, linear.transposed, part))
    return torch.cat(warped)


def warp_nearest(images: Tensor, inverse: Tensor) -> Tensor:
    """Give each pixel of the result the value of the nearest pixel of the image.

    Exact, bit for bit, for maps that take pixels to pixels: flips, turns by 90 degrees and shifts by whole pixels.

    Args:
        images: [N, C, H, W].
        inverse: as for :func:`warp`.

    Returns:
        [N, C, H, W], of the dtype of ``images``.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, dtype=inverse.dtype, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=inverse.dtype, device=images.device) - (height - 1) / 2
    column, row = (
        (place + (side - 1) / 2).round().long()
        for place, side in zip(_mapped(inverse, x, y), (width, height), strict=True)
    )
    pixel = (reflected(row, height) * width + reflected(column, width)).flatten(1)
    return images.flatten(2).gather(2, pixel[:, None].expand(-1, images.shape[1], -1)).view_as(images)


class _LinearMap(torch.autograd.Function):
    """A linear map, given together with its transpose, which is its gradient."""

    @staticmethod
    def forward(
        ctx: Any, value: Callable[[Tensor], Tensor], transposed: Callable[[Tensor], Tensor], tensor: Tensor
    ) -> Tensor:
        ctx.value, ctx.transposed = value, transposed
        with torch.autocast("cuda" if tensor.is_cuda else "cpu", enabled=False):
            return value(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _LinearMap.apply(ctx.transposed, ctx.value, gradient)


@dataclass(frozen=True)
class _Warp:
    """Upsampling, lookup and downsampling of images of ``height`` and ``width``.

    The fine image is one whole period of the reflected image, so that any place can be looked up in it. Along a side,
    upsampling with reflection is a matrix, and so is downsampling.
    """

    height: int
    width: int
    points: Tensor
    """Where the fine pixels of the result are in the fine image, [N, fine height, fine width, 2], in [-1, 1]."""

    def value(self, images: Tensor) -> Tensor:
        """Warp [N, C, H, W]."""
        vertical, horizontal = (_upsampling(side, images.dtype, images.device) for side in (self.height, self.width))
        fine = vertical @ (images @ horizontal.mT)
        fine = torch.ops.aten.grid_sampler_2d(fine, self.points, 0, 0, True)  # bilinear
        vertical, horizontal = (_downsampling(side, images.dtype, images.device) for side in (self.height, self.width))
        return (vertical @ fine) @ horizontal.mT

    def transposed(self, gradient: Tensor) -> Tensor:
        """Compute the gradient of images for one of their warps, [N, C, H, W]."""
        sides, dtype, device = (self.height, self.width), gradient.dtype, gradient.device
        vertical, horizontal = (_downsampling(side, dtype, device) for side in sides)
        fine = vertical.mT @ (gradient @ horizontal)
        vertical, horizontal = (_upsampling(side, dtype, device) for side in sides)
        spread = _spread_in_order if fine.is_cuda and torch.are_deterministic_algorithms_enabled() else _spread
        return (vertical.mT @ spread(fine, self.points, len(vertical), len(horizontal))) @ horizontal


def _spread(values: Tensor, points: Tensor, height: int, width: int) -> Tensor:
    """Add values [N, C, ...] to the pixels that a bilinear lookup at their points reads: [N, C, height, width]."""
    image = values.new_zeros(()).expand(*values.shape[:2], height, width)  # only its shape counts
    spread: Tensor = torch.ops.aten.grid_sampler_2d_backward(values, image, points, 0, 0, True, [True, False])[0]
    return spread


def _spread_in_order(values: Tensor, points: Tensor, height: int, width: int) -> Tensor:
    """Do what :func:`_spread` does, which on a GPU adds in any order, by an addition with a deterministic form."""
    images, channels = values.shape[:2]
    (right, column), (below, row) = (
        _split((place + 1) / 2 * (side - 1), side - 2)
        for place, side in zip(points.unbind(-1), (width, height), strict=True)
    )
    image = torch.arange(images, device=points.device)[:, None, None] * height
    pixel = (image + row) * width + column
    pixels = torch.stack([pixel, pixel + 1, pixel + width, pixel + width + 1])
    weights = torch.stack([(1 - right) * (1 - below), right * (1 - below), (1 - right) * below, right * below])
    parts = weights[..., None] * values.movedim(1, -1)
    spread = values.new_zeros(images * height * width, channels)
    spread = spread.index_add_(0, pixels.flatten(), parts.flatten(0, -2))
    return spread.view(images, height, width, channels).movedim(-1, 1)


def _split(places: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """Return the fractional and the whole parts of places, of which the whole ones are in 0..last."""
    whole = places.floor().clamp(0, last)
    return places - whole, whole.long()


def _lookup(inverse: Tensor, height: int, width: int) -> Tensor:
    """Return where the fine pixels of warped images are in the fine images, [N, fine height, fine width, 2]."""
    taps, device = len(SYM6), inverse.device
    x, y = (
        (torch.arange(2 * side - 2 + taps, dtype=inverse.dtype, device=device) - CENTRE - (side - 1)) / 2
        for side in (width, height)
    )
    points = []
    for place, side in zip(_mapped(inverse, x, y), (width, height), strict=True):
        periods = (2 * place + (side - 1) + CENTRE) / (2 * _period(side))
        points.append((periods - periods.floor()) * 2 - 1)
    return torch.stack(points, -1)


def _mapped(inverse: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y, [N, height, width] each, of the mapped points of a grid with columns x and rows y."""
    across, down, shift = inverse[:, :2, :, None, None].unbind(2)
    mapped_x, mapped_y = (across * x + (down * y[:, None] + shift)).unbind(1)
    return mapped_x, mapped_y


def _period(side: int) -> int:
    """Return after how many pixels a reflected side begins again."""
    return max(2 * side - 2, 1)


@functools.lru_cache(maxsize=32)
def _upsampling(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix [fine, side] from a side to one period of its reflection, upsampled, and one pixel more."""
    fine = torch.arange(2 * _period(side) + 1, device="cpu")
    matrix = torch.zeros(len(fine), side, dtype=torch.float64, device="cpu")
    for tap, weight in enumerate(SYM6):
        rows = fine[tap % 2 :: 2]
        matrix[rows, reflected((rows - tap) // 2, side)] += math.sqrt(2) * weight
    return matrix.to(device, dtype)


@functools.lru_cache(maxsize=32)
def _downsampling(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix [side, fine] from the fine pixels that a side is made of to the side."""
    places = torch.arange(side, device="cpu")
    matrix = torch.zeros(side, 2 * side - 2 + len(SYM6), dtype=torch.float64, device="cpu")
    for tap, weight in enumerate(SYM6):
        matrix[places, 2 * places + tap] = weight / math.sqrt(2)
    return matrix.to(device, dtype)
