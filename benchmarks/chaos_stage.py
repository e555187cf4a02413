"""What ``chaos.py`` breaks: clusters of three nodes, an S3 server, and jobs on them that are submitted again."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from rig import HERE, figure, free_port, say
from upath import UPath

sys.path.insert(0, str(HERE.parent))
from genlab.core.storage import is_remote, locate, read_bytes
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.training.attempts import read_records
from genlab.training.tracking import METRICS, read_metrics
from tests.cluster_support import TIMEOUT_SECONDS, Cluster, environment, started_cluster, wait_for
from tests.s3 import CREDENTIALS, SETTINGS, FaultProxy, S3Server

STEPS, LOG, SAVE = 800, 10, 50
"""Steps of a run, and those between lines of metrics and between checkpoints."""
OPTIONS: dict[str, Any] = {"workers": 2, "threads": 1, "batch": 64, "log-every": LOG, "checkpoint-every": SAVE}
DIGITS: dict[str, Any] = {"count": 6000, "test_fraction": 0.05, "shard_size": 1.0}
PATIENCE = 1200.0
"""Seconds that a step, a restart or a whole job may take on a busy machine."""
SUBMISSIONS = 5
"""How often a job is submitted before it counts as failed."""
SPACE = """
from genlab.sweeps.space import Space

SPACE = Space(
    family="vae",
    vary={{"optimization.learning_rate": [1e-3, 2e-3, 3e-3]}},
    metric="val/neg_elbo",
    mode="min",
    base={base},
    keep=3,
)
"""


class Skipped(Exception):  # noqa: N818
    """This machine does not allow the fault."""


class Work:
    """A job on a cluster, which is submitted again until it has succeeded; a context manager around what is done to it.

    Args:
        cluster: the cluster.
        dice: draws when a fault comes and whom it hits.
        words: the command.
        folder: of the run, the sweep or the data set that it makes.
        product: the file in it that is written last, by which a job that lost its client is known to have succeeded.
    """

    def __init__(
        self, cluster: Cluster, dice: random.Random, words: Sequence[str], folder: UPath, product: str | None = None
    ) -> None:
        self.cluster = cluster
        self.dice = dice
        self.folder = folder
        self.after = contextlib.ExitStack()
        """What is put right again when the job has ended."""
        self.submissions = 0
        self._words = list(words)
        self._product = product
        # A store may be away; there the ledger of the run says it.
        self._again = StepsDoneAgain(list if is_remote(folder) else self.runs)
        self._began = time.monotonic()
        self.submit()

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *error: object) -> None:
        self._again.stop()
        if error[0] is not None:
            self.after.pop_all()  # The cluster is stopped.
        self.after.close()

    def submit(self) -> None:
        """Submit the job."""
        self.submissions += 1
        self._job = self.cluster.submit(*self._words)

    @property
    def steps_again(self) -> int:
        """Steps that were done again."""
        return self._again.steps

    def runs(self) -> list[UPath]:
        """Return the run directories, those of trials where it is a sweep."""
        trials = sorted(self.folder.glob("trial-*"))
        return [trial for trial in trials if trial.is_dir()] or [self.folder]

    def drivers(self) -> list[psutil.Process]:
        """Return the process that the job's command runs in."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[1:] == self._words[1:] and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def reach(self, least: int, most: int) -> int:
        """Wait until a run on this machine has logged a step that is drawn between these two; return the last step."""
        due = self.dice.randrange(least, most)

        def last() -> int:
            if self._job.poll() is not None and not self.drivers():
                raise RuntimeError(f"it ended before step {due}:\n{self._rest()[-3000:]}")
            found = max(last_step(run) for run in self.runs())
            return found if found >= due else 0

        step: int = wait_for(f"step {due} of {self.folder}", last, PATIENCE)
        return step

    def running(self) -> bool:
        """Return whether the client of the job still waits for it."""
        return self._job.poll() is None

    def finish(self) -> float:
        """Wait until the job has succeeded, and submit it again where it failed; seconds since the first submission."""
        while True:
            wait_for(f"the end of {self._words}", lambda: not self.running(), PATIENCE)
            log = self._rest()
            if self._job.returncode:
                say(f"the job has failed; the end of its log:\n{log[-2000:]}")
                # What lost its client goes on without.
                wait_for("the end of the driver", lambda: not self.drivers(), PATIENCE)
            if not self._job.returncode or (self._product and (self.folder / self._product).exists()):
                return time.monotonic() - self._began
            if self.submissions == SUBMISSIONS:
                raise RuntimeError(f"it failed {SUBMISSIONS} times")
            self.submit()

    def _rest(self) -> str:
        text, _ = self._job.communicate(timeout=TIMEOUT_SECONDS)
        return text


class StepsDoneAgain:
    """Counts the steps that runs do again: looks, in a thread, how far their metrics go, and where they go back.

    Args:
        runs: returns the run directories.
    """

    def __init__(self, runs: Callable[[], list[UPath]]) -> None:
        self.steps = 0
        self._runs = runs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no longer."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        last: dict[str, int] = {}
        while not self._over.wait(0.1):
            for run in self._runs():
                step, before = last_step(run), last.get(str(run), 0)
                if step < before:
                    newest = max(read_records(run).items(), default=(0, {}))[1]
                    self.steps += before - newest.get("resumed_from", step)
                last[str(run)] = step


def last_step(run: UPath) -> int:
    """Return the step of the last line of a run's metrics; 0 if there is none."""
    lines = read_metrics(run / METRICS)
    return int(lines[-1]["step"]) if lines else 0


def require_same_files(folder: UPath, other: Path) -> None:
    """Require that two data sets have the same files, to the byte."""
    contents = [{file.name: read_bytes(file) for file in each.iterdir()} for each in (folder, locate(other))]
    if contents[0] != contents[1]:
        names = {name for name in contents[0] | contents[1] if contents[0].get(name) != contents[1].get(name)}
        raise RuntimeError(f"{folder} differs from {other} in {sorted(names)}")


@contextlib.contextmanager
def three_nodes(**variables: str) -> Iterator[Cluster]:
    """Start a cluster of three nodes."""
    with started_cluster(**variables) as cluster:
        cluster.start_node("second")
        yield cluster


@contextlib.contextmanager
def kept_gcs() -> Iterator[Cluster]:
    """Start one whose GCS keeps its state in a file."""
    with (
        tempfile.TemporaryDirectory(prefix="gl-gcs-") as folder,
        three_nodes(RAY_gcs_storage="rocksdb", RAY_gcs_storage_path=folder) as cluster,
    ):
        try:
            yield cluster
        finally:
            for server in gcs_servers(cluster):  # The second one is no child of the head.
                server.kill()


@contextlib.contextmanager
def watched_memory() -> Iterator[Cluster]:
    """Start one whose nodes, but for the head, end workers when half of what the machine has free now is taken."""
    memory = psutil.virtual_memory()
    share = 1 - memory.available / 2 / memory.total
    with started_cluster(RAY_memory_usage_threshold=f"{share:.4f}", RAY_memory_monitor_refresh_ms="0") as cluster:
        cluster.stop_node("worker")
        for name in ("second", "third"):
            cluster.start_node(name, within=["env", "RAY_memory_monitor_refresh_ms=100"])
        yield cluster


@contextlib.contextmanager
def namespaces() -> Iterator[Cluster]:
    """Start one whose nodes, but for the head, are in network namespaces of their own, linked by a bridge."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        raise Skipped("network namespaces need root, and ip of iproute2")
    bridge, net = f"gl{os.getpid()}", f"198.18.{os.getpid() % 256}"
    with contextlib.ExitStack() as stack:
        ip("link", "add", bridge, "type", "bridge")
        stack.callback(ip, "link", "del", bridge)
        ip("addr", "add", f"{net}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="glc-"))) / "c"
        client = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=f"{state}/token")
        gcs, dashboard = str(free_port()), str(free_port())
        cluster = Cluster(f"http://127.0.0.1:{dashboard}", client, str(state), f"{net}.1:{gcs}")
        stack.callback(cluster.shell, "stop_nodes")
        # The name of the machine, by which gloo would find its address, is that of loopback.
        head = ["--num-cpus", "1", "--node-ip-address", f"{net}.1"]
        cluster.shell('prepare; start_head "$@"', gcs, dashboard, *head, within=["env", f"GLOO_SOCKET_IFNAME={bridge}"])
        for number in (2, 3):
            name = f"{bridge}-{number}"
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", name, "master", bridge, "up")
            for words in (["addr", "add", f"{net}.{number}/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
                ip("-n", name, *words)
            ip("-n", name, "link", "set", "lo", "up")
            within = ["ip", "netns", "exec", name, "env", "GLOO_SOCKET_IFNAME=eth0"]
            cluster.start_node(name, "--node-ip-address", f"{net}.{number}", within=within)
        yield cluster


def ip(*words: str) -> None:
    """Run ``ip``."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def gcs_servers(cluster: Cluster) -> list[psutil.Process]:
    """Return the GCS of a cluster."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "gcs_server" and cluster.state in " ".join(process.cmdline()):
                found.append(process)
    return found


class Stage:
    """What the faults share: a folder, an S3 server behind a proxy, data, clusters, and what nothing disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = S3Server()
        self._server.create("chaos")
        self.proxy = FaultProxy(self._server.endpoint)
        # Nodes inherit it.
        os.environ |= {**CREDENTIALS, **SETTINGS, "AWS_ENDPOINT_URL": self.proxy.endpoint}
        self._open = contextlib.ExitStack()
        self._kind: Callable[..., Any] | None = None
        self._cluster: Cluster | None = None
        self._count = 0

    def cluster(self, kind: Callable[[], contextlib.AbstractContextManager[Cluster]] = three_nodes) -> Cluster:
        """Return a cluster of this kind; that of the fault before, if it was of the same."""
        if self._cluster is None or self._kind is not kind:
            self.close_cluster()
            say("a cluster starts")
            self._kind, self._cluster = kind, self._open.enter_context(kind())
        return self._cluster

    def close_cluster(self) -> None:
        """Stop the cluster."""
        self._cluster = None
        self._open.close()

    def close(self) -> None:
        """Stop all."""
        self.close_cluster()
        self.proxy.close()
        self._server.close()

    def new_name(self, what: str) -> str:
        """Return a name that nothing has."""
        self._count += 1
        return f"{what}-{self._count}"

    @cached_property
    def digits(self) -> Path:
        """The data set, on the disk."""
        with contextlib.redirect_stdout(sys.stderr):
            ingest(IngestConfig("synthetic:digits", str(self.folder / "digits"), **DIGITS))
        return self.folder / "digits"

    @cached_property
    def stored_digits(self) -> tuple[str, float]:
        """The same on the S3 server, by a job that nothing disturbs, and the seconds that this took."""
        with self.ingest("s3://chaos/digits") as work:
            seconds = work.finish()
        require_same_files(work.folder, self.digits)
        return str(work.folder), seconds

    @cached_property
    def undisturbed(self) -> UPath:
        """A run that nothing disturbs."""
        say("the undisturbed run")
        with self.run(self.cluster(), random.Random(0), "undisturbed") as work:
            say(f"took {figure(work.finish())} s, {figure(self.pace(work.folder))} s a step")
        return work.folder

    @cached_property
    def undisturbed_sweep(self) -> tuple[UPath, float]:
        """A sweep that nothing disturbs, and the seconds that it took."""
        say("the undisturbed sweep")
        with self.sweep(self.cluster(), random.Random(0), "undisturbed-sweep") as work:
            return work.folder, work.finish()

    def pace(self, run: UPath) -> float:
        """Return the seconds of a step of a run, in the mean."""
        lines = [line for line in read_metrics(run / METRICS) if line["kind"] == "train"]
        return float((lines[-1]["time"] - lines[0]["time"]) / (lines[-1]["step"] - lines[0]["step"]))

    def run(
        self,
        cluster: Cluster,
        dice: random.Random,
        name: str,
        storage: str | None = None,
        data: str | None = None,
        **changes: Any,
    ) -> Work:
        """Submit a run."""
        storage = storage or str(self.folder / "runs")
        options = OPTIONS | {"steps": STEPS, "storage": storage, "name": name} | changes
        words = ["python", "jobs/vae.py", "--data.images", data or str(self.digits), "--data.window", "1"]
        words += [word for option, value in options.items() for word in (f"--run.{option}", str(value))]
        return Work(cluster, dice, words, locate(storage) / name, "model/genlab.json")

    def sweep(self, cluster: Cluster, dice: random.Random, name: str) -> Work:
        """Submit a sweep."""
        space = self.folder / "rates.py"
        base = {f"run.{name.replace('-', '_')}": value for name, value in OPTIONS.items()}
        space.write_text(SPACE.format(base=base | {"run.workers": 1, "run.steps": STEPS // 2}))
        words = ["python", "jobs/sweep.py", str(space), "--data.images", str(self.digits)]
        words += ["--run.storage", str(self.folder / "sweeps"), "--run.name", name]
        return Work(cluster, dice, words, locate(self.folder / "sweeps" / name))

    def ingest(self, folder: str) -> Work:
        """Submit the making of the data set."""
        options = {f"--{name.replace('_', '-')}": str(value) for name, value in DIGITS.items()}
        words = [
            "python",
            "jobs/ingest.py",
            "synthetic:digits",
            folder,
            *(word for pair in options.items() for word in pair),
        ]
        return Work(self.cluster(), random.Random(0), words, locate(folder), "manifest.json")
