"""Entry points that bring their own Ray: training, a run directory on S3, a sweep."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from genlab.core.storage import locate
from genlab.store import model_directory
from genlab.training.tracking import read_metrics
from tests.cluster.support import PATIENCE, REPOSITORY, environment, indexes, reproducible, wait_for
from tests.s3 import Bucket

pytestmark = pytest.mark.cluster


def python(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start a job of the project as one does without a cluster."""
    clean = {name: value for name, value in environment(**variables).items() if not name.startswith("RAY_A")}
    return subprocess.Popen(
        ["python", *arguments],
        cwd=REPOSITORY,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(job: subprocess.Popen[str]) -> str:
    """Wait for a job that is to succeed; what it printed."""
    log, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, log
    return log


def test_a_killed_driver_goes_on_under_the_same_name(drawn: Callable[[str], Path], tmp_path: Path) -> None:
    def job(name: str) -> subprocess.Popen[str]:
        options = ["--data.images", str(drawn("digits")), "--run.batch", "32", "--run.steps", "120"]
        return python(
            "jobs/vae.py", *options, "--run.checkpoint-every", "20", "--run.storage", str(tmp_path), "--run.name", name
        )

    finish(job("unbroken"))
    killed = job("killed")
    wait_for("a checkpoint", lambda: indexes(tmp_path / "killed"))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    log = finish(job("killed"))
    assert "goes on where it stopped" in log
    assert "goes on from the checkpoint of step" in log
    assert reproducible(tmp_path / "killed") == reproducible(tmp_path / "unbroken")
    assert indexes(tmp_path / "killed") == indexes(tmp_path / "unbroken")


def test_a_run_directory_on_s3(s3: Bucket, drawn: Callable[[str], Path]) -> None:
    def job(steps: int) -> subprocess.Popen[str]:
        options = ["--data.images", str(drawn("digits")), "--run.batch", "32", "--run.steps", str(steps)]
        return python("jobs/vae.py", *options, "--run.storage", f"{s3.url}/runs", "--run.name", "remote")

    finish(job(40))
    log = finish(job(60))
    assert "goes on from the checkpoint of step 40" in log
    run = locate(f"{s3.url}/runs/remote")
    steps = [line["step"] for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"]
    assert steps == [10, 20, 30, 40, 50, 60]
    assert model_directory.load(str(run / "model")).family == "vae"
    assert list((run / "tensorboard").iterdir())
    assert (run / "figures" / "step-00000060" / "samples.png").exists()


def test_a_sweep_finds_the_best_and_says_how_to_train_it(drawn: Callable[[str], Path], tmp_path: Path) -> None:
    options = ["--data.images", str(drawn("digits")), "--run.epochs", "1", "--run.batch", "32"]
    log = finish(
        python("jobs/sweep.py", "tune_spaces/vae_latent.py", *options, "--run.storage", str(tmp_path), COLUMNS="120")
    )
    result = json.loads((tmp_path / "vae_latent" / "sweep.json").read_text())
    figures = [trial["metrics"]["test/neg_elbo"] for trial in result["trials"]]
    assert figures == sorted(figures), "the best comes first"
    assert [trial["error"] for trial in result["trials"]] == [None] * 3
    assert sorted(trial["point"]["model.latent_dim"] for trial in result["trials"]) == [2, 8, 16]
    best = result["trials"][0]
    assert f"the best, test/neg_elbo {figures[0]:.5g}: {best['run']}/model" in log
    model = model_directory.load(f"{best['run']}/model")
    assert model.architecture.latent_dim == best["point"]["model.latent_dim"]
    command = log.split("train it again: python ")[1].splitlines()[0]
    assert ("--model.latent-dim" in command) == (best["point"]["model.latent_dim"] != 2)


def test_a_wrong_name_in_a_space_is_refused_before_any_trial(tmp_path: Path) -> None:
    space = tmp_path / "space.py"
    space.write_text(
        "from genlab.sweeps.space import Space\n"
        "SPACE = Space('vae', {'model.latent_dimm': [2, 4]}, 'test/neg_elbo', 'min')\n"
    )
    job = python("jobs/sweep.py", str(space), "--run.storage", str(tmp_path))
    log, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 2
    assert "model.latent_dimm: no such option; did you mean model.latent_dim" in log
    assert not list(tmp_path.glob("space/*/checkpoints"))
