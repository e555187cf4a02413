"""How much the options of a sweep matter, and how sure that is."""

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from genlab.core.seeds import derived_seed
from genlab.sweeps.ranking import PointResult
from genlab.sweeps.space import Space
from genlab.sweeps.study import distribution_of, outward

FEWEST = 20
"""The fewest trials that have ended: with fewer, importances are chance."""
DRAWS = 100


def importances(space: Space, points: Sequence[PointResult], metric: str) -> dict[str, list[float]]:
    """Return how much each option tells the best tenth of the trials from all, as shares of 1.

    It is PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), of options that vary in all points.

    Args:
        space: the space.
        points: the points that have the metric.
        metric: the metric.

    Returns:
        By option, the share of all trials, then those of 100 bootstrap draws of the points; none where fewer than
        :data:`FEWEST` trials have ended, or fewer than two options vary in all points.
    """
    trials = [_trials(space, point, metric) for point in points]
    common = [name for name in space.vary if all(name in point.point for point in points)]
    if sum(map(len, trials)) < FEWEST or len(common) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[str, list[float]] = {name: [] for name in common}
    for draw in range(DRAWS + 1):
        random = np.random.default_rng(derived_seed(0, "importance", draw))
        rows = random.integers(len(trials), size=len(trials)) if draw else range(len(trials))
        study = optuna.create_study(direction="minimize" if space.objectives[metric] == "min" else "maximize")
        study.add_trials([trial for row in rows for trial in trials[row]])
        shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        for name, values in found.items():
            values.append(shares.get(name, 0.0))
    return found


def _trials(space: Space, point: PointResult, metric: str) -> list[FrozenTrial]:
    declared = {name: space.values(name, point.point) for name in point.point}
    distributions = {name: distribution_of(values) for name, values in declared.items() if values is not None}
    params = {name: outward(value) for name, value in point.point.items()}
    return [create_trial(params=params, distributions=distributions, value=value) for value in point.values(metric)]
