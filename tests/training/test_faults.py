"""Whatever dies or is damaged, the run ends as if nothing had: on several workers, and on a store that goes away."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from genlab.core.storage import locate
from genlab.training.checkpoints import Checkpoints
from genlab.training.launch import launch
from genlab.training.plan import Plan, make_plan, start_or_resume
from genlab.training.tracking import CLOCK_FIELDS, read_metrics
from tests.s3 import Bucket, FaultProxy, hurry
from tests.training.support import (
    assert_same_run,
    checkpoint_steps,
    cyclegan_config,
    delete,
    flip,
    metrics,
    state_file,
    train_to_the_end,
    train_until_killed,
    truncate,
    vae_config,
)

GRID = [
    pytest.param(2, 0, marks=pytest.mark.slow, id="2 workers"),
    *(
        pytest.param(workers, seed, marks=pytest.mark.reliability, id=f"{workers} workers, seed {seed}")
        for workers in (1, 2, 3)
        for seed in (1, 2, 3)
    ),
]


@pytest.fixture(params=["vae", "cyclegan"])
def planned(request: pytest.FixtureRequest, digits: Path, scenes: Path, tmp_path: Path) -> Callable[[str], Plan]:
    """Make the plan of a run of six steps with a checkpoint every other: ``planned("name")``."""

    def make(name: str) -> Plan:
        options: dict[str, Any] = {"name": name, "storage": str(tmp_path), "steps": 6, "batch": 5}
        options |= {"log_every": 1, "checkpoint_every": 2}
        config = vae_config(digits, **options) if request.param == "vae" else cyclegan_config(scenes, **options)
        plan = make_plan(request.param, config)
        start_or_resume(plan)
        return plan

    return make


@pytest.mark.parametrize(("workers", "seed"), GRID)
def test_kills_and_damaged_checkpoints(workers: int, seed: int, planned: Callable[[str], Plan], tmp_path: Path) -> None:
    dice = random.Random(seed)
    train_to_the_end(planned("unbroken"), workers)
    plan, run = planned("broken"), tmp_path / "broken"
    train_until_killed(plan, "step", dice.choice([2, 3]), workers, target=dice.randrange(workers))
    train_until_killed(plan, "half a checkpoint", 4, workers)
    assert checkpoint_steps(run) == [2, 4], "the newer one is torn"
    for damage in (truncate, flip, delete):
        train_until_killed(plan, "step", 5, workers, target=dice.randrange(workers))
        assert checkpoint_steps(run) == [2, 4]
        damage(run / "checkpoints" / "step-00000004", dice)
    train_to_the_end(plan, workers)
    assert_same_run(run, tmp_path / "unbroken")


@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds",
    [3, pytest.param(60, marks=pytest.mark.reliability)],
)
def test_a_store_that_goes_away_during_a_checkpoint(
    seconds: float,
    s3: Bucket,
    fault_proxy: FaultProxy,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if seconds < 60:
        hurry(monkeypatch)
    launch("vae", vae_config(digits, name="near", storage=str(tmp_path)))
    write, went = Checkpoints._write, []

    def write_into_nothing(self: Checkpoints, step: int, *state: Any) -> None:
        if step == 6:
            fault_proxy.away(seconds)
            went.append(step)
        write(self, step, *state)

    with mock.patch.object(Checkpoints, "_write", write_into_nothing):
        launch("vae", vae_config(digits, name="far", storage=s3.url))
    assert went == [6]
    far = locate(f"{s3.url}/far")
    lines = [{k: v for k, v in line.items() if k not in CLOCK_FIELDS} for line in read_metrics(far / "metrics.jsonl")]
    assert lines == metrics(tmp_path / "near")
    with Checkpoints(far / "checkpoints", keep=1) as checkpoints:
        assert checkpoints.steps() == [9, 12]
    near = state_file(tmp_path / "near" / "checkpoints" / "step-00000012")
    assert (far / "checkpoints" / "step-00000012" / near.name).read_bytes() == near.read_bytes()
