"""Charts of a sweep: its metrics against options, against each other, against cost, and over the images seen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, MaxNLocator
from ray.tune.search.sample import Domain, Float, Integer, LogUniform, Quantized

from genlab.imaging.charts import GREY, INK, render, style_axes
from genlab.reports.curves import BOTTOM, LINES, TOP, new_axes, set_title
from genlab.reports.page import CHART_WIDTH, Picture, chart
from genlab.sweeps.ranking import PointResult, pareto_front
from genlab.sweeps.results import TrialResult
from genlab.sweeps.space import Mode, Space, When
from genlab.sweeps.trials import shown

HEIGHT, CURVES_HEIGHT, PARALLEL_HEIGHT = 230, 280, 300
"""Heights of charts, in CSS pixels."""
ROW_HEIGHT = 26
"""Height of a bar with its room, in CSS pixels."""
AXIS_WIDTH = 120
"""Distance of two parallel axes, in CSS pixels."""
LONGEST_TICK = 14
"""The most characters of a value on a scale."""
TRIALS, POINTS, BEST = GREY, *LINES
"""Colours of trials, of the means of points, and of the best."""
MOST_TICKS = 6
"""The most labels on a logarithmic scale."""
FAR = 4.0
"""Values are drawn at the edge of the axis where they lie this many times as far from the best as the median does."""


@dataclass(frozen=True)
class Scale:
    """Where the values of an option lie on an axis."""

    low: float
    high: float
    log: bool = False
    """Whether the axis of :meth:`place` is logarithmic."""
    values: tuple[Any, ...] | None = None
    """The values of a list, which lie side by side at equal distances; ``None``: numbers lie at their value."""

    @staticmethod
    def of(declared: Any, seen: Sequence[Any]) -> "Scale":
        """Return the scale of the values that a space declares, of which ``seen`` were tried."""
        values = declared.values if isinstance(declared, When) else declared
        if isinstance(values, Float | Integer):
            sampler = values.get_sampler()
            sampler = sampler.get_sampler() if isinstance(sampler, Quantized) else sampler
            return Scale(min(seen), max(seen), isinstance(sampler, LogUniform))
        listed = list(getattr(values, "categories", seen) if isinstance(values, Domain) else values)
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in listed):
            listed.sort()
        listed = [value for value in listed if value in seen]
        listed += [value for value in seen if value not in listed]
        return Scale(0, len(listed) - 1, values=tuple(dict(zip(map(repr, listed), listed, strict=True)).values()))

    def place(self, value: Any) -> float:
        """Return the coordinate of a value on an axis."""
        return float(value if self.values is None else self.values.index(value))

    def share(self, value: Any) -> float:
        """Return how far a value lies between both ends: 0..1."""
        low, high, at = (math.log(end) if self.log else end for end in (self.low, self.high, self.place(value)))
        return (at - low) / (high - low) if high > low else 0.5

    @property
    def ticks(self) -> dict[float, str]:
        """Labels by coordinate: of a list's values, or of round numbers on a logarithmic scale; else none."""
        if self.values is not None:
            return {float(number): tick(value) for number, value in enumerate(self.values)}
        if not self.log:
            return {}
        decades = range(math.floor(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [digit * 10.0**decade for decade in decades for digit in digits]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) <= MOST_TICKS:
                break
        return {value: f"{value:g}" for value in found}


def tick(value: Any) -> str:
    """Return a value as it stands on a scale."""
    text = shown(value)
    return text if len(text) <= LONGEST_TICK else f"{text[: LONGEST_TICK - 1]}…"


def parameter_chart(
    space: Space, option: str, metric: str, points: Sequence[PointResult], best: PointResult
) -> Picture:
    """Draw a metric against an option: each trial, and the mean of each point with its interval over seeds."""
    points = [point for point in points if option in point.point]
    scale = Scale.of(space.vary[option], [point.point[option] for point in points])
    drawing, axis = new_axes(HEIGHT)
    if scale.log:
        axis.set_xscale("log")
    fit = _Fit([value for point in points for value in point.values(metric)], space.objectives[metric])
    for point in points:
        _draw_point(axis, point, metric, scale.place(point.point[option]), fit, point is best)
    fit.apply(axis)
    style_axes(axis, option, "")
    if scale.ticks:
        axis.set_xticks(list(scale.ticks), list(scale.ticks.values()))
        axis.minorticks_off()
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5))
    if scale.values is not None:
        axis.set_xlim(-0.5, len(scale.values) - 0.5)
    set_title(axis, metric)
    return chart(f"{metric}-{option}".replace("/", "-"), render(drawing))


def trade_off_chart(
    x: str, y: str, objectives: Mapping[str, Mode], points: Sequence[PointResult], front: Sequence[PointResult]
) -> Picture:
    """Draw two metrics against each other: the points with their intervals, those of the front joined by a line."""
    drawing, axis = new_axes(CURVES_HEIGHT)
    points = [point for point in points if point.values(x) and point.values(y)]
    across, up = (_Fit.of_points(points, front, name, objectives[name]) for name in (x, y))
    for point in sorted(points, key=lambda point: point in front):
        at, height = point.mean(x), point.mean(y)
        inside = across.inside(at) and up.inside(height)
        axis.errorbar(
            across.drawn(at),
            up.drawn(height),
            yerr=_half_width(point, y) if inside else None,
            xerr=_half_width(point, x) if inside else None,
            color=BEST if point in front else TRIALS,
            marker=across.marker(at, horizontal=True) if up.inside(height) else up.marker(height),
            markersize=4.5,
            capsize=2,
            linewidth=0.8,
        )
    on_front = sorted((point.mean(x), point.mean(y)) for point in front)
    if on_front:
        axis.plot(*zip(*on_front, strict=True), color=BEST, linewidth=1.4)
    across.apply(axis, horizontal=True)
    up.apply(axis)
    style_axes(axis, f"{x} ({objectives[x]})", f"{y} ({objectives[y]})")
    set_title(axis, "Pareto front")
    return chart(f"front-{x}-{y}".replace("/", "-"), render(drawing))


def curves_chart(metric: str, mode: Mode, results: Sequence[TrialResult], best: TrialResult | None) -> Picture:
    """Draw a metric of each trial over the images seen, a cross where it was stopped; that of the best trial last."""
    drawing, axis = new_axes(CURVES_HEIGHT)
    drawn = sorted((one for one in results if metric in one.curves), key=lambda one: one is best)
    fit = _Fit([value for one in drawn for _, value in _settled(one.curves[metric])], mode)
    for one in drawn:
        images, values = zip(*_with_parent(one, metric, results), strict=True)
        style: dict[str, Any] = {"color": TRIALS, "linewidth": 0.9, "alpha": 0.7}
        if one is best:
            style = {"color": BEST, "linewidth": 1.8}
        axis.plot(images, values, marker="o" if len(images) == 1 else None, markersize=3, **style)
        if one.outcome.stopped:
            axis.plot(images[-1], values[-1], marker="x", markersize=5, **style)
    fit.apply(axis)
    style_axes(axis, "images seen", "")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    set_title(axis, metric)
    return chart(f"curves-{metric}".replace("/", "-"), render(drawing))


def _with_parent(one: TrialResult, metric: str, results: Sequence[TrialResult]) -> list[tuple[int, float]]:
    """Return the curve of a trial, which begins at the one that it branched off."""
    origin, curve = one.outcome.trial.origin, list(one.curves[metric])
    if origin is None:
        return curve
    parent = next((other for other in results if other.outcome.trial.name == origin.parent), None)
    before = parent.curves.get(metric, ()) if parent else ()
    return [point for point in before if point[0] == origin.images] + curve


def cost_chart(metric: str, mode: Mode, cost: str, results: Sequence[TrialResult], best: TrialResult | None) -> Picture:
    """Draw a metric of each trial against what it cost: ``images`` or ``hours``."""
    drawing, axis = new_axes(HEIGHT)
    measured = [one for one in results if math.isfinite(one.value(metric))]
    fit = _Fit([one.value(metric) for one in measured], mode)
    for one in sorted(measured, key=lambda one: one is best):
        at = getattr(one, cost)
        axis.plot(
            at,
            fit.drawn(one.value(metric)),
            fit.marker(one.value(metric)),
            color=BEST if one is best else POINTS,
            markersize=4.5,
        )
    fit.apply(axis)
    style_axes(axis, "images seen" if cost == "images" else "hours of training", "")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    if cost == "images":
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    set_title(axis, metric)
    return chart(f"cost-{cost}-{metric}".replace("/", "-"), render(drawing))


def parallel_chart(space: Space, points: Sequence[PointResult], best: PointResult) -> Picture:
    """Draw each point as a line through parallel axes: its options, then its metrics; the better, the darker."""
    points = [point for point in points if all(point.values(metric) for metric in space.objectives)]
    options = [name for name in space.vary if any(name in point.point for point in points)]
    scales = {
        name: Scale.of(space.vary[name], [point.point[name] for point in points if name in point.point])
        for name in options
    }
    front = pareto_front(points, space.objectives)
    fits = {metric: _Fit.of_points(points, front, metric, mode) for metric, mode in space.objectives.items()}
    names = [*options, *fits]
    width = max(CHART_WIDTH, AXIS_WIDTH * len(names))
    drawing, axis = new_axes(PARALLEL_HEIGHT, width)
    drawing.subplots_adjust(left=60 / width, right=1 - 60 / width, bottom=0.02)
    for place, point in reversed(list(enumerate(points))):
        heights = [scales[name].share(point.point[name]) if name in point.point else math.nan for name in options]
        heights += [fit.share(point.mean(metric)) for metric, fit in fits.items()]
        markers = [*("o" for _ in options), *(fit.marker(point.mean(metric)) for metric, fit in fits.items())]
        style: dict[str, Any] = {"color": BEST, "linewidth": 2.2, "markersize": 4}
        if point is not best:
            opacity = 0.9 - 0.7 * place / max(1, len(points) - 1)
            style = {"color": POINTS, "linewidth": 1, "markersize": 2, "alpha": opacity}
        inside = [number for number, marker in enumerate(markers) if marker == "o"]
        axis.plot(range(len(names)), heights, marker="o", markevery=inside, **style)
        for number in set(range(len(names))) - set(inside):
            axis.plot(number, heights[number], markers[number], **(style | {"markersize": 4.5}))
    for number, name in enumerate(names):
        _draw_parallel_axis(axis, number, name, scales.get(name), fits.get(name))
    axis.set(xlim=(-0.05, len(names) - 0.95), ylim=(-0.08, 1.08), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    picture = chart("parallel", render(drawing))
    return replace(picture, width=max(picture.width, width), least_width=width if width > CHART_WIDTH else 0)


def importance_chart(importances: Mapping[str, Sequence[float]], metric: str) -> Picture:
    """Draw the importance of each option for a metric: a bar, and a line over the middle 95% of bootstrap draws.

    Args:
        importances: by option, that of all trials, then those of the draws.
        metric: the metric.
    """
    drawing, axis = new_axes(TOP + BOTTOM + ROW_HEIGHT * len(importances))
    drawing.subplots_adjust(left=0.4)
    names = sorted(importances, key=lambda name: importances[name][0])
    for place, name in enumerate(names):
        of_all, *draws = importances[name]
        axis.barh(place, of_all, height=0.55, color=POINTS, alpha=0.8)
        axis.plot(np.quantile(draws, (0.025, 0.975)), [place, place], color=INK, linewidth=1.2)
    style_axes(axis, "share", "")
    axis.set(xlim=(0, 1), ylim=(-0.6, len(names) - 0.4))
    axis.set_yticks(range(len(names)), [name.rpartition(".")[2] for name in names])
    set_title(axis, metric)
    return chart(f"importance-{metric}".replace("/", "-"), render(drawing))


def _draw_parallel_axis(axis: Axes, number: int, name: str, scale: Scale | None, fit: "_Fit | None") -> None:
    axis.plot([number, number], [0, 1], color=INK, linewidth=0.8, zorder=0)
    section, _, last = name.rpartition("." if fit is None else "/")
    text: dict[str, Any] = {"ha": "center", "fontsize": 8, "color": INK}
    axis.text(number, 1.16, last, fontweight="bold", **text)
    axis.text(number, 1.25, section, **text)
    ticks: dict[float, str] = {}
    if fit is not None:
        ticks = {0.0: f"{fit.low:.4g}", 1.0: f"{fit.high:.4g}"}
    elif scale is not None and scale.values is not None:
        ticks = {scale.share(value): tick(value) for value in scale.values}
    elif scale is not None:
        ticks = {0.0: f"{scale.low:.3g}", 1.0: f"{scale.high:.3g}"}
    for height, label in ticks.items():
        axis.annotate(
            label,
            (number, height),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=INK,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=5,
        )


class _Fit:
    """The range of a metric on an axis: of all values but those far worse than the best, which lie at its edge.

    Args:
        values: the values.
        mode: whether the lowest or the highest is the best.
        needed: those of the values that lie within the range however far they are.
    """

    def __init__(self, values: Sequence[float], mode: Mode, needed: Sequence[float] = ()) -> None:
        sign = 1.0 if mode == "min" else -1.0
        costs = np.sort([sign * value for value in values if math.isfinite(value)])
        best, median, worst = (costs[0], np.median(costs), costs[-1]) if len(costs) else (0.0, 0.0, 0.0)
        if median > best:  # else more than half are the best, and any other is infinitely farther than the median
            worst = max([costs[costs <= best + FAR * (median - best)][-1], *(sign * value for value in needed)])
        self.low, self.high = sorted((float(sign * best), float(sign * worst)))

    @staticmethod
    def of_points(points: Sequence[PointResult], front: Sequence[PointResult], metric: str, mode: Mode) -> "_Fit":
        """Return the range of the means of points: of those of the front all, which by nature reaches to extremes."""
        needed = [point.mean(metric) for point in front]
        return _Fit([point.mean(metric) for point in points], mode, needed)

    def inside(self, value: float) -> bool:
        """Return whether a value lies on the axis."""
        return self.low <= value <= self.high

    def drawn(self, value: float) -> float:
        """Return a value, or the edge of the axis if it lies beyond."""
        return min(max(value, self.low), self.high)

    def marker(self, value: float, *, horizontal: bool = False) -> str:
        """Return the shape of a value's point: for one beyond the axis a triangle that points to where it lies."""
        below, above = "<>" if horizontal else "v^"
        return above if value > self.high else below if value < self.low else "o"

    def share(self, value: float) -> float:
        """Return how far a value lies between both ends: 0..1."""
        return (self.drawn(value) - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def apply(self, axis: Axes, *, horizontal: bool = False) -> None:
        """Set the limits of an axis, with a margin."""
        margin = 0.08 * (self.high - self.low) or 0.05 * abs(self.high) or 1.0
        (axis.set_xlim if horizontal else axis.set_ylim)(self.low - margin, self.high + margin)


def _draw_point(axis: Axes, point: PointResult, metric: str, at: float, fit: _Fit, best: bool) -> None:
    values = point.values(metric)
    colour = BEST if best else POINTS
    front = 3 if best else 2
    several = len(values) > 1
    for value in values:
        colour_of_trial = TRIALS if several else colour
        size = 3 if several else 4.5
        axis.plot(
            at,
            fit.drawn(value),
            fit.marker(value),
            color=colour_of_trial,
            fillstyle="none" if point.stopped else "full",
            markersize=size,
            alpha=0.8,
            zorder=front,
        )
    if several:
        mean = point.mean(metric)
        axis.errorbar(
            at,
            fit.drawn(mean),
            _half_width(point, metric) if fit.inside(mean) else None,
            color=colour,
            marker=fit.marker(mean),
            markersize=4.5,
            capsize=2,
            linewidth=1,
            zorder=front + 1,
        )


def _half_width(point: PointResult, metric: str) -> float:
    interval = point.interval(metric)
    return 0.0 if interval is None else (interval[1] - interval[0]) / 2


def _settled(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the second half of a curve, by which the axis is fitted."""
    return list(curve[len(curve) // 2 :])
