"""A population whose driver is killed, on a cluster of two nodes."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cluster_support import TRIAL, Cluster, finish, reproducible, wait_for

SPACE = """
from ray import tune
from genlab.sweeps.space import Budget, Pbt, Space

SPACE = Space(
    family="vae",
    vary={"optimization.learning_rate": tune.loguniform(1e-4, 1e-2)},
    metric="val/neg_elbo",
    mode="min",
    base={"run.threads": 1, "run.steps": 10, "run.batch": 32, "run.log_every": 5},
    searcher="random",
    scheduler=Pbt(every=160, factors=(1.0,), resample=0),
    budget=Budget(trials=2),
)
"""
pytestmark = pytest.mark.cluster


def test_a_copy_is_its_parent_bit_for_bit_and_a_population_whose_driver_is_killed_goes_on(
    cluster: Cluster, drawn: Callable[[str], Path], tmp_path: Path
) -> None:
    space, folder = tmp_path / "rates.py", tmp_path / "rates"
    space.write_text(SPACE)
    arguments = ["jobs/sweep.py", str(space), "--data.images", str(drawn("digits")), "--run.storage", str(tmp_path)]
    job = cluster.drive(*arguments, COLUMNS="160")
    wait_for("a decision", lambda: (folder / "population.json").exists())
    job.kill()
    wait_for("the end of its trials", lambda: not cluster.workers(TRIAL.partition(".")[0]))
    decided = (folder / "population.json").read_bytes()

    log = finish(cluster.drive(*arguments, COLUMNS="160"))
    assert (folder / "population.json").read_bytes() == decided
    [replaced] = json.loads(decided)["rungs"][0]["replaced"]
    rows = {Path(row["run"]).name: row for row in pq.read_table(folder / "results.parquet").to_pylist()}
    assert sorted(row["state"] for row in rows.values()) == ["finished"] * 3
    parent = folder / replaced["parent"]
    [copy] = [folder / name for name, row in rows.items() if row["parent"] == parent.name]
    assert rows[copy.name]["parent_images"] == rows[replaced["trial"]]["stopped"] == 160
    assert reproducible(copy) == [line for line in reproducible(parent) if line["step"] > 5] != []
    weights = "model/model.safetensors"
    assert (copy / weights).read_bytes() == (parent / weights).read_bytes()
    assert f"{parent.name} at 160 images" in " ".join(log.split()), "the table says where it comes from"
    assert f"{parent.name} at 160 images" in (folder / "sweep.html").read_text()
