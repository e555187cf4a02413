"""Population based training: at rungs the worst trials go on as changed copies of the best.

The members of a population are trained from rung to rung, and wait there for each other. So who is replaced by a copy
of whom is a function of what was measured, the space and the seed, whatever the machine and whoever came first. It is
written to ``population.json`` in the sweep's folder before any copy starts: a sweep that is started again has the same
population.

Ray Tune's own scheduler of this name is not used: it draws from Python's global random numbers, compares members that
have seen different numbers of images, goes on in the parent's place under the member's old name, and keeps what it
decided in a pickle that a kill may leave behind the runs or ahead of them.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray.tune.search.sample import Domain, Integer, Quantized
from upath import UPath

from genlab.core.errors import ConfigError, RunError
from genlab.core.seeds import derived_seed
from genlab.core.storage import exists, locate, read_json, write_json
from genlab.core.text import counted
from genlab.sweeps.space import Pbt, Space, bounds, drawn
from genlab.sweeps.stopping import measured_steps
from genlab.sweeps.trials import (
    Origin,
    Trial,
    config_of,
    plan_run,
    record_stop,
    result_of,
    stop_of,
    trial_name,
)
from genlab.training.branch import Branch
from genlab.training.checkpoints import Checkpoints
from genlab.training.rung import Rung

FILE_NAME = "population.json"
"""Name of the file in the sweep's folder that says, for each rung, what was measured and who was replaced."""


class Population:
    """The trials of a sweep with :class:`Pbt`: those of the population, and those that they were replaced by.

    Args:
        space: the space.
        config: the config of all trials.
        folder: the sweep's folder.
        first: the trials of the space, whose points the population begins with.

    Raises:
        ConfigError: when there are fewer than two, or those of the folder's ``population.json`` are others.
    """

    def __init__(self, space: Space, config: Any, folder: UPath, first: Sequence[Trial]) -> None:
        assert isinstance(space.scheduler, Pbt)
        if len(first) < 2:
            raise ConfigError("Pbt: a population has at least two trials; give more values, or a larger budget")
        self._space = space
        self._pbt = space.scheduler
        ((self._metric, self._mode),) = space.objectives.items()
        self._config = config
        self._folder = folder
        self.most = len(first)
        self._rungs = first[0].plan.rungs
        self._batch = first[0].plan.run.batch
        rules = {
            "metric": space.metric,
            "mode": space.mode,
            "scheduler": dataclasses.asdict(self._pbt),
            "images of a trial": first[0].images,
            "points": [trial.point for trial in first],
        }
        self._rules: dict[str, Any] = json.loads(json.dumps(rules))
        self._members = [self._plan(number, trial.point) for number, trial in enumerate(first)]
        self.trials: list[Trial] = list(self._members)
        self.faults: dict[str, str] = {}
        """Why members failed, by name; those that were replaced for it are never trained again."""
        self._rounds: list[dict[str, Any]] = self._read()
        for decided in self._rounds:
            self._apply(decided)
        self._waiting: list[Trial] = []
        self._trained: set[str] = set()  # Members that have not come to the next rung.
        self._held_back: set[str] = set()  # Those that failed by no fault of their own; a later start trains them.
        self._reported: set[str] = set()  # Trials that were replaced, and given out for their reports.
        self._line_up()

    def __str__(self) -> str:
        """Return what the population is, and how far, in a sentence."""
        copies = len(self.trials) - self.most
        return (
            f"a population of {counted(self.most, 'trial')}, measured at {counted(len(self._rungs), 'rung')}, of which "
            f"{len(self._rounds)} are behind it; {counted(copies, 'trial')} replaced so far"
        )

    @property
    def left(self) -> int:
        """How many times a trial is given out: members from rung to rung, and those that lack their reports now."""
        rungs = len(self._rungs) - len(self._rounds)
        return len(self._waiting) + rungs * self.most

    @property
    def waits(self) -> bool:
        """Whether members are trained now, after which others go on."""
        return bool(self._trained) and self._next_rung is not None

    def next(self) -> Trial | None:
        """Return a member that is to be trained to the next rung, or one that was replaced and lacks its report."""
        if not self._waiting:
            return None
        trial = self._waiting.pop(0)
        if trial.name not in self._trained:
            self._reported.add(trial.name)
        return trial

    def ended(self, trial: Trial, fault: str | None = None, *, own: bool = True) -> None:
        """Take note that a member has come to its rung or failed; once all have, decide who is replaced.

        For one that failed by no fault of its own, the others wait until a later start of the sweep has trained it.
        """
        if trial.name not in self._trained:
            return  # It had been replaced.
        come = self._has_come(trial)
        if fault is not None and not own:
            self._held_back |= set() if come else {trial.name}
        elif fault is not None or not come:
            self.faults[trial.name] = fault or "it was not measured at its rung"
        self._trained.discard(trial.name)
        if not self._trained:
            self._line_up()

    @property
    def _next_rung(self) -> int | None:
        """The step of the next rung at which members wait for each other; ``None`` on the way to the end."""
        return self._rungs[len(self._rounds)] if len(self._rounds) < len(self._rungs) else None

    def _line_up(self) -> None:
        """Line up what is to be trained before the next decision; decide what can be decided without."""
        while True:
            healthy = [one for one in self._members if one.name not in self.faults]
            going = [one for one in healthy if not self._has_come(one)]
            if going or self._next_rung is None or not healthy:
                break
            self._decide()
        going = [one for one in going if one.name not in self._held_back]
        self._trained = {one.name for one in going}
        last = self._rounds[-1]["step"] if self._rounds else 0
        branches = [one.plan.branch for one in self._members if one.plan.branch]
        parents = {branch.path for branch in branches if branch.step == last}
        self._waiting = []
        for one in going:
            spared = (last,) if one.plan.directory in parents else ()
            self._waiting.append(replace(one, until=self._next_rung, plan=replace(one.plan, spared=spared)))
        done = self._reported | self.faults.keys() | {one.name for one in self._members}
        self._waiting += [one for one in self.trials if one.name not in done and result_of(one) is None]

    def _has_come(self, member: Trial) -> bool:
        """Return whether a member was measured at the next rung and wrote its checkpoint, or ended after the last."""
        rung = self._next_rung
        if rung is None:
            return result_of(member) is not None
        steps = Checkpoints(locate(member.plan.directory) / "checkpoints", keep=1).steps()
        return rung in steps and rung in measured_steps(member.plan, self._metric)

    def _decide(self) -> None:
        """Decide who is replaced at the next rung, and write it down."""
        rung = self._next_rung
        assert rung is not None
        healthy = [one for one in self._members if one.name not in self.faults]
        measured = {one.name: measured_steps(one.plan, self._metric)[rung] for one in healthy}

        def cost(member: Trial) -> float:
            value = measured.get(member.name, math.nan)
            return math.inf if not math.isfinite(value) else value if self._mode == "min" else -value

        order = sorted(self._members, key=lambda one: (one.name in self.faults, cost(one)))
        number = self._pbt.replaced(self.most)
        worst = {one.name for one in order[-number:]} | self.faults.keys()
        best = [one for one in order[:number] if math.isfinite(cost(one))] or order[:1]
        seed = self._config.run.seed
        replaced = []
        for place, member in enumerate(self._members):
            if member.name in worst:
                chance = derived_seed(seed, "exploit", rung, place)
                parent = best[int(np.random.default_rng(chance).integers(len(best)))]
                point = {
                    name: explored(
                        self._space.vary[name], value, self._pbt, derived_seed(seed, "explore", rung, place, name)
                    )
                    for name, value in parent.point.items()
                }
                try:
                    self._plan(place, point, parent, rung)
                except ConfigError:  # Values that are each right may contradict each other.
                    point = dict(parent.point)
                replaced.append({"member": place, "trial": member.name, "parent": parent.name, "point": point})
        decided = {
            "step": rung,
            "images": rung * self._batch,
            "measured": {name: value if math.isfinite(value) else None for name, value in measured.items()},
            "failed": {one.name: self.faults[one.name] for one in self._members if one.name in self.faults},
            "replaced": replaced,
        }
        decided = json.loads(json.dumps(decided))
        write_json(self._folder / FILE_NAME, {**self._rules, "rungs": [*self._rounds, decided]})
        self._rounds.append(decided)
        self._apply(decided)

    def _apply(self, decided: Mapping[str, Any]) -> None:
        """Put copies in the place of members, and have the runs of these end where they are."""
        self.faults |= decided["failed"]
        by_name = {one.name: one for one in self.trials}
        for one in decided["replaced"]:
            old = self._members[one["member"]]
            if old.name != one["trial"] or one["parent"] not in by_name:
                raise RunError(f"{self._folder / FILE_NAME}: tells of other trials than those of this sweep; delete it")
            if old.name not in self.faults and stop_of(old.plan) is None:
                measured = {self._metric: decided["measured"][old.name]}
                record_stop(old.plan, Rung(decided["step"], decided["images"], measured))
            copy = self._plan(one["member"], one["point"], by_name[one["parent"]], decided["step"])
            self._members[one["member"]] = copy
            self.trials.append(copy)

    def _plan(self, number: int, point: dict[str, Any], parent: Trial | None = None, step: int = 0) -> Trial:
        """Plan the trial of a member.

        Args:
            number: the member's place in the population.
            point: the values of the options that vary.
            parent: the trial that it branches off; ``None`` for one that begins by itself.
            step: the rung at which it does.
        """
        changed = config_of(self._space, self._config, point, self._config.run.seed)
        lineage = {"member": number, "parent": parent.name if parent else None, "step": step}
        branch = Branch(parent.plan.directory, step) if parent else None
        plan = plan_run(self._space, changed, self._folder, trial_name(point, changed, lineage), branch)
        return Trial(point, plan, Origin(parent.name, step * self._batch) if parent else None)

    def _read(self) -> list[dict[str, Any]]:
        """Read what was decided at earlier rungs.

        Raises:
            ConfigError: when that was of another population.
        """
        file = self._folder / FILE_NAME
        found = read_json(file) if exists(file) else {"rungs": []}
        rounds: list[dict[str, Any]] = found.pop("rungs")
        changed = [name for name, rule in self._rules.items() if found.get(name) != rule]
        if rounds and changed:
            raise ConfigError(
                f"{file}: of a population with other {' and '.join(changed)}; give the sweep another --run.name"
            )
        return rounds


def explored(values: Any, value: Any, pbt: Pbt, seed: int) -> Any:
    """Return the value of an option near that of the best, or another that is drawn anew.

    Args:
        values: a list or a distribution of Ray Tune's.
        value: the value of the trial that is copied.
        pbt: how it is changed.
        seed: what is drawn is a pure function of it.
    """
    random = np.random.default_rng(seed)
    if random.random() < pbt.resample:
        return drawn(values, derived_seed(seed, "anew"))
    choices = getattr(values, "categories", None) if isinstance(values, Domain) else values
    if choices is not None:
        place = [json.dumps(one) for one in choices].index(json.dumps(value))
        return choices[min(max(place + int(random.choice([-1, 1])), 0), len(choices) - 1)]
    found = value * float(random.choice(np.asarray(pbt.factors)))
    sampler, (low, high) = values.get_sampler(), bounds(values)
    if isinstance(sampler, Quantized):
        found = round(found / sampler.q) * sampler.q
    if isinstance(values, Integer):
        found = round(found)
    return min(max(found, low), high)
