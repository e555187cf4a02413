"""Search spaces: plain declarations of what varies and what is measured."""

import importlib.util
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt
from ray.tune.search.sample import Domain, Float, Integer, Quantized

from genlab.core.errors import ConfigError
from genlab.core.seeds import derived_seed
from genlab.recipes.recipe import preset_values

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class When:
    """The values of an option that is varied only where another option has certain values.

    Elsewhere the option keeps the value that it has for all trials:
    ``"model.discriminator_layers": When("model.discriminator", ["patch"], [2, 3, 4])``.
    """

    option: str
    """The other option, by its dotted name, which the space varies too, further up."""
    among: Sequence[Any]
    """The values of that option with which this one is varied."""
    values: Sequence[Any] | Domain
    """The values of this one: a list, or a distribution of Ray Tune's."""


@dataclass(frozen=True)
class Budget:
    """How much a sweep may train. The smallest of the limits that are given counts."""

    trials: Annotated[int, Ge(1)] | None = None
    """Trials to train, those of all seeds. A search needs it or `images`; a larger grid is refused."""
    images: Annotated[int, Ge(1)] | None = None
    """Images that all trials together may see, each trained to its end; of a search those that are stopped count with
    what they saw."""
    hours: Annotated[float, Gt(0)] | None = None
    """Hours after which no further trial starts; those that run are trained to their end. The same command goes on."""

    def limited_by(self, other: "Budget") -> "Budget":
        """Return this budget with the limits that ``other`` gives in place of its own."""
        given = {one.name: getattr(other, one.name) for one in fields(Budget)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving (Li et al. 2020): of the trials at a rung only the best fraction goes on.

    Rungs are ``grace``, ``grace * reduction``, ``grace * reduction**2``, ... images, as long as that is less than a
    trial sees. Whoever reaches one is compared with those before: none waits for others.

    With several brackets it is asynchronous Hyperband (Li et al. 2018, 2020): trials are compared within their bracket,
    and each bracket begins a rung later than the one before, so that a wrong ``grace`` costs only a part of the trials.
    """

    grace: int
    """Images that each trial sees before it may be stopped."""
    reduction: float = 3.0
    """One in so many goes on at each rung; and how many times as many images the next one has."""
    brackets: int = 1
    """How many brackets there are, at most one more than rungs: the trials of that one are not stopped."""

    def bracket(self, name: str, images: int) -> int:
        """Return the bracket of a trial, from 0: a pure function of its name, so that it stays what it is.

        Each bracket is to train on as many images in all: so one whose trials are stopped earlier has more of them.

        Args:
            name: the trial's name.
            images: images that a trial sees that is not stopped.
        """
        ends = [*self.rungs(images), images]
        weights = []
        for first in range(min(self.brackets, len(ends))):
            reached = zip(ends[first:], ends[first + 1 :], strict=False)
            more = ((end - rung) / self.reduction**number for number, (rung, end) in enumerate(reached, 1))
            weights.append(1 / (ends[first] + sum(more)))
        place = derived_seed("bracket", name) / 2**63 * sum(weights)
        return sum(place >= sum(weights[:number]) for number in range(1, len(weights)))

    def rungs(self, images: int) -> list[int]:
        """Return the rungs, in images, of a trial that sees ``images``."""
        found = [self.grace]
        while found[-1] * self.reduction < images:
            found.append(math.ceil(found[-1] * self.reduction))
        return [rung for rung in found if rung < images]


@dataclass(frozen=True)
class Median:
    """Median stopping (Golovin et al. 2017): a trial stops whose best so far is worse than the median of the others.

    A trial's best is compared with the means of the others over all their rungs up to there, from three others on.
    """

    grace: int
    """Images that each trial sees before it may be stopped."""
    every: int
    """Images from rung to rung."""

    def rungs(self, images: int) -> list[int]:
        """Return the rungs, in images, of a trial that sees ``images``."""
        return list(range(self.grace, images, self.every))


@dataclass(frozen=True)
class Pbt:
    """Population based training (Jaderberg et al. 2017): the worst trials go on as copies of the best, changed.

    The trials of the space are the population. All are measured at rungs, every so many images; who is among the worst
    there ends, and a new run goes on in its place: from the checkpoint of one of the best (exploit), with its values of
    the options that vary, of which each is changed (explore). A number of a distribution is multiplied by one of
    ``factors``, and stays within its bounds; a value of a list moves to a neighbour; or it is drawn anew.
    """

    every: int
    """Images from rung to rung."""
    quantile: float = 0.25
    """Share of the population that is replaced at each rung, by copies of as large a share of the best."""
    resample: float = 0.25
    """Probability with which an option's value is drawn anew."""
    factors: Sequence[float] = (0.8, 1.2)
    """What numbers are multiplied by: one of these, at random."""

    def rungs(self, images: int) -> list[int]:
        """Return the rungs, in images, of a trial that sees ``images``."""
        return list(range(self.every, images, self.every))

    def replaced(self, members: int) -> int:
        """Return how many of a population are replaced at a rung, but for those that failed."""
        return min(math.ceil(self.quantile * members), members // 2)


@dataclass(frozen=True)
class Space:
    """What varies in the trials of a sweep, and what they are compared by.

    The file of a search space assigns one to ``SPACE``.
    """

    family: str
    """Name of the model family."""
    vary: Mapping[str, Sequence[Any] | Domain | When]
    """The values that each option may take, by its dotted name: a list, a distribution of Ray Tune's
    (``tune.loguniform(0.1, 100)``), or either :class:`When` another option has certain values. ``preset`` stands for
    names of presets of the family, whose options no option beside it changes back."""
    metric: str | Sequence[str]
    """The number that trials are compared by: a metric of the rows that choices are made on, such as ``val/neg_elbo``,
    or a score of the run's report, such as ``score/translation.a_to_b.gain``. Several, such as ``["val/kid",
    "val/cycle_a"]``, are traded off: the sweep ends with their Pareto front."""
    mode: Mode | Sequence[Mode]
    """Whether the lowest or the highest number is the best: ``min`` or ``max``, for several metrics one for each."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """Options that are the same in all trials and differ from the family's defaults; ``preset`` as in ``vary``."""
    searcher: Literal["grid", "random", "optuna"] = "grid"
    """grid: every combination of lists. random: independent draws, from lists uniformly. optuna: draws that learn from
    the trials before, by the tree-structured Parzen estimator (Bergstra et al. 2011)."""
    scheduler: Asha | Median | Pbt | None = None
    """Which trials are stopped early, or replaced, by the metric at rungs; without it each is trained to its end."""
    budget: Budget = field(default_factory=Budget)
    """How much the sweep may train."""
    seeds: int = 1
    """Trials of each point, with as many values of ``run.seed``, from the one of the config on."""
    keep: int = 3
    """How many of the best trials keep their checkpoints, from which they can be trained on. All keep their models."""
    per_gpu: int = 1
    """How many trials, of one worker each, share a GPU and its memory, on clusters that have GPUs."""

    @property
    def objectives(self) -> dict[str, Mode]:
        """Whether the lowest or the highest is the best, by metric."""
        metrics = [self.metric] if isinstance(self.metric, str) else self.metric
        modes = [self.mode] if isinstance(self.mode, str) else self.mode
        return dict(zip(metrics, modes, strict=True))

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield every combination of the values of lists; the last option varies fastest."""
        yield from self._combinations({}, list(self.vary))

    def draws(self, seed: int) -> Iterator[dict[str, Any]]:
        """Yield random points without end. Each value is a pure function of (seed, number of the point, option)."""
        number = 0
        while True:
            point: dict[str, Any] = {}
            for name in self.vary:
                values = self.values(name, point)
                if values is not None:
                    point[name] = drawn(values, derived_seed(seed, "point", number, name))
            yield point
            number += 1

    def values(self, name: str, point: Mapping[str, Any]) -> Sequence[Any] | Domain | None:
        """Return the values that an option may take beside those of ``point``; ``None`` where it is not varied."""
        values = self.vary[name]
        if not isinstance(values, When):
            return values
        return values.values if values.option in point and point[values.option] in values.among else None

    def options(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a point or of ``base``, by dotted name, those of its preset among them.

        Raises:
            ConfigError: when the family has no such preset.
        """
        options = dict(point)
        preset = options.pop("preset", None)
        return options if preset is None else dict(preset_values(self.family, preset)) | options

    def _combinations(self, point: dict[str, Any], names: list[str]) -> Iterator[dict[str, Any]]:
        if not names:
            yield point
            return
        name, *others = names
        values = self.values(name, point)
        if values is None:
            yield from self._combinations(point, others)
        elif not isinstance(values, Domain):
            for value in values:
                yield from self._combinations(point | {name: value}, others)


def drawn(values: Sequence[Any] | Domain, seed: int) -> Any:
    """Draw one of ``values``, a pure function of ``seed``."""
    random = np.random.default_rng(seed)
    if isinstance(values, Domain):
        value = values.sample(random_state=random)
    else:
        value = values[int(random.integers(len(values)))]
    return value.item() if isinstance(value, np.generic) else value


def bounds(values: Float | Integer) -> tuple[Any, Any]:
    """Return the least and the greatest value that a distribution with bounds gives.

    Ray Tune's exclude the upper bound unless they are rounded.
    """
    sampler = values.get_sampler()
    if isinstance(sampler, Quantized):
        step = sampler.q
        if isinstance(values, Integer):
            return math.ceil(values.lower / step) * step, math.floor(values.upper / step) * step
        return values.lower, values.upper  # multiples of the step
    if isinstance(values, Integer):
        return values.lower, values.upper - 1
    return values.lower, math.nextafter(values.upper, values.lower)


def load_space(path: str) -> Space:
    """Load the ``SPACE`` of a Python file.

    Raises:
        ConfigError: when there is no such file, it has an error, which the message names with its line, or it declares
            no space.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a search space, which genlab sweep --help explains")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path}{_place_and_cause(error, spec.origin)}") from error
    space = getattr(module, "SPACE", None)
    if not isinstance(space, Space):
        raise ConfigError(f"{path}: declares no SPACE = Space(...)")
    return space


def _place_and_cause(error: Exception, file: str | None) -> str:
    """Return the line of ``file`` that an error comes from, where there is one, and what it says."""
    line, cause = None, str(error)
    if isinstance(error, SyntaxError) and error.filename == file:
        line, cause = error.lineno, error.msg
    elif own := [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]:
        line = own[-1].lineno
    place = "" if line is None else f", line {line}"
    return f"{place}: {type(error).__name__}: {cause}".removesuffix(": ")
