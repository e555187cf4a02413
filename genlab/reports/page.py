"""The parts of a report: sections with text, tables and figures, each figure one or more pictures with a caption."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Literal

import jinja2

from genlab import __version__
from genlab.imaging.charts import DOTS_PER_PIXEL
from genlab.imaging.images import Pixels, encode_png
from genlab.imaging.sheets import transparent_sheet

PICTURE_WIDTH = 880
"""The greatest width that a picture is enlarged to, in CSS pixels: it leaves room for the labels of its rows."""
CHART_WIDTH = 380
"""Width at which a chart of several is drawn, in CSS pixels: its text can be read on a phone, and beside others."""
ENLARGED_CHART = 1.3
"""The greatest factor that a chart is enlarged by where the page has room."""
STACK_BELOW = 272
"""Width in CSS pixels: pictures of a figure stack where the page is too narrow to give each of them so much."""


@dataclass(frozen=True)
class Table:
    """A table of text; columns after the first are aligned to the right if they hold numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    """Numbers of the rows in bold."""
    numbers: bool = True
    """Whether the columns after the first hold numbers."""


@dataclass(frozen=True)
class Picture:
    """A PNG file of a report."""

    name: str
    """Name of its file: ``RUN/figures/report/NAME.png``."""
    png: bytes
    width: int
    """The greatest width that it is shown at, in CSS pixels."""
    kind: Literal["chart", "pixels", "picture"]
    """``chart``: dark ink on a transparent ground, inverted in dark mode. ``pixels``: each pixel is shown as a square.
    ``picture``: any other."""
    title: str = ""
    """Heading above the picture."""
    rows: tuple[str, ...] = ()
    """Labels of the rows of a sheet of images, from the top."""
    least_width: int = 0
    """The least width that it is shown at, in CSS pixels; it scrolls sideways where the page is narrower."""


@dataclass(frozen=True)
class Figure:
    """Pictures with one caption: side by side where the page is wide, one above the other where it is narrow."""

    caption: str
    pictures: tuple[Picture, ...]
    columns: int = 1
    """The most pictures side by side."""
    stack_below: int = STACK_BELOW
    """Width in CSS pixels that each picture of a row has at least."""


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str
    text: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    """Commands to copy, by what they are for."""


def page(
    title: str, place: str, facts: Mapping[str, str], sections: Sequence[Section], notes: Sequence[str] = ()
) -> bytes:
    """Return an HTML page that needs no other file.

    Args:
        title: its heading.
        place: the folder that it is about.
        facts: short facts at its head, by name.
        sections: its sections, in order.
        notes: sentences at its head that a reader must not miss.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["inline"] = lambda png: f"data:image/png;base64,{b64encode(png).decode()}"
    template = environment.from_string((files("genlab.reports") / "page.html").read_text(encoding="utf-8"))
    text = template.render(title=title, place=place, facts=facts, notes=notes, sections=sections, version=__version__)
    return text.encode()


def pixel_picture(name: str, pixels: Pixels, rows: tuple[str, ...] = (), title: str = "") -> Picture:
    """Make a picture of uint8 [height, width, channels], enlarged by a whole factor where the page has room."""
    width = pixels.shape[1]
    scale = PICTURE_WIDTH // width
    if not scale:
        return Picture(name, encode_png(pixels), width, "picture", title, rows)
    return Picture(name, encode_png(pixels), width * scale, "pixels", title, rows, least_width=width)


def picture(name: str, caption: str, pixels: Pixels, rows: tuple[str, ...] = ()) -> Figure:
    """Make a figure of one picture, see :func:`pixel_picture`."""
    return Figure(caption, (pixel_picture(name, pixels, rows),))


def image_grid(name: str, caption: str, images: Pixels, columns: int, rows: tuple[str, ...] = ()) -> Figure:
    """Make a figure of images, uint8 [n, height, width, channels], in rows; the page shows between them."""
    return picture(name, caption, transparent_sheet(images, columns), rows)


def pictures(caption: str, parts: Sequence[Picture], columns: int, stack_below: int = STACK_BELOW) -> Figure:
    """Make a figure of several pictures, at most ``columns`` of them side by side."""
    return Figure(caption, tuple(parts), min(columns, len(parts)), stack_below)


def sheet_picture(name: str, title: str, pixels: Pixels) -> Picture:
    """Make a picture of one of several sheets, uint8 [height, width, channels]; it shrinks with the page."""
    return replace(pixel_picture(name, pixels, title=title), least_width=0)


def chart(name: str, pixels: Pixels, title: str = "", *, grey: bool = False) -> Picture:
    """Make a picture of a chart, see :mod:`genlab.imaging.charts`.

    Args:
        name: name of the picture.
        pixels: the chart.
        title: heading above it.
        grey: whether it is in grey ink and colours, which dark mode leaves as they are; dark ink is inverted.
    """
    width = round(ENLARGED_CHART * pixels.shape[1] / DOTS_PER_PIXEL)
    return Picture(name, encode_png(pixels), width, "picture" if grey else "chart", title)
