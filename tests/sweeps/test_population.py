"""Population based training: who is replaced by a copy of whom, what is remembered, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from genlab.core.config import override
from genlab.core.errors import ConfigError
from genlab.core.storage import locate
from genlab.sweeps.checks import check_population, check_space
from genlab.sweeps.commands import commands
from genlab.sweeps.disk import release_checkpoints
from genlab.sweeps.live import Status
from genlab.sweeps.population import Population, explored
from genlab.sweeps.ranking import by_point, ranked
from genlab.sweeps.results import TrialResult, write_results
from genlab.sweeps.space import Budget, Pbt, Space, When
from genlab.sweeps.table import columns, lineage, rows
from genlab.sweeps.trials import Outcome, Trial, plan_trials, stop_of
from genlab.training.branch import Branch

RATE = "optimization.learning_rate"
RATES = [1e-4, 2e-4, 4e-4, 8e-4]


@pytest.fixture
def config(tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("genlab.data.format.held_out.FEWEST_OF_HALF", 5)
    return tiny("vae", {"run.steps": 9, "run.workers": 0, "run.threads": 1, "run.batch": 10, "run.log_every": 3})


def space(rates: Any = RATES, pbt: Pbt = Pbt(every=30, quantile=0.25), **more: Any) -> Space:  # noqa: B008
    return Space("vae", {RATE: rates}, "val/neg_elbo", "min", scheduler=pbt, **more)


def population(config: Any, tmp_path: Path, chosen: Space | None = None) -> Population:
    chosen = chosen or space()
    folder = locate(tmp_path / "sweep")
    return Population(chosen, config, folder, plan_trials(chosen, config, folder))


def come(trial: Trial, value: float) -> None:
    """Leave what the run of a trial leaves at its rung: a measurement, and a checkpoint after it."""
    run = Path(trial.plan.directory)
    assert trial.until is not None
    (run / "checkpoints" / f"step-{trial.until:08d}").mkdir(parents=True)
    (run / "checkpoints" / f"step-{trial.until:08d}" / "index.json").touch()
    with (run / "metrics.jsonl").open("a") as lines:
        line = {"kind": "val", "step": trial.until, "images": trial.until * 10, "neg_elbo": value}
        lines.write(json.dumps(line) + "\n")


def to_rung(members: Population, *values: float | None) -> list[Trial]:
    """Train all that is to be trained to the next rung, in turns; those without a value fail."""
    given = []
    while (trial := members.next()) is not None:
        given.append(trial)
    for trial, value in zip(given, values, strict=False):
        assert members.waits
        if value is None:
            members.ended(trial, "a loss is not finite")
        else:
            come(trial, value)
            members.ended(trial)
    return given


def test_the_worst_go_on_as_copies_of_the_best_and_all_is_as_it_was_after_a_kill(config: Any, tmp_path: Path) -> None:
    members = population(config, tmp_path)
    assert members.left == 4 * 3
    first = to_rung(members, 4.0, 1.0, 3.0, 2.0)
    assert [trial.until for trial in first] == [3] * 4
    copy = members.trials[-1]
    assert str(copy.origin) == f"{first[1].name} at 30 images"
    assert copy.plan.branch == Branch(first[1].plan.directory, 3)
    assert copy.plan.rungs == (6,), "those that are to come"
    assert copy.point[RATE] in (1e-4, 4e-4, *RATES), "a neighbour of the parent's value, or one that is drawn"
    assert [stop_of(trial.plan) for trial in first] == [3, None, None, None]
    for again in (members, population(config, tmp_path)):  # the driver was killed, and started again
        assert [trial.name for trial in again.trials] == [trial.name for trial in members.trials]
        going = [again.next() for _ in range(5)]
        assert [trial.name for trial in going if trial] == [copy.name, *(one.name for one in first[1:]), first[0].name]
        assert [trial.until for trial in going if trial] == [6] * 4 + [None], "the one that was replaced has no report"
        spared = [trial.plan.spared for trial in going if trial]
        assert spared == [(), (3,), (), (), ()], "the parent keeps the checkpoint that the copy begins with"


def test_all_are_compared_that_have_come_however_late_and_a_failed_one_is_replaced(config: Any, tmp_path: Path) -> None:
    members = population(config, tmp_path, space(pbt=Pbt(every=30, quantile=0.5)))
    first = to_rung(members, None, 2.0)
    assert len(members.trials) == 4, "two have not come yet"
    killed = population(config, tmp_path, space(pbt=Pbt(every=30, quantile=0.5)))  # before all had come
    assert [trial.name for trial in to_rung(killed, None, 3.0, 1.0)] == [first[0].name, first[2].name, first[3].name]
    replaced = json.loads((tmp_path / "sweep" / "population.json").read_text())["rungs"][0]["replaced"]
    assert [one["trial"] for one in replaced] == [first[0].name, first[2].name]
    assert {one["parent"] for one in replaced} <= {first[1].name, first[3].name}
    assert killed.faults == {first[0].name: "a loss is not finite"}
    assert stop_of(first[0].plan) is None, "it has no checkpoint to end at"
    assert population(config, tmp_path, space(pbt=Pbt(every=30, quantile=0.5))).faults == killed.faults


def test_a_member_that_the_cluster_failed_goes_on_with_the_next_start(config: Any, tmp_path: Path) -> None:
    members = population(config, tmp_path)
    first = [trial for _ in range(4) if (trial := members.next())]
    members.ended(first[0], "the workers do not fit on the cluster", own=False)
    for trial, value in zip(first[1:], (1.0, 3.0, 2.0), strict=True):
        come(trial, value)
        members.ended(trial)
    assert members.next() is None, "the others wait for it at their rung"
    assert not members.waits
    assert not members.faults
    assert not (tmp_path / "sweep" / "population.json").exists(), "nothing is decided without it"
    again = population(config, tmp_path)
    assert [trial.name for trial in to_rung(again, 0.5)] == [first[0].name]
    assert [one["trial"] for one in again._rounds[0]["replaced"]] == [first[2].name], (
        "the worst, not the one that waited"
    )


def test_a_population_that_failed_has_nothing_to_copy(config: Any, tmp_path: Path) -> None:
    members = population(config, tmp_path)
    to_rung(members, None, None, None, None)
    assert not members.waits
    assert members.next() is None
    assert len(members.faults) == 4


def test_nothing_is_perturbed_that_is_not_to_be_and_all_stays_in_its_range() -> None:
    still = Pbt(every=1, resample=0, factors=(1.0,))
    rate = tune.loguniform(1e-4, 1e-2)
    assert explored(rate, 3e-3, still, seed=0) == 3e-3
    moved = Pbt(every=1, resample=0, factors=(0.5, 2.0))
    assert {explored(rate, 1e-3, moved, seed) for seed in range(20)} == {5e-4, 2e-3}
    assert max(explored(rate, 9e-3, moved, seed) for seed in range(20)) < 1e-2, "the end is outside"
    assert {explored(tune.randint(1, 9), 8, moved, seed) for seed in range(20)} == {4, 8}
    assert {explored(tune.quniform(0, 1, 0.25), 0.5, moved, seed) for seed in range(20)} == {0.25, 1.0}
    assert {explored(tune.qrandint(3, 9, 4), 8, moved, seed) for seed in range(20)} == {4, 8}
    assert {explored([1, 2, 3, 4], 1, moved, seed) for seed in range(20)} == {1, 2}
    assert {explored(tune.choice(["a", "b", "c"]), "b", moved, seed) for seed in range(20)} == {"a", "c"}
    anew = {explored(rate, 1e-3, Pbt(every=1, resample=1), seed) for seed in range(20)}
    assert len(anew) == 20
    assert all(1e-4 <= value < 1e-2 for value in anew)


def test_the_record_of_another_population_is_refused(config: Any, tmp_path: Path) -> None:
    to_rung(population(config, tmp_path), 4.0, 1.0, 3.0, 2.0)
    with pytest.raises(ConfigError, match=r"population with other scheduler and points; give the sweep another --run"):
        population(config, tmp_path, space([1e-4, 3e-4], Pbt(every=60)))
    with pytest.raises(ConfigError, match="population with other images of a trial"):
        population(override(config, {"run.steps": 12}), tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"searcher": "optuna", "budget": Budget(trials=4)}, "takes no searcher that learns"),
        ({"metric": ["val/kl", "val/neg_elbo"], "mode": ["min"] * 2}, "Pbt replaces trials by one metric, and there"),
        ({"seeds": 2}, "seeds = 2 with Pbt: a copy goes on with the seed of its parent"),
        ({"vary": {"model.latent_dim": [2, 4]}}, "model.latent_dim: decides what a run is from its first step on"),
        ({"vary": {"run.batch": [8, 16]}}, "run.batch: decides what a run is from its first step on"),
        ({"vary": {RATE: RATES, "objective.beta": When(RATE, [1e-4], [1.0])}}, "all options vary always"),
        ({"scheduler": Pbt(every=0)}, "Pbt: every = 0"),
        ({"scheduler": Pbt(every=9, quantile=0.6)}, "Pbt: quantile = 0.6"),
        ({"scheduler": Pbt(every=9, resample=2)}, "Pbt: resample = 2"),
        ({"scheduler": Pbt(every=9, factors=(0.0,))}, "Pbt: factors"),
    ],
)
def test_what_a_population_cannot_be_trained_by_is_refused(more: Any, message: str, config: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space(replace(space(), **more), config)


def test_values_that_change_what_a_checkpoint_holds_and_a_population_of_one_are_refused(
    config: Any, tmp_path: Path
) -> None:
    averages = replace(space(), vary={"optimization.ema_images": [9.0, 0.0]})
    [trial, *_] = plan_trials(averages, config, locate(tmp_path / "sweep"))
    with pytest.raises(ConfigError, match=r"optimization.ema_images = 0.0: changes what a checkpoint holds \(ema\."):
        check_population(averages, trial.plan)
    check_population(space(RATES[:1]), trial.plan)
    with pytest.raises(ConfigError, match="a population has at least two trials"):
        population(config, tmp_path, space(RATES[:1]))


def test_table_files_and_commands_show_where_a_trial_comes_from(config: Any, tmp_path: Path) -> None:
    members = population(config, tmp_path)
    first = to_rung(members, 4.0, 1.0, 3.0, 2.0)
    copy = members.trials[-1]
    assert lineage(copy, members.trials)[0] == f"to 30 images: {first[1].name}, {RATE} = 0.0002"
    assert lineage(copy, members.trials)[1].startswith(f"to 90 images: {copy.name}, {RATE} = ")
    assert lineage(first[1], members.trials) == []
    ended = [Outcome(one, {"val/neg_elbo": float(place)}) for place, one in enumerate(members.trials)]
    ended[0] = replace(ended[0], stopped=30)
    points = ranked(by_point(ended), "val/neg_elbo", "max")
    assert [len(point.outcomes) for point in points] == [1] * 5, "a copy is a point of its own"
    head, shown = columns(space(), points), rows(space(), points, [])
    assert [row[head.index("from")] for row in shown] == [str(copy.origin), "", "", "", ""]
    assert shown[-1][head.index("against the best")] == "replaced at 30 images"
    write_results(locate(tmp_path), [TrialResult(one, images=90) for one in ended])
    [*_, command] = commands(space(), config, copy, "sweep").values()
    assert f"--run.init {copy.plan.directory}" in command
    assert not release_checkpoints(ended, {"val/neg_elbo": "min"}, 0, {one.name for one in members.trials})


def test_the_status_counts_a_trial_each_time_that_it_is_trained() -> None:
    now = [0.0]
    status = Status({"val/kid": "min"}, trials=4, clock=lambda: now[0], population=True)
    for name in ("one", "two"):
        status.starts(name, name)
        now[0] += 10
        status.waits(name)
    assert str(status) == "0 trials ended; 2 at a rung; about 0:00:20 left"
    status.ends("one")
    status.starts("two", "two")
    assert status.knows("two")
    assert str(status) == "1 trial ended; about 0:00:20 left"
