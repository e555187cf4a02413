"""The held-out rows of a run: chosen when it begins, and kept when it goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genlab.data.format.held_out import HeldOutSplits
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.training.plan import Plan, make_plan, start_or_resume

Tiny = Callable[..., Any]

HALVES = HeldOutSplits("test:validation", "test:reporting")
WHOLE = HeldOutSplits("test", "test")
UNCHOSEN = HeldOutSplits(None, "test")


@pytest.fixture(scope="module")
def scene_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two domains of scenes, most of them held out."""
    root = tmp_path_factory.mktemp("planned")
    for domain in "ab":
        source = f"synthetic:scenes-{domain}"
        ingest(IngestConfig(source, str(root / domain), size=32, count=24, test_fraction=0.8))
    return {f"data.{domain}": str(root / domain) for domain in "ab"}


@pytest.fixture
def planned(tiny: Tiny, scene_data: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], Plan]:
    """``planned(evaluate_every)``: the plan of a run on these scenes, whose test splits are large enough to divide."""
    monkeypatch.setattr("genlab.data.format.held_out.FEWEST_OF_HALF", 4)
    return lambda every: make_plan("cyclegan", tiny("cyclegan", scene_data | {"run.evaluate_every": every}))


Planned = Callable[[int | None], Plan]


def test_a_run_that_chooses_a_checkpoint_divides_its_test_split(planned: Planned) -> None:
    assert planned(4).held_out == HALVES
    assert planned(4).evaluation_kind == "val"
    assert planned(None).held_out == UNCHOSEN
    assert planned(4).has_test_rows


def test_metrics_are_of_the_rows_for_results_and_of_those_for_choices_where_they_are_others(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert planned(None).measured_splits == {"test": "test"}
    assert planned(4).measured_splits == {"val": "test:validation", "test": "test:reporting"}
    monkeypatch.setattr("genlab.data.format.held_out.FEWEST_OF_HALF", 25)
    assert planned(4).measured_splits == {"test": "test"}


def test_a_run_goes_on_with_the_rows_that_it_began_with(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(4)
    start_or_resume(plan)
    assert json.loads((Path(plan.directory) / "config.json").read_text())["held_out"] == {
        "choice": "test:validation",
        "report": "test:reporting",
    }
    assert planned(None).held_out == HALVES
    monkeypatch.setattr("genlab.data.format.held_out.FEWEST_OF_HALF", 25)
    assert planned(4).held_out == HALVES


def test_a_run_that_begins_to_choose_later_divides_its_test_split_then(planned: Planned) -> None:
    start_or_resume(planned(None))
    assert planned(4).held_out == HALVES


@pytest.mark.parametrize(("every", "held_out"), [(4, WHOLE), (None, HALVES)])
def test_a_run_that_chose_before_there_was_a_rule_goes_on_as_it_did(
    planned: Planned, every: int | None, held_out: HeldOutSplits
) -> None:
    plan = planned(every)
    start_or_resume(plan)
    file = Path(plan.directory) / "config.json"
    content = json.loads(file.read_text())
    del content["held_out"]
    file.write_text(json.dumps(content))
    assert planned(4).held_out == held_out
