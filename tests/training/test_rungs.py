"""Rungs: where a run is measured, writes a checkpoint and may be told to stop."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from genlab.core.storage import locate
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.evaluation.checkpoint_evaluations import read_evaluations
from genlab.store import model_directory
from genlab.training.loop import train
from genlab.training.plan import Plan, finished_step, make_plan, start_or_resume
from genlab.training.rung import Rung
from tests.training.support import QuietSession, assert_same_state, checkpoint_steps, metrics, state, vae_config


@dataclass(frozen=True)
class Stopping(QuietSession):
    """Stops the run at a step; keeps what it reached, and the checkpoints that there were."""

    run: Path = Path()
    stop: int | None = None
    reached: list[tuple[Rung, list[int]]] = field(default_factory=list)

    def reach(self, rung: Rung) -> bool:
        self.reached.append((rung, checkpoint_steps(self.run)))
        return rung.step == self.stop


def plan(digits: Path, storage: Path, name: str, *rungs: int) -> Plan:
    found = replace(make_plan("vae", vae_config(digits, name=name, storage=str(storage))), rungs=rungs)
    start_or_resume(found)
    return found


@pytest.mark.slow
def test_a_run_that_was_stopped_at_a_rung_is_trained_on_as_if_it_had_not_been(digits: Path, tmp_path: Path) -> None:
    train(plan(digits, tmp_path, "straight"), QuietSession())
    rungs = plan(digits, tmp_path, "stopped", 3, 9)
    run = tmp_path / "stopped"
    session = Stopping(run=run, stop=9)
    train(rungs, session)
    assert [(rung.step, rung.images) for rung, _ in session.reached] == [(3, 18), (9, 54)]
    assert [steps[-1] for _, steps in session.reached] == [3, 9], "it is told when the checkpoint is written"
    measured = {line["step"]: line for line in metrics(run) if line["kind"] == "test"}
    for rung, _ in session.reached:
        assert rung.metrics["test/neg_elbo"] == measured[rung.step]["neg_elbo"]
    assert finished_step(replace(rungs, steps=9)) == 9
    assert finished_step(rungs) is None
    description = model_directory.describe(run / "model")
    assert description["provenance"]["step"] == 9
    assert list((run / "figures" / "step-00000009").iterdir())

    again = Stopping(run=run)
    train(rungs, again)
    assert [rung for rung, _ in again.reached] == [session.reached[-1][0]], "the run asks again where it goes on"
    assert finished_step(rungs) == 12
    assert_same_state(state(run, 12), state(tmp_path / "straight", 12))
    lines = [line for line in metrics(run) if (line["kind"], line["step"]) != ("test", 3)]  # 9 ends an epoch
    assert lines == metrics(tmp_path / "straight"), "rungs only add measurements"


@pytest.mark.slow
def test_a_run_that_was_killed_at_a_rung_before_it_was_told_stops_there(digits: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    class Killed(Stopping):
        def reach(self, rung: Rung) -> bool:
            raise KilledError

    rungs = plan(digits, tmp_path, "run", 6)
    try:
        train(rungs, Killed())
    except KilledError:
        session = Stopping(run=tmp_path / "run", stop=6)
        train(rungs, session)
    assert [rung.step for rung, _ in session.reached] == [6]
    assert finished_step(replace(rungs, steps=6)) == 6


@pytest.mark.slow
def test_where_checkpoints_are_evaluated_a_rung_waits_for_the_evaluation_of_its_own(tiny: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"run.evaluate_every": 100, "run.name": "evaluated"}
    for domain in "ab":
        options[f"data.{domain}"] = str(tmp_path / domain)
        ingest(
            IngestConfig(f"synthetic:scenes-{domain}", str(tmp_path / domain), size=32, count=24, test_fraction=0.25)
        )
    config = tiny("cyclegan", options)
    rungs = replace(make_plan("cyclegan", config), rungs=(3,))
    start_or_resume(rungs)
    run = tmp_path / "evaluated"
    session = Stopping(run=run, stop=3)
    train(rungs, session)
    [(rung, _)] = session.reached
    [evaluation] = read_evaluations(locate(run))
    assert rung.metrics["test/kid"] == evaluation.measurements["kid"].value
    assert finished_step(replace(rungs, steps=3)) == 3
    again = Stopping(run=run, stop=3)
    train(rungs, again)
    assert [one for one, _ in again.reached] == [rung]
