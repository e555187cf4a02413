"""A sweep on S3 whose driver is killed, and one of whose trials always fails, on a Ray of their own."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genlab.core.storage import locate, read_bytes
from tests.cluster_support import TIMEOUT_SECONDS, start_job, wait_for
from tests.s3 import Bucket, FaultProxy

SPACE = """
from genlab.sweeps.space import Space

SPACE = Space(
    family="vae",
    vary={"optimization.learning_rate": [1e-3, 1e30, 2e-3]},
    metric="val/neg_elbo",
    mode="min",
    base={"run.threads": 1, "run.steps": 20, "run.batch": 32, "run.log_every": 5},
    keep=1,
)
"""
pytestmark = pytest.mark.cluster


AWAY_SECONDS = 10
"""How long the store is away: less than the two minutes for which requests are repeated."""


def test_a_sweep_whose_driver_is_killed_ends_with_the_same_trials_and_one_that_fails_does_not_sink_it(
    s3: Bucket, fault_proxy: FaultProxy, drawn: Callable[[str], Path], tmp_path: Path
) -> None:
    space, folder = tmp_path / "rates.py", locate(f"{s3.url}/sweeps/rates")
    space.write_text(SPACE)
    arguments = ["jobs/sweep.py", str(space), "--data.images", str(drawn("digits")), "--run.storage"]
    arguments.append(f"{s3.url}/sweeps")
    job = start_job(*arguments)
    [first, *_] = wait_for("a trial that has ended", lambda: [*folder.glob("trial-*/report.html")])
    before = first.stat().st_mtime
    started = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    _, alive = psutil.wait_procs(started, TIMEOUT_SECONDS)
    assert not alive, "all that a driver started ends with it"

    attempts = len([*folder.glob("trial-*/attempts/*")])
    job = start_job(*arguments)
    wait_for("a trial that goes on", lambda: len([*folder.glob("trial-*/attempts/*")]) > attempts)
    fault_proxy.away()
    time.sleep(AWAY_SECONDS)
    fault_proxy.back()
    log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
    assert job.returncode == 2, log
    assert re.search(r"3 trials, of which (1 has|2 have) ended", log), log
    assert first.stat().st_mtime == before, "a trial that has ended is not trained again"
    assert "error: 1 of 3 trials failed; optimization.learning_rate = 1e+30, run.seed = 0: " in log
    trials = json.loads(read_bytes(folder / "sweep.json"))["trials"]
    assert {trial["point"]["optimization.learning_rate"]: trial["error"] is None for trial in trials} == {
        1e-3: True,
        1e30: False,
        2e-3: True,
    }
    rows = pq.read_table(pa.BufferReader(read_bytes(folder / "results.parquet"))).to_pylist()
    assert {row["run"]: row["state"] for row in rows} == {
        trial["run"]: "failed" if trial["error"] else "finished" for trial in trials
    }
    html = read_bytes(folder / "sweep.html").decode()
    assert "is not finite in step" in html[html.index("Failed trials") :]
    kept = {str(state.parents[2]) for state in folder.glob("*/checkpoints/*/state-*")}
    assert len(kept & {trial["run"] for trial in trials if not trial["error"]}) == 1, "the best keeps checkpoints"
