"""The style of charts, and their rendering into pixels.

The background of a chart is transparent, so that it takes that of the page. Curves are dark, and a page in dark mode
inverts them. Charts whose colours must not be inverted have grey axes, which can be read on white and on black.
matplotlib is imported when the first chart is drawn, so that workers start without it.
"""

from typing import TYPE_CHECKING

import numpy as np

from genlab.imaging.images import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#24292f", "#d8dee4"
"""Colours of text and grid in charts that dark mode inverts."""
GREY, GREY_GRID = "#767676", "#76767640"
"""Colours of text and grid in charts that are not inverted: as far from white as from black."""
PAGE_WIDTH = 1000
"""Width of a report, in CSS pixels."""
PIXELS_PER_INCH = 96
"""CSS pixels in an inch."""
DOTS_PER_PIXEL = 2
"""Pixels of a picture for each CSS pixel, in either direction."""


def new_chart(width: float, height: float, dots: int = DOTS_PER_PIXEL) -> "Figure":
    """Return an empty chart.

    Args:
        width: in CSS pixels.
        height: in CSS pixels.
        dots: pixels of the picture for each CSS pixel, in either direction.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chart = Figure((width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=dots * PIXELS_PER_INCH)
    FigureCanvasAgg(chart)
    return chart


def render(chart: "Figure", *, opaque: bool = False) -> Pixels:
    """Render a chart into pixels.

    Args:
        chart: from :func:`new_chart`.
        opaque: whether the background is white instead of transparent.

    Returns:
        uint8 [H, W, 4] (RGBA), or [H, W, 3] (RGB) if opaque.
    """
    for patch in (chart.patch, *(axis.patch for axis in chart.axes)):
        patch.set(facecolor="white", alpha=float(opaque))
    chart.canvas.draw()
    return np.array(chart.canvas.buffer_rgba())[..., : 3 if opaque else 4]  # type: ignore[attr-defined]


def style_axes(axis: "Axes", x: str, y: str, *, ink: str = INK, grid: str = GRID) -> None:
    """Name a pair of axes ``x`` and ``y``, and give them a grid and light scales."""
    axis.set_xlabel(x, fontsize=8, color=ink)
    axis.set_ylabel(y, fontsize=8, color=ink)
    axis.grid(color=grid, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(colors=ink, labelsize=8, length=0)
    axis.spines[:].set_visible(False)
