"""Scatter charts: points of a plane, coloured by class."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genlab.imaging.charts import DOTS_PER_PIXEL, GREY, GREY_GRID, INK, new_chart, render, style_axes
from genlab.imaging.images import Pixels
from genlab.imaging.latent_plane import Points

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
"""Ten colours that colour-blind people can tell apart, too, and that stand out from white and black (Petroff 2021,
arXiv:2107.02270)."""
MARKERS = "o^sDvP"
"""Shapes of points: the eleventh class has the colour of the first, and the next shape."""
MAX_LEGEND_NAMES, LEGEND_ROWS = 40, 20
"""Most classes that a legend names, and the number of rows in each of its columns."""
WIDTH, HEIGHT = 880, 660
"""Size of a scatter with its legend, in CSS pixels."""
CLASS_WIDTH = 200
"""Width and height of the scatter of one class, in CSS pixels."""
BACKGROUND_DOTS = 700
"""Number of opaque points that are as dark as all points together in a panel: a shade behind those of its class."""

Labels = NDArray[np.int64]


def scatter(
    points: Points,
    axes: tuple[str, str],
    labels: Labels | None = None,
    names: Sequence[str] = (),
    *,
    preview: bool = False,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Pixels:
    """Draw points of a plane, with the same scale on both axes.

    Args:
        points: [N, 2].
        axes: names of both dimensions.
        labels: class of each point, [N]; without it all points have one colour.
        names: names of the classes. Each is written at the median of its points, and in the legend if there are at most
            40.
        preview: whether to draw a smaller picture on white, which takes a quarter of the time.
        size: width and height in CSS pixels.

    Returns:
        uint8 [H, W, 4] (RGBA), with a transparent background; [H, W, 3] (RGB) for a preview.
    """
    chart = new_chart(*size, dots=1 if preview else DOTS_PER_PIXEL)
    columns = math.ceil(len(names) / LEGEND_ROWS) if labels is not None and len(names) <= MAX_LEGEND_NAMES else 0
    x, y = WIDTH / size[0], HEIGHT / size[1]  # margins are of one size on every chart
    axis = chart.add_axes((0.07 * x, 0.08 * y, 1 - (0.09 + 0.12 * columns) * x, 1 - 0.11 * y))
    axis.set_aspect("equal", adjustable="datalim")
    style_axes(axis, *axes, ink=GREY, grid=GREY_GRID)
    colours = np.array(COLOURS)[np.zeros(len(points), int) if labels is None else labels % len(COLOURS)]
    shapes = np.zeros(len(points), int) if labels is None else labels // len(COLOURS) % len(MARKERS)
    # A class drawn as a whole would hide those before it.
    order = np.random.Generator(np.random.Philox(0)).permutation(len(points))
    for shape in np.unique(shapes):
        chosen = order[shapes[order] == shape]
        _draw_points(axis, points[chosen], colours[chosen], len(points), marker=MARKERS[shape])
    if labels is not None:
        for number in np.unique(labels):
            _draw_name(axis, np.median(points[labels == number], axis=0), names[number])
    if columns:
        _draw_legend(axis, names, columns)
    return render(chart, opaque=preview)


def scatter_per_class(points: Points, axes: tuple[str, str], labels: Labels, classes: int) -> list[Pixels]:
    """Draw the points of each class in a chart of its own, over those of all classes in grey, all on one scale.

    Args:
        points: [N, 2].
        axes: names of both dimensions.
        labels: the class of each point, [N].
        classes: how many classes get a chart: the first ones.

    Returns:
        A chart for each class, uint8 [H, W, 4] (RGBA) with a transparent background.
    """
    from matplotlib.ticker import MaxNLocator

    low, high = points.min(0), points.max(0)
    (x, y), reach = (low + high) / 2, 0.55 * float((high - low).max() or 1)
    chart = new_chart(CLASS_WIDTH, CLASS_WIDTH)
    axis = chart.add_axes((0.17, 0.16, 0.81, 0.81))
    style_axes(axis, *axes, ink=GREY, grid=GREY_GRID)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    _draw_points(axis, points, GREY, 4 * len(points), opacity=min(1.0, BACKGROUND_DOTS / len(points)))
    axis.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))
    render(chart)
    canvas: Any = chart.canvas
    before = canvas.copy_from_bbox(chart.bbox)  # Drawn once: scales and thousands of grey points take most of the time.
    drawn = []
    for number in range(classes):
        own = points[labels == number]
        colour = COLOURS[number % len(COLOURS)]
        canvas.restore_region(before)
        axis.draw_artist(_draw_points(axis, own, colour, 8 * len(own)))
        drawn.append(np.array(canvas.buffer_rgba()))
    return drawn


def _draw_points(
    axis: "Axes", points: Points, colours: Any, count: int, marker: str = "o", opacity: float = 0.8
) -> "Artist":
    """Draw points, the smaller the more there are; ``count`` is their number on a chart of full size."""
    size = min(20.0, max(2.5, 15_000 / max(1, count)))
    return axis.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        c=colours,
        marker=marker,
        linewidths=0,
        alpha=opacity,
    )


def _draw_name(axis: "Axes", place: Points, name: str) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=4, foreground="white")]
    axis.text(
        place[0], place[1], name, color=INK, fontsize=11, fontweight="bold", ha="center", va="center", path_effects=halo
    )


def _draw_legend(axis: "Axes", names: Sequence[str], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=MARKERS[number // len(COLOURS) % len(MARKERS)],
            markersize=7,
            color=COLOURS[number % len(COLOURS)],
            markeredgewidth=0,
            label=name,
        )
        for number, name in enumerate(names)
    ]
    axis.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=GREY,
    )
