"""Sweeps: a run for each point of a search space, side by side under Ray Tune."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console
from rich.table import Table
from rich.text import Text
from upath import UPath

from genlab.core.config import as_arguments, flatten, override
from genlab.core.errors import ClusterError, ConfigError, RunError
from genlab.core.ray_cluster import connected
from genlab.core.storage import locate, read_json, require_absolute, write_json
from genlab.core.text import counted
from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import VALIDATION
from genlab.reports.family import family_report
from genlab.reports.report import make_report
from genlab.store import model_directory
from genlab.sweeps.space import Space
from genlab.training.console import RunConsole
from genlab.training.plan import (
    Plan,
    default_storage,
    earlier_config,
    finished_step,
    make_plan,
    owned,
    start_or_resume,
)
from genlab.training.ray.driver import fit

TRIAL_CPUS = 0.01
"""CPUs that the driver of a trial asks for. Tune refuses 0, and a whole CPU would be missing for the workers."""


@dataclass(frozen=True)
class Trial:
    """One point of the space, its run and the result."""

    point: dict[str, Any]
    plan: Plan
    metrics: dict[str, float]
    """Metrics of the trained model and, as ``score/NAME``, scores of its report."""
    error: str | None = None
    """The last line of the error of a trial that failed."""


def sweep(space: Space, config: Any, name: str) -> list[Trial]:
    """Train every point of ``space``, print a table of the results, the best first, and return them in that order.

    Each trial is an ordinary run in the folder ``run.storage/name``, with its report; a sweep that is started again
    under its name goes on where its trials stopped. The table is also written to that folder, as ``sweep.json``.

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
    points = list(space.points())
    plans = [_plan(config, space, point, folder) for point in points]
    for plan in plans:
        _check_metric(space.metric, plan)
        earlier_config(plan)  # raises the errors that the trial would raise
    with connected():
        results = _tune(space, plans, [_label(point) for point in points], folder)
    trials = [Trial(point, plan, *result) for point, plan, result in zip(points, plans, results, strict=True)]
    sign = 1 if space.mode == "min" else -1
    trials.sort(key=lambda trial: sign * value if math.isfinite(value := _metric(trial, space)) else math.inf)
    _publish(space, trials, folder)
    failed = [trial for trial in trials if trial.error]
    if failed:
        raise RunError(f"{len(failed)} of {len(trials)} trials failed; {_label(failed[0].point)}: {failed[0].error}")
    best = _metric(trials[0], space)
    if not trials[0].metrics.keys() & {space.metric, metric_name(space.metric, trials[0].plan)}:
        raise RunError(f"no trial has the metric {space.metric!r}; there are: {', '.join(sorted(trials[0].metrics))}")
    print(f"\nthe best, {space.metric} {best:.5g}: {trials[0].plan.directory}/model")
    if metric_name(space.metric, trials[0].plan).partition("/")[0] in ("test", "score"):
        print("it is chosen on these images, so it looks better on them than on others")
    print(f"train it again: genlab train {space.family} {command_of(config, space, trials[0])}")
    return trials


def _plan(config: Any, space: Space, point: dict[str, Any], folder: UPath) -> Plan:
    place = {"run.name": _label(point).replace("/", "_"), "run.storage": str(folder)}
    return make_plan(space.family, override(config, space.options(point) | place))


def _check_metric(metric: str, plan: Plan) -> None:
    """Refuse a metric that the trained model of ``plan`` would not have.

    Raises:
        ConfigError: when the metric needs a split or data that is missing.
    """
    kind, _, name = metric.partition("/")
    manifests = {domain: ShardSet.open(data.url).manifest for domain, data in plan.domains.items()}
    data = ", ".join(f"data.{domain} = {one.url}" for domain, one in plan.domains.items())
    split = plan.config.data.test_split
    if kind in ("val", "test") and kind not in plan.measured_splits:
        missing, option = (split, "--test-fraction") if kind == "test" else (VALIDATION, "--validation-fraction")
        raise ConfigError(
            f"the metric {metric!r} is measured on the split {missing!r}, which is missing ({data}); "
            f"ingest with {option}"
        )
    if kind == "score":
        report = family_report(plan.family)
        scores = [] if report is None else list(report.scores(manifests))
        if name not in scores:
            available = f"there are: {', '.join(f'score/{score}' for score in scores)}" if scores else "there are none"
            raise ConfigError(
                f"the metric {metric!r} is no score of a {plan.family} on this data ({data}); {available}. Scores "
                "against true counterparts exist for drawn scenes alone; choose another metric, or leave out the data "
                "options"
            )


def _tune(
    space: Space, plans: list[Plan], labels: list[str], folder: UPath
) -> list[tuple[dict[str, float], str | None]]:
    run = plans[0].run
    free = int(ray.cluster_resources().get("CPU", 1) - TRIAL_CPUS * len(plans))
    threads = run.threads or max(1, free // run.workers)
    if free < run.workers * threads:
        raise ClusterError(
            f"a trial of {counted(run.workers, 'worker')} with {counted(threads, 'thread')} needs "
            f"{run.workers * threads} CPUs besides the little that its driver takes, "
            f"and {free} are whole; use fewer workers or run.threads"
        )
    plans = [dataclasses.replace(plan, config=override(plan.config, {"run.threads": threads})) for plan in plans]
    concurrent = free // (run.workers * threads)
    names = [metric_name(space.metric, plan) for plan in plans]
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, plans=plans), {"CPU": TRIAL_CPUS}),
        param_space={"trial": tune.grid_search(list(range(len(plans))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder), verbose=0, callbacks=[Announcer(labels, names)]
        ),
    )
    outcomes: list[tuple[dict[str, float], str | None]] = [({}, "did not start")] * len(plans)
    grid = tuner.fit()
    for result in (grid[number] for number in range(len(grid))):
        index = (result.config or {})["trial"]
        metrics = {key: value for key, value in (result.metrics or {}).items() if isinstance(value, int | float)}
        outcomes[index] = (metrics, None if result.error is None else str(result.error).strip().splitlines()[-1])
    return outcomes


def _trial(parameters: dict[str, Any], plans: list[Plan]) -> None:
    """Train one plan, write its report, and report the metrics to Ray Tune; runs in a process of Tune's."""
    plan = plans[parameters["trial"]]
    with owned(plan, "give the sweep another name") as mine:
        start_or_resume(mine)
        if finished_step(mine) is None:
            with RunConsole() as console:
                fit(mine, console, callbacks=[TuneReportCallback()])
    make_report(plan.directory)
    directory = locate(plan.directory)
    metrics = dict(model_directory.describe(directory / "model")["provenance"]["metrics"])
    if (directory / "scores.json").exists():
        metrics |= {f"score/{name}": value for name, value in flatten(read_json(directory / "scores.json")).items()}
    tune.report(metrics)


class Announcer(tune.Callback):
    """Prints a line when a trial starts, when it reports the metric, and when it fails.

    Args:
        labels: name of each trial, by its index.
        metrics: name of the metric in each trial.
    """

    def __init__(self, labels: list[str], metrics: list[str]) -> None:
        self._labels = labels
        self._metrics = metrics

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print that a trial starts."""
        self._say(trial, "starts")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Print the metric of a trial."""
        metric = self._metrics[trial.config["trial"]]
        if metric in result:
            self._say(trial, f"{metric} {result[metric]:.5g}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print that a trial failed."""
        self._say(trial, "failed")

    def _say(self, trial: Any, what: str) -> None:
        print(f"{self._labels[trial.config['trial']]}: {what}", flush=True)


def _publish(space: Space, trials: list[Trial], folder: UPath) -> None:
    """Print the table of trials and write it to ``sweep.json``."""
    table = Table(title=f"{space.family}: {space.metric} ({space.mode})")
    for column in (*space.vary, space.metric, "run"):
        table.add_column(column)
    for trial in trials:
        shown = trial.error or f"{_metric(trial, space):.5g}"
        table.add_row(*(str(value) for value in trial.point.values()), Text(shown), Text(trial.plan.run.name or ""))
    rows = [
        {"point": trial.point, "run": trial.plan.directory, "metrics": trial.metrics, "error": trial.error}
        for trial in trials
    ]
    write_json(
        folder / "sweep.json", {"family": space.family, "metric": space.metric, "mode": space.mode, "trials": rows}
    )
    Console().print(table)


def _metric(trial: Trial, space: Space) -> float:
    """Return the metric of a trial; NaN when it has none."""
    names = space.metric, metric_name(space.metric, trial.plan)
    return next((trial.metrics[name] for name in names if name in trial.metrics), math.nan)


def metric_name(metric: str, plan: Plan) -> str:
    """Return the name of a metric in a run of ``plan``: an earlier genlab called ``val/kid`` ``evaluation/kid``."""
    kind, _, name = metric.partition("/")
    return f"{plan.evaluation_kind}/{name}" if kind == "evaluation" else metric


def _label(point: dict[str, Any]) -> str:
    """Return the name of the trial of ``point``."""
    return ",".join(f"{name}={value}" for name, value in point.items())


def command_of(config: Any, space: Space, trial: Trial) -> str:
    """Return the options of ``genlab train`` that train ``trial`` again, as a run outside the sweep."""
    changes = space.options(trial.point) | {"run.name": None}
    if override(config, changes).run.steps is not None:
        changes["run.epochs"] = type(config)().run.epochs  # it has no effect beside run.steps; a default is left out
    return as_arguments(override(config, changes))
