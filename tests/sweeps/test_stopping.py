"""Trials that are stopped at rungs: who is, what is remembered, and what counts as ended."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from genlab.core.config import override
from genlab.core.storage import locate
from genlab.sweeps.ranking import by_point, ranked
from genlab.sweeps.space import Asha, Median, Space
from genlab.sweeps.stopping import IMAGES, RUNG, RungScheduler
from genlab.sweeps.trials import (
    NUMBER,
    Outcome,
    Trial,
    plan_trials,
    record_stop,
    result_of,
    stop_of,
    stopped_images,
)
from genlab.training.console import RunConsole
from genlab.training.loop import train
from genlab.training.plan import start_or_resume
from genlab.training.rung import Rung
from genlab.training.session import LocalSession

BETA = "objective.beta"


@pytest.fixture
def config(tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("genlab.data.format.held_out.FEWEST_OF_HALF", 5)
    return tiny("vae", {"run.steps": 12, "run.workers": 0, "run.threads": 1, "run.batch": 10})


def space(scheduler: Asha | Median | None, trials: int = 5) -> Space:
    vary = {BETA: [float(number) for number in range(1, trials + 1)]}
    return Space("vae", vary, "val/neg_elbo", "min", scheduler=scheduler)


def trials_of(space: Space, config: Any, tmp_path: Path) -> list[Trial]:
    return plan_trials(space, config, locate(tmp_path / "sweep"))


def report(scheduler: RungScheduler, number: int, images: int, value: float) -> None:
    """Report as a trial does, and keep it in its metrics, with a checkpoint after it."""
    trial = SimpleNamespace(config={NUMBER: number})
    mine = scheduler._trial(trial)
    run, step = Path(mine.plan.directory), images // mine.plan.run.batch
    (run / "checkpoints" / f"step-{step + 1:08d}").mkdir(parents=True)
    (run / "checkpoints" / f"step-{step + 1:08d}" / "index.json").touch()
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps({"kind": "val", "step": step, "images": images, "neg_elbo": value}) + "\n")
    if not any(line["step"] < step for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())):
        scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, {RUNG: step, IMAGES: images, "val/neg_elbo": value}) == "CONTINUE"


def test_rungs_are_images_rounded_up_to_logged_steps(config: Any, tmp_path: Path) -> None:
    def rungs(scheduler: Asha | Median, **run: int) -> tuple[int, ...]:
        changed = override(config, {f"run.{name}": value for name, value in run.items()})
        return trials_of(space(scheduler), changed, tmp_path)[0].plan.rungs

    assert Asha(grace=10, reduction=3).rungs(120) == [10, 30, 90]
    assert rungs(Asha(grace=10, reduction=3)) == (3, 9), "every third step is logged"
    assert rungs(Asha(grace=10, reduction=3), log_every=1) == (1, 3, 9)
    assert rungs(Asha(grace=10, reduction=3), log_every=1, batch=20, steps=6) == (1, 2, 5)
    assert rungs(Median(grace=30, every=40)) == (3, 9)


def test_asha_stops_who_is_worse_than_the_best_fraction_and_remembers(config: Any, tmp_path: Path) -> None:
    asha = space(Asha(grace=30, reduction=2))
    trials = trials_of(asha, config, tmp_path)
    coming: list[Trial] = []
    scheduler = RungScheduler(asha, coming)  # a searcher's trials come one by one
    coming += trials
    for number, value in ((0, 5.0), (1, 4.0), (2, 6.0)):
        report(scheduler, number, 30, value)
    assert [stop_of(trial.plan) for trial in trials] == [None, None, 3, None, None], "the first has no competitors"
    report(scheduler, 1, 60, 3.0)
    again = RungScheduler(asha, trials)  # the driver was killed, and started again
    report(again, 3, 30, 5.5)
    report(again, 4, 30, 4.5)
    assert [stop_of(trial.plan) for trial in trials] == [None, None, 3, 3, None]
    report(again, 4, 60, 3.5)
    assert [stop_of(trial.plan) for trial in trials] == [None, None, 3, 3, 6]
    without = trials_of(space(None), config, tmp_path)
    assert [stop_of(trial.plan) for trial in without] == [None] * 5, "without a scheduler all go on"


def test_in_hyperband_a_trial_is_compared_within_its_bracket_alone(config: Any, tmp_path: Path) -> None:
    hyperband = space(Asha(grace=30, reduction=2, brackets=3), trials=12)
    trials = trials_of(hyperband, config, tmp_path)
    asha = cast("Asha", hyperband.scheduler)
    brackets = [asha.bracket(trial.name, trial.images) for trial in trials]
    # Trials of the brackets see 30 + 30/2 + 60/4, 60 + 60/2, and 120 images: as many times as many are in each.
    shares = [sum(asha.bracket(f"trial-{number}", 120) == one for number in range(6000)) / 6000 for one in range(3)]
    assert shares == pytest.approx([6 / 13, 4 / 13, 3 / 13], abs=0.03)
    early, late, never = (
        [number for number, found in enumerate(brackets) if found == bracket][:2] for bracket in range(3)
    )
    scheduler = RungScheduler(hyperband, trials)
    for number, value in zip((*early, *late, *never), (5.0, 6.0) * 3, strict=True):
        report(scheduler, number, 30, value)
    stops = {number: stop_of(trials[number].plan) for number in (*early, *late, *never)}
    assert [number for number, stop in stops.items() if stop == 3] == [early[1]], "others begin at later rungs"
    again = RungScheduler(hyperband, trials)  # the driver was killed, and started again
    for number, value in zip((*late, *never), (5.0, 6.0) * 2, strict=True):
        report(again, number, 60, value)
    assert [stop_of(trials[number].plan) for number in (*late, *never)] == [None, 6, None, None]


def test_median_stopping_waits_for_three_others(config: Any, tmp_path: Path) -> None:
    median = space(Median(grace=30, every=30))
    trials = trials_of(median, config, tmp_path)
    scheduler = RungScheduler(median, trials)
    for number, value in ((4, 9.0), (0, 1.0), (1, 2.0), (3, 3.0), (2, 1.5)):
        report(scheduler, number, 30, value)
    assert [stop_of(trial.plan) for trial in trials] == [None, None, None, 3, None]
    again = RungScheduler(median, trials)  # the driver was killed, and started again
    for number, value in ((0, 1.0), (1, 2.0), (2, 1.5), (4, 9.0)):
        report(again, number, 60, value)
    stops = [stop_of(trial.plan) for trial in trials]
    assert stops == [None, None, None, 3, 6], "the last came first at its first rung, and was not stopped there"


def test_a_stopped_trial_has_ended_and_comes_after_those_that_were_trained_to_the_end(
    config: Any, tmp_path: Path
) -> None:
    trials = trials_of(space(Asha(grace=30, reduction=2), trials=2), override(config, {"run.steps": 6}), tmp_path)

    class Told(LocalSession):
        def reach(self, rung: Rung) -> bool:
            return stop_of(trials[1].plan) == rung.step

    for trial in trials:
        start_or_resume(trial.plan)
        if trial is trials[1]:
            record_stop(trial.plan, Rung(3, 30, {}))
        with RunConsole() as console:
            train(trial.plan, Told(console, 1) if trial is trials[1] else LocalSession(console, 1))
        assert result_of(trial) is None, "it has no report yet"
        (Path(trial.plan.directory) / "report.html").touch()
    assert [stopped_images(trial.plan) for trial in trials] == [None, 30]
    outcomes = [Outcome(trial, result_of(trial) or {}, stopped=stopped_images(trial.plan)) for trial in trials]
    assert "val/neg_elbo" in outcomes[1].metrics
    order = ranked(by_point(outcomes), "val/neg_elbo", "max")
    assert [point.stopped for point in order] == [None, 30], "whichever is better"
    assert [point.stopped for point in ranked(by_point(outcomes), "val/neg_elbo", "min")] == [None, 30]
