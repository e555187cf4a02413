"""The trials of a sweep: their names, their number, and runs of earlier names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from genlab.core.config import override
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.recipes.stylegan import StyleGANConfig
from genlab.recipes.vae import VAEConfig
from genlab.sweeps.space import Budget, Space
from genlab.sweeps.trials import Trial, plan_trials, result_of, trial_name
from genlab.training.launch import launch

Tiny = Callable[..., Any]
VARY = {"model.latent_dim": [2, 3]}


@pytest.fixture
def config(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The config of a tiny VAE, whose test split is large enough to be divided."""
    monkeypatch.setattr("genlab.data.format.held_out.FEWEST_OF_HALF", 5)
    return tiny("vae", {"run.steps": 2, "run.workers": 0, "run.threads": 1})


def space(**more: Any) -> Space:
    return Space("vae", more.pop("vary", VARY), "val/neg_elbo", "min", **more)


def trials(config: Any, tmp_path: Path, **more: Any) -> list[Trial]:
    return plan_trials(space(**more), config, locate(tmp_path / "sweep"))


def test_a_name_is_short_and_a_function_of_point_and_seed() -> None:
    def name(point: dict[str, Any], **run: int) -> str:
        return trial_name(point, override(VAEConfig(), point | {f"run.{key}": value for key, value in run.items()}))

    first = name({"objective.beta": 1 / 3, "model.latent_dim": 4})
    assert len(first) < 20
    assert first == name({"model.latent_dim": 4, "objective.beta": 1 / 3}), "whatever the order"
    assert name({"objective.beta": 1}) == name({"objective.beta": 1.0}), "a value has the option's type"
    assert name({"objective.beta": 1.0}) == name({"objective.beta": 1.0}, batch=64), "whatever does not vary"
    assert name({"objective.beta": 1.0}) != name({"objective.beta": 1.0}, seed=1)
    assert name({"objective.beta": 1.0, "run.seed": 1}) == name({"objective.beta": 1.0}, seed=1)


def test_messages_name_a_point_by_numbers_that_one_can_read(config: Any, tmp_path: Path) -> None:
    [trial] = trials(config, tmp_path, vary={"model.latent_dim": [3], "objective.beta": [0.26555337981900445]})
    assert trial.label == "model.latent_dim = 3, objective.beta = 0.2656, run.seed = 0"
    assert trial.plan.config.objective.beta == 0.26555337981900445


def test_trials_leave_the_rows_alone_that_results_are_reported_on(config: Any, tmp_path: Path) -> None:
    [first, _] = trials(config, tmp_path)
    assert first.plan.measured_splits == {"val": "test:validation"}
    assert first.plan.held_out_split == "test:validation", "pictures are of these, too"


def test_a_run_under_the_name_that_genlab_once_gave_it_is_found(config: Any, tmp_path: Path) -> None:
    data = IngestConfig("synthetic:digits", str(tmp_path / "digits"), count=60, size=16, validation_fraction=0.2)
    ingest(data)
    config = override(config, {"data.images": data.dest, "optimization.schedule": "constant"})
    vary = {"model.latent_dim": [2, 3], "run.seed": [0, 1]}
    name = "model.latent_dim=2,run.seed=1"
    place = {"run.storage": str(tmp_path / "sweep"), "run.name": name}
    launch("vae", override(config, {"model.latent_dim": 2, "run.seed": 1} | place))  # as `genlab train` would
    assert [result_of(trial) for trial in trials(config, tmp_path, vary=vary)] == [None] * 4, "it has no report yet"
    (tmp_path / "sweep" / name / "report.html").touch()
    (tmp_path / "sweep" / name / "scores.json").write_text('{"a_to_b": {"gain": 1.5, "split": "test"}}')
    found = trials(config, tmp_path, vary=vary)
    assert [trial.name for trial in found if not trial.name.startswith("trial-")] == [name]
    ended = {trial.name: result for trial in found if (result := result_of(trial)) is not None}
    assert list(ended) == [name]
    assert "val/neg_elbo" in ended[name]
    assert {one for one in ended[name] if one.startswith("score/")} == {"score/a_to_b.gain"}, "what is a number"
    others = trials(override(config, {"objective.beta": 2.0}), tmp_path, vary=vary)
    assert all(trial.name.startswith("trial-") for trial in others), "a run of another config is none of these"
    with pytest.raises(RunError, match="was trained for 2 steps, longer than the 1 of this sweep"):
        result_of(trials(override(config, {"run.steps": 1}), tmp_path, vary=vary)[2])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"budget": Budget(trials=1)}, "the grid has 2 points and the budget allows 1 trial"),
        ({"budget": Budget(images=40)}, "the budget is 40 images, and 2 trials of the sweep would see 64"),
    ],
)
def test_a_grid_larger_than_its_budget_is_refused(more: Any, message: str, config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        trials(config, tmp_path, **more)


def test_random_search_ends_with_its_budget_or_with_its_points(config: Any, tmp_path: Path) -> None:
    def count(vary: Any, **budget: Any) -> int:
        return len(trials(config, tmp_path, vary=vary, searcher="random", budget=Budget(**budget)))

    def points(**more: Any) -> list[tuple[Any, int]]:
        return [(trial.point["objective.beta"], trial.seed) for trial in trials(config, tmp_path, **more)]

    beta = {"objective.beta": tune.loguniform(0.1, 10)}
    assert count(beta, trials=3) == 3
    assert count(beta, images=100) == 3, "32 images each"
    assert count(VARY, trials=5) == 2, "each point once"
    assert count(VARY, images=10**9) == 2, "the budget would allow more"
    found = points(vary=beta, searcher="random", budget=Budget(trials=5), seeds=2)
    assert [seed for _, seed in found] == [0, 0, 1, 1], "each point with both seeds, the first seed first"
    assert [point for point, _ in found[:2]] == [point for point, _ in found[2:]]


def test_the_name_of_a_trial_of_presets_is_that_of_the_preset() -> None:
    names = {trial_name({"preset": preset}, StyleGANConfig()) for preset in "ABC"}
    assert len(names) == 3
