"""A run that branches off another: it goes on from a checkpoint of that one, as that one would."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genlab.core.config import override
from genlab.core.errors import RunError
from genlab.core.storage import locate
from genlab.reports.run import RunRecord
from genlab.store import model_directory
from genlab.training.branch import Branch
from genlab.training.checkpoints import Checkpoints
from genlab.training.console import RunConsole
from genlab.training.loop import train
from genlab.training.plan import Plan, make_plan, start_or_resume
from genlab.training.rung import Rung
from genlab.training.session import LocalSession
from tests.training.support import assert_same_state, checkpoint_steps, metrics, state


def go(plan: Plan, until: int | None = None) -> Path:
    """Train a run to a rung, or to its end; return its directory."""

    class Waiting(LocalSession):
        def reach(self, rung: Rung) -> bool:
            return rung.step == until

    start_or_resume(plan)
    with RunConsole() as console:
        train(plan, Waiting(console, 1))
    return Path(plan.directory)


def test_it_takes_the_steps_that_the_other_run_takes_bit_for_bit(tiny: Callable[..., Any]) -> None:
    changes = {"run.steps": 6, "run.batch": 4, "run.log_every": 2, "run.keep": 1, "run.checkpoint_every": 2}
    config = tiny("cyclegan", changes)
    plan = replace(make_plan("cyclegan", config), rungs=(4,))
    parent = go(plan, until=4)
    branch = Branch(str(parent), 4)
    copy_plan = make_plan("cyclegan", override(config, {"run.name": "copy"}), branch=branch)
    go(replace(plan, spared=(4,)))
    assert checkpoint_steps(parent) == [4, 6], "that which others branch off stays beside the newest one"
    copy = go(copy_plan)
    assert_same_state(state(parent, 6), state(copy, 6))
    assert metrics(copy) == [line for line in metrics(parent) if line["step"] > 4] != []
    weights = "model/model.safetensors"
    assert (copy / weights).read_bytes() == (parent / weights).read_bytes()
    assert json.loads((copy / "config.json").read_text())["branched_from"] == {"path": str(parent), "step": 4}
    assert f"| branched off | step 4 of {parent} |" in (copy / "model" / "README.md").read_text()
    record = RunRecord.read(str(copy))
    assert (record.images_before, record.images) == (16, 24)
    assert model_directory.describe(copy / "model")["provenance"]["branch"] == {"path": str(parent), "step": 4}


def test_it_needs_the_other_run_until_it_has_a_checkpoint_of_its_own(tiny: Callable[..., Any]) -> None:
    config = tiny("vae", {"run.steps": 4, "run.batch": 4, "run.log_every": 2})
    parent = go(replace(make_plan("vae", config), rungs=(2,)), until=2)
    plan = make_plan("vae", override(config, {"run.name": "copy"}), branch=Branch(str(parent), 2))
    start_or_resume(plan)
    again = make_plan("vae", override(config, {"run.name": "copy"}))
    assert again.branch == plan.branch, "its config.json says what it branched off"
    Checkpoints(locate(parent / "checkpoints"), keep=1).release()
    with pytest.raises(RunError, match="the checkpoint that this run branched off is gone"):
        go(again)


def test_it_goes_on_by_the_rules_that_the_other_run_began_with(tiny: Callable[..., Any]) -> None:
    config = tiny("vae", {"run.steps": 4, "run.batch": 4, "run.log_every": 2})
    plan = replace(make_plan("vae", config), rungs=(2,), numbers_at_once=None)
    domains = {name: replace(domain, order=1, window=2**20) for name, domain in plan.domains.items()}
    parent = go(replace(plan, domains=domains), until=2)  # As an earlier version began it, on an object store.
    copy_plan = make_plan("vae", override(config, {"run.name": "copy"}), branch=Branch(str(parent), 2))
    for domain in copy_plan.domains.values():
        assert (domain.order, domain.window) == (1, 2**20)
    assert copy_plan.numbers_at_once is None
    assert copy_plan.held_out == plan.held_out
    copy = go(copy_plan)
    go(replace(plan, domains=domains, rungs=()))
    assert_same_state(state(parent, 4), state(copy, 4))
    assert make_plan("vae", override(config, {"run.name": "new"})).numbers_at_once is not None
