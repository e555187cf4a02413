"""``sweep.html``: what a sweep found, its answer first, as one file that needs no other."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.search.sample import Categorical, Float, Integer, LogUniform, Quantized
from upath import UPath

from genlab.core.config import differences
from genlab.core.storage import write_atomic
from genlab.core.text import counted, number_text
from genlab.evaluation.measurements import Measurement
from genlab.recipes.recipe import recipe_type
from genlab.reports.page import Figure, Picture, Section, Table, page, pictures, sheet_picture
from genlab.sweeps import charts, table
from genlab.sweeps.commands import commands
from genlab.sweeps.ranking import LEVEL, PointResult, by_point, p_values, pareto_front, ranked
from genlab.sweeps.results import TrialResult
from genlab.sweeps.space import Pbt, Space, When
from genlab.sweeps.trials import Trial, ancestry, shown

FILE_NAME = "sweep.html"
BEYOND = "Triangles lie beyond the axis."
"""What the marks of charts mean that show a value at the edge of an axis."""
SHEET_LEAST = 200
"""The least width of each of three sheets of images, in CSS pixels: where the page is narrower, they stack."""


@dataclass(frozen=True)
class Reported:
    """The chosen trial where results are reported, where no other trial was measured."""

    split: str
    measurement: Measurement


@dataclass(frozen=True)
class SweepPage:
    """All that ``sweep.html`` shows."""

    name: str
    folder: UPath
    space: Space
    config: Any
    """The config of all trials."""
    results: tuple[TrialResult, ...]
    """All trials, those among them that have not ended."""
    reported: Reported | None = None
    """``None`` while trials are trained, and where none is chosen."""

    def write(self) -> UPath:
        """Write the page; return where it is."""
        file = self.folder / FILE_NAME
        write_atomic(file, page(self.name, str(self.folder), self._facts(), list(self.sections()), self._notes()))
        return file

    def sections(self) -> Iterator[Section]:
        """Yield the sections of the page, in order; those that have nothing to show are left out."""
        yield self._answer()
        if self._front:
            yield Section("All points", tables=(self._table(),))
            if len(self.space.objectives) > 1:
                yield self._commands()
            yield from _shown(Section("Metrics by option", figures=self._by_option()))
            yield from _shown(Section("Learning curves", figures=self._curves()))
            yield Section("All options at once", figures=(self._parallel(),))
            if len(self.space.vary) > 1 and not self._population:  # whose points are copies of each other
                yield self._importance()
            yield from _shown(Section("Pictures", figures=self._samples()))
            yield Section("Cost", self._cost_text(), figures=self._cost())
        yield from _shown(Section("Failed trials", tables=self._failures()))
        yield Section("The sweep", tables=self._declaration())

    @property
    def _population(self) -> bool:
        return isinstance(self.space.scheduler, Pbt)

    @property
    def _points(self) -> list[PointResult]:
        metric, mode = self._first
        return ranked(by_point([one.outcome for one in self.results]), metric, mode)

    @property
    def _measured(self) -> list[PointResult]:
        return [point for point in self._points if all(point.values(metric) for metric in self.space.objectives)]

    @property
    def _front(self) -> list[PointResult]:
        return pareto_front(self._points, self.space.objectives)

    @property
    def _first(self) -> Any:
        return next(iter(self.space.objectives.items()))

    @property
    def _ranked_results(self) -> list[TrialResult]:
        """The trials that have the first metric, the best first."""
        metric, mode = self._first
        measured = [one for one in self.results if math.isfinite(one.value(metric))]
        return sorted(measured, key=lambda one: one.value(metric), reverse=mode == "max")

    @property
    def _best_result(self) -> TrialResult | None:
        """The trial that is chosen: of the best point, the run whose first metric is best."""
        metric, mode = self._first
        best = self._points[0].best(metric, mode)
        return next((one for one in self.results if one.outcome is best and best.metrics), None)

    def _count(self, state: str) -> int:
        return sum(one.state == state for one in self.results)

    def _facts(self) -> dict[str, str]:
        splits = {str(one.outcome.trial.plan.held_out.choice) for one in self.results}
        ended, all_of_them = self._count("finished"), len(self.results)
        stopped = sum(one.outcome.stopped is not None for one in self.results)
        return {
            "family": self.space.family,
            "trials": f"{ended}" if ended == all_of_them else f"{ended} of {all_of_them}",
            **({"replaced" if self._population else "stopped early": str(stopped)} if stopped else {}),
            **({} if self._population else {"points": str(len(self._points)), "seeds": str(self.space.seeds)}),
            "compared on": ", ".join(sorted(splits)),
            "images seen": f"{sum(one.images_of_its_own for one in self.results):,}",
            "hours of training": number_text(sum(one.hours for one in self.results)),
        }

    def _notes(self) -> list[str]:
        notes = []
        waiting, failed = self._count("waiting"), self._count("failed")
        if waiting:
            ended = counted(self._count("finished"), "trial")
            notes.append(f"{ended} of {len(self.results)} have ended: all that follows is of these.")
        if failed:
            notes.append(f"{counted(failed, 'trial')} failed, see below.")
        return notes

    def _answer(self) -> Section:
        front = self._front
        if not front:
            return Section("The best", "No trial has ended yet.")
        if len(self.space.objectives) > 1:
            return self._trade_off(front)
        metric, mode = self._first
        best = self._points[0]
        chosen = best.best(metric, mode).trial
        seeds = len(best.values(metric))
        better = "lower" if mode == "min" else "higher"
        means = (
            f"the mean over {seeds} seeds, with half of its 95% interval"
            if seeds > 1
            else "of one seed, so without an interval"
        )
        text = f"{table.point_text(best)}: {metric} {table.figure(best, metric)} ({better} is better), {means}."
        if self.reported:
            measured = self.reported.measurement
            figure = f"{measured} {measured.unit}".rstrip()
            text += (
                f" Its best run, on {self.reported.split!r}, where no other trial was measured: {measured.title} "
                f"{figure}."
            )
        found = commands(self.space, self.config, chosen, self.name)
        return Section("The best", text + self._doubt(), tables=self._lineage(chosen), commands=found)

    def _lineage(self, chosen: Trial) -> tuple[Table, ...]:
        """Return the table of the trials that the chosen one goes back to, if it branched off one."""
        if chosen.origin is None:
            return ()
        rows = tuple(
            (f"{end:,}", *(shown(one.point[name]) for name in self.space.vary), one.name)
            for one, end in ancestry(chosen, [one.outcome.trial for one in self.results])
        )
        columns = ("to images", *(breakable(name) for name in self.space.vary), "trial")
        return (Table("What it goes back to: each trial branched off the one above it.", columns, rows),)

    def _doubt(self) -> str:
        """Say how many points cannot be told from the best."""
        metric, _ = self._first
        points = self._measured
        known = [value for value in p_values(points, metric) if value is not None]
        few = len(points) - 1 - len(known)
        if len(points) < 2:
            return ""
        if self._population:
            return " It is of one population, so which differences are chance is not known."
        if self.space.seeds == 1:
            return " With one seed, which differences are chance is not known; --sweep.seeds 3 repeats each point."
        if not known:
            return " There are too few seeds to tell which differences are chance."
        alike = sum(value >= LEVEL for value in known)
        text = f" Of {counted(len(known), 'other point')}, {alike} cannot be told from it (p ≥ {LEVEL})"
        return text + (f"; {few} more {'has' if few == 1 else 'have'} too few seeds to tell." if few else ".")

    def _trade_off(self, front: Sequence[PointResult]) -> Section:
        """Return the answer where there are several metrics."""
        objectives = self.space.objectives
        names = list(objectives)
        pairs = [(x, y) for number, x in enumerate(names) for y in names[number + 1 :]]
        drawn = [charts.trade_off_chart(x, y, objectives, self._points, front) for x, y in pairs]
        text = (
            f"{counted(len(front), 'point')} of {len(self._measured)} lie on the Pareto front: no other point is at "
            "least as good in all metrics and better in one. Which of them to take is yours to say."
        )
        caption = f"Means over seeds, with 95% intervals where there are several; the front is orange. {BEYOND}"
        return Section("Pareto front", text, (_charts(caption, drawn),))

    def _commands(self) -> Section:
        """Return the commands of each point of the front."""
        metric, mode = self._first
        found = {}
        for point in self._front:
            trial = point.best(metric, mode).trial
            for purpose, command in commands(self.space, self.config, trial, self.name).items():
                found[f"{table.point_text(point)}: {purpose}"] = command
        return Section("Commands of the front", commands=found)

    def _table(self) -> Table:
        points, front = self._points, self._front
        note = table.note(self.space, points)
        caption = f"Points by {self._first[0]}, the best first; {note}"
        several = len(self.space.objectives) > 1
        marked = frozenset(number for number, point in enumerate(points) if (point in front if several else not number))
        columns = tuple(breakable(name) for name in table.columns(self.space, points))
        return Table(caption, columns, tuple(table.rows(self.space, points, front)), marked)

    def _by_option(self) -> tuple[Figure, ...]:
        points = self._measured
        options = [
            name for name in self.space.vary if len({repr(p.point[name]) for p in points if name in p.point}) > 1
        ]
        caption = (
            "Grey: trials. Blue: means over the seeds of a point, with 95% intervals. Orange: the best point."
            if self.space.seeds > 1
            else "A dot is a trial; the best is orange."
        ) + f" {BEYOND}"
        if any(point.stopped for point in points):
            what = "replaced" if self._population else "stopped"
            caption += f" Hollow: trials that were {what}, as they were measured then."
        return tuple(
            _charts(caption, [charts.parameter_chart(self.space, name, metric, points, points[0]) for name in options])
            for metric in self.space.objectives
            if options
        )

    def _curves(self) -> tuple[Figure, ...]:
        drawn = [
            charts.curves_chart(metric, mode, self.results, self._best_result)
            for metric, mode in self.space.objectives.items()
            if any(metric in one.curves for one in self.results)
        ]
        if not drawn:
            return ()
        caption = (
            "Each trial over the images it saw; the best is orange. The axis fits the second halves of the curves."
        )
        if any(one.outcome.stopped for one in self.results):
            caption += f" Crosses: {'replaced' if self._population else 'stopped'} there."
        if self._population:
            caption += " The curve of a copy begins at its parent's."
        return (_charts(caption, drawn),)

    def _parallel(self) -> Figure:
        caption = f"Each line is a point; the better it is, the darker. The best is orange. {BEYOND}"
        measured = self._measured
        return Figure(caption, (charts.parallel_chart(self.space, measured, measured[0]),))

    def _importance(self) -> Section:
        from genlab.sweeps.importance import DRAWS, importances, why_none  # imports Optuna

        title, measured = "Importance of the options", self._measured
        reasons = {metric: why_none(self.space, measured, metric) for metric in self.space.objectives}
        missing = dict.fromkeys(reason for reason in reasons.values() if reason)
        text = f"Left out: {'; '.join(missing)}." if missing else ""
        drawn = [
            charts.importance_chart(importances(self.space, measured, metric), metric)
            for metric, reason in reasons.items()
            if not reason
        ]
        if not drawn:
            return Section(title, text)
        caption = (
            "How much an option tells the best tenth of the trials from all (PED-ANOVA, Watanabe et al. 2023), as a "
            f"share of 1. Lines: the middle 95% of {DRAWS} bootstrap draws of the points."
        )
        if any(point.stopped for point in measured):
            caption += " Stopped trials count as they were measured then."
        return Section(title, text, (_charts(caption, drawn),))

    def _samples(self) -> tuple[Figure, ...]:
        """Show what the best, the median and the worst trial drew last."""
        metric, _ = self._first
        order = self._ranked_results
        ranks = (("median", order[len(order) // 2]), ("worst", order[-1]), ("best", self._best_result or order[0]))
        once = {one.outcome.trial.name: (rank, one) for rank, one in ranks}  # of few trials some are the same
        chosen = dict(sorted(once.values(), key=lambda pair: pair[0]))
        drawn = {rank: one.pictures() for rank, one in chosen.items()}
        names = [name for name in drawn["best"] if all(name in found for found in drawn.values())]
        names = ["samples"] if "samples" in names else names
        caption = "What training drew last in the best, the median and the worst trial."
        return tuple(
            pictures(
                f"{name.replace('_', ' ')}. {caption}",
                [
                    sheet_picture(f"{name}-{rank}", f"{rank}: {metric} {one.value(metric):.5g}", drawn[rank][name])
                    for rank, one in chosen.items()
                ],
                len(chosen),
                SHEET_LEAST,
            )
            for name in names
        )

    def _cost_text(self) -> str:
        seen = {one.images for one in self._ranked_results}
        return f"Each trial saw {seen.pop():,} images." if len(seen) == 1 else ""

    def _cost(self) -> tuple[Figure, ...]:
        costs = ["images", "hours"] if len({one.images for one in self._ranked_results}) > 1 else ["hours"]
        caption = (
            f"A dot is a trial; the best is orange. {BEYOND} Hours are those of training, without starts and pauses."
        )
        drawn = [
            charts.cost_chart(metric, mode, cost, self.results, self._best_result)
            for metric, mode in self.space.objectives.items()
            for cost in costs
        ]
        return (_charts(caption, drawn),)

    def _failures(self) -> tuple[Table, ...]:
        found = []
        for one in self.results:
            if one.outcome.error:
                trial = one.outcome.trial
                lines = one.log or (one.outcome.error,)
                found.append(Table(trial.name, (trial.label,), tuple((line,) for line in lines), numbers=False))
        return tuple(found)

    def _declaration(self) -> tuple[Table, ...]:
        varied = tuple((name, described(values)) for name, values in self.space.vary.items())
        found = [Table("What varies", ("option", "values"), varied, numbers=False)]
        changed = differences(recipe_type(self.space.family).config_type(), self.config)
        rows = tuple((name, shown(new), shown(old)) for name, (old, new) in changed.items())
        if rows:
            caption = "Options of all trials that differ from the family's defaults"
            found.append(Table(caption, ("option", "value", "default"), rows, numbers=False))
        return tuple(found)


def _shown(section: Section) -> tuple[Section, ...]:
    """Return a section, unless it has nothing to show."""
    return (section,) if section.figures or section.tables else ()


def _charts(caption: str, drawn: Sequence[Picture]) -> Figure:
    """Make a figure of charts: up to three side by side, and more in two columns where that fills the rows."""
    return pictures(caption, drawn, 2 if len(drawn) in (2, 4) else 3)


def breakable(name: str) -> str:
    """Return a dotted name that a page may break after a dot, a slash or an underscore."""
    return re.sub(r"(?<=[./_])", "\N{ZERO WIDTH SPACE}", name)


def described(values: Any) -> str:
    """Return what an option may be, in words."""
    if isinstance(values, When):
        among = ", ".join(map(shown, values.among))
        return f"{described(values.values)}; where {values.option} is {among}"
    if isinstance(values, Categorical):
        values = values.categories
    if not isinstance(values, Float | Integer):
        return ", ".join(map(shown, values))
    sampler, step = values.get_sampler(), ""
    if isinstance(sampler, Quantized):
        step = f", in steps of {shown(sampler.q)}"
        sampler = sampler.get_sampler()
    whole = isinstance(values, Integer)
    high = values.upper - 1 if whole else values.upper
    kind = "log-uniform" if isinstance(sampler, LogUniform) else "uniform"
    return f"{kind}{', whole' if whole else ''}, {shown(values.lower)} to {shown(high)}{step}"
