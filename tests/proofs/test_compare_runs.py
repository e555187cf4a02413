"""The comparison of two runs by the proofs."""

import json
from pathlib import Path
from typing import Any

import pytest

from genlab.core.storage import locate
from genlab.proofs.compare_runs import largest_metric_difference


def run(folder: Path, *lines: dict[str, Any]) -> Path:
    folder.mkdir()
    text = "".join(json.dumps({"kind": "train", "step": step, **line}) + "\n" for step, line in enumerate(lines, 1))
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_a_metric_that_one_run_lacks_differs(tmp_path: Path) -> None:
    one = locate(run(tmp_path / "one", {"loss": 1.0, "r1": 2.0}, {"loss": 1.0}))
    other = locate(run(tmp_path / "other", {"loss": 1.0, "r1": 2.5}, {"loss": 1.0, "r1": 2.0}))
    for pair in ((one, other), (other, one)):
        found = largest_metric_difference(*pair)
        assert (found.size, found.place) == (float("inf"), "train/r1, step 2")
    assert largest_metric_difference(one, one).size == 0
    third = locate(run(tmp_path / "third", {"loss": 1.0, "r1": 2.5}, {"loss": 1.0}))
    assert largest_metric_difference(one, third).size == pytest.approx(0.25)
