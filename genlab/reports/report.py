"""The HTML report of a run, finished or not, as one file that needs no other."""

import dataclasses
from datetime import timedelta
from typing import Any

from upath import UPath

from genlab.core import config
from genlab.core.errors import GenlabError
from genlab.core.families import families
from genlab.core.progress import rate_text
from genlab.core.storage import names, write_atomic, write_json
from genlab.core.text import number_text
from genlab.evaluation.checkpoint_evaluations import best_of
from genlab.recipes.recipe import recipe_type
from genlab.reports import operations
from genlab.reports.curves import clock_figure, evaluation_figure, loss_figure
from genlab.reports.family import ModelReport, family_report
from genlab.reports.ledger import loss_rows
from genlab.reports.page import Section, Table, page, picture
from genlab.reports.run import RunRecord, drawn_folders, read_picture
from genlab.store import model_directory
from genlab.training.ledger import read_ledger

CHECKSUM_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Report:
    """The report of a run."""

    run: RunRecord
    notes: tuple[str, ...]
    """Notes at the head of the report."""
    model_report: ModelReport
    evaluations: tuple[Section, ...]
    """The section on evaluated checkpoints, if there are any."""
    curves: Section
    about: Section

    @property
    def sections(self) -> tuple[Section, ...]:
        """All sections of the page, in order."""
        return (*self.model_report.sections, *self.evaluations, self.curves, self.about)


def make_report(run: str | UPath) -> UPath:
    """Write ``RUN/report.html``, its pictures in ``RUN/figures/report/``, and scores, if any, in ``RUN/scores.json``.

    Args:
        run: the run directory, a local path or a URL.

    Returns:
        Where ``report.html`` is.

    Raises:
        RunError: when ``run`` is not a run directory, has no metrics yet, or its model is damaged.
    """
    return write(compose(run))


def compose(run: str | UPath) -> Report:
    """Gather everything that the report of ``run`` shows; see :func:`make_report`."""
    record = RunRecord.read(run)
    family = family_report(record.family)
    notes = _progress_notes(record)
    if family:
        notes.extend(family.warnings(record))
    model_report = _last_pictures(record)
    if record.model_step is not None:
        model = model_directory.load(record.model_directory)
        try:
            if family:
                model_report = family.report_model(record, model)
            else:
                sections = operations.report_model(record, model).sections
                model_report = ModelReport((*sections, *_last_pictures(record, besides=sections).sections))
            notes.extend(model_report.notes)
        except GenlabError as error:
            notes.append(f"The trained model could not be tried on the data: {error}")
    evaluations = (_evaluations(record),) if record.evaluations else ()
    curves = (loss_figure(record, family.panels if family else ()), clock_figure(record))
    about = Section(
        "The run", tables=(_data_table(record), _attempts_table(record), *_ledger_table(record), _config_table(record))
    )
    return Report(record, tuple(notes), model_report, evaluations, Section("Curves", figures=curves), about)


def write(report: Report) -> UPath:
    """Write the files of ``report`` into its run directory; returns where ``report.html`` is."""
    directory = report.run.directory
    for figure in (figure for section in report.sections for figure in section.figures):
        for one in figure.pictures:
            write_atomic(directory / "figures" / "report" / f"{one.name}.png", one.png)
    if report.model_report.scores:
        write_json(directory / "scores.json", report.model_report.scores)
    file = directory / "report.html"
    run = report.run
    write_atomic(file, page(run.name, str(run.directory), _facts(run), report.sections, report.notes))
    return file


def _facts(run: RunRecord) -> dict[str, str]:
    workers = run.attempts[-1]["run"]["workers"]
    return {
        "family": run.family,
        "steps": f"{run.step:,}" if run.step == run.planned_steps else f"{run.step:,} of {run.planned_steps:,}",
        "epochs": number_text(run.epoch),
        "images seen": f"{run.images:,}",
        "wall time": _duration(run.wall_seconds),
        "training": _duration(run.training_seconds),
        "speed": f"{rate_text(run.images_of_its_own / run.training_seconds)} images/s",
        "workers": str(workers) if workers else "1, no Ray",
    }


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _progress_notes(run: RunRecord) -> list[str]:
    notes = []
    if run.branch:
        notes.append(f"It branched off step {run.branch.step:,} of {run.branch.path}; what came before is of that run.")
    if run.step < run.planned_steps:
        notes.append(f"The run has not finished: it is at step {run.step:,} of {run.planned_steps:,}.")
    if run.model_step is None:
        notes.append("There is no trained model yet; the pictures are those that training drew last.")
    elif run.model_step < run.step:
        best = any(one.step == run.model_step for one in run.evaluations)
        why = ", the best of the evaluated checkpoints" if best else ""
        if best and run.chosen_on_these_images:
            why += ", chosen on these images"
        notes.append(f"The trained model shown here is that of step {run.model_step:,}{why}.")
    return notes


def _evaluations(run: RunRecord) -> Section:
    ranked_by = recipe_type(run.family).ranked_by
    best = best_of(run.evaluations, ranked_by)
    names = [name for name, measurement in run.evaluations[-1].measurements.items() if measurement.better]
    rows = [
        (f"{one.step:,}", f"{one.epoch:.4g}", *(str(one.measurements.get(name, "–")) for name in names))
        for one in run.evaluations
    ]
    columns = ("step", "epoch", *(run.evaluations[-1].measurements[name].title for name in names))
    marked = frozenset(number for number, one in enumerate(run.evaluations) if one is best)
    return Section(
        "Evaluated checkpoints",
        _where_chosen(run),
        figures=(evaluation_figure(run, ranked_by),),
        tables=(
            Table(
                "Measurements with half of their 95% intervals; the best checkpoint is bold",
                columns,
                tuple(rows),
                marked,
            ),
        ),
    )


def _where_chosen(run: RunRecord) -> str:
    if run.chosen_on_these_images:
        return (
            "The best checkpoint is chosen on these images: results are reported on them too, so they look better than "
            "on other images."
        )
    splits, name = run.held_out_splits, recipe_type(run.family).ranked_by
    text = f"Measured and chosen on the split {splits.choice!r}; results are reported on {splits.report!r}"
    result = run.model_metrics.get(f"test/{name}")
    return f"{text}." if result is None else f"{text}: {name.upper()} {result:.5g}, with intervals by genlab evaluate."


def _last_pictures(run: RunRecord, besides: tuple[Section, ...] = ()) -> ModelReport:
    """Show the pictures that training drew last, but for those of which ``besides`` has newer ones of the same name."""
    shown = {one.name for section in besides for figure in section.figures for one in figure.pictures}
    drawn = drawn_folders(run.directory)
    if not drawn:
        return ModelReport(())
    step, folder = drawn.popitem()
    figures = []
    for file in (folder / name for name in names(folder) if name.endswith(".png")):
        if file.stem not in shown:
            caption = f"{file.stem.replace('_', ' ')}, after step {step:,}."
            figures.append(picture(file.stem, caption, read_picture(file)))
    return ModelReport((Section("Pictures", figures=tuple(figures)),) if figures else ())


def _data_table(run: RunRecord) -> Table:
    rows = []
    for domain, data in run.data.items():
        try:
            manifest = run.shards(domain).manifest
            size = "x".join(map(str, manifest.shape)) if manifest.shape else "different sizes"
            content = ", ".join(f"{split} {count:,}" for split, count in manifest.splits.items())
        except GenlabError as error:
            size, content = "", f"cannot be read: {error}"
        rows.append((f"data.{domain}", data["path"], content, size, data["checksum"][:CHECKSUM_SHOWN]))
    columns = ("data", "path", "rows", "height x width x channels", "checksum")
    return Table("Data sets", columns, tuple(rows), numbers=False)


def _attempts_table(run: RunRecord) -> Table:
    rows = tuple(
        (
            "start" if number == 0 else f"resumption {number}",
            attempt["started"],
            f"{attempt['steps']:,}",
            str(attempt["run"]["workers"]),
            attempt["genlab"],
            attempt["torch"],
        )
        for number, attempt in enumerate(run.attempts)
    )
    columns = ("attempt", "started", "planned steps", "workers", "genlab", "torch")
    return Table("Starts and resumptions", columns, rows, numbers=False)


def _ledger_table(run: RunRecord) -> tuple[Table, ...]:
    """Return the table of hours used and lost; none of a run of an earlier genlab."""
    ledger = read_ledger(run.directory)
    if not ledger.entries:
        return ()
    head, *rows = loss_rows(ledger)
    per_images = f"{number_text(1000 * ledger.hours / run.images_of_its_own)} for 1,000 images"
    return (Table(f"Hours of one {ledger.device}, used and lost: {per_images}", head, tuple(rows)),)


def _config_table(run: RunRecord) -> Table:
    values = config.flatten(run.config)
    defaults: dict[str, Any] = values
    caption = "Configuration"
    if run.family in families():
        defaults = config.flatten(config.to_dict(recipe_type(run.family).config_type()))
        caption += "; bold where it differs from the family's default"
    changed = [name for name, value in values.items() if defaults.get(name) != value]
    rows = tuple(
        (name, _shown(value), _shown(defaults.get(name)) if name in changed else "") for name, value in values.items()
    )
    marked = frozenset(number for number, name in enumerate(values) if name in changed)
    return Table(caption, ("option", "value", "default"), rows, marked, numbers=False)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
