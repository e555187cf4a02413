"""The search by Optuna: what it learns from, and what it knows after anything that may happen to it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray import tune

from genlab.core.config import override
from genlab.core.errors import RunError
from genlab.core.storage import locate
from genlab.sweeps.space import Asha, Budget, Space, When
from genlab.sweeps.study import FILE_NAME, STUDY, Study, distribution_of
from genlab.sweeps.trials import Trial, plan_trial, record_stop
from genlab.training.console import RunConsole
from genlab.training.loop import train
from genlab.training.plan import start_or_resume
from genlab.training.rung import Rung
from genlab.training.session import LocalSession

BETA = "objective.beta"
VARY = {BETA: tune.loguniform(0.1, 10.0)}


@pytest.mark.parametrize(
    ("values", "distribution"),
    [
        (tune.uniform(0, 1), FloatDistribution(0.0, 0.9999999999999999)),
        (tune.loguniform(0.5, 1), FloatDistribution(0.5, 0.9999999999999999, log=True)),
        (tune.quniform(0.5, 1, 0.25), FloatDistribution(0.5, 1.0, step=0.25)),
        (tune.randint(2, 9), IntDistribution(2, 8)),
        (tune.lograndint(2, 65), IntDistribution(2, 64, log=True)),
        (tune.qrandint(5, 32, 8), IntDistribution(8, 32, step=8)),
        (tune.choice(["a", "b"]), CategoricalDistribution(["a", "b"])),
        ([2, 0.5, None, [4, 8]], CategoricalDistribution([2, 0.5, None, "[4, 8]"])),
    ],
)
def test_optuna_draws_the_values_that_ray_tune_would(values: Any, distribution: BaseDistribution) -> None:
    assert distribution_of(values) == distribution


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def config(tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("genlab.data.format.held_out.FEWEST_OF_HALF", 5)
    return tiny("vae", {"run.steps": 1, "run.workers": 0, "run.threads": 1})


@pytest.fixture
def finish(config: Any, tmp_path: Path) -> Callable[..., None]:
    """End a trial with metrics of the test's own: its run has the files of one that was trained."""
    template = plan_trial(space(), config, locate(tmp_path / "template"), {BETA: 1.0}, 0).plan
    with RunConsole() as console:
        train(template, LocalSession(console, 1))

    def end(trial: Trial, value: float, **others: float) -> None:
        start_or_resume(trial.plan)
        run = Path(trial.plan.directory)
        for folder in ("checkpoints", "model"):
            shutil.copytree(Path(template.directory) / folder, run / folder)
        description = json.loads((run / "model" / "genlab.json").read_text())
        description["provenance"]["metrics"] = {"val/neg_elbo": value, **others}
        (run / "model" / "genlab.json").write_text(json.dumps(description))
        (run / "report.html").touch()

    return end


def space(trials: int = 3, **more: Any) -> Space:
    vary, metric, mode = more.pop("vary", VARY), more.pop("metric", "val/neg_elbo"), more.pop("mode", "min")
    return Space("vae", vary, metric, mode, searcher="optuna", budget=Budget(trials=trials), **more)


@pytest.fixture
def opened(config: Any, tmp_path: Path) -> Callable[..., Study]:
    def open_study(*arguments: Any, **more: Any) -> Study:
        return Study(space(*arguments, **more), config, locate(tmp_path / "sweep"), 32)

    return open_study


def taken(study: Study) -> Trial:
    trial = study.next()
    assert trial is not None
    return trial


def told(tmp_path: Path) -> list[tuple[dict[str, Any], list[float]]]:
    """What Optuna says, who opens the copy in the sweep's folder, of the trials that are complete."""
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / 'sweep' / FILE_NAME}")
    return [(one.params, one.values) for one in study.trials if one.state == optuna.trial.TrialState.COMPLETE]


@pytest.mark.slow
def test_a_search_finds_what_is_good_and_ends_with_its_budget(
    opened: Callable[..., Study], finish: Callable[..., None], tmp_path: Path
) -> None:
    with opened(16) as study:
        while (trial := study.next()) is not None:
            finish(trial, abs(trial.point[BETA] - 3))
            study.ended(trial)
        errors = [abs(one.point[BETA] - 3) for one in study.trials]
        assert study.most == len(errors) == 16
    assert sum(errors[12:]) / 4 < sum(errors[:10]) / 10, "the first ten are random"
    assert [values for _, values in told(tmp_path)] == [[error] for error in errors]
    with opened(16) as study:
        assert study.next() is None
        assert len(study.trials) == 16


@pytest.mark.slow
def test_what_the_runs_say_counts_after_a_kill_between_two_writes(
    opened: Callable[..., Study], finish: Callable[..., None], tmp_path: Path
) -> None:
    with opened() as study:
        first, second = taken(study), taken(study)
    finish(first, 5.0)  # and killed before the study was told
    with opened() as study:
        assert told(tmp_path) == [(first.point, [5.0])]
        assert taken(study).name == second.name, "it was asked for and has not ended"
        finish(second, 4.0)
        study.ended(second)
        third = taken(study)
        assert third.name not in (first.name, second.name)
        assert study.next() is None
    shutil.rmtree(tmp_path / "cache")  # goes on on another machine
    with opened() as study:
        assert [trial.name for trial in study.trials] == [first.name, second.name, third.name]
        assert taken(study).name == third.name
    (tmp_path / "sweep" / FILE_NAME).write_bytes(b"damaged")
    with opened() as study:
        assert told(tmp_path) == [(first.point, [5.0]), (second.point, [4.0])]
    shutil.rmtree(first.plan.directory)
    with opened() as study:
        assert told(tmp_path) == [(second.point, [4.0])]
        taken(study)


@pytest.mark.slow
def test_a_point_is_told_with_its_mean_over_seeds(
    opened: Callable[..., Study], finish: Callable[..., None], tmp_path: Path
) -> None:
    with opened(5, seeds=2) as study:
        assert study.most == 4
        pair = [taken(study), taken(study)]
        assert [trial.seed for trial in pair] == [0, 1]
        for trial, value in zip(pair, (1.0, 2.0), strict=True):
            finish(trial, value)
        for trial in pair:
            study.ended(trial)
        assert told(tmp_path) == [(pair[0].point, [1.5])]
        failing = [taken(study), taken(study)]
        finish(failing[0], 7.0)
        study.ended(failing[0])
        assert len(told(tmp_path)) == 1, "the other seed has not ended"
        study.ended(failing[1])
        assert [values for _, values in told(tmp_path)] == [[1.5], [7.0]], "one of its seeds failed"
    with opened(4, seeds=2) as study:
        assert taken(study).name == failing[1].name, "what failed is tried again"
        assert [values for _, values in told(tmp_path)] == [[1.5]]


@pytest.mark.slow
def test_a_changed_space_keeps_what_still_fits(
    opened: Callable[..., Study],
    finish: Callable[..., None],
    config: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dims = "model.latent_dim"
    for chosen in ([2, 3, 4], [3, 4, 8]):
        with opened(3 + len(chosen), vary={dims: chosen}) as study:
            while (trial := study.next()) is not None:
                finish(trial, float(trial.point[dims]))
                study.ended(trial)
        assert sorted(params[dims] for params, _ in told(tmp_path)) == chosen, "each once, and no more than there are"
    assert "1 earlier trial of this folder lie outside of the space" in capsys.readouterr().out
    with opened(8, vary={dims: tune.qrandint(2, 8, 2)}) as study:
        assert sorted(params[dims] for params, _ in told(tmp_path)) == [2, 4, 8], "3 is no multiple of 2"
    with pytest.raises(RunError, match=r"run\.batch was"):
        Study(space(vary={dims: [3]}), override(config, {"run.batch": 8}), locate(tmp_path / "sweep"), 8)


@pytest.mark.slow
def test_a_trial_that_was_stopped_is_pruned_and_not_given_out_again(
    finish: Callable[..., None], config: Any, tmp_path: Path
) -> None:
    def opened() -> Study:
        longer = override(config, {"run.steps": 4, "run.log_every": 1})
        return Study(space(1, scheduler=Asha(grace=9)), longer, locate(tmp_path / "sweep"), 64)

    with opened() as study:
        trial = taken(study)
        finish(trial, 3.0)  # with the checkpoint of one step
        record_stop(trial.plan, Rung(1, 16, {"val/neg_elbo": 3.0}))
        study.ended(trial)
    with opened() as study:
        assert study.next() is None
    assert not told(tmp_path)
    found = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / 'sweep' / FILE_NAME}")
    assert [one.intermediate_values for one in found.trials if one.state == optuna.trial.TrialState.PRUNED] == [
        {16: 3.0}
    ]


@pytest.mark.slow
def test_conditions_and_several_metrics(
    opened: Callable[..., Study], finish: Callable[..., None], tmp_path: Path
) -> None:
    vary = {"model.latent_dim": [2, 3], BETA: When("model.latent_dim", [3], tune.uniform(0.5, 2))}
    both: dict[str, Any] = {"metric": ["val/neg_elbo", "val/kl"], "mode": ["min", "max"], "vary": vary}
    with opened(4, **both) as study:
        while (trial := study.next()) is not None:
            assert (BETA in trial.point) == (trial.point["model.latent_dim"] == 3)
            finish(trial, 1.0, **{"val/kl": 2.0})
            study.ended(trial)
    assert [values for _, values in told(tmp_path)] == [[1.0, 2.0]] * 4
    with opened(4, **both) as study:
        assert study.next() is None
