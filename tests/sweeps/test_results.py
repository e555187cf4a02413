"""``results.parquet``: the types of its columns."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq

from genlab.core.storage import locate
from genlab.sweeps.results import LOG_LINES, TrialResult, failed, write_results
from genlab.sweeps.trials import Outcome, Trial


def test_options_have_the_type_of_their_values_and_lists_are_json(tmp_path: Path) -> None:
    points: list[dict[str, Any]] = [
        {"model.channels": [8, 16], "beta": 1, "schedule": "cosine", "flip": True, "depth": 2},
        {"model.channels": [8], "beta": 0.5, "schedule": "constant", "flip": False},
    ]
    results = []
    for seed, point in enumerate(points):
        plan = SimpleNamespace(directory=f"runs/{seed}", run=SimpleNamespace(name=str(seed), seed=seed))
        outcome = Outcome(Trial(point, cast("Any", plan)), {"val/loss": 1.5} if seed else {}, None if seed else "lost")
        results.append(TrialResult(outcome, images=64, hours=0.25))
    write_results(locate(tmp_path), results)
    table = pq.read_table(tmp_path / "results.parquet")
    assert table.to_pylist() == [
        {"model.channels": "[8, 16]", "beta": 1.0, "schedule": "cosine", "flip": True, "depth": 2, "run.seed": 0,
         "val/loss": None, "images": 64, "hours": 0.25, "stopped": None, "parent": None,
         "parent_images": None, "state": "failed", "error": "lost", "run": "runs/0"},
        {"model.channels": "[8]", "beta": 0.5, "schedule": "constant", "flip": False, "depth": None, "run.seed": 1,
         "val/loss": 1.5, "images": 64, "hours": 0.25, "stopped": None, "parent": None,
         "parent_images": None, "state": "finished", "error": None, "run": "runs/1"},
    ]  # fmt: skip


def test_of_what_a_failed_trial_said_the_last_lines_are_kept() -> None:
    said = "\n".join(["Traceback:", *(f"  line {number}" for number in range(50)), "", "RunError: no memory  "])
    found = failed(TrialResult(Outcome(Trial({}, cast("Any", None)), {})), said)
    assert (found.outcome.error, found.state) == ("RunError: no memory", "failed")
    assert len(found.log) == LOG_LINES
    assert found.log[-2:] == ("  line 49", "RunError: no memory")
