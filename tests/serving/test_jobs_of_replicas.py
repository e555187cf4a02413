"""Two servers on one folder of jobs, one of which is killed: the job ends, with the bytes of an undisturbed one."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genlab.client import Client, Retries
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def serving(runs: Path, jobs: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """``genlab serve`` in a process; gives it and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    program = "from genlab.cli.main import main; main()"
    options = ["--port", str(port), "--threads", "1", "--settings.jobs", str(jobs)]
    options += ["--settings.runtime", "pytorch"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", str(runs / "monet"), *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def test_a_job_outlives_the_server_that_computes_it(served_runs: Path, tmp_path: Path) -> None:
    folder, patience = tmp_path / "jobs", Retries(tries=600, seconds=300, backoff=(0.5, 0.5))
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(30)]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(served_runs, folder, tmp_path / f"{n}.log")) for n in range(2)]
        clients = [stack.enter_context(Client(url, retries=patience)) for _, url in servers]
        for client in clients:
            client.card("monet")
        job = clients[0].submit_job("monet", "translate", pictures)
        [job_folder] = folder.glob(f"*/jobs/{job.id}")
        while len([*job_folder.glob("result-*")]) < 5:
            time.sleep(0.02)
        holder = int(re.findall(r"process (\d+) on", json.loads((job_folder / "job.lock").read_text())["holder"])[0])
        [(killed, survivor)] = [
            (process, client)
            for (process, _), client in zip(servers, reversed(clients), strict=True)
            if process.pid == holder
        ]
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        there = [*job_folder.glob("result-*")]
        assert 5 <= len(there) < 30, "it was killed in the middle"
        written = {path: path.stat().st_mtime_ns for path in there}
        status = survivor.wait_for_job(job.id, 120, pause=0.2)
        assert (status.state, status.done, status.failures) == ("done", 30, {})
        assert {path: path.stat().st_mtime_ns for path in there} == written, "nothing was computed twice"
        undisturbed = survivor.submit_job("monet", "translate", pictures)
        assert survivor.wait_for_job(undisturbed.id, 120, pause=0.2).state == "done"
        result = survivor.job_result(job.id)
        assert result.data == survivor.job_result(undisturbed.id).data
        assert result.version == job.version
        for one in (job, undisturbed):
            survivor.delete_job(one.id)
            survivor.delete_job(one.id)
    assert not [path for path in folder.rglob("*") if path.is_file()]
