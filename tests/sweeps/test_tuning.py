"""What a trial's process makes of errors: those that would come again are not tried again."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.search import Searcher

from genlab.core.claims import ClaimError
from genlab.core.errors import ClusterError, DataError, StorageTimeoutError
from genlab.sweeps import tuning
from genlab.sweeps.trials import BRANCH, FAULT, OWN, SPARED, UNTIL, Trial
from genlab.sweeps.tuning import Queue
from genlab.training.branch import Branch
from genlab.training.notices import PreemptedError

ERRORS = [
    DataError("a block is damaged"),
    ValueError("a shape does not fit"),
    OSError("No space left on device"),
    ClusterError("no room"),
    ClaimError("taken"),
    StorageTimeoutError("s3://runs: away"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_reported_or_raised(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Tune starts a trial again that raises."""
    reports: list[dict[str, Any]] = []

    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(tuning, "_train_and_report", fail)
    monkeypatch.setattr(tune, "report", reports.append)
    if isinstance(error, StorageTimeoutError):
        with pytest.raises(StorageTimeoutError):
            tuning._trial({}, None, None, "", 1)  # type: ignore[arg-type]
        assert not reports
    else:
        tuning._trial({}, None, None, "", 1)  # type: ignore[arg-type]
        own = isinstance(error, DataError | ValueError)
        [reported] = reports
        assert reported[OWN] == own
        assert str(error) in reported[FAULT]
        assert ("Traceback" in reported[FAULT]) == isinstance(error, ValueError | OSError)
        told: list[Any] = []
        source = SimpleNamespace(next=lambda: None, ended=lambda *given, **more: told.append((given, more)))
        queue = Queue(cast("Any", source), hours=None)
        queue._given = {"0": cast("Any", "trial")}
        queue.on_trial_complete("0", reports[0])
        queue.on_trial_complete("0", error=True)
        assert told == [(("trial", reported[FAULT]), {"own": own}), (("trial", "its process failed"), {"own": False})]


def test_a_trial_that_saved_since_its_node_goes_away_is_started_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Tune counts no failure for an actor that was preempted."""

    def preempt(*arguments: Any) -> None:
        raise PreemptedError("run: Ray gives up node 10.0.0.1; step 5 is saved, the run goes on")

    monkeypatch.setattr(tuning, "_train_and_report", preempt)
    with pytest.raises(RayActorError, match="step 5 is saved") as raised:
        tuning._trial({}, None, None, "", 1)  # type: ignore[arg-type]
    cause = RayTaskError("trial", "traceback", raised.value).as_instanceof_cause()  # As Ray Tune asks for it.
    assert isinstance(cause, RayActorError)
    assert cause.preempted


def test_the_queue_waits_for_a_population_and_ends_with_the_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = SimpleNamespace(
        run=SimpleNamespace(name="trial-b", seed=0), branch=Branch("runs/trial-a", 3), spared=(3,), directory=""
    )
    trial = Trial({"objective.beta": 2.0}, cast("Any", plan), until=6)
    source = SimpleNamespace(trials=[trial], waits=True, left=1, next=[trial, None, None].pop)
    queue = Queue(cast("Any", source), hours=1)
    assert queue.suggest("0") is None, "others come when those that are trained have come to their rung"
    source.waits = False
    assert queue.suggest("1") == Searcher.FINISHED
    given = queue.suggest("2")
    assert {name: given[name] for name in (UNTIL, BRANCH, SPARED)} == {
        UNTIL: 6,
        BRANCH: ["runs/trial-a", 3],
        SPARED: [3],
    }
    source.waits = True
    assert not queue.hours_over
    monkeypatch.setattr("time.monotonic", lambda: float("inf"))
    assert queue.suggest("3") == Searcher.FINISHED
    assert queue.hours_over
