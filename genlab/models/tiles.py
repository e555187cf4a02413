"""Translation of large pictures in overlapping tiles whose seams are blended, so that memory is bounded.

Each tile has instance-norm statistics of its own, so neighbouring tiles differ a little everywhere, not only at their
edges; a smooth cross-fade leaves no visible step.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

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


Box = tuple[slice, slice]
"""Rows and columns of a tile in its picture."""


def tile_boxes(height: int, width: int, multiple: int) -> list[Box]:
    """Divide a picture into the tiles that it is translated in, row by row: itself if no side is over :data:`TILE`.

    Args:
        height: height of the picture, in pixels.
        width: width of the picture, in pixels.
        multiple: the network pads the end of each side to a multiple of this. Tiles begin at multiples of it, so that
            strided layers take the same pixels as in the whole picture. It divides ``TILE`` and ``OVERLAP``.
    """
    if max(height, width) <= TILE:
        return [(slice(0, height), slice(0, width))]
    return [
        (slice(top, min(top + TILE, height)), slice(left, min(left + TILE, width)))
        for top in _tile_starts(height, multiple)
        for left in _tile_starts(width, multiple)
    ]


def join_tiles(boxes: Sequence[Box], tiles: Iterable[Tensor]) -> Tensor:
    """Put translated tiles together, and blend them where they overlap.

    Where two tiles are blended, the weight of one is a smoothstep and that of the other the rest to 1.

    Args:
        boxes: those of :func:`tile_boxes`.
        tiles: for each box uint8 [N, h, w, C]; taken one after the other.

    Returns:
        uint8 [N, H, W, C].
    """
    found = iter(tiles)
    first = next(found)
    height, width = boxes[-1][0].stop, boxes[-1][1].stop
    if len(boxes) == 1:
        return first
    result = first.new_empty((len(first), height, width, first.shape[3]))
    strip, below, right = result, 0, 0
    for (rows, columns), tile in zip(boxes, chain([first], found), strict=True):
        if columns.start == 0:
            strip, right = tile.new_empty((*tile.shape[:2], width, tile.shape[3])), 0
        _blend(strip, tile, 2, columns.start, right)
        right = columns.start + TILE
        if columns.stop == width:
            _blend(result, strip, 1, rows.start, below)
            below = rows.start + TILE
    return result


def translate_in_tiles(translate: Callable[[Tensor], Tensor], pixels: Tensor, multiple: int) -> Tensor:
    """Translate images of any size, in tiles where a side is longer than :data:`TILE`.

    Args:
        translate: a function of uint8 [N, h, w, C] to the same shape, for h and w of at most ``TILE``.
        pixels: uint8 [N, H, W, C].
        multiple: see :func:`tile_boxes`.

    Returns:
        uint8 [N, H, W, C].
    """
    boxes = tile_boxes(pixels.shape[1], pixels.shape[2], multiple)
    return join_tiles(boxes, (translate(pixels[:, rows, columns]) for rows, columns in boxes))


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
