"""The trials of a sweep: which there are, how each is called, where its run lies, and what came out of it."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from upath import UPath

from genlab.core.config import flatten, override, to_dict
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate, read_json
from genlab.core.text import counted
from genlab.store import model_directory
from genlab.sweeps.space import Space
from genlab.training.plan import Plan, earlier_config, finished_step, make_plan

DIGITS = 10
"""Hexadecimal digits of the hash in a trial's name."""
DRAWS_PER_TRIAL = 100
"""Draws of random search for each trial, at most: a small space may have fewer points than the budget has trials."""
SEED = "run.seed"


@dataclass(frozen=True)
class Trial:
    """One point of the space, and its run."""

    point: dict[str, Any]
    """The values of the options that vary, by dotted name."""
    plan: Plan

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.plan.run.name)

    @property
    def label(self) -> str:
        """The point in words, for messages."""
        return label(self.point)

    @property
    def images(self) -> int:
        """Images that it sees."""
        return self.plan.steps * self.plan.run.batch


def label(point: Mapping[str, Any]) -> str:
    """Return a point in words; genlab once named the runs of trials so."""
    return ",".join(f"{name}={value}" for name, value in point.items())


def trial_name(point: Mapping[str, Any], config: Any) -> str:
    """Return the name of a trial: ``trial-`` and a hash of its point and seed, whatever else varies or is set.

    Args:
        point: the values of the options that vary.
        config: the family's config with these values, whose types decide that 1 and 1.0 may be the same.
    """
    typed = flatten(to_dict(config))
    values = {name: typed.get(name, value) for name, value in point.items() if name != SEED}
    content = json.dumps({"point": values, "seed": config.run.seed}, sort_keys=True)
    return f"trial-{hashlib.sha256(content.encode()).hexdigest()[:DIGITS]}"


def plan_trials(space: Space, config: Any, folder: UPath) -> list[Trial]:
    """Plan the trials that the space and its budget allow, each of another point.

    Args:
        space: a space that :func:`genlab.sweeps.checks.check_space` found right.
        config: the config of all trials.
        folder: the folder of their runs.

    Raises:
        ConfigError, DataError: when a trial is not possible, or a grid is larger than the budget.
    """
    points: Iterable[dict[str, Any]]
    if space.searcher == "grid":
        points = list(space.grid())
        if space.budget.trials is not None and len(points) > space.budget.trials:
            raise ConfigError(
                f"the grid has {len(points)} points and the budget allows {counted(space.budget.trials, 'trial')}; "
                'raise it, or set searcher="random"'
            )
    else:
        most = space.budget.trials
        points = itertools.islice(space.draws(config.run.seed), None if most is None else most * DRAWS_PER_TRIAL)
    trials: dict[str, Trial] = {}
    images = 0
    for point in points:
        if len(trials) == space.budget.trials:
            break
        changed = override(config, space.options(point))
        name = trial_name(point, changed)
        if name in trials:
            continue
        trial = Trial(point, _plan(space, changed, name, label(point), folder))
        images += trial.images
        if space.budget.images is not None and images > space.budget.images:
            if space.searcher == "grid" or not trials:
                raise ConfigError(
                    f"the budget is {counted(space.budget.images, 'image')}, and {counted(len(trials) + 1, 'trial')} "
                    f"of the sweep would see {images:,}; raise it, or train each shorter"
                )
            break
        trials[name] = trial
    return list(trials.values())


def _plan(space: Space, config: Any, name: str, earlier_name: str, folder: UPath) -> Plan:
    """Plan a trial under its name, or under its earlier one where such a run fits.

    It fits if it was started with the same config and data, and choices are made on the same rows of them.
    """

    def under(name: str) -> Plan:
        return make_plan(space.family, override(config, {"run.name": name, "run.storage": str(folder)}), sealed=True)

    plan = under(name)
    earlier_name = earlier_name.replace("/", "_")
    if not (folder / name).exists() and len(earlier_name) < 255 and (folder / earlier_name / "config.json").exists():
        earlier = under(earlier_name)
        try:
            earlier_config(earlier)
        except RunError:
            return plan
        if earlier.held_out.choice == plan.held_out.choice:
            return earlier
    return plan


def result_of(trial: Trial) -> dict[str, float] | None:
    """Return the metrics of a trial's trained model and, as ``score/NAME``, the scores of its report.

    Returns:
        ``None`` unless the run has ended and has its report.

    Raises:
        RunError: when the run was trained longer than the sweep trains.
    """
    directory = locate(trial.plan.directory)
    step = finished_step(trial.plan)
    if step is None or not (directory / "report.html").exists():
        return None
    if step > trial.plan.steps:
        raise RunError(
            f"{directory}: was trained for {step:,} steps, longer than the {trial.plan.steps:,} of this sweep, so it "
            "cannot be compared; give the sweep another --run.name"
        )
    metrics: dict[str, float] = dict(model_directory.describe(directory / "model")["provenance"]["metrics"])
    if (directory / "scores.json").exists():
        metrics |= {f"score/{name}": value for name, value in flatten(read_json(directory / "scores.json")).items()}
    return metrics
