"""The disk that a sweep needs: said before it starts, and bounded by deleting checkpoints."""

from collections.abc import Collection, Mapping, Sequence

import torch

from genlab.core.claims import ClaimError
from genlab.core.storage import locate
from genlab.core.text import counted, size_text
from genlab.sweeps.ranking import PointResult, by_point, pareto_front, ranked
from genlab.sweeps.space import Mode, Pbt
from genlab.sweeps.trials import Outcome, Trial
from genlab.training.checkpoints import Checkpoints
from genlab.training.plan import Plan, build_on_meta, owned
from genlab.training.state import TrainingState

MOMENTS = 2
"""Tensors that Adam keeps for each parameter."""


def bytes_needed(plan: Plan) -> tuple[int, int]:
    """Return the bytes of a checkpoint of a run, and those of its model; headers and counters aside."""
    recipe = build_on_meta(plan.family, plan.config, {name: domain.info for name, domain in plan.domains.items()})
    state = TrainingState(recipe, torch.device("meta")).tensors()
    parameters = sum(one.nbytes for network in recipe.networks.values() for one in network.parameters())
    model = sum(one.nbytes for one in recipe.model().state_dict().values())
    return sum(one.nbytes for one in state.values()) + MOMENTS * parameters, model


def needs(trials: Sequence[Trial], most: int, keep: int, scheduler: object = None) -> str:
    """Return what a sweep needs of the disk, in a sentence, by the largest of its trials.

    Args:
        trials: trials of the sweep.
        most: how many it may have.
        keep: how many of them keep their checkpoints.
        scheduler: the space's; :class:`Pbt` keeps the checkpoints of all trials until the end.
    """
    sizes = [bytes_needed(trial.plan) for trial in trials]
    checkpoint, model = (max(column) for column in zip(*sizes, strict=True))
    each = trials[0].plan.run.keep
    kept = min(keep, most)
    running = f"{size_text(each * checkpoint)} for each trial that runs ({counted(each, 'checkpoint')})"
    if isinstance(scheduler, Pbt):
        checkpoints = most * (each + 1)  # A parent keeps one more.
        running = f"{size_text(checkpoints * checkpoint)} for the population ({counted(checkpoints, 'checkpoint')})"
        most += scheduler.replaced(most) * len(trials[0].plan.rungs)
    return (
        f"disk: {running}; at the end "
        f"{size_text(kept * each * checkpoint + most * model)} ({counted(most, 'model')}, and the checkpoints of the "
        f"best {kept})"
    )


def release_checkpoints(
    outcomes: Sequence[Outcome], objectives: Mapping[str, Mode], keep: int, needed: Collection[str] = ()
) -> list[str]:
    """Delete the checkpoints of trials that have ended, but for those of the best.

    Args:
        outcomes: trials that have ended.
        objectives: whether the lowest or the highest is the best, by metric.
        keep: how many of the best by the first metric keep theirs; of several metrics those of the front do, too.
        needed: names of trials that keep theirs, too: parents of trials that have not ended.

    Returns:
        The names of all trials that have none now. One on which somebody else works is left alone.
    """
    metric, mode = next(iter(objectives.items()))
    alone = [PointResult(one.trial.point, (one,)) for one in outcomes]
    spared = {point.outcomes[0].trial.name for point in ranked(alone, metric, mode)[:keep]} | set(needed)
    if len(objectives) > 1:
        front = pareto_front(by_point(outcomes), objectives)
        spared |= {one.trial.name for point in front for one in point.outcomes}
    released = []
    for one in outcomes:
        if one.trial.name in spared:
            continue
        try:
            with owned(one.trial.plan):
                Checkpoints(locate(one.trial.plan.directory) / "checkpoints", keep=1).release()
        except ClaimError:
            continue
        released.append(one.trial.name)
    return released
