"""A run of one worker in a process that Ray gave it, such as a trial."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genlab.training.console import RunConsole
from genlab.training.notices import PreemptedError
from genlab.training.plan import make_plan, start_or_resume
from genlab.training.ray import alone, worker
from genlab.training.state import TrainingState
from tests.training.support import checkpoint_steps, vae_config


def test_it_saves_when_ray_is_to_give_up_its_node(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, asked = threading.Event(), []
    update = TrainingState.update_ema

    def draining() -> frozenset[str]:
        asked.append(1)
        if len(asked) > 1:
            told.set()
        return frozenset({"here", "elsewhere"})

    def update_when_told(*arguments: Any) -> None:
        assert told.wait(60)
        update(*arguments)

    monkeypatch.setattr(worker, "NOTICE_SECONDS", 0.01)
    monkeypatch.setattr(alone, "draining", draining)
    monkeypatch.setattr(alone, "node_name", lambda node: f"node {node}")
    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr("genlab.training.ray.alone.ray.get_runtime_context", lambda: context)
    monkeypatch.setattr(TrainingState, "update_ema", update_when_told)
    plan = make_plan("vae", vae_config(digits, name="run", storage=str(tmp_path)))
    start_or_resume(plan)
    with RunConsole() as console, pytest.raises(PreemptedError, match="Ray gives up node here; step 3 is saved"):
        alone.train_alone(plan, console)
    assert checkpoint_steps(tmp_path / "run") == [3]
