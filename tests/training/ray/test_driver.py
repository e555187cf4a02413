"""Jobs that bring their own Ray: a killed driver, a run directory on S3, a store that is away."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.train import RunConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from upath import UPath

from genlab.core.storage import locate
from genlab.store import model_directory
from genlab.training.ray.driver import LeanTrainer, Rendezvous
from genlab.training.tracking import read_metrics
from tests.cluster_support import TIMEOUT_SECONDS, finish, indexes, reproducible, start_job, wait_for
from tests.s3 import Bucket, FaultProxy

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


WITHOUT_RAYS_PRIVATE_PARTS = """
import sys, ray, ray.train.v2.api.data_parallel_trainer
hidden = ["ray._private.state", "ray.train._internal.utils", "ray.train.v2._internal.callbacks.datasets",
          "ray.train.v2._internal.callbacks.placement_group_callback"]
sys.modules |= dict.fromkeys(hidden)
from genlab.training.ray.driver import LeanTrainer
del LeanTrainer._create_default_callbacks
from genlab.cli.train import train_family
train_family("vae")
"""


def test_a_run_does_without_rays_private_modules(drawn: Callable[[str], Path], tmp_path: Path) -> None:
    options = ["--data.images", str(drawn("digits")), "--run.batch", "32", "--run.steps", "4", "--run.workers", "2"]
    finish(start_job("-c", WITHOUT_RAYS_PRIVATE_PARTS, *options, "--run.storage", str(tmp_path), "--run.name", "run"))
    assert indexes(tmp_path / "run")


def test_the_two_actors_that_are_spared_are_still_rays_default(tmp_path: Path) -> None:
    """Else :class:`LeanTrainer` saves nothing any more."""
    options: dict[str, Any] = {"run_config": RunConfig(storage_path=str(tmp_path)), "backend_config": Rendezvous()}
    rays, lean = (kind(print, **options)._create_default_callbacks() for kind in (DataParallelTrainer, LeanTrainer))
    names = [[type(callback).__name__ for callback in callbacks] for callbacks in (rays, lean)]
    assert set(names[0]) - set(names[1]) == {"DatasetsCallback", "PlacementGroupCleanerCallback"}


SLOW_RUN = """
import sys, time
from genlab.core import claims, retries, s3
from genlab.core.config import override
from genlab.recipes.vae import VAEConfig
from genlab.training.launch import launch

def prepare(plan, session):
    from genlab.training.state import TrainingState

    retries.RETRY_SECONDS, s3.CLIENT_TRIES = 2, 2
    update = TrainingState.update_ema

    def update_slowly(*arguments):
        time.sleep(0.1)
        update(*arguments)

    TrainingState.update_ema = update_slowly

data, storage, workers = sys.argv[1:]
claims.HEARTBEAT, claims.LEASE_TIMEOUT = 0.2, 2
changes = {"data.images": data, "run.storage": storage, "run.name": "run", "run.workers": int(workers)}
changes |= {"run.batch": 32, "run.steps": 100, "run.log_every": 5, "run.checkpoint_every": 10}
if __name__ == "__main__":
    launch("vae", override(VAEConfig(), changes), prepare)
"""
"""A run of ten seconds, with leases that end soon and a store that is given up soon."""


def read_until(job: subprocess.Popen[str], text: str) -> str:
    """What a job printed up to a line with this text."""
    assert job.stdout is not None
    said = ""
    for line in job.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it ended without {text!r}: {said}")


def slow_run(drawn: Callable[[str], Path], storage: str, workers: int) -> subprocess.Popen[str]:
    return start_job("-u", "-c", SLOW_RUN, str(drawn("digits")), storage, str(workers))


def logged_steps(run: UPath) -> list[int]:
    return [line["step"] for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"]


def test_a_run_on_s3_goes_on_after_the_store_was_away_for_longer_than_requests_are_repeated(
    s3: Bucket, fault_proxy: FaultProxy, drawn: Callable[[str], Path]
) -> None:
    run = locate(f"{s3.url}/runs/run")
    job = slow_run(drawn, f"{s3.url}/runs", 1)
    wait_for("a checkpoint", lambda: list(run.glob("checkpoints/*/index.json")))
    fault_proxy.away()
    read_until(job, "gave up after")
    fault_proxy.back()
    log = finish(job)
    assert "goes on from the checkpoint of step" in log
    assert logged_steps(run) == [*range(5, 101, 5)]
    assert model_directory.load(str(run / "model")).family == "vae"
    assert list((run / "tensorboard").iterdir())
    assert (run / "figures" / "step-00000100" / "samples.png").exists()


def test_a_driver_that_is_taken_for_dead_stops_with_its_workers(s3: Bucket, drawn: Callable[[str], Path]) -> None:
    run = locate(f"{s3.url}/runs/run")
    first = slow_run(drawn, f"{s3.url}/runs", 1)
    wait_for("a checkpoint", lambda: list(run.glob("checkpoints/*/index.json")))
    first.send_signal(signal.SIGSTOP)
    second = slow_run(drawn, f"{s3.url}/runs", 0)
    said = finish(second)
    assert "was claimed by process" in said
    assert "goes on from the checkpoint of step" in said
    first.send_signal(signal.SIGCONT)
    log, _ = first.communicate(timeout=TIMEOUT_SECONDS)
    assert first.returncode != 0
    assert "another training took over, because this one gave no sign of life" in log
    assert logged_steps(run) == [*range(5, 101, 5)]
    attempts = [file.name for file in (run / "attempts").iterdir()]
    assert sorted(attempts) == ["00001.json", "00002.json"], "the workers of the first took no number after that"
