"""Sweeps: a run for each point of a search space, side by side under Ray Tune."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from upath import UPath

from genlab.core.config import as_arguments, override
from genlab.core.errors import ConfigError, RunError
from genlab.core.ray_cluster import connected
from genlab.core.storage import locate, require_absolute, write_json
from genlab.core.text import counted
from genlab.sweeps.checks import check_plan, check_space
from genlab.sweeps.space import Space
from genlab.sweeps.trials import Trial, plan_trials, result_of
from genlab.sweeps.tuning import run_trials
from genlab.training.plan import default_storage, earlier_config


@dataclass(frozen=True)
class Outcome:
    """What came out of a trial."""

    trial: Trial
    metrics: Mapping[str, float]
    """Metrics of the trained model and, as ``score/NAME``, scores of its report; none of a trial that failed."""
    error: str | None = None
    """Why there are none, in one line."""

    def value(self, metric: str) -> float:
        """Return a metric; NaN when it has none."""
        return self.metrics.get(metric, math.nan)


def sweep(space: Space, config: Any, name: str) -> list[Outcome]:
    """Train the trials of ``space``, print a table of the results, the best first, and return them in that order.

    Each trial is an ordinary run in the folder ``run.storage/name``, with its report; a sweep that is started again
    under its name goes on where its trials stopped. The table is also written to that folder, as ``sweep.json``.

    Trials are compared on the rows that choices are made on (:mod:`genlab.data.format.held_out`). No trial is measured
    on those that results are reported on.

    Args:
        space: the search space.
        config: the family's config, which each point changes.
        name: name of the folder.

    Raises:
        ConfigError: before any trial starts, for a name or value that is refused, or a metric that no trial would have.
        RunError: before any trial starts, when the folder holds a trial of another config or other data; after the
            table was printed, when trials failed.
    """
    storage = config.run.storage or default_storage()
    require_absolute("run.storage", storage)
    folder = locate(storage) / name
    print(f"sweep folder: {folder}", flush=True)
    if config.run.workers < 1:
        raise ConfigError(f"run.workers = {config.run.workers}: the trials of a sweep have at least one")
    check_space(space, config)
    trials = plan_trials(space, config, folder)
    for trial in trials:
        check_plan(space, trial.plan)
        earlier_config(trial.plan)  # raises the errors that the trial would raise
    faults = _train(space, trials, folder)
    outcomes = [Outcome(trial, result_of(trial) or {}, faults.get(trial.name)) for trial in trials]
    sign = 1 if space.mode == "min" else -1
    outcomes.sort(key=lambda one: sign * value if math.isfinite(value := one.value(space.metric)) else math.inf)
    _publish(space, outcomes, folder)
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        raise RunError(f"{len(failed)} of {len(outcomes)} trials failed; {failed[0].trial.label}: {failed[0].error}")
    best = outcomes[0].trial
    splits = best.plan.held_out
    print(f"\nthe best, {space.metric} {outcomes[0].value(space.metric):.5g}: {best.plan.directory}/model")
    print(f"it was chosen on the split {splits.choice!r}; to measure it on {splits.report!r}, where no trial was:")
    print(f"genlab evaluate {best.plan.directory}")
    print(f"train it again: genlab train {space.family} {command_of(config, space, best)}")
    return outcomes


def _train(space: Space, trials: Sequence[Trial], folder: UPath) -> dict[str, str]:
    """Train the trials that have not ended; return why some failed, by name."""
    waiting = [trial for trial in trials if result_of(trial) is None]
    done = len(trials) - len(waiting)
    images = sum(trial.images for trial in trials)
    finished = f", of which {done} {'has' if done == 1 else 'have'} ended" if done else ""
    print(f"{counted(len(trials), 'trial')}{finished}; {counted(images, 'image')} in all", flush=True)
    if not waiting:
        return {}
    with connected():
        return run_trials(waiting, space.metric, space.budget.hours, folder)


def _publish(space: Space, outcomes: Sequence[Outcome], folder: UPath) -> None:
    """Print the table of trials and write it to ``sweep.json``."""
    table = Table(title=f"{space.family}: {space.metric} ({space.mode})")
    for column in (*space.vary, space.metric, "run"):
        table.add_column(column)
    for outcome in outcomes:
        point = outcome.trial.point
        shown = outcome.error or f"{outcome.value(space.metric):.5g}"
        table.add_row(*(_shown(point.get(name, "")) for name in space.vary), Text(shown), Text(outcome.trial.name))
    rows = [
        {
            "point": outcome.trial.point,
            "run": outcome.trial.plan.directory,
            "metrics": outcome.metrics,
            "error": outcome.error,
        }
        for outcome in outcomes
    ]
    write_json(
        folder / "sweep.json", {"family": space.family, "metric": space.metric, "mode": space.mode, "trials": rows}
    )
    Console().print(table)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def command_of(config: Any, space: Space, trial: Trial) -> str:
    """Return the options of ``genlab train`` that train ``trial`` again, as a run outside the sweep."""
    changes = space.options(trial.point) | {"run.name": None}
    if override(config, changes).run.steps is not None:
        changes["run.epochs"] = type(config)().run.epochs  # it has no effect beside run.steps; a default is left out
    return as_arguments(override(config, changes))
