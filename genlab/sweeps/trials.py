"""The trials of a sweep: which there are, how each is called, where its run lies, and what came out of it."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from upath import UPath

from genlab.core.config import flatten, override, to_dict
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import exists, is_folder, locate, read_json, write_json
from genlab.core.text import counted
from genlab.store import model_directory
from genlab.sweeps.space import Space
from genlab.training.branch import Branch
from genlab.training.plan import Plan, earlier_config, finished_step, make_plan
from genlab.training.rung import Rung

PREFIX = "trial-"
"""Beginning of a trial's name."""
DIGITS = 10
"""Hexadecimal digits of the hash in a trial's name."""
VAIN_DRAWS = 100
"""Draws of random search without a new point after which it ends: a space may have fewer than the budget allows."""
LONGEST_NAME = 255
"""Bytes of the name of a file, at most."""
SEED = "run.seed"
FAULT = "fault"
"""What a trial reports to Ray Tune, in place of metrics, that would fail again if it were started at once: why."""
OWN = "own"
"""Whether this fault is the trial's own, and no fault of the cluster or the storage; it is reported beside it."""
NAME = "run.name"
NUMBER = "trial"
"""The parameter that says to a trial's process, and to callbacks of Ray Tune, which of all trials it is."""
STOPPED = "stopped.json"
"""File of a run directory that says at which rung a sweep stopped the run."""


UNTIL = "until"
"""The parameter that says to a trial's process at which step, a rung, the run waits; without it, it goes to its end."""
BRANCH = "branch"
"""The parameter that says to a trial's process which checkpoint the run branches off: its run and step."""
SPARED = "spared"
"""The parameter that says to a trial's process which checkpoints stay, see :attr:`Plan.spared`."""


@dataclass(frozen=True)
class Origin:
    """The trial that another branched off, in a population."""

    parent: str
    """Name of the other trial."""
    images: int
    """Images that it had seen."""

    def __str__(self) -> str:
        """Return the origin in words."""
        return f"{self.parent} at {counted(self.images, 'image')}"


@dataclass(frozen=True)
class Trial:
    """One point of the space, and its run."""

    point: dict[str, Any]
    """The values of the options that vary, by dotted name, without the seed."""
    plan: Plan
    origin: Origin | None = None
    """The trial that it branched off; ``None`` of one that began by itself."""
    until: int | None = None
    """The rung, as a step, to which it is trained before others are waited for; ``None``: to its end."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.plan.run.name)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.plan.run.seed

    @property
    def label(self) -> str:
        """The point and the seed in words, for messages."""
        return values_text(self.point | {SEED: self.seed})

    @property
    def images(self) -> int:
        """Images that it sees."""
        return self.plan.steps * self.plan.run.batch


@dataclass(frozen=True)
class Outcome:
    """What came out of a trial."""

    trial: Trial
    metrics: Mapping[str, float]
    """Metrics of the trained model and, as ``score/NAME``, scores of its report; none of a trial that failed."""
    error: str | None = None
    """Why there are none, in one line."""
    stopped: int | None = None
    """Images that it had seen when it was stopped; ``None`` of a trial that was trained to its end."""


def ancestry(trial: Trial, trials: Sequence[Trial]) -> list[tuple[Trial, int]]:
    """Return the trials that a trial goes back to, the first one first, and itself at the end.

    Args:
        trial: the trial.
        trials: all of the sweep.

    Returns:
        Each trial with the images that had been seen when the next one branched off it, the last one with its own.
    """
    by_name = {one.name: one for one in trials}
    line = [(trial, trial.images)]
    while (origin := line[0][0].origin) is not None:
        line.insert(0, (by_name[origin.parent], origin.images))
    return line


class Source(Protocol):
    """Where the trials of a sweep come from, one after the other."""

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials that are known, those that have ended among them. A source that searches adds to the sequence."""
        ...

    @property
    def most(self) -> int:
        """The most trials that there can be; of a population, those that there are at a time."""
        ...

    @property
    def left(self) -> int:
        """How many trials are to be trained yet, at most; of a population, each from rung to rung."""
        ...

    @property
    def waits(self) -> bool:
        """Whether there will be more trials to train when some that are trained now have come to their rung."""
        ...

    def next(self) -> Trial | None:
        """Return a trial that has not ended; ``None`` when there is none any more, or none yet."""
        ...

    def ended(self, trial: Trial, fault: str | None = None, *, own: bool = True) -> None:
        """Take note that a trial, which :meth:`next` returned, has ended or come to its rung, or why it failed.

        Args:
            trial: the trial.
            fault: why it failed.
            own: whether the fault is its own, else one of the cluster or the storage.
        """
        ...


def shown(value: Any) -> str:
    """Return a value of an option, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def values_text(point: Mapping[str, Any]) -> str:
    """Return the values of options in words."""
    return ", ".join(f"{name} = {shown(value)}" for name, value in point.items())


def _earlier_name(point: Mapping[str, Any]) -> str:
    """Return the name that genlab once gave to the run of a trial."""
    return ",".join(f"{name}={value}" for name, value in point.items())


def trial_name(point: Mapping[str, Any], config: Any, lineage: Mapping[str, Any] | None = None) -> str:
    """Return the name of a trial: ``trial-`` and a hash of its point and seed, whatever else varies or is set.

    Args:
        point: the values of the options that vary.
        config: the family's config with these values, whose types decide that 1 and 1.0 may be the same.
        lineage: what else tells a trial of a population from others.
    """
    typed = flatten(to_dict(config))
    values = {name: typed.get(name, value) for name, value in point.items() if name != SEED}
    content = json.dumps({"point": values, "seed": config.run.seed, **(lineage or {})}, sort_keys=True)
    return f"{PREFIX}{hashlib.sha256(content.encode()).hexdigest()[:DIGITS]}"


def plan_trials(space: Space, config: Any, folder: UPath) -> list[Trial]:
    """Plan the trials that the space and its budget allow.

    Args:
        space: a space that :func:`genlab.sweeps.checks.check_space` found right.
        config: the config of all trials.
        folder: the folder of their runs.

    Returns:
        The trials: all points with the first seed, then all with the next.

    Raises:
        ConfigError, DataError: when a trial is not possible, or a grid is larger than the budget.
    """
    trials: dict[str, Trial] = {}
    budget, images, first, vain = space.budget, 0, config.run.seed, 0
    for point in _points(space, first):
        if budget.trials is not None and len(trials) + space.seeds > budget.trials:
            break
        seeds = [point[SEED]] if SEED in point else range(first, first + space.seeds)
        new = {trial_name(point, config_of(space, config, point, seed)): seed for seed in seeds}
        found = [plan_trial(space, config, folder, point, seed) for name, seed in new.items() if name not in trials]
        vain = 0 if found else vain + 1
        if space.searcher == "random" and vain == VAIN_DRAWS:
            break
        images += sum(trial.images for trial in found)
        if budget.images is not None and images > budget.images:
            if space.searcher == "grid" or not trials:
                those = counted(len(trials) + len(found), "trial")
                raise ConfigError(
                    f"the budget is {counted(budget.images, 'image')}, and {those} of the sweep would see {images:,}; "
                    "raise it, or train each shorter"
                )
            break
        trials |= {trial.name: trial for trial in found}
    if not trials:
        raise ConfigError(f"the budget of {counted(budget.trials or 0, 'trial')} is less than the {space.seeds} seeds")
    return sorted(trials.values(), key=lambda trial: trial.seed)


def _points(space: Space, seed: int) -> Iterable[dict[str, Any]]:
    """Return the points of a space: all of a grid, or random ones."""
    most = space.budget.trials
    if space.searcher == "random":
        return space.draws(seed)
    points = list(space.grid())
    if most is not None and len(points) * space.seeds > most:
        seeds = f" of {space.seeds} seeds each" if space.seeds > 1 else ""
        raise ConfigError(
            f"the grid has {len(points)} points{seeds} and the budget allows {counted(most, 'trial')}; raise it, or "
            'set searcher="random"'
        )
    return points


def config_of(space: Space, config: Any, point: Mapping[str, Any], seed: int) -> Any:
    """Return the config of all trials with the values of a point and a seed.

    Raises:
        ConfigError: when the family does not take them.
    """
    return override(config, space.options(point) | {SEED: seed})


def plan_trial(space: Space, config: Any, folder: UPath, point: Mapping[str, Any], seed: int) -> Trial:
    """Plan the trial of a point and a seed.

    Args:
        space: the space.
        config: the config of all trials.
        folder: the folder of their runs.
        point: the values of the options that vary; of a seed among them nothing is taken.
        seed: the seed.

    Raises:
        ConfigError, DataError: when the trial is not possible.
    """
    changed = config_of(space, config, point, seed)
    others = {option: value for option, value in point.items() if option != SEED}
    earlier_names = [_earlier_name(point), _earlier_name(others | {SEED: seed})]
    return Trial(others, _plan(space, changed, trial_name(point, changed), earlier_names, folder))


def plan_run(space: Space, config: Any, folder: UPath, name: str, branch: Branch | None = None) -> Plan:
    """Plan the run of a trial.

    Args:
        space: the space.
        config: the trial's config.
        folder: the folder of the sweep's runs.
        name: the trial's name.
        branch: the checkpoint of another trial that it branches off; ``None`` if it begins by itself.
    """
    config = override(config, {"run.name": name, "run.storage": str(folder)})
    plan = make_plan(space.family, config, sealed=True, branch=branch)
    if space.scheduler is None:
        return plan
    run = plan.run
    steps = {
        math.ceil(images / run.batch / run.log_every) * run.log_every
        for images in space.scheduler.rungs(plan.steps * run.batch)
    }
    first = branch.step if branch else 0
    return replace(plan, rungs=tuple(sorted(step for step in steps if first < step < plan.steps)))


def _plan(space: Space, config: Any, name: str, earlier_names: Sequence[str], folder: UPath) -> Plan:
    """Plan a trial under its name, or under an earlier one of it where such a run fits.

    It fits if it was started with the same config and data, and choices are made on the same rows of them.
    """
    plan = plan_run(space, config, folder, name)
    if is_folder(folder / name):
        return plan
    for earlier_name in (one.replace("/", "_") for one in earlier_names):
        if len(earlier_name.encode()) > LONGEST_NAME or not exists(folder / earlier_name / "config.json"):
            continue
        earlier = plan_run(space, config, folder, earlier_name)
        try:
            earlier_config(earlier)
        except RunError:
            continue
        if earlier.held_out.choice == plan.held_out.choice:
            return earlier
    return plan


class Planned:
    """Gives out trials that were planned before, those that have not ended, in their order.

    Args:
        trials: the trials of the sweep.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials: Sequence[Trial] = trials
        self.most = len(trials)
        self._waiting = [trial for trial in trials if result_of(trial) is None]
        self.waits = False

    @property
    def left(self) -> int:
        """The trials that have not been given out."""
        return len(self._waiting)

    def next(self) -> Trial | None:
        """Return the next trial."""
        return self._waiting.pop(0) if self._waiting else None

    def ended(self, trial: Trial, fault: str | None = None, *, own: bool = True) -> None:
        """Do nothing: the order does not depend on results."""


def record_stop(plan: Plan, rung: Rung) -> None:
    """Write down, in the run's directory, that the run is to stop at a rung."""
    content = {"step": rung.step, "images": rung.images, "metrics": dict(rung.metrics)}
    write_json(locate(plan.directory) / STOPPED, content)


def stop_of(plan: Plan) -> int | None:
    """Return the step at which a run of a sweep with a scheduler is to stop, or was stopped; ``None``: at its end."""
    file = locate(plan.directory) / STOPPED
    return int(read_json(file)["step"]) if plan.rungs and exists(file) else None


def ended_step(plan: Plan) -> int | None:
    """Return the step at which a trial's run ended, or was stopped; ``None`` if it has to go on."""
    stop = stop_of(plan)
    return finished_step(plan if stop is None else replace(plan, steps=stop))


def stopped_images(plan: Plan) -> int | None:
    """Return how many images a run had seen when it was stopped; ``None`` if it was not, or has to go on."""
    step = ended_step(plan) if stop_of(plan) is not None else None
    return None if step is None or step >= plan.steps else step * plan.run.batch


def result_of(trial: Trial) -> dict[str, float] | None:
    """Return the metrics of a trial's trained model and, as ``score/NAME``, the scores of its report.

    Returns:
        ``None`` unless the run has ended, or was stopped, and has its report.

    Raises:
        RunError: when the run was trained longer than the sweep trains.
    """
    directory = locate(trial.plan.directory)
    step = ended_step(trial.plan)
    if step is None or not exists(directory / "report.html"):
        return None
    if step > trial.plan.steps:
        raise RunError(
            f"{directory}: was trained for {step:,} steps, longer than the {trial.plan.steps:,} of this sweep, so it "
            "cannot be compared; give the sweep another --run.name"
        )
    metrics: dict[str, float] = dict(model_directory.describe(directory / "model")["provenance"]["metrics"])
    if exists(directory / "scores.json"):
        scores = flatten(read_json(directory / "scores.json"))
        metrics |= {f"score/{name}": one for name, one in scores.items() if isinstance(one, int | float)}
    return metrics
