"""Training through `ray job submit` on a real cluster of two nodes, and what it survives."""

import dataclasses
import random
import secrets
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from genlab.core.storage import locate
from genlab.evaluation.checkpoint_evaluations import read_evaluations
from genlab.store import model_directory
from tests.cluster_support import TIMEOUT_SECONDS, Cluster, indexes, reproducible, wait_for

pytestmark = pytest.mark.cluster


def test_a_killed_worker_costs_nothing_but_time(cluster: Cluster, drawn: Callable[[str], Path], tmp_path: Path) -> None:
    def submit(name: str) -> "subprocess.Popen[str]":
        """A small job of two workers, with checkpoints that do not fall on the last step."""
        data = ["--data.a", str(drawn("scenes-a")), "--data.b", str(drawn("scenes-b"))]
        model = ["--model.width", "4", "--model.discriminator-width", "4", "--run.batch", "4"]
        steps = ["--run.steps", "110", "--run.checkpoint-every", "20", "--run.figures-every", "50"]
        steps += ["--run.evaluate-every", "60"]
        where = ["--run.workers", "2", "--run.storage", str(tmp_path), "--run.name", name]
        return cluster.submit("python", "jobs/cyclegan.py", *data, *model, *steps, *where)

    unbroken = submit("unbroken")
    log, _ = unbroken.communicate(timeout=TIMEOUT_SECONDS)
    assert unbroken.returncode == 0, log
    assert f"runs folder: {tmp_path}" in log
    assert "% " in log or "%, " in log, "the job's log shows progress"

    job = submit("killed")
    run = tmp_path / "killed"
    wait_for("two checkpoints", lambda: len(indexes(run)) >= 2)
    worker = random.Random("cyclegan").choice(wait_for("workers", lambda: len(w := cluster.workers()) == 2 and w))
    worker.send_signal(signal.SIGKILL)
    log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode == 0, log
    assert "goes on from the checkpoint of step" in log

    assert reproducible(run) == reproducible(tmp_path / "unbroken")
    assert indexes(run)[max(indexes(run))] == indexes(tmp_path / "unbroken")[max(indexes(tmp_path / "unbroken"))]
    for part in ("config.json", "tensorboard", "figures", "model/genlab.json", "model/model.safetensors"):
        assert (run / part).exists(), part
    assert model_directory.load(run / "model").family == "cyclegan"
    evaluations = read_evaluations(locate(run))
    assert evaluations == read_evaluations(locate(tmp_path / "unbroken"))
    assert [one.step for one in evaluations] == [60, 110]


def test_a_job_that_cannot_work_fails_with_one_message(
    cluster: Cluster, drawn: Callable[[str], Path], tmp_path: Path
) -> None:
    refusals = {
        "objective.beta = -1.0: should be greater than or equal to 0": ["--objective.beta", "-1"],
        'data.images="$PWD/digits"': ["--data.images", "digits"],
        "run.workers = 3": ["--run.workers", "3", "--data.images", str(drawn("digits"))],
    }
    jobs = {
        message: cluster.submit("python", "jobs/vae.py", "--run.storage", str(tmp_path), *options)
        for message, options in refusals.items()
    }
    for message, job in jobs.items():
        log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
        assert job.returncode != 0
        assert message in log.replace("\n", ""), log
        assert "Traceback (most recent call last)" not in log.split("Running entrypoint")[1], log


def test_a_job_needs_no_options_at_all_and_leaves_no_secret_behind(cluster: Cluster, tmp_path: Path) -> None:
    # One worker, on nodes of one CPU each, on data that is drawn on the spot.
    key = secrets.token_hex(16)
    client = dataclasses.replace(cluster, environment={**cluster.environment, "AWS_SECRET_ACCESS_KEY": key})
    job = client.submit("python", "jobs/vae.py", "--run.steps", "3", "--run.storage", str(tmp_path))
    log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode == 0, log
    (run,) = tmp_path.glob("vae-*")
    assert model_directory.load(run / "model").family == "vae"

    token_file = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"])
    token = token_file.read_text()
    answer = httpx.get(f"{cluster.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    known = [log, answer.text]
    files = [file for folder in (tmp_path, Path(cluster.state)) for file in folder.rglob("*") if file.is_file()]
    assert any(file.name == "manifest.json" for file in files), "the data set is there"
    assert any("runtime_resources" in str(file) and file.name == "cyclegan.py" for file in files), "the upload is there"
    for secret in (key, token):
        assert not any(secret in text for text in known)
        told = [file for file in files if file != token_file and secret.encode() in file.read_bytes()]
        assert not told


def test_a_client_without_the_token_can_neither_submit_nor_read(cluster: Cluster, tmp_path: Path) -> None:
    made = tmp_path / "made"
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        with httpx.Client(base_url=cluster.address, headers=headers) as client:
            for path in ("/api/jobs/", "/api/version", "/nodes?view=summary", "/api/v0/logs?node_ip=127.0.0.1"):
                assert client.get(path).status_code in (401, 403), path
            assert client.post("/api/jobs/", json={"entrypoint": f"touch {made}"}).status_code in (401, 403)
    variables = {name: value for name, value in cluster.environment.items() if not name.startswith("RAY_AUTH")}
    stranger = dataclasses.replace(cluster, environment={**variables, "RAY_AUTH_MODE": "disabled"})
    log, _ = (job := stranger.submit("touch", str(made))).communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode != 0
    assert "Unauthorized" in log or "authentication" in log.lower(), log
    assert not made.exists()
