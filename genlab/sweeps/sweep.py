"""A sweep: one run of the one loop for each point of a space, side by side under Ray Tune."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text
from upath import UPath

from genlab import modelstore
from genlab.config import as_arguments, flatten, override, parse
from genlab.errors import ClusterError, ConfigError, RunError, run_command
from genlab.ray_cluster import connected
from genlab.recipes.recipe import recipe_type
from genlab.reports.report import make_report
from genlab.storage import locate, read_json, require_absolute, write_json
from genlab.sweeps.space import Space, load_space
from genlab.training.cluster import fit
from genlab.training.plan import Plan, claim, default_storage, make_plan
from genlab.training.progress import Console

TRIAL_CPUS = 0.01
"""What a trial's driver asks for. Tune refuses none, and a whole CPU would be one that its workers wait for."""


@dataclass(frozen=True)
class Trial:
    """One point of the space and what came of it."""

    point: dict[str, Any]
    plan: Plan
    metrics: dict[str, float]
    error: str | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the space whose file the first argument names; the others are options of its family, for all trials."""
    path, *options = list(sys.argv[1:] if arguments is None else arguments) or [""]

    def command() -> None:
        if not path or path.startswith("-"):
            raise ConfigError(
                "give the file of a space first: python jobs/sweep.py tune_spaces/vae_latent.py [OPTIONS]"
            )
        space = load_space(path)
        defaults = override(recipe_type(space.family).config_type(), space.base)
        config = parse(recipe_type(space.family).config_type, options, default=defaults, prog=f"sweep.py {path}")
        sweep(space, config, name=config.run.name or Path(path).stem)

    run_command(command)


def sweep(space: Space, config: Any, name: str) -> list[Trial]:
    """Train every point of ``space`` and print how they compare, the best first.

    Each trial is an ordinary run in the folder ``run.storage/name``, with its report; a sweep that is started again
    under its name goes on where its trials stopped. The table is also written there, as ``sweep.json``.

    Raises:
        ConfigError: for a name or value that no trial could use, before any starts.
        RunError: when trials failed, after the others' table was printed.
    """
    storage = config.run.storage or default_storage()
    require_absolute("run.storage", storage)
    folder = locate(storage) / name
    print(f"sweep folder: {folder}", flush=True)
    if config.run.workers < 1:
        raise ConfigError(f"run.workers = {config.run.workers}: the trials of a sweep have at least one")
    points = list(space.points())
    plans = [_plan(config, space, point, folder) for point in points]
    with connected():
        results = _tune(space, plans, [_label(point) for point in points], folder)
    trials = [Trial(point, plan, *result) for point, plan, result in zip(points, plans, results, strict=True)]
    sign = 1 if space.mode == "min" else -1
    trials.sort(key=lambda trial: sign * figure if math.isfinite(figure := _figure(trial, space)) else math.inf)
    _publish(space, trials, folder)
    failed = [trial for trial in trials if trial.error]
    if failed:
        raise RunError(f"{len(failed)} of {len(trials)} trials failed; {_label(failed[0].point)}: {failed[0].error}")
    if space.metric not in trials[0].metrics:
        raise RunError(f"no trial has the metric {space.metric!r}; there are: {', '.join(sorted(trials[0].metrics))}")
    print(f"\nthe best, {space.metric} {trials[0].metrics[space.metric]:.5g}: {trials[0].plan.directory}/model")
    print(f"train it again: python jobs/{space.family}.py {_command(config, trials[0])}")
    return trials


def _plan(config: Any, space: Space, point: dict[str, Any], folder: UPath) -> Plan:
    place = {"run.name": _label(point).replace("/", "_"), "run.storage": str(folder)}
    return make_plan(space.family, override(config, point | place))


def _tune(
    space: Space, plans: list[Plan], labels: list[str], folder: UPath
) -> list[tuple[dict[str, float], str | None]]:
    run = plans[0].run
    free = int(ray.cluster_resources().get("CPU", 1) - TRIAL_CPUS * len(plans))
    threads = run.threads or max(1, free // run.workers)
    if free < run.workers * threads:
        raise ClusterError(
            f"a trial of {run.workers} worker(s) with {threads} thread(s) needs {run.workers * threads} CPUs besides "
            f"the little that its driver takes, and {free} are whole; use fewer workers or run.threads"
        )
    plans = [dataclasses.replace(plan, config=override(plan.config, {"run.threads": threads})) for plan in plans]
    concurrent = free // (run.workers * threads)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, plans=plans), {"CPU": TRIAL_CPUS}),
        param_space={"trial": tune.grid_search(list(range(len(plans))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder), verbose=0, callbacks=[Announcer(labels, space.metric)]
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
    plan = plans[parameters["trial"]]
    claim(plan)
    with Console() as console:
        fit(plan, console, callbacks=[TuneReportCallback()])
    make_report(plan.directory)
    directory = locate(plan.directory)
    metrics = dict(modelstore.describe(directory / "model")["provenance"]["metrics"])
    if (directory / "scores.json").exists():
        metrics |= {f"score/{name}": value for name, value in flatten(read_json(directory / "scores.json")).items()}
    tune.report(metrics)


class Announcer(tune.Callback):
    """Prints a line whenever a trial starts, has a figure, or ends."""

    def __init__(self, labels: list[str], metric: str) -> None:
        self._labels = labels
        self._metric = metric

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that it starts."""
        self._say(trial, "starts")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Say its figure."""
        if self._metric in result:
            self._say(trial, f"{self._metric} {result[self._metric]:.5g}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that it failed."""
        self._say(trial, "failed")

    def _say(self, trial: Any, what: str) -> None:
        print(f"{self._labels[trial.config['trial']]}: {what}", flush=True)


def _publish(space: Space, trials: list[Trial], folder: UPath) -> None:
    table = Table(title=f"{space.family}: {space.metric} ({space.mode})")
    for column in (*space.vary, space.metric, "run"):
        table.add_column(column)
    for trial in trials:
        shown = trial.error or f"{_figure(trial, space):.5g}"
        table.add_row(*(str(value) for value in trial.point.values()), Text(shown), Text(trial.plan.run.name or ""))
    rows = [
        {"point": trial.point, "run": trial.plan.directory, "metrics": trial.metrics, "error": trial.error}
        for trial in trials
    ]
    write_json(
        folder / "sweep.json", {"family": space.family, "metric": space.metric, "mode": space.mode, "trials": rows}
    )
    RichConsole().print(table)


def _figure(trial: Trial, space: Space) -> float:
    return trial.metrics.get(space.metric, math.nan)


def _label(point: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in point.items())


def _command(config: Any, trial: Trial) -> str:
    return as_arguments(override(config, trial.point | {"run.name": None}))
