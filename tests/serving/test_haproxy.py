"""HAProxy in front of a real Ray Serve: TLS, errors, replicas that are killed, models that are updated."""

import base64
import contextlib
import csv
import dataclasses
import functools
import io
import itertools
import json
import os
import random
import signal
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image
from ray import serve
from ray.serve._private import api as _private_api
from ray.serve.schema import ServeDeploySchema

from genlab.cli.haproxy import main as print_exports
from genlab.cli.promote import PromoteConfig, promote
from genlab.client import Answer, Client, ServerError
from genlab.core.errors import ConfigError, GenlabError
from genlab.core.ray_cluster import connected
from genlab.models.vae import VAE, VAEArchitecture
from genlab.serving import haproxy, haproxy_program
from genlab.serving.settings import TLS
from genlab.store import model_directory
from tests.certificates import make_certificate
from tests.serving.every_operation import ask_every_operation

CONFIG = Path(__file__).resolve().parents[2] / "cluster" / "serve.yaml"
RECEIVE_SECONDS = 5
REPLICA_PORTS = frozenset(range(30_000, 31_001))
"""Those of docs/serving.md."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TLS:
    certificate, key = make_certificate(tmp_path_factory.mktemp("certificate"))
    return TLS(certificate=str(certificate), key=str(key))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="glh-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


def test_a_folder_that_cannot_hold_sockets_is_refused() -> None:
    for name in ("relative", f"/tmp/{'x' * 40}", "/tmp/with space"):
        with pytest.raises(ConfigError, match="--folder"):
            haproxy.prepare(haproxy.HAProxyConfig(folder=name))


def test_without_haproxy_the_python_proxy_is_used_and_that_is_said(
    folder: Path, certificate: TLS, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(haproxy, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(folder))
    print_exports(["--folder", str(folder)])
    told = capsys.readouterr()
    assert told.out == "export RAY_SERVE_ENABLE_HA_PROXY=0\n"
    assert "no HAProxy" in told.err
    files = (f"--tls.certificate={certificate.certificate}", f"--tls.key={certificate.key}")
    with pytest.raises(SystemExit):
        print_exports([f"--folder={folder}", *files])
    assert "ssl_certfile" in capsys.readouterr().err


def prepared(config: haproxy.HAProxyConfig) -> Mapping[str, str]:
    try:
        return haproxy.prepare(config)
    except haproxy.MissingError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_the_installed_ray_writes_the_configuration_that_is_completed(folder: Path, certificate: TLS) -> None:
    prepared(haproxy.HAProxyConfig(folder=str(folder), tls=certificate))  # raises if HAProxy refuses it
    written = haproxy.ray_configuration({}, folder)
    settings = {"errors": "/errors", "certificate": "/server.pem", "buffer": 2**20, "seconds": 30}
    complete = haproxy_program.complete(written, settings)
    assert haproxy_program.complete(complete, settings) == complete
    listening = [line.split()[1:] for line in complete.splitlines() if line.strip().startswith("bind")]
    assert "    tune.memory.hot-size 16777216" in complete.splitlines(), "16 buffers are kept"
    assert {address.partition(":")[0] for address, *_ in listening} == {"127.0.0.1"}
    assert [options for _, *options in listening if options] == [["ssl", "crt", "/server.pem", "alpn", "h2,http/1.1"]]
    assert "mode 666" not in complete
    for line in written.splitlines():
        if line.strip().startswith(("bind", "option redispatch", "errorfile 502", "stats socket")):
            with pytest.raises(haproxy_program.UnexpectedError):
                haproxy_program.complete(written.replace(line, line.replace(" ", "  ").upper()), settings)
    with pytest.raises(GenlabError, match="RAY_SERVE_OF_TOMORROW"):
        haproxy.ray_configuration({"RAY_SERVE_OF_TOMORROW": "1"}, folder)


@dataclass
class Deployed:
    """An application of two replicas behind HAProxy."""

    port: int
    context: ssl.SSLContext
    store: Path
    """A folder of models with ``digits``, whose aliases ``prod`` and ``next`` stand for one version."""
    jobs: Path
    """The folder of jobs."""
    stats: str
    """Where HAProxy tells which servers it knows."""
    too_early: httpx.Response
    """The answer before there was an application."""

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def pids(self) -> set[int]:
        """The processes of the replicas that run."""
        client = serve.context._get_global_client()
        assert client is not None
        application = client.get_serve_details()["applications"]["genlab"]
        replicas = application["deployments"]["Generator"]["replicas"]
        return {replica["pid"] for replica in replicas if replica["state"] == "RUNNING"}

    def servers(self) -> list[dict[str, str]]:
        """What HAProxy tells of the replicas that it knows."""
        rows = csv.DictReader(httpx.get(self.stats).text.removeprefix("# ").splitlines())
        return [row for row in rows if row["svname"].startswith("SERVE_REPLICA")]

    def requests_at_replicas(self) -> int:
        """Requests that HAProxy has sent to replicas and that are not answered yet."""
        return sum(int(row["scur"]) for row in self.servers())

    def replicas(self) -> list[str]:
        """The URLs of the replicas themselves, which listen on loopback alone."""
        sockets = [each for pid in self.pids() for each in psutil.Process(pid).net_connections("tcp4")]
        ports = {each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN}
        return [f"http://127.0.0.1:{port}" for port in ports & REPLICA_PORTS]

    def has_two_besides(self, pid: int | None) -> bool:
        """Whether two replicas run, none of them in process ``pid``, and HAProxy has just these."""
        replicas = self.servers()
        pids = self.pids()
        return len(pids) == 2 and pid not in pids and [row["status"] for row in replicas] == ["UP", "UP"]


def free_port() -> int:
    """A port at which nothing listens, and which no client's connection is given in the meantime."""
    for port in random.sample(range(20_000, 30_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def wait_for(condition: Callable[[], Any]) -> Any:
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError, KeyError):
            if found := condition():
                return found
        time.sleep(0.2)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def deployed(
    served_runs: Path, model_runs: Path, folder: Path, certificate: TLS, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    """The application of cluster/serve.yaml with two replicas, as nodes of `genlab haproxy` serve it.

    It has a model of each family.
    """
    store, jobs = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("jobs")
    for alias in ("prod", "next"):
        promote(PromoteConfig(str(served_runs / "digits"), str(store), alias, add_probes=True))
    config = yaml.safe_load(CONFIG.read_text())
    [application] = config["applications"]
    runs = [served_runs / "monet", served_runs / "classes", model_runs / "faces"]
    # Whatever these machines are fast at, a request has one answer.
    application["args"] = {
        "models": [str(store), *map(str, runs)],
        "settings": {"exact": True, "jobs": str(jobs)},
    }
    [generator] = application["deployments"]
    generator |= {"autoscaling_config": None, "num_replicas": 2, "ray_actor_options": {"num_cpus": 0.5}}
    config["http_options"]["port"] = port = free_port()
    schema = ServeDeploySchema.model_validate(config)
    settings = haproxy.HAProxyConfig(
        str(folder), certificate, receive_seconds=RECEIVE_SECONDS, metrics_port=free_port(), stats_port=free_port()
    )
    context = ssl.create_default_context(cafile=certificate.certificate)
    with pytest.MonkeyPatch.context() as patch:
        environment = {
            **prepared(settings),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        with connected():
            options = schema.http_options.model_dump()
            client = _private_api.serve_start(http_options=options, proxy_location=schema.proxy_location)
            try:
                models = f"https://localhost:{port}/v1/models"
                too_early = wait_for(lambda: httpx.get(models, verify=context))
                client.deploy_apps(schema, _blocking=False)
                stats = f"http://127.0.0.1:{settings.stats_port}/stats;csv"
                made = Deployed(port, context, store, jobs, stats, too_early)
                wait_for(lambda: made.has_two_besides(None))
                yield made
            finally:
                serve.shutdown()


@dataclass(frozen=True, eq=False)
class Request:
    """What clients ask a model for."""

    model: str
    operation: str
    parameters: Mapping[str, Any]
    picture: bytes | None = None
    accept: str = "image/png"
    padding: int = 0
    """Bytes of blanks at the end of its body, if it is sent without the Python client."""

    def send(self, client: httpx.Client, url: str) -> httpx.Response:
        """Send it as it is."""
        picture = {} if self.picture is None else {"image": base64.b64encode(self.picture).decode()}
        body = json.dumps({**self.parameters, **picture}).encode() + b" " * self.padding
        headers = {"Accept": self.accept, "Content-Type": "application/json"}
        return client.post(f"{url}/v1/models/{self.model}/{self.operation}", content=body, headers=headers)

    def ask(self, client: Client) -> Answer:
        """Send it by the Python client."""
        pictures = () if self.picture is None else (self.picture,)
        answer: Answer = getattr(client, self.operation)(self.model, *pictures, accept=self.accept, **self.parameters)
        return answer


@dataclass(frozen=True)
class Answered:
    """A request that was answered with pictures."""

    request: Request
    began: float
    """When it was sent, by the monotonic clock."""
    version: str
    data: bytes


@dataclass
class Load:
    """What became of the requests of clients that send one after the other."""

    answers: list[Answered] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def load(
    deployed: Deployed, requests: Sequence[Request], clients: int = 4, python_clients: int = 0, pause: float = 0.0
) -> Iterator[Load]:
    """Clients that send requests in turn, each from another one on, with a pause in seconds between them."""
    seen, stop = Load(), threading.Event()

    def send(first: int) -> None:
        with httpx.Client(verify=deployed.context, timeout=60) as client:
            for request in itertools.islice(itertools.cycle(requests), first, None):
                if stop.wait(pause):
                    return
                began = time.monotonic()
                try:
                    answer = request.send(client, deployed.url)
                except httpx.TransportError as error:
                    seen.failures.append(repr(error))
                    continue
                if answer.status_code == 200:
                    version = answer.headers.get("X-Genlab-Version", "none")
                    seen.answers.append(Answered(request, began, version, answer.content))
                else:
                    seen.failures.append(f"{answer.status_code}: {answer.text[:200]}")

    def ask(first: int) -> None:
        with Client(deployed.url, verify=deployed.context) as client:
            for request in itertools.islice(itertools.cycle(requests), first, None):
                if stop.wait(pause):
                    return
                began = time.monotonic()
                try:
                    answer = request.ask(client)
                except ServerError as error:
                    seen.failures.append(f"by the Python client: {error}")
                else:
                    seen.answers.append(Answered(request, began, answer.version, answer.data))

    threads = [threading.Thread(target=send, args=(first,)) for first in range(clients)]
    threads += [threading.Thread(target=ask, args=(first,)) for first in range(python_clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def noise(mode: str, side: int) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    Image.effect_noise((side, side), 50).convert(mode).save(file, "PNG")
    return file.getvalue()


@pytest.mark.cluster
def test_errors_of_the_proxy_are_problems(deployed: Deployed) -> None:
    early = deployed.too_early
    assert (early.status_code, early.json()["type"], early.headers["Retry-After"]) == (503, "/problems/no-replica", "1")
    head = f"POST /v1/models/monet/translate HTTP/1.1\r\nHost: localhost:{deployed.port}\r\n"
    for sent, status in (
        (f"{head}Padding: {'x' * 70_000}\r\n\r\n", 431),
        (f"{head}Content-Length: 9\r\n\r\nslow", 408),
    ):
        with socket.create_connection(("localhost", deployed.port), timeout=60) as plain:
            client = deployed.context.wrap_socket(plain, server_hostname="localhost")
            client.sendall(sent.encode())
            answer = client.recv(65536)
            while not answer.endswith(b"}") and (more := client.recv(65536)):
                answer += more
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"application/problem+json" in answer.lower()
    missing = httpx.get(f"{deployed.url}/v1/models/absent", verify=deployed.context)
    assert (missing.status_code, missing.json()["status"]) == (404, 404)


@pytest.mark.cluster
def test_a_page_of_the_server_itself_may_compute_over_tls(deployed: Deployed) -> None:
    sample = f"{deployed.url}/v1/models/digits/sample"
    with httpx.Client(verify=deployed.context, timeout=60) as client:
        own = client.post(sample, headers={"Origin": deployed.url, "Sec-Fetch-Site": "same-origin"})
        other = client.post(sample, headers={"Origin": "https://example.org", "Sec-Fetch-Site": "cross-site"})
    assert (own.status_code, other.status_code) == (200, 403)
    assert other.headers.get_list("X-Request-Id") == [other.json()["request_id"]]


@pytest.mark.cluster
def test_every_operation_of_every_family_is_answered(deployed: Deployed) -> None:
    with httpx.Client(base_url=deployed.url, verify=deployed.context, timeout=120) as client:
        asked = ask_every_operation(client)
    assert {name: family for name, (family, _) in asked.items()} == {
        "digits": "vae",
        "monet": "cyclegan",
        "classes": "cvae",
        "faces": "stylegan",
    }


def submit(deployed: Deployed, key: str | None, seed: int = 0, count: int = 3) -> httpx.Response:
    """Submit a sample as a job."""
    return httpx.post(
        f"{deployed.url}/v1/jobs",
        json={"model": "digits", "operation": "sample", "parameters": {"seed": seed, "count": count}},
        headers={} if key is None else {"Idempotency-Key": key},
        verify=deployed.context,
        timeout=300,
    )


def submit_or_lose(deployed: Deployed, key: str | None) -> httpx.Response | None:
    """Submit a sample as a job; ``None`` if the connection broke before an answer."""
    try:
        return submit(deployed, key)
    except httpx.RemoteProtocolError:
        return None


@pytest.mark.cluster
def test_jobs_go_through_the_proxy_to_any_replica(deployed: Deployed) -> None:
    pictures = [np.random.default_rng(seed).integers(0, 256, (32, 40, 3), dtype=np.uint8) for seed in range(6)]
    with Client(deployed.url, verify=deployed.context) as client:
        job = client.submit_job("monet", "translate", pictures, {"direction": "a_to_b"})
        status = client.wait_for_job(job.id, 300, pause=0.2)
        assert (status.state, status.done, status.failures) == ("done", 6, {})
        made = client.job_result(job.id).pixels()
        one_by_one = [client.translate("monet", picture, direction="a_to_b").pixels()[0] for picture in pictures]
        np.testing.assert_array_equal(made, np.stack(one_by_one))
        client.delete_job(job.id)

        same = [submit(deployed, "one-key") for _ in range(6)]  # two replicas take them in turn
        assert [(answer.status_code, answer.json()["id"]) for answer in same] == [(202, same[0].json()["id"])] * 6
        assert submit(deployed, "one-key", seed=1).json()["type"] == "/problems/idempotency-key-reused"
        assert client.wait_for_job(same[0].json()["id"], 300, pause=0.2).done == 3

        long = client.submit_job("monet", "translate", pictures * 100)
        assert client.job(long.id).state in ("waiting", "running")
        client.delete_job(long.id)

        def gone() -> bool:  # soon: the replica that computes it ends that first
            try:
                client.job(long.id)
            except ServerError as error:
                return error.kind == "no-such-job"
            return False

        wait_for(gone)
    wait_for(lambda: not list(deployed.jobs.glob(f"*/jobs/{long.id}/*")))


@pytest.mark.cluster
def test_a_submission_is_sent_again_to_another_replica_only_with_a_key(deployed: Deployed) -> None:
    """Submissions are with both replicas when one is killed; a submission that was replayed would be two jobs."""
    keys = [None, None, "a", "b", None, None, "c", "d"]  # replicas take them about in turn
    before = set(deployed.jobs.glob("*/jobs/*"))
    stopped = sorted(deployed.pids())
    with ThreadPoolExecutor(len(keys)) as senders:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            sent = [senders.submit(submit_or_lose, deployed, key) for key in keys]
            wait_for(lambda: deployed.requests_at_replicas() >= len(keys))
        finally:
            os.kill(stopped[0], signal.SIGKILL)
            os.kill(stopped[1], signal.SIGCONT)
        answers = [one.result() for one in sent]
    with_key = [answer for key, answer in zip(keys, answers, strict=True) if key]
    without = [answer for key, answer in zip(keys, answers, strict=True) if not key]
    assert [answer and answer.status_code for answer in with_key] == [202] * 4
    refused = [answer for answer in without if answer is None or answer.status_code != 202]
    assert {answer.json()["type"] for answer in refused if answer is not None} <= {"/problems/no-replica"}
    taken = {answer.json()["id"] for answer in answers if answer is not None and answer.status_code == 202}
    assert {path.name for path in set(deployed.jobs.glob("*/jobs/*")) - before} == taken
    with Client(deployed.url, verify=deployed.context) as client:
        assert {client.wait_for_job(job_id, 300, pause=0.2).state for job_id in taken} == {"done"}
    wait_for(functools.partial(deployed.has_two_besides, stopped[0]))


@pytest.mark.cluster
def test_no_request_is_lost_with_a_replica(deployed: Deployed) -> None:
    photo = noise("RGB", 32)
    requests = [
        Request("monet", "translate", {"direction": "a_to_b"}, photo, padding=padding)
        for padding in (60_000, 700_000, 1_040_000)
    ]
    before = deployed.pids()
    with load(deployed, requests) as seen:
        for pid in sorted(before):
            wait_for(lambda: len(seen.answers) >= 20)
            os.kill(pid, signal.SIGKILL)
            wait_for(functools.partial(deployed.has_two_besides, pid))
            seen.answers.clear()
        wait_for(lambda: len(seen.answers) >= 20)
    assert not deployed.pids() & before
    assert not seen.failures


@pytest.mark.cluster
def test_no_request_is_lost_or_of_two_versions_while_a_replica_is_killed_and_a_model_is_updated(
    deployed: Deployed, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    run = tmp_path / "digits"
    provenance = model_directory.Provenance(
        run=str(run), step=200, images=3200, data={}, config={"run": {"name": "digits"}}, metrics={}
    )
    model_directory.save(str(run / "model"), VAE((28, 28, 1), VAEArchitecture(channels=(4, 4))), provenance)
    requests = [
        Request("digits", "sample", {"seed": 3}),
        Request("monet", "translate", {"direction": "a_to_b"}, noise("RGB", 32)),
        Request("digits@next", "sample", {"seed": 4, "count": 5}, accept="application/zip"),
        Request("digits", "reconstruct", {}, noise("L", 28)),
        Request("digits", "decode", {"latents": [[0.5, -1.5], [2.0, 0.25]]}, accept="application/json"),
        Request("monet", "translate", {"direction": "b_to_a"}, noise("RGB", 45)),
        Request("digits", "interpolate_draws", {"seeds": (3, 4), "steps": 6}, accept="image/gif"),
    ]

    def versions(model: str, since: float = 0.0) -> set[str]:
        return {one.version for one in seen.answers if one.request.model == model and one.began > since}

    def everywhere() -> set[str]:
        asked = [Request(model, "sample", {}) for model in ("digits", "digits@next")]
        urls = deployed.replicas()
        assert len(urls) == 2
        return {sample.send(plain, url).headers["X-Genlab-Version"] for url in urls for sample in asked}

    with (
        httpx.Client(timeout=60) as plain,
        load(deployed, requests, clients=4, python_clients=3, pause=0.05) as seen,
    ):
        wait_for(lambda: len(seen.answers) >= 100)
        [old] = versions("digits")
        assert versions("digits@next") == {old}
        killed = min(deployed.pids())
        os.kill(killed, signal.SIGKILL)
        promote(PromoteConfig(str(run), str(deployed.store), "next", add_probes=True))
        promote(PromoteConfig("digits@next", str(deployed.store)))
        wait_for(lambda: deployed.has_two_besides(killed) and old not in everywhere())
        switched, before = time.monotonic(), len(seen.answers)
        wait_for(lambda: len(seen.answers) >= max(500, before + 100))
    assert not seen.failures
    [new] = versions("digits", switched)
    assert versions("digits@next", switched) == {new}
    assert versions("digits") == versions("digits@next") == {old, new}
    assert len(versions("monet")) == 1
    with Client(deployed.url, verify=deployed.context) as client:
        made = {
            (request, version): dataclasses.replace(request, model=f"{request.model.partition('@')[0]}@{version}").ask(
                client
            )
            for request, version in {(one.request, one.version) for one in seen.answers}
        }
    assert len({answer.data for answer in made.values()}) == len(made), "versions make different pictures"
    for one in seen.answers:
        assert one.data == made[one.request, one.version].data
