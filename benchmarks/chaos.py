"""Break one thing after another under runs, sweeps and a service on real Ray clusters, and see what it costs.

::

    python benchmarks/chaos.py                          # each fault once; make chaos
    python benchmarks/chaos.py --times 5 --seed 7       # each five times, at other steps; make chaos-long
    python benchmarks/chaos.py --faults worker drain    # these alone

A cluster has three nodes of one CPU on this machine. A run is ``python jobs/vae.py`` of two workers on drawn digits, as
a job that is submitted again under its name when it has failed. It has to end, and to equal the run that nothing
disturbed: each line of metrics and each bit of the last checkpoint. The seed draws when a fault comes and whom it hits.

Rows are printed as they come. ``--page FILE`` puts them into the table of a page, in place of rows of the same faults.
"""

import argparse
import asyncio
import contextlib
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil
import serving_life
from chaos_stage import (
    LOG,
    PATIENCE,
    SAVE,
    STEPS,
    Skipped,
    Stage,
    Work,
    gcs_servers,
    ip,
    kept_gcs,
    namespaces,
    require_same_files,
    three_nodes,
    watched_memory,
)
from rig import HERE, command, figure, machine, say, spread, table, versions
from upath import UPath

sys.path.insert(0, str(HERE.parent))
from genlab.proofs.compare_runs import first_difference
from genlab.training.attempts import read_records
from genlab.training.ledger import read_ledger
from genlab.training.ray.driver import RESIZE_SECONDS
from genlab.training.tracking import CLOCK_FIELDS, METRICS, read_metrics
from tests.cluster_support import TIMEOUT_SECONDS, TRAIN_WORKER, TRIAL, Cluster, indexes, wait_for
from tests.s3 import FaultProxy
from tests.training.support import flip, truncate

AWAY_SECONDS, PARTED_SECONDS, GCS_SECONDS = 60.0, 30.0, 10.0
"""How long the store is away, a node cut off, and the GCS dead."""
WITHIN = 0.1
"""The most by which metrics may differ from those of another number of workers, relative where they are above 1."""
ITSELF, AGAIN = "by itself", "submitted again"
HEAD = ["fault", "what is done", "ended", "goes on", "beside the undisturbed", "lines", "s lost", "steps done again"]


# --- faults of a run


def kill_worker(work: Work) -> None:
    """Kill a worker."""
    work.dice.choice(work.cluster.workers()).kill()


def kill_trial(work: Work) -> None:
    """Kill the process of a trial that trains."""
    records = [read_records(trial) for trial in work.runs() if not (trial / "model").exists()]
    pids = [int(each[max(each)]["process"].split()[1]) for each in records if each]
    os.kill(work.dice.choice(pids), signal.SIGKILL)


def kill_raylet(work: Work, title: str = TRAIN_WORKER) -> None:
    """Kill the raylet of a node with a process of this title, and start another node when the work has ended."""
    work.dice.choice(sorted(work.cluster.raylets(title).values(), key=lambda raylet: raylet.pid)).kill()
    work.after.callback(work.cluster.start_node, f"after-{work.folder.name}")


def drain_node(work: Work, title: str = TRAIN_WORKER) -> None:
    """Tell Ray that a node with such a process will be taken back, and start another when the work has ended."""
    node = work.dice.choice(sorted(work.cluster.raylets(title)))
    words = ["ray", "drain-node", "--address", work.cluster.gcs, "--node-id", node, "--reason-message", "spot"]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "600"]
    subprocess.run(words, env=work.cluster.environment, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    work.after.callback(work.cluster.start_node, f"after-{work.folder.name}")


def join_node(work: Work) -> None:
    """Start another node, and stop it when the run has ended."""
    name = f"more-{work.folder.name}"
    work.cluster.start_node(name)
    work.after.callback(work.cluster.stop_node, name)


def kill_driver(work: Work) -> None:
    """Kill the job's own process."""
    for driver in work.drivers():
        driver.kill()


def kill_gcs(work: Work) -> None:
    """Kill the head's GCS alone, and start it again."""
    [server] = gcs_servers(work.cluster)
    words, variables, folder = server.cmdline(), server.environ(), server.cwd()
    # `ray start --block` would end the whole head with it.
    os.kill(int((Path(work.cluster.state) / "head.pid").read_text()), signal.SIGSTOP)
    server.kill()
    time.sleep(GCS_SECONDS)
    with (Path(work.cluster.state) / "gcs.log").open("w") as log:
        subprocess.Popen(words, env=variables, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def kill_head(work: Work) -> None:
    """Kill all processes of the head node, and start it and the other nodes again."""
    cluster, file = work.cluster, Path(work.cluster.state) / "head.pid"
    head = psutil.Process(int(file.read_text()))
    processes = [head, *head.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    wait_for("the end of the job's client", lambda: not work.running(), PATIENCE)
    # The others end by themselves when their head is gone; what supervises a cluster starts them again, too.
    cluster.shell("stop_nodes")
    ports = [address.rpartition(":")[2] for address in (cluster.gcs, cluster.address)]
    cluster.shell('start_head "$@"', *ports, "--num-cpus", "1")
    for name in ("worker", "second"):
        cluster.start_node(name)


def part_node(work: Work) -> None:
    """Take a node with a worker off the network for a while."""
    raylet = work.dice.choice(sorted(work.cluster.raylets().values(), key=lambda raylet: raylet.pid))
    [address] = [word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--node_ip_address=")]
    link = f"gl{os.getpid()}-{address.rpartition('.')[2]}"
    ip("link", "set", link, "nomaster")
    time.sleep(PARTED_SECONDS)
    ip("link", "set", link, "master", f"gl{os.getpid()}")


def take_memory(work: Work) -> None:
    """Take the machine's memory until Ray has ended a worker for it."""
    attempts, workers = len(read_records(work.folder)), {worker.pid for worker in work.cluster.workers()}
    memory = psutil.virtual_memory()
    limit = float(work.cluster.environment["RAY_memory_usage_threshold"]) * memory.total
    size = int(limit - (memory.total - memory.available)) + (1 << 29)
    hog = subprocess.Popen([sys.executable, "-c", f"import time; taken = b'1' * {size}; time.sleep(600)"])
    try:
        wait_for("Ray to end a worker", lambda: workers - {worker.pid for worker in work.cluster.workers()})
    finally:
        hog.kill()
        hog.wait()
    wait_for("new workers", lambda: len(read_records(work.folder)) > attempts or not work.running(), PATIENCE)
    if len(read_records(work.folder)) == attempts:
        raise RuntimeError("the run ended before Ray ended a worker")


def damage(how: Callable[[Path, random.Random], None], work: Work) -> None:
    """Kill a worker, and damage the newest checkpoint before the run goes on from it."""
    work.dice.choice(work.cluster.workers()).kill()
    time.sleep(1)  # A checkpoint that was under way is written; new workers take longer to start.
    checkpoints = Path(str(work.folder)) / "checkpoints"
    how(checkpoints / max(indexes(checkpoints.parent)), work.dice)
    wait_for("the damaged checkpoint to be set aside", lambda: [*checkpoints.glob("damaged-*")], PATIENCE)


def fill_disk(work: Work) -> None:
    """Fill the file system of the run until the job has failed, then make room again."""
    filler = Path(str(work.folder.parent)) / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    wait_for("the job to fail", lambda: not work.running(), PATIENCE)
    filler.unlink()


def store_away(work: Work, proxy: FaultProxy) -> None:
    """Have the store refuse all connections while the run trains."""
    due = 2 * work.dice.randrange(3, 6) + 1  # Requests that write a checkpoint: its tensors, then its index.
    wait_for(
        "checkpoints", lambda: proxy.traffic().count("PUT", f"{work.folder.name}/checkpoints/") >= due - 1, PATIENCE
    )
    proxy.away(AWAY_SECONDS)


def store_away_in_checkpoint(work: Work, proxy: FaultProxy) -> None:
    """Have the store refuse all connections when half of a checkpoint has come."""
    due = f"{work.folder.name}/checkpoints/step-{SAVE * work.dice.randrange(3, 6):08d}"
    proxy.fail("stall", method="PUT", path=due)
    wait_for("a checkpoint", lambda: proxy.traffic().faults.get("stall"), PATIENCE)
    proxy.away(AWAY_SECONDS)


# --- what comes of them


def longest_pause(run: UPath) -> float:
    """Return the longest time between two lines of a run's metrics, less the median, in seconds."""
    times = [line["time"] for line in read_metrics(run / METRICS) if line["kind"] == "train"]
    pauses = [after - before for before, after in pairwise(times)]
    return max(pauses) - statistics.median(pauses)


def each_once(run: UPath, steps: int) -> bool:
    """Return whether each line that a run of so many steps logs is there once, in its order."""
    found = [line["step"] for line in read_metrics(run / METRICS) if line["kind"] == "train"]
    return found == list(range(LOG, steps + 1, LOG))


def largest_difference(run: UPath, other: UPath) -> float:
    """Return the largest difference of a metric in the lines that two runs share, relative where it is above 1."""
    theirs = {(line["kind"], line["step"]): line for line in read_metrics(other / METRICS)}
    largest = 0.0
    for line in read_metrics(run / METRICS):
        for name, value in theirs.get((line["kind"], line["step"]), {}).items():
            if name not in CLOCK_FIELDS and isinstance(value, float):
                largest = max(largest, abs(line[name] - value) / max(1.0, abs(value)))
                if not math.isfinite(line[name]):
                    return math.inf
    return largest


@dataclass(frozen=True)
class Outcome:
    """What came of a fault."""

    goes_on: str
    """:data:`ITSELF` or :data:`AGAIN`."""
    compared: str
    """What the comparison with the undisturbed run says."""
    lines: str = "each once"
    seconds: float | None = None
    """Lost."""
    steps: int | None = None
    """Done again."""


@dataclass(frozen=True)
class Fault:
    """Something that is broken on purpose."""

    name: str
    does: str
    """What is done, in the words of the table."""
    play: Callable[[Stage, random.Random], Outcome]
    """Does it, waits for the end, compares; raises when the end is not as promised."""
    goes_on: str = ITSELF
    """In which way the work is to go on: :data:`ITSELF` or :data:`AGAIN`."""


def of_run(
    inject: Callable[[Work], None],
    kind: Callable[[], contextlib.AbstractContextManager[Cluster]] = three_nodes,
    storage: Callable[[Stage], contextlib.AbstractContextManager[str | None]] = lambda _: contextlib.nullcontext(),
) -> Callable[[Stage, random.Random], Outcome]:
    """Return what plays a fault of a run."""

    def play(stage: Stage, dice: random.Random) -> Outcome:
        unbroken = stage.undisturbed
        with storage(stage) as folder, stage.run(stage.cluster(kind), dice, stage.new_name("run"), folder) as work:
            work.reach(STEPS // 4, STEPS // 2)
            inject(work)
            work.finish()
            outcome = compare_runs(work, unbroken)
        if kind is not three_nodes:
            stage.close_cluster()  # Of which something may be missing.
        return outcome

    return play


def of_stored_run(inject: Callable[[Work, FaultProxy], None]) -> Callable[[Stage, random.Random], Outcome]:
    """Return what plays a fault of a run whose data and files are on S3."""

    def play(stage: Stage, dice: random.Random) -> Outcome:
        unbroken, data = stage.undisturbed, stage.stored_digits[0]
        stage.proxy.reset()
        with stage.run(stage.cluster(), dice, stage.new_name("run"), "s3://chaos/runs", data) as work:
            inject(work, stage.proxy)
            work.finish()
        return compare_runs(work, unbroken)

    return play


def compare_runs(work: Work, unbroken: UPath) -> Outcome:
    """Require that the run equals the undisturbed one, bit for bit."""
    difference, _ = first_difference(work.folder, unbroken)
    if difference:
        raise RuntimeError(difference)
    if not each_once(work.folder, STEPS):
        raise RuntimeError("a line of metrics is lost or doubled")
    again = sum(loss.steps for loss in read_ledger(work.folder).losses.values())
    return Outcome(
        how(work), "equal, bit for bit", "each once", longest_pause(work.folder), max(again, work.steps_again)
    )


def how(work: Work) -> str:
    """Return in which way the work went on."""
    return ITSELF if work.submissions == 1 else AGAIN


def play_join(stage: Stage, dice: random.Random) -> Outcome:
    """Have a node join a run of 2 to 4 workers, which has three."""
    unbroken = stage.undisturbed
    # Ray's group is left alone for so long.
    steps = STEPS + SAVE * int((RESIZE_SECONDS + 30) / stage.pace(unbroken) / SAVE)
    with stage.run(stage.cluster(), dice, stage.new_name("run"), workers="2..4", steps=steps) as work:
        work.reach(LOG, STEPS // 4)
        join_node(work)
        work.finish()
    workers = [entry.workers for entry in read_ledger(work.folder).entries]
    if workers != [3, 4]:
        raise RuntimeError(f"the workers were {workers}")
    if not each_once(work.folder, steps):
        raise RuntimeError("a line of metrics is lost or doubled")
    difference = largest_difference(work.folder, unbroken)
    if difference > WITHIN:
        raise RuntimeError(f"metrics differ by {difference:.2g} from those of 2 workers")
    said = f"3, then 4 workers: metrics within {difference:.1g} of those of 2"
    return Outcome(how(work), said, "each once", longest_pause(work.folder), work.steps_again)


@contextlib.contextmanager
def small_disk(stage: Stage) -> Iterator[str]:
    """Mount a file system of 48 MiB for a run."""
    folder = stage.folder / stage.new_name("disk")
    folder.mkdir()
    try:
        words = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise Skipped("a small file system is mounted by root alone") from None
    try:
        yield str(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def play_ingest(stage: Stage, dice: random.Random) -> Outcome:
    """Have the store go away while an ingest writes to it."""
    _, usual = stage.stored_digits
    stage.proxy.reset()
    name = stage.new_name("digits")
    with stage.ingest(f"s3://chaos/{name}") as work:
        due = dice.randrange(1, 4)
        wait_for("a shard", lambda: stage.proxy.traffic().count("PUT", f"{name}/shard-") >= due, PATIENCE)
        stage.proxy.away(AWAY_SECONDS)
        seconds = work.finish()
    require_same_files(work.folder, stage.digits)
    return Outcome(how(work), "equal, to the byte", "", seconds - usual)


def of_sweep(inject: Callable[[Work], None]) -> Callable[[Stage, random.Random], Outcome]:
    """Return what plays a fault of a sweep."""

    def play(stage: Stage, dice: random.Random) -> Outcome:
        unbroken, usual = stage.undisturbed_sweep
        with stage.sweep(stage.cluster(), dice, stage.new_name("sweep")) as work:
            work.reach(STEPS // 8, STEPS // 4)
            inject(work)
            seconds = work.finish()
        trials, theirs = work.runs(), sorted(one for one in unbroken.glob("trial-*") if one.is_dir())
        if [trial.name for trial in trials] != [trial.name for trial in theirs]:
            raise RuntimeError(f"the trials are {trials}, not {theirs}")
        for trial, other in zip(trials, theirs, strict=True):
            difference, _ = first_difference(trial, other)
            if difference:
                raise RuntimeError(difference)
            if not each_once(trial, STEPS // 2):
                raise RuntimeError(f"{trial}: a line of metrics is lost or doubled")
        said = f"{len(trials)} trials equal, bit for bit"
        return Outcome(how(work), said, "each once", seconds - usual, work.steps_again)

    return play


def play_replica(stage: Stage, dice: random.Random) -> Outcome:
    """Kill one of two replicas while eight clients ask, three times, with bodies of other sizes."""
    stage.close_cluster()
    with tempfile.TemporaryDirectory(prefix="gll-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cores = sorted(os.sched_getaffinity(0))
        options = argparse.Namespace(requests=500, kills=1, every=10.0, folder=Path(folder), cores=cores)
        rows = asyncio.run(serving_life.kill(options))
    asked = [int(value.partition("; ")[2].replace(",", "")) for name, value in rows if name == "kills; requests"]
    failed = [int(value) for name, value in rows if name == "failed after each kill"]
    said = [f"{lost} of {all_of_them:,}" for lost, all_of_them in zip(failed, asked, strict=True)]
    if failed[0] or failed[2]:
        raise RuntimeError(f"requests failed: {said}")
    compared = f"failed: {said[0]} requests, {said[2]} by `genlab.client`, {said[1]} above the proxy's buffer"
    return Outcome(ITSELF, compared, "")


FAULTS = (
    Fault("worker", "SIGKILL of a worker", of_run(kill_worker)),
    Fault("driver", "SIGKILL of the job's driver", of_run(kill_driver), AGAIN),
    Fault("torn-checkpoint", "SIGKILL of a worker, the newest checkpoint cut short", of_run(partial(damage, truncate))),
    Fault("flipped-bit", "SIGKILL of a worker, a bit of the newest checkpoint flipped", of_run(partial(damage, flip))),
    Fault("full-disk", "no room on the run's disk until the job fails", of_run(fill_disk, storage=small_disk), AGAIN),
    Fault("s3-training", f"S3 away for {AWAY_SECONDS:.0f} s, in training", of_stored_run(store_away)),
    Fault(
        "s3-checkpoint", f"S3 away for {AWAY_SECONDS:.0f} s, in a checkpoint", of_stored_run(store_away_in_checkpoint)
    ),
    Fault("s3-ingest", f"S3 away for {AWAY_SECONDS:.0f} s, in an ingest", play_ingest),
    Fault("raylet", "SIGKILL of the raylet of a node with a worker", of_run(kill_raylet)),
    Fault("drain", "`ray drain-node` of a node with a worker", of_run(drain_node)),
    Fault("join", "a node joins a run of `--run.workers 2..4`", play_join),
    Fault("trial", "SIGKILL of the process of a sweep's trial", of_sweep(kill_trial)),
    Fault("sweep", "SIGKILL of a sweep's driver", of_sweep(kill_driver), AGAIN),
    Fault("sweep-raylet", "SIGKILL of the raylet of a node with a trial", of_sweep(partial(kill_raylet, title=TRIAL))),
    Fault("sweep-drain", "`ray drain-node` of a node with a trial", of_sweep(partial(drain_node, title=TRIAL))),
    Fault("head", "SIGKILL of all of the head node, which starts again", of_run(kill_head), AGAIN),
    Fault(
        "gcs", f"SIGKILL of the head's `gcs_server`, which starts after {GCS_SECONDS:.0f} s", of_run(kill_gcs, kept_gcs)
    ),
    Fault("partition", f"a node with a worker is cut off for {PARTED_SECONDS:.0f} s", of_run(part_node, namespaces)),
    Fault("memory", "no memory: Ray ends a worker", of_run(take_memory, watched_memory)),
    Fault("replica", "SIGKILL of a replica of two under load", play_replica),
)


# --- the table


def row(fault: Fault, outcomes: Sequence[Outcome | Exception]) -> list[str]:
    """Return the row of a fault."""
    good = [outcome for outcome in outcomes if isinstance(outcome, Outcome)]
    ended = f"{len(good)} of {len(outcomes)}"
    if any(isinstance(outcome, Skipped) for outcome in outcomes):
        ended = f"skipped: {outcomes[0]}"

    def all_of(values: Sequence[float | None]) -> str:
        known = [value for value in values if value is not None]
        return "" if not known else figure(known[0]) if len(known) == 1 else spread(known)

    return [
        fault.name,
        fault.does,
        ended,
        *("; ".join(dict.fromkeys(getattr(one, name) for one in good)) for name in ("goes_on", "compared", "lines")),
        all_of([one.seconds for one in good]),
        all_of([one.steps for one in good]),
    ]


def put_into(page: Path, about: str, rows: Sequence[Sequence[str]]) -> None:
    """Put rows into the table of a page, in place of those of the same faults, and above it what was run."""
    before, begin, rest = page.read_text(encoding="utf-8").partition("<!-- chaos -->\n")
    there, end, after = rest.partition("<!-- end -->")
    lines = [*there.splitlines(), *table(HEAD, rows).splitlines()]
    by_fault = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    order = [HEAD[0], "---", *(fault.name for fault in FAULTS)]
    text = "\n".join(by_fault[name] for name in order if name in by_fault)
    page.write_text(f"{before}{begin}\n{about}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Play the faults, print their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--faults", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--times", type=int, default=1, help="how often each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", type=Path, help="a page whose table takes the rows")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # The clusters are stopped, then.
    began = time.monotonic()
    about = f"`{command()}`, {machine(sorted(os.sched_getaffinity(0)))}. {versions('torch', 'ray')}."
    print(f"{about}\n\n{table(HEAD, [])}", flush=True)
    rows, failed = [], []
    with tempfile.TemporaryDirectory(prefix="gl-chaos-") as folder, contextlib.closing(Stage(Path(folder))) as stage:
        for fault in FAULTS:
            if fault.name not in given.faults:
                continue
            outcomes: list[Outcome | Exception] = []
            for number in range(given.times):
                seed = given.seed + number
                say(f"{fault.name}, seed {seed}")
                outcomes.append(played(fault, stage, random.Random(f"{fault.name} {seed}")))
                if isinstance(outcomes[-1], Exception) and not isinstance(outcomes[-1], Skipped):
                    failed.append(f"{fault.name}, seed {seed}: {outcomes[-1]}")
                    say(failed[-1])
            rows.append(row(fault, outcomes))
            print(f"| {' | '.join(rows[-1])} |", flush=True)
            if given.page:
                put_into(given.page, about, rows)
    say(f"took {(time.monotonic() - began) / 60:.0f} minutes")
    if failed:
        sys.exit("\n\n".join(["", *failed]))


def played(fault: Fault, stage: Stage, dice: random.Random) -> Outcome | Exception:
    """Play a fault; return what came of it, or why it did not come to that."""
    try:
        outcome = fault.play(stage, dice)
        if outcome.goes_on != fault.goes_on:
            raise RuntimeError(f"it went on {outcome.goes_on}")
    except Exception as error:
        stage.close_cluster()
        return error
    return outcome


if __name__ == "__main__":
    main()
