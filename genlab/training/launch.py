"""From a command line to a finished run: what ``python jobs/FAMILY.py`` does."""

import shlex
from collections.abc import Callable
from typing import Any

from genlab.core.errors import ConfigError
from genlab.core.storage import locate
from genlab.training.console import Console
from genlab.training.plan import Plan, claim, default_storage, earlier, finished, make_plan
from genlab.training.session import LocalSession, Session

Prepare = Callable[[Plan, Session], None]


def launch(family: str, config: Any, prepare: Prepare | None = None) -> Plan:
    """Check the config, claim its run directory, train to the end and say where everything is.

    A run that is finished is left as it is.

    Args:
        family: name of the recipe.
        config: its config.
        prepare: called in each worker before it trains.
    """
    with Console() as console:
        console.say(f"runs folder: {locate(config.run.storage or default_storage())}")
        plan = make_plan(family, config)
        step = finished(plan)
        if step is not None:
            earlier(plan)
            console.say(f"run {plan.directory}: already finished at step {step:,}; nothing to do")
        elif plan.run.workers == 0:
            from genlab.training.loop import train

            session = LocalSession(console, plan.run.threads)
            if plan.run.cuda_graphs and session.device.type != "cuda":
                raise ConfigError("run.cuda_graphs: there is no GPU here; leave it out, or try run.compile")
            _begin(plan, console)
            if prepare:
                prepare(plan, session)
            train(plan, session)
        else:
            from genlab.core.ray_cluster import connected
            from genlab.training.ray.driver import fit, place

            with connected():
                place(plan.run)  # before the name is claimed: a run that does not fit leaves nothing behind
                _begin(plan, console)
                fit(plan, console, prepare=prepare)
        console.say("done")
        console.say(f"model:       {plan.directory}/model")
        console.say(f"tensorboard: tensorboard --logdir {shlex.quote(plan.directory)}/tensorboard")
    return plan


def _begin(plan: Plan, console: Console) -> None:
    for message in claim(plan):
        console.say(message)
    console.say(_summary(plan))


def _summary(plan: Plan) -> str:
    domains = ", ".join(
        f"{name} {domain.info.rows:,} x {'x'.join(map(str, domain.info.shape))}"
        for name, domain in plan.domains.items()
    )
    epochs = f"{plan.epoch(plan.steps):.4g} epochs"
    return f"{plan.family}: {plan.steps:,} steps of batch {plan.run.batch} ({epochs}) on {domains}"
