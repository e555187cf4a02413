"""A run whose number of workers falls when a node is lost, and rises when one joins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genlab.core.storage import locate
from genlab.training.attempts import read_records
from genlab.training.tracking import read_metrics
from tests.cluster_support import TIMEOUT_SECONDS, Cluster, wait_for

pytestmark = pytest.mark.cluster

RUN = """
import sys, time
from pathlib import Path
from genlab.core.config import override
from genlab.recipes.vae import VAEConfig
from genlab.training.launch import launch
from genlab.training.ray import driver

def prepare(plan, session):
    from genlab.training.state import TrainingState

    update = TrainingState.update_ema

    def update_slowly(*arguments):
        if not Path(storage, "hurry").exists():
            time.sleep(0.5 if session.world_size == 1 else 0.1)
        update(*arguments)

    TrainingState.update_ema = update_slowly

data, storage = sys.argv[1:]
changes = {"data.images": data, "run.storage": storage, "run.name": "run", "run.workers": "1..2", "run.batch": 32}
changes |= {"run.steps": 300, "run.log_every": 2, "run.checkpoint_every": 10}
driver.RESIZE_SECONDS = 1
launch("vae", override(VAEConfig(), changes), prepare)
"""
"""A run that trains for minutes, unless there is a file ``hurry`` in its storage."""


def test_a_lost_node_leaves_fewer_workers_and_one_that_joins_brings_more(
    cluster: Cluster, drawn: Callable[[str], Path], tmp_path: Path
) -> None:
    run = locate(tmp_path / "run")
    job = cluster.drive("-c", RUN, str(drawn("digits")), str(tmp_path))

    def group(number: int) -> dict[str, Any]:
        """What the workers wrote down that trained after ``number - 1`` others."""
        return read_records(run).get(number, {})

    wait_for("a checkpoint", lambda: group(1).get("step") or job.poll() is not None)
    [lost] = cluster.raylets().values()
    lost.kill()
    wait_for("fewer workers", lambda: group(2) or job.poll() is not None)
    cluster.start_node("joined")
    wait_for("more workers", lambda: group(3) or job.poll() is not None)
    (tmp_path / "hurry").touch()
    log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode == 0, log
    assert [one["workers"] for one in read_records(run).values()] == [2, 1, 2], log
    assert "there is room for 2 workers" in log
    assert group(2)["first"] > 0, "it goes on from the last checkpoint"
    assert group(3)["first"] == group(2)["step"], "it has saved before there were more"
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [*range(2, 301, 2)], "no line is lost, none is there twice"
    assert [line["images"] for line in lines] == [line["step"] * 32 for line in lines]
