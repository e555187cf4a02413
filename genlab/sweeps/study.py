"""A search by Optuna: its study, in an SQLite file, is made to agree with the runs of the sweep."""

import itertools
import json
import math
import sqlite3
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search.sample import Domain, Float, Integer, LogUniform, Quantized
from upath import UPath

from genlab.core.config import flatten
from genlab.core.errors import ConfigError, DataError, StorageError
from genlab.core.seeds import derived_seed
from genlab.core.storage import cache_folder, exists, names, read_bytes, read_json, sha256, write_atomic
from genlab.core.text import counted
from genlab.sweeps.space import Asha, Median, Space, When, bounds
from genlab.sweeps.trials import PREFIX, Trial, config_of, plan_trial, result_of, stopped_images, trial_name
from genlab.training.plan import earlier_config

FILE_NAME = "optuna.sqlite3"
"""Name of the study's file in the sweep's folder."""
DRAWS = 20
"""Points that Optuna may choose in vain, since they are known or not possible, before the search ends."""
STUDY = "sweep"
"""Name of the study in its file."""


@dataclass(frozen=True)
class _Asked:
    """A point of the space that was asked for, with the trials of all its seeds."""

    point: dict[str, Any]
    trials: tuple[Trial, ...]

    def result(self, metrics: Sequence[str]) -> "_Result":
        """Return what came out of it: the mean over seeds of each metric, of those that have it."""
        found = [result_of(trial) or {} for trial in self.trials]
        each = [[one[name] for one in found if math.isfinite(one.get(name, math.nan))] for name in metrics]
        if not all(each):
            return _Result(TrialState.FAIL)
        values = [statistics.fmean(one) for one in each]
        stopped = stopped_images(self.trials[0].plan)  # With a scheduler there is one seed, and one metric.
        if stopped is None:
            return _Result(TrialState.COMPLETE, values)
        return _Result(TrialState.PRUNED, values, {stopped: values[0]})

    @property
    def finished(self) -> bool:
        """Whether the runs of all seeds have ended."""
        return all(result_of(trial) is not None for trial in self.trials)


@dataclass(frozen=True)
class _Result:
    """What the study has of a point that has ended."""

    state: TrialState
    values: list[float] | None = None
    stopped: dict[int, float] = field(default_factory=dict)
    """The metric by the images seen, of a trial that was stopped."""


class Study:
    """The trials of a sweep as Optuna chooses them, by the results of those before; a context manager.

    Optuna works on a file on this machine's disk, ``file``. A copy lies in the sweep's folder, which each change of the
    study replaces, and with which a sweep goes on that is started again, on whatever machine. What the runs say counts:
    a point whose runs have ended is in the study with their means, and in no other way; one that was asked for and has
    not ended is given out again, before others.

    Args:
        space: the space.
        config: the config of all trials.
        folder: the sweep's folder.
        images: images that a trial sees, if none of the options that vary changes that.

    Raises:
        ConfigError, DataError, RunError: when a run in the folder is of another config or other data.
    """

    def __init__(self, space: Space, config: Any, folder: UPath, images: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._config = config
        self._folder = folder
        self._points: dict[str, _Asked] = {}
        budget = space.budget
        self._allowed = math.inf if budget.trials is None else budget.trials // space.seeds
        varied = [one.values if isinstance(one, When) else one for one in space.vary.values()]
        self._finite = not any(isinstance(values, Domain) for values in varied)
        if self._finite:
            self._allowed = min(self._allowed, sum(1 for _ in space.grid()))
        if isinstance(space.scheduler, Asha | Median):
            images = min([*space.scheduler.rungs(images), images])  # that a trial sees at least
        by_images = math.inf if budget.images is None else budget.images // images
        self._open_trials: dict[str, optuna.Trial] = {}  # Of points that have not ended.
        self._failed: set[str] = set()
        self._seen: dict[str, int] = {}  # Images that trials saw which have ended.
        self._waiting: list[Trial] = []
        self.trials: list[Trial] = []
        self.file = Path(str(cache_folder())) / "sweeps" / sha256(str(folder).encode())[:16] / FILE_NAME
        self._fetch()
        self._storage = RDBStorage(f"sqlite:///{self.file}")
        self._study = self._open()
        self._agree()
        self.most = max(len(self.trials), int(min(self._allowed * space.seeds, by_images)))
        self.waits = False

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, *error: object) -> None:
        self._storage.engine.dispose()

    @property
    def left(self) -> int:
        """The most trials that are to be trained yet."""
        return self.most - sum(result_of(trial) is not None for trial in self.trials)

    def next(self) -> Trial | None:
        """Return a trial that has not ended, of a new point if there is no other; ``None`` at the end of the budget."""
        if not self._waiting:
            asked = self._ask()
            if asked is None:
                return None
            self._waiting += asked.trials
            self._save()
        return self._waiting.pop(0)

    def ended(self, trial: Trial, fault: str | None = None, *, own: bool = True) -> None:
        """Tell Optuna the means of the trial's point, once the trials of all its seeds have ended or failed."""
        if result_of(trial) is None:
            self._failed.add(trial.name)
        key = self._key(trial.point)
        asked = self._points[key]
        over = all(one.name in self._failed or result_of(one) is not None for one in asked.trials)
        if over and key in self._open_trials:  # The run of another seed may have ended before this is called for it.
            result, told = asked.result(list(self._space.objectives)), self._open_trials.pop(key)
            for images, value in result.stopped.items():
                told.report(value, images)
            self._study.tell(told, result.values if result.state == TrialState.COMPLETE else None, result.state)
            self._save()

    def _fetch(self) -> None:
        """Put the copy in the sweep's folder in the place of ``file``; without one the study begins anew."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        self.file.with_name(f"{self.file.name}-journal").unlink(missing_ok=True)
        copy = self._folder / FILE_NAME
        if not exists(copy):
            return
        write_atomic(UPath(self.file), read_bytes(copy))
        try:
            with closing(sqlite3.connect(self.file)) as connection:
                connection.execute("pragma quick_check").fetchall()
        except sqlite3.DatabaseError as error:
            print(f"{copy}: damaged ({error}); the study is made anew of the trials that have ended", flush=True)
            self.file.unlink()

    def _save(self) -> None:
        """Copy ``file`` to the sweep's folder; a store that is away, or a full disk, does not end the sweep."""
        with closing(sqlite3.connect(self.file)) as connection:
            content = connection.serialize()
        try:
            write_atomic(self._folder / FILE_NAME, content)
        except (StorageError, OSError) as error:
            print(f"the study could not be copied; it is copied with the next trial: {error}", flush=True)

    def _open(self) -> optuna.Study:
        directions = [
            StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE
            for mode in self._space.objectives.values()
        ]
        studies = {one.study_name: one for one in optuna.get_all_study_summaries(self._storage)}
        if STUDY in studies and studies[STUDY].directions != directions:
            optuna.delete_study(study_name=STUDY, storage=self._storage)
        study = optuna.create_study(study_name=STUDY, storage=self._storage, directions=directions, load_if_exists=True)
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            study.set_metric_names(list(self._space.objectives))
        return study

    def _agree(self) -> None:
        """Make the study agree with the runs, and line up what has not ended."""
        points = {self._key(point): point for point in self._begun()}
        for stored in self._study.get_trials(deepcopy=False):
            point = self._point_of(stored)
            if point is not None and stored.state != TrialState.FAIL:
                points.setdefault(self._key(point), point)
        asked = {key: self._plan(point) for key, point in points.items()}
        for one in asked.values():
            for trial in one.trials:
                earlier_config(trial.plan)  # raises the errors that the trial would raise
        finished = {key: one for key, one in asked.items() if one.finished}
        unfinished = {key: one for key, one in asked.items() if key not in finished}
        left = int(min(max(self._allowed - len(finished), 0), len(unfinished)))
        unfinished = dict(itertools.islice(unfinished.items(), left))
        self._points = finished | unfinished
        results = {key: one.result(list(self._space.objectives)) for key, one in finished.items()}
        self._keep_only(results)
        known = {self._key_of(stored) for stored in self._study.get_trials(deepcopy=False)}
        for key, one in finished.items():
            result = results[key]
            if key not in known and result.values is not None:
                ended = create_trial(
                    state=result.state,
                    values=result.values,
                    intermediate_values=result.stopped,
                    params={name: outward(value) for name, value in one.point.items()},
                    distributions=self._distributions(one.point),
                )
                self._study.add_trial(ended)
        for key, one in unfinished.items():
            self._open_trials[key] = self._enqueued(one.point)
        self.trials = [trial for one in self._points.values() for trial in one.trials]
        self._waiting = [trial for one in unfinished.values() for trial in one.trials if result_of(trial) is None]
        if self._points:
            self._save()

    def _keep_only(self, results: Mapping[str, _Result]) -> None:
        """Make the study anew without the trials that do not agree with the runs, if it has such: Optuna drops none."""

        def agrees(stored: FrozenTrial) -> bool:
            point = self._point_of(stored)
            if point is None or stored.distributions != self._distributions(point):
                return False
            found = _Result(stored.state, stored.values, stored.intermediate_values)
            return stored.state == TrialState.FAIL or results.get(self._key(point)) == found

        stored = self._study.get_trials()
        if not all(map(agrees, stored)):
            optuna.delete_study(study_name=STUDY, storage=self._storage)
            self._study = self._open()
            self._study.add_trials([one for one in stored if one.state != TrialState.FAIL and agrees(one)])

    def _begun(self) -> Iterator[dict[str, Any]]:
        """Yield the points of the runs in the folder that lie in the space, and say how many do not."""
        found = []
        first, outside = self._config.run.seed, 0
        for directory in (self._folder / name for name in names(self._folder, PREFIX)):
            if exists(directory / "config.json"):
                content = read_json(directory / "config.json")
                options = flatten(content["config"])
                points = [
                    point
                    for point in self._candidates(options)
                    if trial_name(point, config_of(self._space, self._config, point, options["run.seed"]))
                    == directory.name
                ]
                outside += not points
                if first <= options["run.seed"] < first + self._space.seeds:
                    found += [(content["attempts"][0]["started"], directory.name, point) for point in points]
        if outside:
            print(f"{counted(outside, 'earlier trial')} of this folder lie outside of the space, and are left out")
        yield from (point for *_, point in sorted(found, key=lambda one: one[:2]))

    def _candidates(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the points of the space that a run with these options may be of: several where presets vary."""
        points: list[dict[str, Any]] = [{}]
        for name in self._space.vary:
            longer = []
            for point in points:
                values = self._space.values(name, point)
                if values is None:
                    longer.append(point)
                else:
                    longer += [point | {name: value} for value in _possible(name, values, options)]
            points = longer
        return points

    def _ask(self) -> _Asked | None:
        """Ask for a point that is new and possible, within the budget."""
        budget = self._space.budget
        if len(self._points) >= self._allowed:
            return None
        for trial, point in self._proposals():
            key = self._key(point)
            try:
                asked = None if key in self._points else self._plan(point)
            except (ConfigError, DataError) as error:
                print(f"{trial.params}: not possible, {error}", flush=True)
                asked = None
            if asked is None:
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            images = sum(map(self._images, (*self.trials, *asked.trials)))
            if budget.images is not None and images > budget.images:
                self._study.tell(trial, state=TrialState.FAIL)
                return None
            self._points[key] = asked
            self._open_trials[key] = trial
            self.trials += asked.trials
            return asked
        print("the search ends: Optuna chose nothing but points that are known or not possible", flush=True)
        return None

    def _proposals(self) -> Iterator[tuple[optuna.Trial, dict[str, Any]]]:
        """Yield points that Optuna chooses; of a space of lists then those that are left."""
        for _ in range(DRAWS):
            number = len(self._study.get_trials(deepcopy=False))
            # A function of what the study holds, so that a sweep that goes on does not draw the same points again.
            seed = derived_seed(self._config.run.seed, "optuna", number) % 2**32
            self._study.sampler = TPESampler(seed=seed)
            trial = self._study.ask()
            yield trial, self._suggested(trial)
        for point in self._space.grid() if self._finite else ():
            if self._key(point) not in self._points:
                yield self._enqueued(point), point

    def _enqueued(self, point: Mapping[str, Any]) -> optuna.Trial:
        """Have Optuna choose a point that is given."""
        self._study.enqueue_trial({name: outward(value) for name, value in point.items()})
        return self._study.ask(self._distributions(point))

    def _images(self, trial: Trial) -> int:
        """Return the images that a trial sees: of one that was stopped, until then."""
        if trial.name not in self._seen:
            if result_of(trial) is None:
                return trial.images
            self._seen[trial.name] = stopped_images(trial.plan) or trial.images
        return self._seen[trial.name]

    def _suggested(self, trial: optuna.Trial) -> dict[str, Any]:
        """Have Optuna choose the values of a point, one after the other."""
        point: dict[str, Any] = {}
        for name in self._space.vary:
            values = self._space.values(name, point)
            if values is None:
                continue
            distribution = distribution_of(values)
            if isinstance(distribution, CategoricalDistribution):
                point[name] = _inward(trial.suggest_categorical(name, distribution.choices), values)
            elif isinstance(distribution, IntDistribution):
                point[name] = trial.suggest_int(
                    name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
                )
            elif isinstance(distribution, FloatDistribution):
                point[name] = trial.suggest_float(
                    name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
                )
        return point

    def _point_of(self, stored: FrozenTrial) -> dict[str, Any] | None:
        """Return the point of a trial of the study; ``None`` if it is none of the space."""
        point: dict[str, Any] = {}
        for name in self._space.vary:
            values = self._space.values(name, point)
            if values is None:
                continue
            if name not in stored.params:
                return None
            value = stored.params[name]
            possible = [one for one in _choices(values) or [value] if outward(one) == value]
            if not possible or not _within(value, values):
                return None
            point[name] = possible[0]
        return point if point.keys() == stored.params.keys() else None

    def _distributions(self, point: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        found = {name: self._space.values(name, point) for name in point}
        return {name: distribution_of(values) for name, values in found.items() if values is not None}

    def _plan(self, point: dict[str, Any]) -> _Asked:
        first = self._config.run.seed
        seeds = range(first, first + self._space.seeds)
        return _Asked(point, tuple(plan_trial(self._space, self._config, self._folder, point, seed) for seed in seeds))

    def _key(self, point: Mapping[str, Any]) -> str:
        return trial_name(point, config_of(self._space, self._config, point, self._config.run.seed))

    def _key_of(self, stored: FrozenTrial) -> str | None:
        point = self._point_of(stored)
        return None if point is None or stored.state == TrialState.FAIL else self._key(point)


def distribution_of(values: Sequence[Any] | Domain) -> BaseDistribution:
    """Return Optuna's distribution of the values of an option: a list's are choices, without an order.

    Args:
        values: a list, or a distribution of Ray Tune's with bounds. Those exclude the upper one unless they are rounded
            to multiples of a number; Optuna's include it. On a logarithmic scale Optuna knows no rounding, which is
            left out there.
    """
    choices = _choices(values)
    if choices is not None:
        return CategoricalDistribution([outward(value) for value in choices])
    assert isinstance(values, Float | Integer)
    sampler, step = values.get_sampler(), None
    low, high = bounds(values)
    if isinstance(sampler, Quantized):
        sampler, step = sampler.get_sampler(), sampler.q
    log = isinstance(sampler, LogUniform)
    if log:
        step = None
    if isinstance(values, Integer):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def _choices(values: Sequence[Any] | Domain) -> list[Any] | None:
    """Return the values of a list, or those of ``tune.choice``; ``None`` for other distributions."""
    if not isinstance(values, Domain):
        return list(values)
    categories = getattr(values, "categories", None)
    return None if categories is None else list(categories)


def outward(value: Any) -> CategoricalChoiceType:
    """Return what stands for a value in the study, which holds numbers and words: a list is its JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _inward(chosen: CategoricalChoiceType, values: Sequence[Any] | Domain) -> Any:
    return next(value for value in _choices(values) or () if outward(value) == chosen)


def _possible(name: str, values: Sequence[Any] | Domain, options: Mapping[str, Any]) -> list[Any]:
    """Return the values of the space that an option may have been given, by the options of a run."""
    choices = _choices(values)
    if name == "preset":
        return choices or []  # its options stand in the config, its name does not
    value = options.get(name)
    if choices is not None:
        return [one for one in choices if one == value or json.dumps(one) == json.dumps(value)]
    return [value] if _within(value, values) else []


def _within(value: Any, values: Sequence[Any] | Domain) -> bool:
    """Return whether a distribution may give a number; a value from a list always is of it."""
    distribution = distribution_of(values)
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        return True
    if not isinstance(value, int | float) or not distribution.low <= value <= distribution.high:
        return False
    steps = (value - distribution.low) / (distribution.step or 1)
    return distribution.step is None or abs(steps - round(steps)) < 1e-8  # as Optuna has it
