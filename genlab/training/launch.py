"""The way from a config to a finished run: what ``genlab train FAMILY`` and ``python jobs/FAMILY.py`` do."""

import dataclasses
import shlex
from collections.abc import Callable
from typing import Any

from genlab.core.errors import ConfigError
from genlab.core.storage import locate
from genlab.core.text import counted
from genlab.training.console import RunConsole
from genlab.training.plan import (
    Plan,
    default_storage,
    earlier_config,
    finished_step,
    make_plan,
    owned,
    start_or_resume,
)
from genlab.training.session import LocalSession, Session

Prepare = Callable[[Plan, Session], None]


def launch(
    family: str, config: Any, prepare: Prepare | None = None, otherwise: str = "choose another run.name"
) -> Plan:
    """Check the config, start or resume its run, train to the end and print where the results are.

    A finished run is left as it is.

    Args:
        family: name of the recipe.
        config: the family's config.
        prepare: a function that each worker calls before it trains.
        otherwise: what a user may do instead of waiting if another process trains the run, see :func:`owned`.

    Returns:
        The plan of the run.

    Raises:
        GenlabError: when the config, its data or an earlier run of its name do not allow it, or training fails.
        ClaimError: when another process trains the run, or took it over.
    """
    with RunConsole() as console:
        console.say(f"runs folder: {locate(config.run.storage or default_storage())}")
        plan = make_plan(family, config)
        step = finished_step(plan)
        if step is not None:
            earlier_config(plan)
            console.say(f"run {plan.directory}: already finished at step {step:,}; nothing to do")
        elif plan.run.workers == 0:
            from genlab.training.loop import train

            session = LocalSession(console, plan.run.threads)
            if session.device.type != "cuda" and (fault := plan.run.without_gpus("there is no GPU here")):
                raise ConfigError(fault)
            with owned(plan, otherwise) as mine:
                _begin(mine, console)
                session = dataclasses.replace(session, claim=mine.claim)
                if prepare:
                    prepare(mine, session)
                train(mine, session)
        else:
            from genlab.core.ray_cluster import connected
            from genlab.training.ray.driver import fit, worker_resources

            with connected():
                worker_resources(plan.run)  # first, so that a run that does not fit leaves no directory
                with owned(plan, otherwise) as mine:
                    _begin(mine, console)
                    fit(mine, console, prepare=prepare)
        console.say("done")
        console.say(f"model:       {plan.directory}/model")
        console.say(f"tensorboard: tensorboard --logdir {shlex.quote(plan.directory)}/tensorboard")
        console.say(f"report:      genlab report {shlex.quote(plan.directory)}")
    return plan


def _begin(plan: Plan, console: RunConsole) -> None:
    for message in start_or_resume(plan):
        console.say(message)
    console.say(_summary(plan))
    for sentence in plan.advice:
        console.say(sentence)


def _summary(plan: Plan) -> str:
    domains = ", ".join(
        f"{name} {domain.info.rows:,} x {'x'.join(map(str, domain.info.shape))}"
        for name, domain in plan.domains.items()
    )
    epochs = f"{plan.epoch(plan.steps):.4g} epochs"
    return f"{plan.family}: {counted(plan.steps, 'step')} of batch {plan.run.batch} ({epochs}) on {domains}"
