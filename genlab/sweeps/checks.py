"""What is refused before any trial of a sweep starts: in the space itself, then in the plans of its trials."""

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import torch
from ray.tune.search.sample import Domain, Float, Integer, LogUniform, Quantized

from genlab.core.config import override, validate
from genlab.core.errors import ConfigError
from genlab.core.text import counted
from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import VALIDATION
from genlab.evaluation.evaluate import picture_measurements
from genlab.proofs.describe import names_of_test_metrics
from genlab.recipes.recipe import preset_values, recipe_type
from genlab.reports.family import family_report
from genlab.sweeps.space import Asha, Median, Mode, Pbt, Space, When, bounds, drawn
from genlab.sweeps.trials import SEED
from genlab.training.plan import Plan, build_on_meta
from genlab.training.state import TrainingState

OWN_OPTIONS = {
    "run.name": "since the sweep sets it",
    "run.storage": "since the sweep sets it",
    "run.threads": "since the sweep sets it, for as many trials side by side as the cluster has room for",
    "run.workers": "since room is reserved for trials of one size; train a sweep for each",
}
"""Options that no space varies, and why."""
PERTURBED = ("objective.", "optimization.")
"""Beginnings of the names of options that may change while a run is trained: a function of the steps to come alone."""
DRAWS = 16
"""Draws of a distribution that are checked besides its ends: it may be one of another type."""
ENDS = 2
"""Values of a distribution with which networks are built to see whether they have the same shapes: its ends."""


def check_space(space: Space, config: Any) -> None:
    """Refuse a space whose options or values the family does not have.

    Args:
        space: the search space.
        config: the config of all trials, which its points change.

    Raises:
        ConfigError: with the name and the value, and what is allowed or the nearest name.
    """
    if not space.vary:
        raise ConfigError("the space varies nothing; its vary needs an option with its values")
    searchers = get_args(get_type_hints(Space)["searcher"])
    if space.searcher not in searchers:
        raise ConfigError(f"searcher = {space.searcher!r}: there are {', '.join(searchers)}")
    if not isinstance(space.scheduler, Asha | Median | Pbt | None):
        raise ConfigError(f"scheduler = {space.scheduler!r}: give Asha(...), Median(...) or Pbt(...)")
    if not isinstance(space.keep, int) or space.keep < 0:
        raise ConfigError(f"keep = {space.keep!r}: a number of trials, from 0 on")
    validate(space.budget)
    _check_objectives(space)
    if not isinstance(space.seeds, int) or space.seeds < 1:
        raise ConfigError(f"seeds = {space.seeds!r}: a sweep has at least one seed")
    if not isinstance(space.per_gpu, int) or space.per_gpu < 1:
        raise ConfigError(f"per_gpu = {space.per_gpu!r}: a GPU is taken by one trial at least")
    if space.per_gpu > 1 and config.run.workers > 1:
        raise ConfigError(
            f"per_gpu = {space.per_gpu}: trials of one worker can share a GPU, and run.workers = {config.run.workers}"
        )
    if space.seeds > 1 and SEED in space.vary:
        raise ConfigError(f"{SEED}: varied, and set by seeds = {space.seeds}, too; leave one of them out")
    if space.scheduler is not None:
        _check_numbers(space.scheduler)
        _check_scheduler(space, space.scheduler)
    earlier: dict[str, Sequence[Any] | Domain] = {}
    for name, declared in space.vary.items():
        values = declared
        if isinstance(declared, When):
            _check_condition(name, declared, earlier)
            values = declared.values
        if name in OWN_OPTIONS:
            raise ConfigError(f"{name}: cannot be varied, {OWN_OPTIONS[name]}")
        if isinstance(values, str) or not isinstance(values, Sequence | Domain):
            raise ConfigError(f"{name} = {values!r}: give a list of values, or a distribution like tune.uniform(0, 1)")
        if isinstance(values, Domain) and space.searcher == "grid":
            raise ConfigError(
                f'{name}: a grid takes lists of values; for a distribution set searcher="random" or "optuna"'
            )
        if space.searcher == "optuna":
            _check_searched(name, values)
        for value in _samples(name, values):
            if name == "preset":
                preset_values(space.family, value)
            else:
                override(config, {name: value})
        earlier[name] = values
    if space.searcher != "grid" and space.budget.trials is None and space.budget.images is None:
        raise ConfigError(f"searcher {space.searcher!r} needs a budget: budget=Budget(trials=24), or --sweep.trials 24")


def _check_numbers(scheduler: Asha | Median | Pbt) -> None:
    """Refuse fields of a scheduler that are no numbers, or no whole ones where images are counted."""
    for name, kind in get_type_hints(type(scheduler)).items():
        value = getattr(scheduler, name)
        if kind is int and not isinstance(value, int):
            raise ConfigError(f"{type(scheduler).__name__}: {name} = {value!r}: give a whole number, such as 10_000")
        values = value if name == "factors" else [value]
        if not isinstance(values, Sequence) or not all(isinstance(one, int | float) for one in values):
            raise ConfigError(f"{type(scheduler).__name__}: {name} = {value!r}: should be of numbers")


def _check_scheduler(space: Space, scheduler: Asha | Median | Pbt) -> None:
    """Refuse what a scheduler cannot stop trials by."""
    name = type(scheduler).__name__
    does = "replaces" if isinstance(scheduler, Pbt) else "stops"
    if len(space.objectives) > 1:
        raise ConfigError(
            f"{name} {does} trials by one metric, and there are {len(space.objectives)}; name one, or leave the "
            'scheduler out: searcher="optuna" takes several'
        )
    if isinstance(scheduler, Pbt):
        _check_pbt(space, scheduler)
        return
    if space.seeds > 1:
        raise ConfigError(
            f"seeds = {space.seeds} with {name}: seeds of a point would be stopped at different times; search with one "
            "seed, then repeat the best points in a grid without a scheduler"
        )
    if scheduler.grace < 1:
        raise ConfigError(f"{name}: grace = {scheduler.grace}: a trial sees at least one image before it is stopped")
    if isinstance(scheduler, Asha) and scheduler.reduction <= 1:
        raise ConfigError(f"Asha: reduction = {scheduler.reduction:g}: should be greater than 1")
    if isinstance(scheduler, Asha) and scheduler.brackets < 1:
        raise ConfigError(f"Asha: brackets = {scheduler.brackets}: there is at least one")
    if isinstance(scheduler, Median) and scheduler.every < 1:
        raise ConfigError(f"Median: every = {scheduler.every}: rungs are at least an image apart")


def _check_pbt(space: Space, pbt: Pbt) -> None:
    """Refuse what a population cannot be trained by."""
    if space.searcher == "optuna":
        raise ConfigError(
            "Pbt chooses the values of copies itself, and takes no searcher that learns; the population begins with "
            'searcher="random", or with a grid'
        )
    if space.seeds > 1:
        raise ConfigError(
            f"seeds = {space.seeds} with Pbt: a copy goes on with the seed of its parent; train a second population "
            "with another --run.seed and --run.name"
        )
    for name, values in space.vary.items():
        if isinstance(values, When):
            raise ConfigError(f"{name}: varied only beside values of {values.option}; with Pbt all options vary always")
        if not name.startswith(PERTURBED):
            raise ConfigError(
                f"{name}: decides what a run is from its first step on; Pbt changes options while a run is trained, "
                "those of optimization and objective"
            )
    if pbt.every < 1:
        raise ConfigError(f"Pbt: every = {pbt.every}: rungs are at least an image apart")
    if not 0 < pbt.quantile <= 0.5:
        raise ConfigError(f"Pbt: quantile = {pbt.quantile:g}: should be greater than 0, and at most 0.5")
    if not 0 <= pbt.resample <= 1:
        raise ConfigError(f"Pbt: resample = {pbt.resample:g}: a probability, 0 to 1")
    if not pbt.factors or min(pbt.factors) <= 0:
        raise ConfigError(f"Pbt: factors = {tuple(pbt.factors)!r}: give one or more, greater than 0")


def check_population(space: Space, plan: Plan) -> None:
    """Refuse values with which the checkpoint of another trial could not be gone on from.

    Args:
        space: a space with :class:`Pbt`.
        plan: the run of one of its trials.

    Raises:
        ConfigError: with the option and the value.
    """
    infos = {name: domain.info for name, domain in plan.domains.items()}

    def described(config: Any) -> dict[str, tuple[Any, ...]]:
        state = TrainingState(build_on_meta(plan.family, config, infos), torch.device("meta")).tensors()
        return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}

    expected = described(plan.config)
    for name, values in space.vary.items():
        assert not isinstance(values, When)
        for value in itertools.islice(_samples(name, values), ENDS if isinstance(values, Domain) else None):
            found = described(override(plan.config, {name: value}))
            differing = sorted(one for one in expected.keys() | found.keys() if expected.get(one) != found.get(one))
            if differing:
                raise ConfigError(
                    f"{name} = {value!r}: changes what a checkpoint holds ({differing[0]}), so with Pbt a copy could "
                    "not go on from that of another trial"
                )


def _check_objectives(space: Space) -> None:
    metrics = [space.metric] if isinstance(space.metric, str) else list(space.metric)
    modes = [space.mode] if isinstance(space.mode, str) else list(space.mode)
    if not metrics or len(set(metrics)) < len(metrics):
        raise ConfigError(f"metric = {space.metric!r}: give the name of a metric, or several different ones")
    if len(metrics) != len(modes) or not set(modes) <= set(get_args(Mode)):
        raise ConfigError(f"mode = {space.mode!r}: give min or max for each metric ({', '.join(metrics)})")


def _check_searched(name: str, values: Sequence[Any] | Domain) -> None:
    """Refuse what a searcher cannot learn from."""
    if name == SEED:
        raise ConfigError(f"{SEED}: chance is nothing to search for; seeds=3 repeats each point")
    sampler = values.get_sampler() if isinstance(values, Domain) else None
    if isinstance(sampler, Quantized) and isinstance(sampler.get_sampler(), LogUniform):
        raise ConfigError(
            f"{name}: Optuna draws no rounded values on a logarithmic scale; give a list, or leave out the rounding"
        )


def _check_condition(name: str, condition: When, earlier: Mapping[str, Sequence[Any] | Domain]) -> None:
    if condition.option not in earlier:
        near = difflib.get_close_matches(condition.option, list(earlier), n=1)
        hint = f"did you mean {near[0]}?" if near else "the space must vary it, further up"
        raise ConfigError(f"{name}: varied only where {condition.option} has certain values; {hint}")
    values = earlier[condition.option]
    known = getattr(values, "categories", None) if isinstance(values, Domain) else values
    for value in condition.among:
        if known is not None and value not in known:
            raise ConfigError(f"{name}: varied only where {condition.option} is {value!r}, which it never is")
    if not condition.among:
        raise ConfigError(f"{name}: varied nowhere; name the values of {condition.option} with which it is varied")


def _samples(name: str, values: Sequence[Any] | Domain) -> Iterator[Any]:
    """Yield all of a list, or the ends of a distribution and some draws of it."""
    if not isinstance(values, Domain):
        if not values:
            raise ConfigError(f"{name}: the list of its values is empty")
        yield from values
        return
    if values.is_function():
        raise ConfigError(f"{name}: a function cannot be checked before the start; say When(...) an option is varied")
    categories = getattr(values, "categories", None)
    if categories is not None:
        yield from _samples(name, list(categories))
        return
    if not isinstance(values, Float | Integer) or not math.isfinite(values.lower) or not math.isfinite(values.upper):
        raise ConfigError(f"{name}: a distribution without bounds; use one with them, such as tune.uniform(0, 1)")
    yield from bounds(values)
    for number in range(DRAWS):
        yield drawn(values, number)


def check_plan(space: Space, plan: Plan) -> None:
    """Refuse a metric that the trained model of ``plan`` would not have, or that trials must not be compared by.

    Raises:
        ConfigError: with the name to use instead, or with what is missing.
    """
    sources = [*(f"data.{domain}" for domain in plan.domains), "data.test_split"]
    for name in sources:
        if name in space.vary:
            raise ConfigError(
                f"{name}: cannot be varied, since trials are compared on the same images; train a sweep for each"
            )
    for metric in space.objectives:
        _check_metric(metric, plan)
    if space.scheduler is not None:
        _check_rungs(space, space.scheduler, plan)


def _check_rungs(space: Space, scheduler: Asha | Median | Pbt, plan: Plan) -> None:
    """Refuse a metric that is not known at rungs, and rungs that no trial reaches."""
    name = type(scheduler).__name__
    (metric,) = space.objectives
    if metric.startswith("score/"):
        known = [one for one in metric_names(plan) if one.startswith("val/")]
        instead = " or ".join(known) or f"val/{recipe_type(plan.family).ranked_by}, and set run.evaluate_every"
        raise ConfigError(
            f"{name}: the metric {metric!r} exists when a trial has ended, and trials are compared earlier by one that "
            f"is measured at rungs; use {instead}"
        )
    images = plan.steps * plan.run.batch
    if not plan.rungs:
        if isinstance(scheduler, Pbt):
            raise ConfigError(f"Pbt: every {scheduler.every:,} images, and a trial sees {images:,}: none is replaced")
        raise ConfigError(f"{name}: grace = {scheduler.grace:,} images, and a trial sees {images:,}: none would stop")
    if isinstance(scheduler, Asha) and scheduler.brackets > len(scheduler.rungs(images)) + 1:
        rungs = counted(len(scheduler.rungs(images)), "rung")
        raise ConfigError(f"Asha: brackets = {scheduler.brackets}: at most one more than the {rungs} of a trial")


def _check_metric(metric: str, plan: Plan) -> None:
    kind, _, name = metric.partition("/")
    if kind == "test":
        raise ConfigError(
            f"the metric {metric!r} is of the images that results are reported on, which only the chosen trial is "
            f"measured on; trials are compared by 'val/{name}'"
        )
    data = ", ".join(f"data.{domain} = {one.url}" for domain, one in plan.domains.items())
    if plan.held_out.choice is None or plan.held_out.shared:
        raise ConfigError(
            f"trials are compared on the split {VALIDATION!r}, which is missing, and the split "
            f"{plan.config.data.test_split!r} is missing or too small to give half of it ({data}); ingest with "
            "--validation-fraction"
        )
    names = metric_names(plan)
    if metric in names:
        return
    if metric in metric_names(plan, evaluated=True):
        raise ConfigError(f"the metric {metric!r} is measured of evaluated checkpoints; set run.evaluate_every")
    near = difflib.get_close_matches(metric, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names) or 'none'}"
    note = ""
    if kind == "score" and not any(one.startswith("score/") for one in names):
        note = ". Scores against true counterparts exist for drawn scenes alone; leave out the data options"
    raise ConfigError(f"the metric {metric!r}: a {plan.family} on this data ({data}) has none; {hint}{note}")


def metric_names(plan: Plan, *, evaluated: bool = False) -> list[str]:
    """Return the names of the metrics by which trained models of ``plan`` can be compared.

    Args:
        plan: the run.
        evaluated: whether to add those of evaluated checkpoints where ``run.evaluate_every`` is not set.
    """
    shards = {name: ShardSet.open(domain.url) for name, domain in plan.domains.items()}
    recipe = build_on_meta(plan.family, plan.config, {name: domain.info for name, domain in plan.domains.items()})
    names = [f"val/{name}" for name in names_of_test_metrics(recipe)]
    if plan.run.evaluate_every or evaluated:
        names += [f"val/{name}" for name in picture_measurements(recipe.model(), shards)]
    report = family_report(plan.family)
    if report is not None:
        names += [f"score/{name}" for name in report.scores({name: one.manifest for name, one in shards.items()})]
    return list(dict.fromkeys(names))
