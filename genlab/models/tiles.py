"""Translation of large pictures in overlapping tiles whose seams are blended, so that memory is bounded.

Each tile has instance-norm statistics of its own, so neighbouring tiles differ a little everywhere, not only at their
edges; a smooth cross-fade leaves no visible step.
"""

from collections.abc import Callable

import torch
from torch import Tensor

TILE = 1024
"""Side of a tile in pixels; a picture that is no larger is translated as a whole. Tiles are large, so that their norms
are close to those of the whole picture and few pixels are computed twice; a ResNet of width 64 needs 1 GiB for one.
TILE and OVERLAP are multiples of every network's ``size_multiple``."""
OVERLAP = 256
"""Pixels by which neighbouring tiles overlap, at least. The middle half of the overlap is blended; the quarter on
either side is context only. The receptive field of a ResNet with 9 blocks reaches 84 pixels, and a tile has a weight
of at most 7% where its edge is nearer than that. That of a U-Net may be the whole tile: only the blending helps it."""


def translate_in_tiles(translate: Callable[[Tensor], Tensor], pixels: Tensor, multiple: int) -> Tensor:
    """Translate images of any size, in tiles where a side is longer than :data:`TILE`.

    Where two tiles are blended, the weight of one is a smoothstep and that of the other the rest to 1.

    Args:
        translate: a function of uint8 [N, h, w, C] to the same shape, for h and w of at most ``TILE``.
        pixels: uint8 [N, H, W, C].
        multiple: ``translate`` pads the end of each side to a multiple of this. Tiles begin at multiples of it, so that
            strided layers take the same pixels as in the whole image. It divides ``TILE`` and ``OVERLAP``.

    Returns:
        uint8 [N, H, W, C].
    """
    height, width = pixels.shape[1:3]
    if max(height, width) <= TILE:
        return translate(pixels)
    result, below = torch.empty_like(pixels), 0
    for top in _tile_starts(height, multiple):
        row = pixels[:, top : top + TILE]
        strip, right = torch.empty_like(row), 0
        for left in _tile_starts(width, multiple):
            _blend(strip, translate(row[:, :, left : left + TILE]), 2, left, right)
            right = left + TILE
        _blend(result, strip, 1, top, below)
        below = top + TILE
    return result


def _tile_starts(length: int, multiple: int) -> list[int]:
    """Return where the tiles of a side begin. The last begins so early that it is, padded, as long as the others."""
    last = max(0, length + -length % multiple - TILE)
    return [*range(0, last, TILE - OVERLAP), last]


def _blend(image: Tensor, tile: Tensor, axis: int, begin: int, filled: int) -> None:
    """Put ``tile`` into ``image`` at ``begin`` along ``axis``, where the image is filled up to ``filled``."""
    seam = OVERLAP // 2 if filled else 0
    start = (begin + filled - seam) // 2 if filled else 0
    old, new = image.narrow(axis, start, seam), tile.narrow(axis, start - begin, seam)
    share = (torch.arange(seam, device=image.device) + 0.5) / seam
    weight = (share * share * (3 - 2 * share)).reshape([-1 if dim == axis else 1 for dim in range(image.ndim)])
    old.copy_(old.float().lerp(new.float(), weight).round())
    rest = begin + tile.shape[axis] - start - seam
    image.narrow(axis, start + seam, rest).copy_(tile.narrow(axis, start + seam - begin, rest))
