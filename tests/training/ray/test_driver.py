"""Jobs that bring their own Ray: a killed driver, a run directory on S3."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from genlab.core.storage import locate
from genlab.store import model_directory
from genlab.training.tracking import read_metrics
from tests.cluster_support import finish, indexes, reproducible, start_job, wait_for
from tests.s3 import Bucket

pytestmark = pytest.mark.cluster


def test_a_killed_driver_goes_on_under_the_same_name(drawn: Callable[[str], Path], tmp_path: Path) -> None:
    def job(name: str) -> subprocess.Popen[str]:
        options = ["--data.images", str(drawn("digits")), "--run.batch", "32", "--run.steps", "120"]
        return start_job(
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
        return start_job("jobs/vae.py", *options, "--run.storage", f"{s3.url}/runs", "--run.name", "remote")

    finish(job(40))
    log = finish(job(60))
    assert "goes on from the checkpoint of step 40" in log
    run = locate(f"{s3.url}/runs/remote")
    steps = [line["step"] for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"]
    assert steps == [10, 20, 30, 40, 50, 60]
    assert model_directory.load(str(run / "model")).family == "vae"
    assert list((run / "tensorboard").iterdir())
    assert (run / "figures" / "step-00000060" / "samples.png").exists()
