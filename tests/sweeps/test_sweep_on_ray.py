"""Sweeps from the command line, on a cluster of two nodes."""

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from genlab.store import model_directory
from genlab.training.tracking import read_metrics
from tests.cluster_support import TIMEOUT_SECONDS, TRIAL, Cluster, finish, start_job, wait_for
from tests.sweeps.support import assert_trained_as_outside

SPACE = """
from genlab.sweeps.space import Asha, Budget, Space

SPACE = Space(
    family="vae",
    vary={"optimization.learning_rate": [1e-7, 1e-5, 1e-3]},  # Optuna begins with the last
    metric="val/neg_elbo",
    mode="min",
    base={"run.threads": 1, "run.log_every": 5},
    searcher="optuna",
    scheduler=Asha(grace=160),
    budget=Budget(trials=3),
)
"""
pytestmark = pytest.mark.cluster


def test_a_sweep_finds_the_best_stops_the_worst_and_goes_on_where_it_was(
    cluster: Cluster, drawn: Callable[[str], Path], tmp_path: Path
) -> None:
    space = tmp_path / "rates.py"
    space.write_text(SPACE)
    options = ["--data.images", str(drawn("digits")), "--run.epochs", "1", "--run.batch", "32"]
    place = {"COLUMNS": "120", "GENLAB_CACHE": str(tmp_path / "cache")}
    job = cluster.drive("jobs/sweep.py", str(space), *options, "--run.storage", str(tmp_path), **place)
    wait_for("a trial's first line", lambda: [*filter(read_metrics, tmp_path.glob("rates/*/metrics.jsonl"))])
    cluster.workers(TRIAL)[0].kill()
    log = finish(job)
    assert log.count(": its process ended; it goes on in another") == 1
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'rates' / 'optuna.sqlite3'}")
    result = json.loads((tmp_path / "rates" / "sweep.json").read_text())
    assert [trial["point"]["optimization.learning_rate"] for trial in result["trials"]] == [1e-3, 1e-5, 1e-7]
    best, *_, worst = result["trials"]
    assert (best["stopped"], worst["stopped"]) == (None, 160), "the worst learning rate is the last to be tried"
    assert "stopped at 160 images" in log
    figures = [trial["metrics"]["val/neg_elbo"] for trial in result["trials"]]
    assert min(figures) == figures[0]
    assert [trial["error"] for trial in result["trials"]] == [None] * 3
    told = [one for one in study.trials if one.state.is_finished() and one.values]
    assert sorted(one.values[0] for one in told) == sorted(figures), "the searcher was told all of them"
    assert "2 trials at a time, 1 thread a worker" in log, "one on each node"
    assert f"the best: {best['run']}/model, chosen on the split 'test:validation'" in log
    model = model_directory.load(f"{best['run']}/model")
    assert model.architecture.latent_dim == 2
    assert "on 'test:reporting', where no other trial was measured: −ELBO" in log
    assert all(not name.startswith("test/") for trial in result["trials"] for name in trial["metrics"])
    for trial in result["trials"]:  # The one that was stopped, in a process that had trained another before.
        assert_trained_as_outside(Path(trial["run"]), tmp_path / "outside")
    command = log.split("train it for longer: genlab train vae ")[1].splitlines()[0]
    assert "--run.epochs 2" in command
    again = finish(cluster.drive("jobs/sweep.py", str(space), *options, "--run.storage", str(tmp_path), **place))
    assert "3 trials, of which 3 have ended" in again
    assert ": starts" not in again
    assert json.loads((tmp_path / "rates" / "sweep.json").read_text()) == result


def test_a_wrong_name_in_a_space_is_refused_before_any_trial(tmp_path: Path) -> None:
    space = tmp_path / "space.py"
    space.write_text(
        "from genlab.sweeps.space import Space\n"
        "SPACE = Space('vae', {'model.latent_dimm': [2, 4]}, 'val/neg_elbo', 'min')\n"
    )
    job = start_job("jobs/sweep.py", str(space), "--run.storage", str(tmp_path))
    log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode == 2
    assert "model.latent_dimm: no such option; did you mean model.latent_dim" in log
    assert not list(tmp_path.glob("space/*/checkpoints"))
