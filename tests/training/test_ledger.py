"""What a run used and lost, from what its attempts recorded."""

import json
from pathlib import Path
from typing import Any

import pytest

from genlab.cli.ledger import LedgerConfig, show_ledger
from genlab.core.errors import RunError
from genlab.core.storage import locate
from genlab.core.text import number_text
from genlab.reports.report import make_report
from genlab.training import loop
from genlab.training.ledger import LOST, STARTED, make_ledger, read_ledger
from genlab.training.notices import PREEMPTION, RESIZE, PreemptedError
from genlab.training.plan import make_plan, start_or_resume
from tests.training.support import QuietSession, vae_config
from tests.training.test_notices import Told


def attempt(driver: str, devices: int, began: float, trained: float, until: float, *steps: int, **more: Any) -> Any:
    first, step = steps
    facts = {"driver": driver, "workers": 2, "devices": devices, "device": "core", "began": began, "trained": trained}
    facts |= {"until": until, "first": first, "step": step, "checkpoints": 2, "checkpoint_seconds": 6.0}
    return facts | more


RUN = {
    1: attempt("a", 4, 0, 100, 1100, 0, 1000),  # a worker was lost
    2: attempt("a", 4, 1180, 1200, 2200, 800, 1800, end=PREEMPTION),
    3: attempt("a", 2, 2210, 2230, 2330, 1800, 1850, end=RESIZE),
    4: attempt("a", 4, 2350, 2360, 2460, 1850, 1950),  # the driver was lost
    5: {"started": "then", "resumed_from": 1900},  # ended before its first step
    6: attempt("b", 4, 9000, 9020, 9120, 1900, 2000),
}


def test_hours_are_used_and_lost_by_cause() -> None:
    ledger = make_ledger(RUN)
    used = 4 * 1100 + 4 * 1100 + 2 * 130 + 4 * 130 + 4 * 120
    assert ledger.hours == pytest.approx(used / 3600)
    assert {cause: (one.times, one.steps) for cause, one in ledger.losses.items()} == {
        LOST: (1, 200),
        PREEMPTION: (1, 0),
        RESIZE: (1, 0),
        STARTED: (1, 50),
    }
    assert {cause: 3600 * one.hours for cause, one in ledger.losses.items()} == pytest.approx(
        {LOST: 4 * 200 + 4 * 100, PREEMPTION: 2 * 30, RESIZE: 4 * 30, STARTED: 4 * 50 + 4 * 20}
    )
    counts = ledger.hours - ledger.lost - ledger.entries[0].starting
    assert counts == pytest.approx((4 * 800 + 4 * 1000 + 2 * 100 + 4 * 50 + 4 * 100) / 3600), "the steps that count"
    assert ledger.restart_seconds == pytest.approx((100 + 30 + 30) / 3)
    assert ledger.checkpoint_seconds == 3
    assert ledger.step_seconds == pytest.approx((2300 - 30) / 2250)
    assert ledger.seconds_between_losses == 2300 / 2
    assert ledger.noticed == 1 / 2
    assert ledger.waited == pytest.approx((4 * 80 + 2 * 10 + 4 * 20) / 3600), "between workers of one driver"


@pytest.mark.slow
def test_a_run_keeps_its_ledger(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan("vae", vae_config(digits, name="run", storage=str(tmp_path)))
    start_or_resume(plan)
    with pytest.raises(PreemptedError):
        loop.train(plan, Told())
    loop.train(plan, QuietSession())
    ledger = read_ledger(locate(plan.directory))
    assert [(entry.steps, entry.lost_steps, entry.cause) for entry in ledger.entries] == [
        (3, 0, PREEMPTION),
        (9, 0, None),
    ]
    assert [entry.checkpoints for entry in ledger.entries] == [1, 3]
    show_ledger(LedgerConfig(plan.directory, price=2.0))
    said = capsys.readouterr().out
    assert "12 steps, 72 images, 2 attempts" in said
    assert "lost by: a notice " in said
    assert f"at 2 for an hour: {number_text(2 * ledger.hours)} in all" in said
    assert "used and lost" in make_report(plan.directory).read_text()

    for file in (tmp_path / "run" / "attempts").iterdir():
        file.write_text(json.dumps({"started": "then", "resumed_from": 0}))
    with pytest.raises(RunError, match="no ledger"):
        show_ledger(LedgerConfig(plan.directory))
