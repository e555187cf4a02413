"""What the cluster tests share: a cluster's address, and runs to compare."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from genlab.training.tracking import CLOCK_FIELDS, read_metrics

REPOSITORY = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 300.0
"""Seconds that anything here may take before the test gives up on it."""


def environment(**changes: str) -> dict[str, str]:
    """The environment of a shell in which the project's python comes first.

    Without the token that :func:`genlab.core.ray_cluster.connected` leaves in a process that called it.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    return {**inherited, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **changes}


TRAIN_WORKER = "RayTrainWorker"
TRIAL = "ray::ImplicitFunc.train"
"""In the titles of processes of Ray: of a run's workers, and of one that trains a trial of a sweep at this moment."""


@dataclass(frozen=True)
class Cluster:
    """What `make cluster-up` printed, so to speak."""

    address: str
    environment: dict[str, str]
    state: str
    gcs: str
    """Address that nodes join."""

    def start_node(self, name: str, *arguments: str, within: Sequence[str] = ()) -> None:
        """Start another node of one CPU, and wait until it is there; `make cluster-down` stops it with the others.

        Args:
            name: its name in the folder of the cluster's state.
            arguments: more arguments of `ray start`.
            within: words of a command that runs another, `ip netns exec NAME` say.
        """
        self.shell('join_node "$@"', name, self.gcs, "--num-cpus", "1", *arguments, within=within)

    def stop_node(self, name: str) -> None:
        """Stop a node as a machine is stopped: SIGTERM first."""
        self.shell('stop_node "$1"', name)

    def shell(self, script: str, *arguments: str, within: Sequence[str] = ()) -> None:
        """Run a script that knows the functions of cluster/lib.sh, for this cluster."""
        variables = {**self.environment, "GENLAB_CLUSTER": self.state}
        command = [*within, "bash", "-euc", f"source cluster/lib.sh; {script}", "bash", *arguments]
        subprocess.run(command, cwd=REPOSITORY, env=variables, check=True, timeout=TIMEOUT_SECONDS)

    def submit(self, *command: str) -> subprocess.Popen[str]:
        """Start `ray job submit ... -- COMMAND` and return at once."""
        return subprocess.Popen(
            ["ray", "job", "submit", "--address", self.address, "--working-dir", ".", "--", *command],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def drive(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start `python ARGUMENTS` as a driver, whose folder does not go with a node as that of a job may here.

        Args:
            arguments: a script and what it is given.
            variables: more environment variables of the driver.
        """
        return subprocess.Popen(
            ["python", *arguments],
            cwd=REPOSITORY,
            env={**self.environment, "RAY_ADDRESS": self.gcs, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def workers(self, title: str = TRAIN_WORKER) -> list[psutil.Process]:
        """This cluster's processes of Ray with ``title`` in theirs, its Ray Train workers by default."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    title in " ".join(process.cmdline())
                    and process.environ().get("RAY_AUTH_TOKEN_PATH") == self.environment["RAY_AUTH_TOKEN_PATH"]
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def raylets(self, title: str = TRAIN_WORKER) -> dict[str, psutil.Process]:
        """The raylets that have such a process, but for the head's, by the ID of the node."""
        found = {}
        for worker in self.workers(title):
            with contextlib.suppress(psutil.Error):
                raylet = worker.parent()
                words = raylet.cmdline() if raylet else []
                ids = [word.removeprefix("--node_id=") for word in words if word.startswith("--node_id=")]
                if raylet and ids and not any(word.endswith(" --head") for word in words) and "--head" not in words:
                    found[ids[0]] = raylet
        return found


@contextmanager
def started_cluster(**variables: str) -> Iterator[Cluster]:
    """Two nodes of one CPU each (or $GENLAB_CPUS), by cluster/up.sh, with more environment variables if given."""
    with tempfile.TemporaryDirectory(prefix="glc-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        state, cpus = f"{folder}/c", os.environ.get("GENLAB_CPUS", "1")
        up = environment(GENLAB_CLUSTER=state, GENLAB_PORT=port, GENLAB_CPUS=cpus, **variables)
        started = subprocess.run(
            [REPOSITORY / "cluster/up.sh"], env=up, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
        assert started.returncode == 0, started.stdout + started.stderr
        client = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=f"{state}/token", **variables)
        try:
            [gcs] = re.findall(r"RAY_ADDRESS=(\S+)", started.stdout)
            yield Cluster(f"http://127.0.0.1:{port}", client, state, gcs)
        finally:
            subprocess.run(
                [REPOSITORY / "cluster/down.sh"], env=up, check=True, capture_output=True, timeout=TIMEOUT_SECONDS
            )
        left = [p for p in psutil.process_iter() if state in " ".join(_words(p))]
        assert not left, f"cluster/down.sh left {left}"


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def start_job(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start `python ARGUMENTS` in the repository as one does without a cluster."""
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
    log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode == 0, log
    return log


def wait_for(what: str, true: Callable[[], Any], seconds: float = TIMEOUT_SECONDS) -> Any:
    """Wait until ``true()`` is, ``seconds`` at most."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = true()
        if result:
            return result
        time.sleep(0.1)
    raise TimeoutError(f"gave up waiting for {what}")


def reproducible(run: Path) -> list[dict[str, Any]]:
    """A run's metrics without the fields that the clock decides."""
    return [{k: v for k, v in line.items() if k not in CLOCK_FIELDS} for line in read_metrics(run / "metrics.jsonl")]


def indexes(run: Path) -> dict[str, Any]:
    """What the indexes of a run's checkpoints say of their files."""
    return {
        path.parent.name: [*json.loads(path.read_text())["files"].values()]
        for path in sorted(run.glob("checkpoints/*/index.json"))
    }
