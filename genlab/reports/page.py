"""What a report is made of: sections of text, tables and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from genlab.imaging.charts import DOTS_PER_PIXEL, PAGE_WIDTH
from genlab.imaging.images import Pixels, encode_png
from genlab.imaging.sheets import sheet_grid, transparent_sheet

PICTURE_WIDTH = 880
"""The most a picture is enlarged to, in CSS pixels: it leaves room for the names of its rows."""


@dataclass(frozen=True)
class Table:
    """A table of text; columns after the first are set right if they hold numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    """Rows that stand out."""
    numbers: bool = True
    """Whether the columns after the first hold numbers."""


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
    return picture(name, caption, transparent_sheet(images, columns), rows)


def chart(name: str, caption: str, pixels: Pixels) -> Figure:
    """A figure of a chart, see :mod:`genlab.imaging.charts`; dark ink, which the page turns over in the dark."""
    return Figure(name, caption, encode_png(pixels), pixels.shape[1] // DOTS_PER_PIXEL, "chart")


def titled_sheets(name: str, caption: str, sheets: Mapping[str, Pixels], across: int) -> Figure:
    """A figure of sheets of one size, ``across`` of them in a row, each under its title."""
    return plate(name, caption, sheet_grid(sheets, across))


def plate(name: str, caption: str, pixels: Pixels) -> Figure:
    """A figure of two dots a pixel, like a chart, that is the same in the dark."""
    width = min(pixels.shape[1] // DOTS_PER_PIXEL, PAGE_WIDTH)
    return Figure(name, caption, encode_png(pixels), width, "picture")
