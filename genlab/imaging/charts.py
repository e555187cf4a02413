"""The look of charts, and how they become pixels.

A chart lies on no ground, so that a page can lay it on its own. Curves are dark ink, which a page turns over in the
dark. What has colours that must stay as they are is drawn in grey, which can be read on white and on black.
matplotlib is imported when the first one is drawn: workers start without it.
"""

from typing import TYPE_CHECKING

import numpy as np

from genlab.imaging.images import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#24292f", "#d8dee4"
GREY, GREY_GRID = "#767676", "#76767640"
"""Ink and grid of what is not turned over in the dark: as far from white as from black."""
PAGE_WIDTH = 1000
"""Of a report, in CSS pixels."""
PIXELS_PER_INCH = 96
"""CSS pixels."""
DOTS_PER_PIXEL = 2


def new_chart(width: float, height: float, dots: int = DOTS_PER_PIXEL) -> "Figure":
    """An empty chart, so many CSS pixels wide and high, of so many dots a pixel in either direction."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chart = Figure((width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=dots * PIXELS_PER_INCH)
    FigureCanvasAgg(chart)
    return chart


def render(chart: "Figure", *, opaque: bool = False) -> Pixels:
    """The pixels of a chart.

    Args:
        chart: from :func:`new_chart`.
        opaque: on white, rather than on no ground.

    Returns:
        uint8 [H, W, 4] (RGBA), or [H, W, 3] if opaque.
    """
    for patch in (chart.patch, *(axis.patch for axis in chart.axes)):
        patch.set(facecolor="white", alpha=float(opaque))
    chart.canvas.draw()
    return np.array(chart.canvas.buffer_rgba())[..., : 3 if opaque else 4]  # type: ignore[attr-defined]


def style_axes(axis: "Axes", x: str, y: str, *, ink: str = INK, grid: str = GRID) -> None:
    """Give a pair of axes its names, quiet scales and a grid."""
    axis.set_xlabel(x, fontsize=8, color=ink)
    axis.set_ylabel(y, fontsize=8, color=ink)
    axis.grid(color=grid, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(colors=ink, labelsize=8, length=0)
    axis.spines[:].set_visible(False)
