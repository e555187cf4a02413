"""A run that is told to stop saves first, and goes on as if it had not been told."""

import dataclasses
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genlab.training import loop
from genlab.training.launch import launch
from genlab.training.notices import SIGTERM_CAME, Notice, Notices, PreemptedError, Termination
from genlab.training.plan import Plan, make_plan, start_or_resume
from genlab.training.ray.messages import SILENCE_SECONDS, RunMessages
from genlab.training.state import TrainingState
from tests.training.support import QuietSession, assert_same_run, checkpoint_steps, vae_config


@pytest.fixture
def plan(digits: Path, tmp_path: Path) -> Callable[[str], Plan]:
    """Make the plan of a run of 12 steps, logged every 3, with checkpoints after 6, 9 and 12."""

    def make(name: str) -> Plan:
        found = make_plan("vae", vae_config(digits, name=name, storage=str(tmp_path)))
        start_or_resume(found)
        return found

    return make


@pytest.fixture
def told() -> Iterator[list[int]]:
    """The signals that this process was sent and that nothing else handled."""
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Told(QuietSession):
    """Told at the first logged step that its node goes away."""

    def notices(self) -> Notices:
        class Always:
            def newest(self) -> Notice:
                return Notice("the node goes away", ends=False)

            def close(self) -> None:
                pass

        return Always()


def test_a_run_that_is_told_saves_at_the_next_logged_step_and_goes_on_bit_for_bit(
    plan: Callable[[str], Plan], tmp_path: Path
) -> None:
    loop.train(plan("straight"), QuietSession())
    with pytest.raises(PreemptedError, match=r"told: the node goes away; step 3 is saved, the run goes on"):
        loop.train(plan("told"), Told())
    assert checkpoint_steps(tmp_path / "told") == [3]
    with pytest.raises(PreemptedError, match="step 6"):
        loop.train(plan("told"), Told())
    loop.train(plan("told"), QuietSession())
    assert_same_run(tmp_path / "told", tmp_path / "straight")


def test_sigterm_is_a_notice(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[int]) -> None:
    update, steps = TrainingState.update_ema, []

    def update_and_tell(*arguments: Any) -> None:
        steps.append(1)
        if len(steps) == 4:
            signal.raise_signal(signal.SIGTERM)
        update(*arguments)

    monkeypatch.setattr(TrainingState, "update_ema", update_and_tell)
    with pytest.raises(PreemptedError, match="SIGTERM came; step 6 is saved, start the run again under its name"):
        launch("vae", vae_config(digits, name="run", storage=str(tmp_path)))
    assert checkpoint_steps(tmp_path / "run") == [6]
    assert not told
    signal.raise_signal(signal.SIGTERM)
    assert told, "when the run has ended, SIGTERM is what it was"


def test_a_second_sigterm_does_what_it_did_before(told: list[int]) -> None:
    notices = Termination()
    assert notices.newest() is None
    signal.raise_signal(signal.SIGTERM)
    assert not told
    assert notices.newest() == SIGTERM_CAME
    signal.raise_signal(signal.SIGTERM)
    assert len(told) == 1


def test_checkpoints_for_a_notice_change_nothing_of_which_are_evaluated(plan: Callable[[str], Plan]) -> None:
    found = plan("run")
    run = dataclasses.replace(found.run, log_every=10, checkpoint_every=40, evaluate_every=60)
    found = dataclasses.replace(found, config=dataclasses.replace(found.config, run=run))
    evaluated = [step for step in range(10, 400, 10) if loop._candidate_is_due(found, step)]
    assert evaluated == [80, 120, 200, 240, 320, 360]


def test_a_notice_for_nodes_is_for_the_workers_that_were_there() -> None:
    messages, leaves = RunMessages(), Notice("a node goes", ends=False)
    messages.listen(("a", "b"))
    assert messages.collect()[3] == ("a", "b")
    messages.notify(leaves)
    messages.listen(())
    assert messages.notice() == leaves, "as long as no other workers began"
    messages.listen(("b", "c"))
    assert messages.notice() is None
    messages.notify(SIGTERM_CAME)
    messages.notify(leaves)
    messages.preempt("saved by workers of which one was lost before they had ended")
    messages.listen(("c", "d"))
    assert messages.notice() == SIGTERM_CAME, "a run that is to end does so whatever happens to its workers"
    assert messages.preempted()[0] is None
    messages.notify(SIGTERM_CAME)
    messages.preempt("saved")
    assert messages.preempted() == ("saved", SIGTERM_CAME)
    assert messages.preempted() == (None, None)


def test_workers_that_were_killed_do_not_listen_any_more() -> None:
    now = [0.0]
    messages = RunMessages(clock=lambda: now[0])
    messages.listen(("a", "b"))
    for _ in range(100):
        now[0] += 1.0
        messages.notice()
        assert messages.collect()[3] == ("a", "b")
    now[0] += SILENCE_SECONDS + 0.1
    assert messages.collect()[3] == (), "so that SIGTERM ends the driver at once"
    messages.listen(("b",))
    assert messages.collect()[3] == ("b",)
