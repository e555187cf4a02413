"""Sweeps on two nodes of one CPU each."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster_support import TIMEOUT_SECONDS, TRIAL, Cluster, finish, wait_for
from tests.sweeps.support import assert_trained_as_outside

SPACE = """
from genlab.sweeps.space import Space

SPACE = Space(
    family="vae",
    vary={"optimization.learning_rate": [1e-3, 2e-3]},
    metric="val/neg_elbo",
    mode="min",
    base={"run.threads": 1, "run.batch": 32, "run.log_every": 5},
)
"""
pytestmark = pytest.mark.cluster


@pytest.fixture
def command(drawn: Callable[[str], Path], tmp_path: Path) -> list[str]:
    (tmp_path / "rates.py").write_text(SPACE)
    images = ["--data.images", str(drawn("digits"))]
    return ["jobs/sweep.py", str(tmp_path / "rates.py"), *images, "--run.storage", str(tmp_path)]


def test_each_node_trains_a_trial_and_that_of_a_lost_node_goes_on_elsewhere(
    cluster: Cluster, command: list[str], tmp_path: Path
) -> None:
    job = cluster.drive(*command, "--run.steps", "500", "--run.checkpoint-every", "50")
    folder = tmp_path / "rates"
    saved = "*/checkpoints/step-00000050/index.json"
    wait_for("a checkpoint of both", lambda: len([*folder.glob(saved)]) == 2 or job.poll() is not None)
    [lost] = cluster.raylets(TRIAL).values()
    lost.kill()
    log = finish(job)
    cluster.start_node("another")  # in its place, for other tests
    assert "2 trials at a time, 1 thread a worker" in log
    assert log.count("it goes on in another") == 1
    trials = json.loads((folder / "sweep.json").read_text())["trials"]
    assert [trial["error"] for trial in trials] == [None, None]
    for trial in trials:
        assert_trained_as_outside(Path(trial["run"]), tmp_path / "outside")


def test_trials_of_two_workers_take_both_nodes_one_after_the_other(
    cluster: Cluster, command: list[str], tmp_path: Path
) -> None:
    log = finish(cluster.drive(*command, "--run.steps", "10", "--run.workers", "2"))
    assert "1 trial at a time, 1 thread a worker" in log
    trials = json.loads((tmp_path / "rates" / "sweep.json").read_text())["trials"]
    assert [trial["error"] for trial in trials] == [None, None]


def test_a_sweep_whose_trials_fit_on_no_node_says_so_before_the_first(
    cluster: Cluster, command: list[str], tmp_path: Path
) -> None:
    job = cluster.drive(*command, "--run.threads", "2")
    log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode == 2, log
    assert "do not fit on the cluster, whose nodes have 1 CPU, 1 CPU" in log
    assert not list(tmp_path.glob("rates/trial-*"))
