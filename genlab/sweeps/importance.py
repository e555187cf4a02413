"""How much the options of a sweep matter, and how sure that is."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from genlab.core.seeds import derived_seed
from genlab.sweeps.ranking import PointResult
from genlab.sweeps.space import Mode, Space
from genlab.sweeps.study import distribution_of, outward

FEWEST = 20
"""The fewest trials that have ended: with fewer, importances are chance."""
BEST_SHARE = 0.1
"""The share of trials, the best ones, that are compared with all."""
DRAWS = 100


def why_none(space: Space, points: Sequence[PointResult], metric: str) -> str:
    """Return why nothing is known of how much the options matter for a metric; empty where something is.

    Args:
        space: the space.
        points: the points that have the metric.
        metric: the metric.
    """
    values = [value for point in points for value in point.values(metric)]
    if len(values) < FEWEST:
        return f"{len(values)} of {FEWEST} trials have ended with a finite {metric}"
    if len(_varied(space, points)) < 2:
        return "fewer than two options have several values and vary in all points"
    if not _best_differ(values, space.objectives[metric]):
        return f"too few trials differ in {metric} to tell a best tenth from the others"
    return ""


def importances(space: Space, points: Sequence[PointResult], metric: str) -> dict[str, list[float]]:
    """Return how much each option tells the best tenth of the trials from all, as shares of 1.

    It is PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), of options that vary in all points.

    Args:
        space: the space.
        points: the points that have the metric.
        metric: the metric.

    Returns:
        By option, the share of all trials, then those of 100 bootstrap draws of the points; none where
        :func:`why_none` gives a reason.
    """
    if why_none(space, points, metric):
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options, mode = _varied(space, points), space.objectives[metric]
    trials = [_trials(space, point, options, metric) for point in points]
    found: dict[str, list[float]] = {name: [] for name in options}
    for draw in range(DRAWS + 1):
        random = np.random.default_rng(derived_seed(0, "importance", draw))
        rows = random.integers(len(trials), size=len(trials)) if draw else range(len(trials))
        shares = _shares([trial for row in rows for trial in trials[row]], mode)
        for name, values in found.items():
            values.append(shares.get(name, 1 / len(options)))
    return found


def _varied(space: Space, points: Sequence[PointResult]) -> list[str]:
    """Return the options that all points have, and that have different values in some."""
    common = [name for name in space.vary if all(name in point.point for point in points)]
    return [name for name in common if len({repr(point.point[name]) for point in points}) > 1]


def _best_differ(values: Sequence[float], mode: Mode) -> bool:
    """Return whether the best tenth, and those as good as its last, are not all trials."""
    ordered = sorted(values, reverse=mode == "max")
    return ordered[math.ceil(BEST_SHARE * len(ordered)) - 1] != ordered[-1]


def _shares(trials: Sequence[FrozenTrial], mode: Mode) -> dict[str, float]:
    """Return the importance of each option; none where the best trials of a draw cannot be told from all."""
    if not _best_differ([trial.value for trial in trials if trial.value is not None], mode):
        return {}
    study = optuna.create_study(direction="minimize" if mode == "min" else "maximize")
    study.add_trials(trials)
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE))


def _trials(space: Space, point: PointResult, options: Sequence[str], metric: str) -> list[FrozenTrial]:
    declared = {name: space.values(name, point.point) for name in options}
    distributions = {name: distribution_of(values) for name, values in declared.items() if values is not None}
    params = {name: _within(outward(point.point[name]), distribution) for name, distribution in distributions.items()}
    return [create_trial(params=params, distributions=distributions, value=value) for value in point.values(metric)]


def _within(value: Any, distribution: BaseDistribution) -> Any:
    """Return a value as its distribution has it: by rounding to a step, numbers lie beyond its ends by some 1e-17."""
    if isinstance(distribution, IntDistribution | FloatDistribution):
        return min(max(value, distribution.low), distribution.high)
    return value
