"""The notice of a cloud that a spot machine is taken back: read of its metadata server, and passed on to Ray."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from genlab.core import spot_notice
from tests.cluster_support import REPOSITORY, TIMEOUT_SECONDS, Cluster, finish, wait_for

NOBODY = "127.0.0.1:9"
STAY = """
import ray
ray.init(log_to_driver=False)
from genlab.training.ray.driver import draining
for node in ray.nodes():
    if node["Alive"] and node["NodeID"] not in draining():
        print(f"on {node['NodeManagerAddress']}: {node['NodeID']}")
"""
"""Prints the nodes that jobs may use."""


class Metadata(ThreadingHTTPServer):
    """The metadata server of a machine of AWS and of one of Google Cloud, in one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.notice: datetime | None = None
        """When the machine will be taken back."""
        self.asked = 0
        self.faults = 0
        """So many questions have no answer."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        self._answer("secret" if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else None)

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.faults:
            self.server.faults -= 1
            self.connection.close()
            return
        notice = self.server.notice
        if self.path == "/latest/meta-data/spot/instance-action":
            assert self.headers["X-aws-ec2-metadata-token"] == "secret"
            said = {"action": "terminate", "time": f"{notice:%Y-%m-%dT%H:%M:%SZ}"} if notice else None
            self._answer(None if said is None else json.dumps(said))
        elif self.path == "/computeMetadata/v1/instance/preempted":
            assert self.headers["Metadata-Flavor"] == "Google"
            self._answer("TRUE" if notice else "FALSE")
        else:
            self._answer(None)

    def _answer(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served() -> Iterator[Metadata]:
    with Metadata() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(params=["aws", "google"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """The metadata server of a machine of one cloud; the other's is nowhere."""
    with served() as server:
        addresses = {name: server.address if name == request.param else NOBODY for name in ("aws", "google")}
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{addresses['aws']}")
        monkeypatch.setenv("GCE_METADATA_HOST", addresses["google"])
        monkeypatch.setattr(spot_notice, "ASK_SECONDS", 0.01)
        yield server


def test_the_notice_is_waited_for_and_says_how_long_is_left(machine: Metadata) -> None:
    cloud = spot_notice.find_cloud()
    assert cloud is not None
    assert cloud() is None
    found: list[float] = []
    waiting = threading.Thread(target=lambda: found.append(spot_notice.await_notice(cloud)), daemon=True)
    waiting.start()
    wait_for("questions", lambda: machine.asked > 4)
    machine.faults = 2
    wait_for("questions without an answer", lambda: machine.faults == 0)
    machine.notice = datetime.now(UTC) + timedelta(seconds=120)
    waiting.join(TIMEOUT_SECONDS)
    (left,) = found
    assert 110 < left <= 120 if cloud is spot_notice.aws else left == 30


def test_on_other_machines_it_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{NOBODY}")
    monkeypatch.setenv("GCE_METADATA_HOST", NOBODY)
    spot_notice.main([])
    assert "there will be no notice" in capsys.readouterr().out


@pytest.mark.cluster
def test_the_node_of_a_machine_that_is_taken_back_is_drained(cluster: Cluster) -> None:
    cluster.start_node("spot", "--node-ip-address", "127.0.0.2")
    words = ["python", "-m", "genlab.core.spot_notice", "--address", cluster.gcs, "--node-ip-address", "127.0.0.2"]
    try:
        with served() as server:
            variables = cluster.environment | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{server.address}"}
            watch = subprocess.Popen(
                words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
            )
            wait_for("questions", lambda: server.asked > 1 or watch.poll() is not None)
            server.notice = datetime.now(UTC) + timedelta(seconds=600)
            said, _ = watch.communicate(timeout=TIMEOUT_SECONDS)
        assert watch.returncode == 0, said
        assert "waits for a notice of aws" in said
        node = said.partition("node ")[2].partition(":")[0]
        left = finish(cluster.drive("-c", STAY))
        assert f"on 127.0.0.2: {node}" not in left
        assert left.count("on ") >= 2, "the others stay"
    finally:
        cluster.stop_node("spot")
