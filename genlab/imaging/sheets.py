"""Sheets: many images in one picture, and sheets side by side."""

import math
from collections.abc import Mapping

import numpy as np

from genlab.imaging.charts import DOTS_PER_PIXEL, GREY, PAGE_WIDTH, PIXELS_PER_INCH, new_chart, render
from genlab.imaging.images import Pixels

PAD = 2
"""Distance of the images of a sheet, in pixels."""
GAP = 16
"""Distance of neighbouring sheets, in pixels."""
TITLE_HEIGHT = 24
"""Height of the title of a sheet, in CSS pixels."""


def sheet(images: Pixels, columns: int, pad: int = PAD) -> Pixels:
    """Lay images out in rows, on a white background.

    Args:
        images: uint8 [n, height, width, channels], n >= 1, laid out from left to right, then down.
        columns: number of images in a row.
        pad: white pixels around each image.

    Returns:
        uint8 [rows * (height + pad) + pad, columns * (width + pad) + pad, channels].
    """
    count, height, width, channels = images.shape
    rows = math.ceil(count / columns)
    page = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, channels), 255, np.uint8)
    for number, image in enumerate(images):
        top = pad + number // columns * (height + pad)
        left = pad + number % columns * (width + pad)
        page[top : top + height, left : left + width] = image
    return page


def transparent_sheet(images: Pixels, columns: int) -> Pixels:
    """Lay images out as :func:`sheet` does, with transparent gaps: C + 1 channels, the last being opacity."""
    gaps = sheet(np.zeros_like(images[..., :1]), columns)
    return np.concatenate([sheet(images, columns), 255 - gaps], axis=2)


def side_by_side(left: Pixels, right: Pixels) -> Pixels:
    """Join two sheets of one height side by side, with white between them; both uint8 [H, W, C], C of 1 or 3."""
    gap = np.full((len(left), GAP, left.shape[2]), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def sheet_grid(sheets: Mapping[str, Pixels], across: int) -> Pixels:
    """Lay sheets out in rows on white, each under its title.

    Args:
        sheets: sheets by title, all of one shape: uint8 [H, W, C], C of 1 or 3, and one more with opacity.
        across: number of sheets in a row.

    Returns:
        uint8 [H', W', C]. Its resolution is that of a chart.
    """
    height, width, channels = next(iter(sheets.values())).shape
    rows, columns = math.ceil(len(sheets) / across), min(across, len(sheets))
    # In pixels of the picture. Where a page has room, a pixel of a sheet is a square of them, so that titles are sharp.
    square = DOTS_PER_PIXEL if columns * (width + GAP) <= PAGE_WIDTH else 1
    title, gap = TITLE_HEIGHT * DOTS_PER_PIXEL, GAP * square
    wide, high = columns * (width * square + gap) - gap, rows * (height * square + title + gap) - gap
    chart = new_chart(wide / DOTS_PER_PIXEL, high / DOTS_PER_PIXEL)
    for number, (name, picture) in enumerate(sheets.items()):
        left = number % columns * (width * square + gap)
        top = number // columns * (height * square + title + gap)
        enlarged = _with_opacity(picture).repeat(square, axis=0).repeat(square, axis=1)
        chart.figimage(enlarged, left, high - top - title - height * square, origin="upper")
        chart.text(
            (left + width * square / 2) / wide,
            1 - (top + 0.45 * title) / high,
            name,
            color=GREY,
            fontsize=0.6 * TITLE_HEIGHT * 72 / PIXELS_PER_INCH,
            ha="center",
            va="center",
        )
    drawn = render(chart, opaque=True)
    return drawn if channels > 2 else drawn[..., :1]


def _with_opacity(picture: Pixels) -> Pixels:
    """Convert a picture [H, W, C] to RGBA: C = 1 grey, 2 grey and opacity, 3 RGB, 4 RGBA."""
    colour, opacity = picture, np.full_like(picture[..., :1], 255)
    if picture.shape[2] in (2, 4):
        colour, opacity = picture[..., :-1], picture[..., -1:]
    return np.concatenate([np.broadcast_to(colour, (*colour.shape[:2], 3)), opacity], axis=2)
