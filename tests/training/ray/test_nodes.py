"""Nodes that go away, with notice and without, under a run of two workers."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from genlab.core.storage import locate
from genlab.training.attempts import read_records
from tests.cluster_support import TIMEOUT_SECONDS, Cluster, finish, indexes, reproducible, wait_for

pytestmark = pytest.mark.cluster

RUN = """
import sys, time
from genlab.core.config import override
from genlab.recipes.vae import VAEConfig
from genlab.training.launch import launch

def prepare(plan, session):
    from genlab.training.state import TrainingState

    update = TrainingState.update_ema

    def update_slowly(*arguments):
        time.sleep(0.1 if plan.run.name == "run" else 0)
        update(*arguments)

    TrainingState.update_ema = update_slowly

data, storage, name = sys.argv[1:]
changes = {"data.images": data, "run.storage": storage, "run.name": name, "run.workers": 2, "run.batch": 32}
changes |= {"run.steps": 200, "run.checkpoint_every": 50, "optimization.ema_images": 500}
launch("vae", override(VAEConfig(), changes), prepare)
"""
"""A run of twenty seconds, if it is called ``run``."""


def test_nodes_that_are_drained_or_lost_cost_nothing_but_time(
    cluster: Cluster, drawn: Callable[[str], Path], tmp_path: Path
) -> None:
    command = ["python", "-c", RUN, str(drawn("digits")), str(tmp_path)]
    finish(cluster.submit(*command, "unbroken"))
    run = tmp_path / "run"
    cluster.start_node("second")
    job = cluster.submit(*command, "run")
    wait_for("steps", lambda: (run / "metrics.jsonl").exists() or job.poll() is not None)
    # Any but the head: the third node takes its place.
    drained = next(iter(wait_for("a worker on another node than the head", cluster.raylets)))
    drain = ["ray", "drain-node", "--address", cluster.gcs, "--node-id", drained, "--reason-message", "spot"]
    drain += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "600"]
    subprocess.run(drain, env=cluster.environment, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    # By then its workers are where they train: one on the head, one on the node that is lost next.
    wait_for(
        "a checkpoint of another attempt",
        lambda: read_records(locate(run)).get(2, {}).get("step") or job.poll() is not None,
    )
    raylets = cluster.raylets()
    [lost] = [raylet for node, raylet in raylets.items() if node != drained]
    lost.kill()
    cluster.start_node("third")
    log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode == 0, log
    assert "Ray gives up node" in log
    assert "is saved, the run goes on" in log
    assert len(list(run.glob("attempts/*"))) == 3, log
    assert reproducible(run) == reproducible(tmp_path / "unbroken")
    last = max(indexes(run))
    assert indexes(run)[last] == indexes(tmp_path / "unbroken")[last]
