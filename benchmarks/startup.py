"""Seconds from ``ray job submit`` to the first step, broken down, beside those of an earlier commit.

``python benchmarks/startup.py --against COMMIT`` starts a Ray head on loopback, submits the same small VAE job in turn
from this checkout and from that commit, and watches from outside: process titles, threads and memory maps under /proc,
and the files that the run writes. Nothing in the job knows that it is timed. Prints medians.
"""

import argparse
import atexit
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
LOOK_SECONDS = 0.03
TIMEOUT_SECONDS = 300.0
STAGES = {
    "driver": "submission, upload of the code, start of the driver's process",
    "parsed": "driver: imports, config",
    "claimed": "driver: plan, connection to Ray, the run's config.json",
    "controller": "Ray Train's controller",
    "worker": "the workers' processes",
    "torch": "workers: until they map libtorch",
    "group": "workers: imports until the process group (not seen with one worker)",
    "running": "workers: networks, resume, streams, until metrics.jsonl is open",
    "step": "first batch and first step, logged",
}
"""What happens until each mark, in order."""


class Watcher:
    """Looks at the processes of one Ray head: when each mark was first seen, and the CPU seconds used by all."""

    def __init__(self, head: subprocess.Popen[bytes], log: Path, run: Path) -> None:
        self._head, self._log, self._run = psutil.Process(head.pid), log, run
        self._cpu: dict[int, float] = {}
        self._titles: dict[int, str] = {}
        self.marks: dict[str, float] = {}
        self._look_at_processes()
        self._before = dict(self._cpu)

    def look(self) -> bool:
        """Look once; whether the first step is done."""
        self._look_at_processes()
        if any("runs folder" in text for text in self._logs()):
            self._mark("parsed")
        if (self._run / "config.json").exists():
            self._mark("claimed")
        metrics = self._run / "metrics.jsonl"
        if metrics.exists():
            self._mark("running")
            lines = metrics.read_text().splitlines()
            if lines:
                self.marks["step"] = json.loads(lines[0])["time"]
        return "step" in self.marks

    def cpu_seconds(self, client: psutil.Process | None) -> float:
        """User and system seconds of all processes since the watch began."""
        used = sum(self._cpu.values()) - sum(self._before.values())
        with contextlib.suppress(psutil.Error):
            times = client.cpu_times() if client else None
            used += times.user + times.system if times else 0.0
        return used

    def by_process(self) -> dict[str, float]:
        """The same, by title of the process."""
        used: dict[str, float] = {}
        for pid, seconds in self._cpu.items():
            title = self._titles.get(pid, "?")
            used[title] = used.get(title, 0.0) + seconds - self._before.get(pid, 0.0)
        return dict(sorted(used.items(), key=lambda item: -item[1]))

    def _mark(self, name: str) -> None:
        self.marks.setdefault(name, time.time())

    def _logs(self) -> list[str]:
        logs = []
        for file in self._log.glob("job-driver-*.log"):
            with contextlib.suppress(FileNotFoundError):  # Ray moves the log of a job that is just beginning.
                logs.append(file.read_text())
        return logs

    def _look_at_processes(self) -> None:
        for process in self._head.children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
                words = process.cmdline()
                title = words[0] if words else ""
                self._titles[process.pid] = f"ray {title}" if "ray::" in title else " ".join(words)[-60:]
                if "jobs/vae.py" in words and "python" in title:
                    self._mark("driver")
                elif "TrainController" in title:
                    self._mark("controller")
                elif "RayTrainWorker" in title:
                    self._mark("worker")
                    folder = Path(f"/proc/{process.pid}")
                    if "torch" not in self.marks and "libtorch_cpu" in (folder / "maps").read_text():
                        self._mark("torch")
                    if "group" not in self.marks and any(
                        "gloo" in file.read_text() for file in folder.glob("task/*/comm")
                    ):
                        self._mark("group")


def measure(
    checkout: Path,
    name: str,
    address: str,
    head: subprocess.Popen[bytes],
    data: Path,
    folder: Path,
    workers: int,
    verbose: bool,
) -> dict[str, float]:
    """Submit one job from ``checkout``; seconds of each stage, ``total`` and ``cpu``."""
    logs = (folder / "ray" / "session_latest").resolve() / "logs"  # Ray makes this link anew with each driver
    for old in logs.glob("job-driver-*.log"):
        old.unlink()
    options = ["--data.images", str(data), "--run.storage", str(folder / "runs"), "--run.name", name]
    options += ["--run.workers", str(workers), "--run.threads", "1"]
    options += ["--run.batch", "32", "--run.steps", "4", "--run.log-every", "1"]
    watcher = Watcher(head, logs, folder / "runs" / name)
    began = time.time()
    submit = ["ray", "job", "submit", "--address", address, "--working-dir", str(checkout), "--"]
    client = subprocess.Popen(
        [*submit, "python", "jobs/vae.py", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watched = psutil.Process(client.pid)
    while not watcher.look():
        if client.poll() is not None or time.time() > began + TIMEOUT_SECONDS:
            client.terminate()
            raise SystemExit(f"the job did not reach its first step:\n{client.communicate()[0]}")
        time.sleep(LOOK_SECONDS)
    cpu = watcher.cpu_seconds(watched)
    if verbose:
        for title, used in watcher.by_process().items():
            print(f"    {used:6.2f} CPU s  {title}")
    log, _ = client.communicate(timeout=TIMEOUT_SECONDS)
    if client.returncode:
        raise SystemExit(f"the job failed:\n{log}")
    seconds, earlier = {}, began
    for stage in STAGES:
        # A mark that was not seen, or that was passed by the next one between two looks, took no time of its own.
        mark = max(watcher.marks.get(stage, earlier), earlier)
        seconds[stage] = mark - earlier
        earlier = mark
    return seconds | {"total": watcher.marks["step"] - began, "cpu": cpu}


def start_head(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A Ray head of this process's own on loopback, with a token; and the address of its job server."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    os.environ.pop("PYTHONPATH", None)  # the code that runs is the code submitted
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ports = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(str(probe.getsockname()[1]))
    command = ["ray", "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address", "127.0.0.1"]
    command += ["--num-cpus", "2", "--port", ports[0], "--dashboard-host", "127.0.0.1", "--dashboard-port", ports[1]]
    command += ["--dashboard-agent-listen-port", ports[2]]  # fixed by default, and another head may have it
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen([*command, "--temp-dir", str(folder / "ray")], stdout=log, stderr=log)
    atexit.register(stop, head)
    address = f"http://127.0.0.1:{ports[1]}"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    # A job that does nothing succeeds once all of the head is up, its agent included.
    while subprocess.run(["ray", "job", "submit", "--address", address, "--", "true"], capture_output=True).returncode:
        if head.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the head did not come up:\n{(folder / 'head.log').read_text()}")
        time.sleep(0.5)
    return head, address


def stop(head: subprocess.Popen[bytes]) -> None:
    """Stop the head and all that it started."""
    for process in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    head.wait(60)


def main() -> None:
    """Measure, print the table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the head is stopped, too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", help="an earlier commit to compare with")
    parser.add_argument("--runs", type=int, default=5, help="jobs of each (the first is a warm-up and not counted)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--processes", action="store_true", help="print the CPU seconds of each process as well")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gls-"))
    checkouts = {"here": REPOSITORY}
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    results: dict[str, list[dict[str, float]]] = {}
    if options.against:
        checkouts = {options.against: folder / "earlier"} | checkouts
        checkouts[options.against].mkdir()
        archive = subprocess.run(["git", "archive", options.against], cwd=REPOSITORY, check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", str(folder / "earlier")], input=archive.stdout, check=True)
    data = folder / "digits"
    draw = ["synthetic:digits", str(data), "--count", "400", "--test-fraction", "0.2"]
    subprocess.run(["genlab", "ingest", *draw], cwd=REPOSITORY, check=True, capture_output=True)
    head, address = start_head(folder)
    for number in range(options.runs + 1):
        for name, checkout in checkouts.items():
            seconds = measure(
                checkout, f"{name}-{number}", address, head, data, folder, options.workers, options.processes
            )
            print(f"{name} {number}: {seconds['total']:.2f} s, {seconds['cpu']:.2f} CPU s", flush=True)
            if number:
                results.setdefault(name, []).append(seconds)
    print(f"\nmedians of {options.runs} jobs of {options.workers} workers on {os.cpu_count()} cores, seconds")
    print("| until | " + " | ".join(results) + " |")
    print("| --- |" + " ---: |" * len(results))
    for stage, text in {**STAGES, "total": "in all", "cpu": "CPU seconds of all processes"}.items():
        medians = [statistics.median(run[stage] for run in runs) for runs in results.values()]
        print(f"| {text} | " + " | ".join(f"{median:.2f}" for median in medians) + " |")


if __name__ == "__main__":
    main()
