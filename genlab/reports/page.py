"""What a report is made of: sections of text, tables and figures."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from genlab.data.images import Pixels, encode_png, sheet

PAGE_WIDTH = 1000
"""Width of the page, in CSS pixels."""
PICTURE_WIDTH = 880
"""The most a picture is enlarged to, in CSS pixels: it leaves room for the names of its rows."""


@dataclass(frozen=True)
class Table:
    """A table of text; columns after the first are set right if they hold figures."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    """Rows that stand out."""
    figures: bool = True
    """Whether the columns after the first hold figures."""


@dataclass(frozen=True)
class Figure:
    """A picture with its caption."""

    name: str
    """Of its file: ``RUN/figures/report/NAME.png``."""
    caption: str
    png: bytes
    width: int
    """In CSS pixels."""
    kind: Literal["chart", "pixels", "picture"]
    """``chart``: dark ink on a transparent ground. ``pixels``: each pixel is to be drawn as a square."""
    rows: tuple[str, ...] = ()
    """What each row of a sheet of images shows, from the top."""


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str
    text: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


def picture(name: str, caption: str, pixels: Pixels, rows: tuple[str, ...] = ()) -> Figure:
    """A figure of uint8 [height, width, channels], enlarged by a whole factor where the page has room."""
    width = pixels.shape[1]
    scale = PICTURE_WIDTH // width
    return Figure(name, caption, encode_png(pixels), width * max(scale, 1), "pixels" if scale else "picture", rows)


def image_grid(name: str, caption: str, images: Pixels, columns: int, rows: tuple[str, ...] = ()) -> Figure:
    """A figure of images, uint8 [n, height, width, channels], in rows; the page shows between them."""
    gaps = sheet(np.zeros_like(images[..., :1]), columns)
    return picture(name, caption, np.concatenate([sheet(images, columns), 255 - gaps], axis=2), rows)
