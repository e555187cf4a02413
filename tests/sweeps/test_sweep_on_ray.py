"""Sweeps from the command line, on a Ray of their own."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from genlab.core.config import from_dict, override
from genlab.recipes.recipe import recipe_type
from genlab.store import model_directory
from genlab.training.launch import launch
from genlab.training.tracking import read_metrics
from tests.cluster_support import TIMEOUT_SECONDS, finish, reproducible, start_job, wait_for

SPACE = """
from ray import tune

from genlab.sweeps.space import Budget, Space

SPACE = Space(
    family="vae",
    vary={"model.latent_dim": [2, 8, 16], "objective.beta": tune.uniform(0.9, 1.1)},
    metric="val/neg_elbo",
    mode="min",
    base={"run.threads": 1},
    searcher="optuna",
    budget=Budget(trials=3),
)
"""
pytestmark = pytest.mark.cluster


def test_a_sweep_finds_the_best_and_says_how_to_train_it(drawn: Callable[[str], Path], tmp_path: Path) -> None:
    space = tmp_path / "vae_latent.py"
    space.write_text(SPACE)
    options = ["--data.images", str(drawn("digits")), "--run.epochs", "1", "--run.batch", "32"]
    place = {"COLUMNS": "120", "GENLAB_CACHE": str(tmp_path / "cache")}
    job = start_job("jobs/sweep.py", str(space), *options, "--run.storage", str(tmp_path), **place)
    wait_for("a trial's first line", lambda: [*filter(read_metrics, tmp_path.glob("vae_latent/*/metrics.jsonl"))])
    killed = next(process for process in psutil.Process(job.pid).children(recursive=True) if is_trial(process))
    killed.kill()
    log = finish(job)
    assert log.count(": its process ended; it goes on in another") == 1
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'vae_latent' / 'optuna.sqlite3'}")
    result = json.loads((tmp_path / "vae_latent" / "sweep.json").read_text())
    figures = [trial["metrics"]["val/neg_elbo"] for trial in result["trials"]]
    assert figures == sorted(figures), "the best comes first"
    assert [trial["error"] for trial in result["trials"]] == [None] * 3
    assert {trial["point"]["model.latent_dim"] for trial in result["trials"]} <= {2, 8, 16}
    assert sorted(one.values[0] for one in study.trials) == figures, "the searcher was told all of them"
    lines = [line for line in log.splitlines() if line.startswith("trial-")]
    assert all(line.endswith(": starts") for line in lines[:2]), "two cores train two trials of one thread at once"
    best = result["trials"][0]
    assert f"the best: {best['run']}/model, chosen on the split 'test:validation'" in log
    model = model_directory.load(f"{best['run']}/model")
    assert model.architecture.latent_dim == best["point"]["model.latent_dim"]
    assert "on 'test:reporting', where no other trial was measured: −ELBO" in log
    assert all(not name.startswith("test/") for trial in result["trials"] for name in trial["metrics"])
    for trial in result["trials"]:
        assert_trained_as_outside(Path(trial["run"]), tmp_path / "outside")
    command = log.split("train it for longer: genlab train vae ")[1].splitlines()[0]
    assert ("--model.latent-dim" in command) == (best["point"]["model.latent_dim"] != 2)


def is_trial(process: psutil.Process) -> bool:
    """Whether a process trains a trial at this moment."""
    with contextlib.suppress(psutil.Error):
        return process.cmdline()[:1] == ["ray::ImplicitFunc.train"]
    return False


def assert_trained_as_outside(run: Path, storage: Path) -> None:
    """Train with a trial's config in this process, and compare what was trained, bit for bit."""
    config: Any = from_dict(recipe_type("vae").config_type, json.loads((run / "config.json").read_text())["config"])
    launch("vae", override(config, {"run.workers": 0, "run.storage": str(storage)}))
    inside, outside = (
        [line for line in reproducible(one) if line["kind"] == "train"] for one in (run, storage / run.name)
    )
    assert inside == outside
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (storage / run.name / weights).read_bytes()


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
