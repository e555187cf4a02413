"""Curves of a run's metrics over the images seen, each a picture of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from genlab.imaging.charts import INK, new_chart, render, style_axes
from genlab.reports.page import CHART_WIDTH, Figure, Picture, chart, pictures
from genlab.reports.run import RunRecord

MOST_COLUMNS = 3
"""The most panels side by side; more panels than these are set in two columns."""
SMOOTHED_SHARE = 0.04
"""Fraction of a curve over which its moving average is taken."""
SETTLED = 0.05
"""Fraction of a run after which its losses count for the scale of the axis."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    name: str
    """Name of its picture, see :class:`genlab.reports.page.Picture`."""
    title: str
    series: Mapping[str, str]
    """Label in the legend of each metric drawn, by its name; empty where there is only one."""
    unit: str = ""
    from_zero: bool = False
    """Whether the axis begins at zero; otherwise it fits the values after the first 5% of the run."""


LINES = ("#0969da", "#bc4c00")
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 46, 44
"""Room around each pair of axes for titles and scales, in CSS pixels: cheaper than having it measured."""

LOSS_HEIGHT, CLOCK_HEIGHT, EVALUATION_HEIGHT = 230, 180, 280
"""Heights of charts, in CSS pixels."""

CLOCK = (
    Panel("speed", "speed", {"images_per_second": ""}, "images/s", from_zero=True),
    Panel("data-wait", "time spent waiting for data", {"data_wait_share": ""}, "share", from_zero=True),
)


def loss_figure(run: RunRecord, panels: Sequence[Panel]) -> Figure:
    """Draw the run's losses in ``panels``; where it has none of their metrics, each of its own in a panel."""
    panels = [drawn for panel in panels if (drawn := _measured(panel, run.losses)).series]
    panels = panels or [Panel(f"loss-{name}", name.replace("_", " "), {name: ""}) for name in run.losses]
    held_out = ""
    if run.test or run.val:
        held_out = " Dots are held-out images, after each epoch."
    if run.test and run.val:
        held_out += " Filled: those that results are reported on; hollow: those to choose on (val)."
    smoothed = " Bold: its moving average." if _window(len(run.train)) > 1 else ""
    caption = (
        f"Losses over the images seen. A point is the mean since the point before.{smoothed}{held_out} "
        f"The axes fit what comes after the first {SETTLED:.0%} of the run."
    )
    columns = len(panels) if len(panels) <= MOST_COLUMNS else 2
    return pictures(caption, [_panel_chart(run, panel, LOSS_HEIGHT) for panel in panels], columns)


def clock_figure(run: RunRecord) -> Figure:
    """Draw the learning rate, the speed and the share of time that training waited for data."""
    caption = "Learning rate, images a second, and the share of time in which training waited for data."
    rates = run.learning_rates if len(run.learning_rates) > 1 else {"learning_rate": ""}
    panels = (Panel("learning-rate", "learning rate", rates, from_zero=True), *CLOCK)
    return pictures(caption, [_panel_chart(run, panel, CLOCK_HEIGHT) for panel in panels], len(panels))


def evaluation_figure(run: RunRecord, ranked_by: str) -> Figure:
    """Draw the measurement that checkpoints are ranked by, and its parts (``kid_a_to_b`` of ``kid``)."""
    drawing, axis = new_axes(EVALUATION_HEIGHT)
    names = [name for name in run.evaluations[-1].measurements if name.startswith(ranked_by)]
    for name, colour in zip(names, (INK, *LINES), strict=False):
        measured = [(one.images, one.measurements[name]) for one in run.evaluations if name in one.measurements]
        images, values = zip(*((seen, measurement.value) for seen, measurement in measured), strict=True)
        errors = [measurement.half_width or 0.0 for _, measurement in measured]
        width = 1.6 if name == ranked_by else 0.8
        title, _, label = measured[-1][1].title.partition(", ")
        axis.errorbar(
            images,
            values,
            errors,
            color=colour,
            marker="o",
            markersize=3 * width,
            capsize=2,
            linewidth=width,
            label=label or title,
        )
        set_title(axis, title)
    if len(names) > 1:
        axis.legend(frameon=False, fontsize=8, labelcolor=INK)
    style_axes(axis, "images seen", "")
    bottom, top = axis.get_ylim()
    axis.set_ylim(min(0.0, bottom), top + 0.05 * (top - min(0.0, bottom)))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    _epochs(axis, run)
    caption = "What the checkpoints were measured at beside training, lower being better; bars are 95% intervals."
    return Figure(caption, (chart("evaluations", render(drawing)),))


def moving_average(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return centred means of ``values`` [n] over ``window`` points (odd), over fewer at both ends: [n]."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _window(points: int) -> int:
    return 2 * int(points * SMOOTHED_SHARE / 2) + 1


def _panel_chart(run: RunRecord, panel: Panel, height: int) -> Picture:
    drawing, axis = new_axes(height)
    _draw_panel(axis, run, panel)
    return chart(panel.name, render(drawing))


def new_axes(height: int, width: int = CHART_WIDTH) -> tuple[MatplotlibFigure, Axes]:
    """Make an empty chart of ``width`` by ``height`` CSS pixels, and its axes, with room for titles and scales."""
    drawing = new_chart(width, height)
    axis = drawing.subplots()
    drawing.subplots_adjust(left=LEFT / width, right=1 - RIGHT / width, bottom=BOTTOM / height, top=1 - TOP / height)
    return drawing, axis


def set_title(axis: Axes, title: str) -> None:
    """Write the title of a chart above its axes, and above a scale at their top."""
    axis.set_title(title, loc="left", y=1, pad=20, fontsize=9.5, fontweight="bold", color=INK)


def _measured(panel: Panel, metrics: Sequence[str]) -> Panel:
    """Drop the series that the run did not measure: a loss of weight 0 may not be computed."""
    return replace(panel, series={metric: label for metric, label in panel.series.items() if metric in metrics})


def _draw_panel(axis: Axes, run: RunRecord, panel: Panel) -> None:
    colours = cycle(LINES)
    for metric, label in panel.series.items():
        colour = next(colours)
        images, values = _series(run.train, metric)
        window = _window(len(values))
        if window > 1:
            axis.plot(images, values, color=colour, alpha=0.3, linewidth=0.8)
            values = moving_average(values, window)
        alone = "o" if len(values) == 1 else None  # a line needs two points
        axis.plot(images, values, color=colour, linewidth=1.6, marker=alone, label=label or "train")
        held_out: list[tuple[Any, str, dict[str, Any]]] = [
            (_series(run.val, metric), "val", {"markersize": 6.5, "markerfacecolor": "white"}),
            (_series(run.test, metric), "held out", {"markersize": 3.5}),
        ]
        held_out = [one for one in held_out if len(one[0][0])]
        if held_out and not label:
            colour = next(colours)
        for (images, values), rows, dots in held_out:
            name = f"{label}, {rows}" if label else rows
            axis.plot(images, values, color=colour, linewidth=1, marker="o", label=name, **dots)
    _scale(axis, run, panel)
    _style(axis, panel)
    _epochs(axis, run)


def _series(lines: Sequence[Mapping[str, Any]], metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = [(line["images"], line[metric]) for line in lines if metric in line]
    images, values = np.array(points, float).reshape(-1, 2).T
    return images, values


def _scale(axis: Axes, run: RunRecord, panel: Panel) -> None:
    if panel.from_zero:
        axis.set_ylim(bottom=0)
        return
    settled = [line for line in (*run.train, *run.test, *run.val) if line["images"] >= SETTLED * run.images]
    values = np.concatenate([_series(settled, metric)[1] for metric in panel.series])
    values = values[np.isfinite(values)]  # a run that diverged has others
    margin = 0.05 * np.ptp(values) if len(values) else 0.0
    if margin > 0:
        axis.set_ylim(values.min() - margin, values.max() + margin)


def _style(axis: Axes, panel: Panel) -> None:
    style_axes(axis, "images seen", panel.unit)
    set_title(axis, panel.title)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.get_offset_text().set(color=INK, fontsize=8)
    if len(axis.get_legend_handles_labels()[0]) > len(panel.series) or len(panel.series) > 1:
        axis.legend(frameon=False, fontsize=8, labelcolor=INK)


def _epochs(axis: Axes, run: RunRecord) -> None:
    """Add a second scale, of epochs, at the top."""
    images_an_epoch = run.images / run.epoch
    top = axis.secondary_xaxis(
        "top",
        functions=(lambda x: np.asarray(x, float) / images_an_epoch, lambda x: np.asarray(x, float) * images_an_epoch),
    )
    axis.set_title("epochs", loc="right", y=1, pad=20, fontsize=8, color=INK)
    top.xaxis.set_major_locator(MaxNLocator(5))
    top.tick_params(colors=INK, labelsize=8, length=0)
    top.spines[:].set_visible(False)
