"""Sweeps: runs for the points of a search space, side by side under Ray Tune."""

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text
from upath import UPath

from genlab.core.claims import claimed
from genlab.core.errors import ConfigError, RunError
from genlab.core.ray_cluster import connected
from genlab.core.storage import exists, locate, names, read_json, require_absolute, write_json
from genlab.core.text import counted
from genlab.evaluation.measurements import Measurement
from genlab.store import model_directory
from genlab.sweeps import table
from genlab.sweeps.checks import check_plan, check_population, check_space
from genlab.sweeps.chosen import measure_chosen
from genlab.sweeps.commands import commands
from genlab.sweeps.disk import needs
from genlab.sweeps.live import Display, Status
from genlab.sweeps.page import Reported
from genlab.sweeps.population import Population
from genlab.sweeps.progress import Announcer, Results
from genlab.sweeps.ranking import PointResult, by_point, pareto_front, ranked
from genlab.sweeps.space import Pbt, Space
from genlab.sweeps.trials import PREFIX, Outcome, Planned, Source, Trial, plan_trials, result_of
from genlab.sweeps.tuning import Trained, run_trials
from genlab.training.plan import check_name, default_storage, earlier_config

FILE_NAME = "sweep.json"
WIDTH_OF_LOG = 200
"""Characters of a line of the table where it goes to a file, whose lines may be of any length."""
SAMPLES = 4
"""Points that are drawn to be checked before a searcher, whose points are not known yet, starts."""


def sweep(space: Space, config: Any, name: str) -> list[PointResult]:
    """Train the trials of ``space``, print a table of its points, the best first, and return them in that order.

    Each trial is an ordinary run in the folder ``run.storage/name``, with its report; a sweep that is started again
    under its name goes on where its trials stopped. The results are also written to that folder: ``sweep.json``, for
    people ``sweep.html``, and for programs ``results.parquet``.

    Trials are compared on the rows that choices are made on (:mod:`genlab.data.format.held_out`). The chosen one alone
    is then measured on those that results are reported on, once.

    Args:
        space: the search space.
        config: the family's config, which each point changes.
        name: name of the folder.

    Raises:
        ConfigError: before any trial starts, for a name or value that is refused, or a metric that no trial would have.
        ClaimError: another process trains a sweep of this name.
        RunError: before any trial starts, when the folder holds a trial of another config or other data; after the
            table was printed, when trials failed.
    """
    storage = config.run.storage or default_storage()
    require_absolute("run.storage", storage)
    check_name(name)
    folder = locate(storage) / name
    print(f"sweep folder: {folder}", flush=True)
    if config.run.workers < 1:
        raise ConfigError(f"run.workers = {config.run.workers}: the trials of a sweep have at least one")
    check_space(space, config)
    searched = space.searcher == "optuna"
    planned = plan_trials(_samples(space) if searched else space, config, folder)
    for trial in planned:
        check_plan(space, trial.plan)
    if isinstance(space.scheduler, Pbt):
        check_population(space, planned[0].plan)
    with ExitStack() as stack:
        stack.enter_context(claimed(folder, "sweep", "give this one another --run.name"))
        source: Source = Planned(planned)
        if isinstance(space.scheduler, Pbt):
            source = Population(space, config, folder, planned)
        for trial in planned if searched else source.trials:
            earlier_config(trial.plan)  # raises the errors that the trial would raise
        if searched:
            from genlab.sweeps.study import Study

            study = stack.enter_context(Study(space, config, folder, planned[0].images))
            print(f"Optuna's study: sqlite:///{study.file}; a copy lies in the sweep folder", flush=True)
            source = study
        elif outside := _outside(folder, source.trials):
            print(f"{counted(outside, 'earlier trial')} of this folder lie outside of the space, and are left out")
        results = Results(name, folder, space, config, source.trials)
        print(needs(planned, source.most, space.keep, space.scheduler), flush=True)
        trained = _train(space, config, source, folder, results)
        faults = trained.faults
        ended = results.read({**source.faults, **faults} if isinstance(source, Population) else faults)
    outcomes = [one.outcome for one in ended]
    metric, mode = next(iter(space.objectives.items()))
    points = ranked(by_point(outcomes), metric, mode)
    front = pareto_front(points, space.objectives)
    _print_table(space, points, front)
    for one in ended:
        if len(one.log) > 1:
            print(f"\n{one.outcome.trial.name} failed; the last that it said:", *one.log, sep="\n  ")
    before = read_json(folder / FILE_NAME) if exists(folder / FILE_NAME) else {}
    content = {
        "family": space.family,
        "metric": space.metric,
        "mode": space.mode,
        "trials": [_record(outcome) for point in points for outcome in point.outcomes],
    }
    earlier = before.get("chosen")
    write_json(folder / FILE_NAME, content | ({"chosen": earlier} if earlier else {}))
    reported = None
    waiting = sum(not outcome.error and not outcome.metrics for outcome in outcomes)
    if waiting or trained.hours_over:
        why = "the budget's hours are over" if trained.hours_over else "others failed"
        those = counted(waiting, "trial") if waiting else "Some trials"
        print(f"{those} did not end, since {why}; the same command goes on, and ends with the choice of the best")
    elif front and len(space.objectives) == 1:
        chosen = points[0].best(metric, mode).trial
        for line in table.lineage(chosen, source.trials):
            print(line)
        measurement = _measured_once(chosen, metric, earlier)
        write_json(folder / FILE_NAME, content | {"chosen": measurement})
        if measurement is not None:
            reported = Reported(
                measurement["split"], TypeAdapter(Measurement).validate_python(measurement["measurement"])
            )
        _print_commands(space, config, chosen, name)
    elif front:
        print(f"\nPareto front: {counted(len(front), 'point')}, marked; no point is better in one metric without loss")
        for point in front:
            print(f"\n{table.point_text(point)}")
            _print_commands(space, config, point.best(metric, mode).trial, name)
    print(f"all of it, with charts and pictures: {results.write(ended, reported)}")
    results.release(ended)
    _require_complete(outcomes)
    return points


def _outside(folder: UPath, trials: Sequence[Trial]) -> int:
    """Return how many runs of trials lie in the folder that are none of ``trials``."""
    known = {trial.name for trial in trials}
    return sum(name not in known for name in names(folder, PREFIX))


def _samples(space: Space) -> Space:
    """Return a space of some points of ``space``, drawn at random."""
    trials = SAMPLES * space.seeds
    fewer = replace(space.budget, trials=min(trials, space.budget.trials or trials))
    return replace(space, searcher="random", budget=fewer)


def _train(space: Space, config: Any, source: Source, folder: UPath, results: Results) -> Trained:
    """Train the trials that have not ended."""
    done = sum(result_of(trial) is not None for trial in source.trials)
    images = sum(trial.images for trial in source.trials)
    finished = f", of which {done} {'has' if done == 1 else 'have'} ended" if done else ""
    if isinstance(source, Population):
        print(source, flush=True)
    elif source.most > len(source.trials):
        print(f"at most {counted(source.most, 'trial')}{finished}", flush=True)
    else:
        print(f"{counted(source.most, 'trial')}{finished}; {counted(images, 'image')} in all", flush=True)
    if not source.left:
        return Trained()
    status = Status(space.objectives, source.left, results.best_so_far(), population=isinstance(source, Population))
    with connected(), results, Display(status) as display:
        announcer = Announcer(source.trials, status, display, results)
        return run_trials(source, space, config, folder, [announcer])


def _print_table(space: Space, points: Sequence[PointResult], front: Sequence[PointResult]) -> None:
    objectives = ", ".join(f"{name} ({mode})" for name, mode in space.objectives.items())
    shown = Table(title=f"{space.family}: {objectives}")
    for column in table.columns(space, points):
        shown.add_column(column, overflow="fold")
    for row in table.rows(space, points, front):
        shown.add_row(*map(Text, row))
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=WIDTH_OF_LOG)
    console.print(shown)
    print(table.note(space, points))


def _record(outcome: Outcome) -> dict[str, Any]:
    """Return what ``sweep.json`` says of a trial."""
    return {
        "point": outcome.trial.point,
        "seed": outcome.trial.seed,
        "run": outcome.trial.plan.directory,
        # JSON has no NaN
        "metrics": {name: value if math.isfinite(value) else None for name, value in outcome.metrics.items()},
        "error": outcome.error,
        "stopped": outcome.stopped,
        **({"parent": origin.parent, "parent_images": origin.images} if (origin := outcome.trial.origin) else {}),
    }


def _measured_once(trial: Trial, metric: str, before: dict[str, Any] | None) -> dict[str, Any] | None:
    """Measure the chosen trial where results are reported, unless it was measured ``before``; print and return it."""
    splits, directory = trial.plan.held_out, trial.plan.directory
    print(f"\nthe best: {directory}/model, chosen on the split {splits.choice!r}")
    if splits.report == trial.plan.config.data.split:
        print("there is no test split to measure it on")
        return None
    weights = model_directory.describe(f"{directory}/model")["weights"]["sha256"]
    identity = {"run": directory, "weights": weights, "metric": metric, "split": splits.report}
    adapter = TypeAdapter(Measurement)
    if before is not None and all(before.get(name) == value for name, value in identity.items()):
        measurement: Measurement | None = adapter.validate_python(before["measurement"])
    else:
        measurement = measure_chosen(trial, metric)
    if measurement is None:
        print(f"to measure it on {splits.report!r}, where no trial was measured: genlab evaluate {directory}")
        return None
    shown = f"{measurement} {measurement.unit}".rstrip()
    print(f"on {splits.report!r}, where no other trial was measured: {measurement.title} {shown}")
    return identity | {"measurement": adapter.dump_python(measurement, by_alias=True)}


def _print_commands(space: Space, config: Any, trial: Trial, name: str) -> None:
    for purpose, command in commands(space, config, trial, name).items():
        print(f"{purpose}: {command}")


def _require_complete(outcomes: Sequence[Outcome]) -> None:
    """Raise a RunError when some trials failed."""
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        raise RunError(f"{len(failed)} of {len(outcomes)} trials failed; {failed[0].trial.label}: {failed[0].error}")
