"""The shell scripts of cluster/: a linter, and cluster/slurm.sh with programs that stand in for Slurm's and Ray's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPOSITORY / "cluster").glob("*.sh"))
PROGRAMS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'echo "scontrol $*" >>"$LOG"; [[ $1 != show ]] || printf "node1\\nnode2\\n"',
    "hostname": "echo 10.0.0.1 fd00::1",
    "python": f"""
        [[ $1 == - ]] || exec {sys.executable} "$@"
        until (($(grep -c "ray start" "$LOG") == $2)); do sleep 0.05; done""",
    "ray": """
        if [[ $1 == start ]]; then
          echo "ray $* mode=$RAY_AUTH_MODE token=$(stat -c %a "$RAY_AUTH_TOKEN_PATH")" >>"$LOG"
          trap 'echo "ray ended" >>"$LOG"; exit' TERM
          while :; do sleep 0.05; done
        fi""",
    "work": """
        echo "work $* at $RAY_ADDRESS token=$(wc -c <"$RAY_AUTH_TOKEN_PATH")${RAY_AUTH_TOKEN-}" >>"$LOG"
        exit 3""",
    "save-slowly": """
        trap 'echo saving >>"$LOG"' TERM
        echo ready >>"$LOG"
        until [[ -e $HOME/go-on ]]; do sleep 0.05; done
        echo saved >>"$LOG\"""",
    "wait-for-term": 'trap \'echo saved >>"$LOG"; exit 0\' TERM; echo ready >>"$LOG"; while :; do sleep 0.05; done',
}


def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def slurm(tmp_path: Path) -> Any:
    """Start cluster/slurm.sh as Slurm does on the first of two nodes; the log tells what was called."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    log = tmp_path / "log"
    log.touch()

    def start(*command: str, requeue_after: str = "240") -> tuple["subprocess.Popen[bytes]", Path]:
        variables = {
            "GENLAB_REQUEUE_AFTER": requeue_after,
            "HOME": str(tmp_path),
            "LOG": str(log),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "RAY_AUTH_TOKEN": "of another cluster",
        }
        script = ["bash", str(REPOSITORY / "cluster" / "slurm.sh"), *command]
        return subprocess.Popen(script, env={**os.environ, **variables}), log

    return start


def test_a_slurm_job_is_a_cluster_with_a_token_of_its_own_that_ends_with_the_command(
    slurm: Any, tmp_path: Path
) -> None:
    job, log = slurm("work", "--run.name", "monet")
    assert job.wait(60) == 3
    lines = log.read_text().splitlines()
    (head,) = [line for line in lines if "ray start --head" in line]
    assert "--dashboard-host=127.0.0.1" in head
    assert "--node-ip-address=10.0.0.1 " in head
    (worker,) = [line for line in lines if "ray start --block" in line]
    assert "--address=10.0.0.1:6379" in worker
    assert all(line.endswith("mode=token token=600") for line in (head, worker))
    assert "work --run.name monet at 10.0.0.1:6379 token=64" in lines
    assert lines.count("ray ended") == 2
    assert not list(tmp_path.glob(".genlab-slurm-*")), "the token is gone"


def wait_for(line: str, log: Path) -> None:
    """Wait until a line is in the log."""
    deadline = time.monotonic() + 60
    while line not in log.read_text().splitlines() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_slurm_job_that_is_stopped_saves_and_is_queued_again(slurm: Any) -> None:
    job, log = slurm("wait-for-term")
    wait_for("ready", log)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 0
    lines = log.read_text().splitlines()
    assert lines.index("saved") < lines.index("scontrol requeue 7") < lines.index("ray ended")
    assert lines.count("scontrol requeue 7") == 1


def test_a_slurm_job_that_is_stopped_and_saves_too_slowly_is_queued_again_before(slurm: Any, tmp_path: Path) -> None:
    job, log = slurm("save-slowly", requeue_after="0.1")
    wait_for("ready", log)
    job.send_signal(signal.SIGTERM)
    wait_for("scontrol requeue 7", log)
    (tmp_path / "go-on").touch()
    assert job.wait(60) == 0
    lines = log.read_text().splitlines()
    assert lines.index("saving") < lines.index("scontrol requeue 7") < lines.index("saved") < lines.index("ray ended")
    assert lines.count("scontrol requeue 7") == 1


def test_a_slurm_job_without_a_command_says_what_to_submit(slurm: Any, capfd: pytest.CaptureFixture[str]) -> None:
    job, log = slurm()
    assert job.wait(60) == 2
    assert "sbatch cluster/slurm.sh python jobs/FAMILY.py" in capfd.readouterr().err
    assert log.read_text() == ""
