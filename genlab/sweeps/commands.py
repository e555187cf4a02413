"""The commands that put the model of a trial to use, and that train its config outside the sweep."""

import shlex
from typing import Any

from genlab.core.config import as_arguments, override
from genlab.sweeps.space import Pbt, Space
from genlab.sweeps.trials import Trial

LONGER = 2
"""How many times as long the command trains that trains a trial's config longer."""


def commands(space: Space, config: Any, trial: Trial, name: str) -> dict[str, str]:
    """Return what a user may do with a trial: commands by what they are for.

    Args:
        space: the space.
        config: the config of all trials.
        trial: the trial.
        name: name of the sweep.
    """
    promote = {"promote it": f"genlab promote {shlex.quote(trial.plan.directory)} ROOT --name {shlex.quote(name)}"}
    if isinstance(space.scheduler, Pbt):  # Its config alone would not train it again: other trials trained it first.
        begun = override(config, {"run.init": trial.plan.directory})
        options = command_of(begun, space, trial)
        return promote | {"train on from its weights": f"genlab train {space.family} {options}"}
    return promote | {
        "train it for longer": f"genlab train {space.family} {command_of(config, space, trial, times=LONGER)}",
    }


def command_of(config: Any, space: Space, trial: Trial, times: int = 1) -> str:
    """Return the options of ``genlab train`` that train a trial's config outside the sweep.

    Args:
        config: the config of all trials.
        space: the space.
        trial: the trial.
        times: how many times as long.
    """
    changes = space.options(trial.point) | {"run.name": None, "run.seed": trial.seed}
    run = override(config, changes).run
    if run.steps is not None:
        changes["run.steps"] = run.steps * times
        changes["run.epochs"] = type(config)().run.epochs  # it has no effect beside run.steps; a default is left out
    elif run.epochs is not None:
        changes["run.epochs"] = run.epochs * times
    return as_arguments(override(config, changes))
