"""A small StyleGAN under Ray from one end to the other: trained, killed, resumed, evaluated, served and mixed."""

import contextlib
import io
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from genlab.cli.evaluate import EvaluateConfig, run_evaluation
from genlab.inference.engine import Engine
from tests.cluster_support import TIMEOUT_SECONDS, Cluster, environment, indexes, wait_for

OPTIONS = [
    *["--run.batch", "8", "--run.steps", "60", "--run.log-every", "5", "--run.checkpoint-every", "10"],
    *["--run.workers", "2", "--model.channel-base", "64", "--model.channel-max", "16", "--model.latent-dim", "16"],
    *["--model.mapping-layers", "2", "--augmentation.adaptive", "--optimization.ema-images", "100"],
]


@pytest.mark.cluster
def test_a_stylegan_is_trained_killed_resumed_evaluated_and_served(
    cluster: Cluster, drawn: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--data.images", str(drawn("digits-16")), "--run.storage", str(tmp_path), "--run.name", "run"]
    job = cluster.submit("python", "jobs/stylegan.py", *data, *OPTIONS)
    run = tmp_path / "run"
    wait_for("a checkpoint", lambda: indexes(run) or job.poll() is not None)
    [*_, worker] = wait_for("workers", lambda: len(found := cluster.workers()) == 2 and found)
    worker.send_signal(signal.SIGKILL)
    log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode == 0, log
    assert "goes on from the checkpoint of step" in log
    assert max(indexes(run)) == "step-00000060"

    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    few = EvaluateConfig(str(run), classifier="none", samples=64, path_lengths=8)
    evaluation, _ = run_evaluation(few, {"truncation": 0.7})
    assert {"fid", "kid", "ppl_w_full"} <= evaluation.measurements.keys()
    assert evaluation.measurements["kid"].settings["sample_truncation"] == 0.7

    engine = Engine(str(run / "model"))
    mixed: dict[str, Any] = {"truncation": 0.7, "latents": 2}
    with served(run, tmp_path / "log") as url:
        choices: list[dict[str, Any]] = [{}, mixed]
        for options in choices:
            answer = httpx.post(f"{url}/v1/models/run/sample", json={"seed": 3, **options}, timeout=60)
            assert answer.status_code == 200, answer.text
            picture = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
            # Rounded alike but for the last bit, which depends on the number of threads.
            assert np.abs(picture - engine.sample(1, 3, **options)[0, :, :, 0]).max() <= 1
    assert (engine.sample(1, 3, **mixed) != engine.sample(1, 3, truncation=0.7)).any()


@contextlib.contextmanager
def served(run: Path, log: Path) -> Iterator[str]:
    """The URL of ``genlab serve RUN``, which ends with the context."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = ["-c", "from genlab.cli.serve import main; main()", str(run), "--port", str(port)]
    variables = {name: value for name, value in environment().items() if name != "RAY_ADDRESS"}
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, *command], env=variables, stdout=file, stderr=file)
        try:
            wait_for("the server", lambda: _answers(port) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).is_success
    except httpx.TransportError:
        return False
