"""A cluster of two nodes on loopback, started as a user does, and small data sets."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from genlab.data.ingest.ingest import IngestConfig, ingest
from tests.cluster.support import PATIENCE, REPOSITORY, Cluster, environment


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one CPU each (or $GENLAB_CPUS), with token authentication, by cluster/up.sh."""
    with tempfile.TemporaryDirectory(prefix="glc-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        state = f"{folder}/c"
        up = environment(GENLAB_CLUSTER=state, GENLAB_PORT=port, GENLAB_CPUS=os.environ.get("GENLAB_CPUS", "1"))
        started = subprocess.run(
            [REPOSITORY / "cluster/up.sh"], env=up, capture_output=True, text=True, timeout=PATIENCE
        )
        assert started.returncode == 0, started.stdout + started.stderr
        client = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=f"{state}/token")
        yield Cluster(f"http://127.0.0.1:{port}", client, state)
        subprocess.run([REPOSITORY / "cluster/down.sh"], env=up, check=True, capture_output=True, timeout=PATIENCE)
        left = [p for p in psutil.process_iter() if state in " ".join(_words(p))]
        assert not left, f"cluster/down.sh left {left}"


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small drawn data sets by name: digits, scenes-a, scenes-b."""
    root = tmp_path_factory.mktemp("drawn")

    def draw(name: str) -> Path:
        if not (root / name).exists():
            size = None if name == "digits" else 32
            count = 1200 if name == "digits" else 60
            ingest(
                IngestConfig(
                    source=f"synthetic:{name}", dest=str(root / name), count=count, size=size, test_fraction=0.2
                )
            )
        return root / name

    return draw
