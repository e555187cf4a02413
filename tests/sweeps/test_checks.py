"""What is refused before any trial starts, with what to use instead."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from ray import tune

from genlab.core.config import override
from genlab.core.errors import ConfigError
from genlab.core.storage import locate
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.models.stylegan import Form
from genlab.recipes.cyclegan import CycleGANConfig
from genlab.recipes.options import Run
from genlab.recipes.vae import VAEConfig
from genlab.sweeps.checks import check_plan, check_space, metric_names
from genlab.sweeps.space import Asha, Budget, Median, Pbt, Space, When
from genlab.sweeps.trials import plan_trials
from genlab.training.plan import make_plan


def space(vary: Any, metric: Any = "val/neg_elbo", mode: Any = "min", **more: Any) -> Space:
    return Space("vae", vary, metric, mode, **more)


RANDOM: dict[str, Any] = {"searcher": "random", "budget": Budget(trials=4)}
SEARCHED: dict[str, Any] = RANDOM | {"searcher": "optuna"}


@pytest.mark.parametrize(
    ("vary", "more", "message"),
    [
        ({}, {}, "varies nothing"),
        ({"model.latent_dimm": [2]}, {}, "model.latent_dimm: no such option; did you mean model.latent_dim"),
        ({"model.latent_dim": []}, {}, "model.latent_dim: the list of its values is empty"),
        ({"model.latent_dim": [2, 0]}, {}, r"model.latent_dim = 0: should be greater than"),
        ({"model.latent_dim": 8}, {}, "model.latent_dim = 8: give a list of values"),
        ({"objective.beta": tune.grid_search([1.0])}, {}, "objective.beta = .*give a list"),
        ({"run.name": ["a"]}, {}, "run.name: cannot be varied, since the sweep sets it"),
        ({"run.threads": [1, 2]}, {}, "run.threads: cannot be varied, since the sweep sets it, for as many"),
        ({"run.workers": [1, 2]}, {}, "run.workers: cannot be varied, since room is reserved for trials of one size"),
        ({"preset": ["F"]}, {}, "preset 'F': no such preset of vae"),
        ({"objective.beta": tune.uniform(0, 1)}, {}, 'objective.beta: a grid takes lists.*searcher="random"'),
        ({"objective.beta": tune.uniform(-1, 1)}, RANDOM, "objective.beta = -1: should be greater than or equal to 0"),
        ({"model.latent_dim": tune.randint(0, 9)}, RANDOM, "model.latent_dim = 0"),
        ({"model.latent_dim": tune.uniform(2, 9)}, RANDOM, "model.latent_dim = .*should be a valid integer"),
        ({"optimization.beta1": tune.uniform(0, 1.5)}, RANDOM, "optimization.beta1 = 1.49.*should be less than 1"),
        ({"optimization.beta1": tune.quniform(0, 1, 0.01)}, RANDOM, "optimization.beta1 = 1.*should be less than 1"),
        ({"run.precision": tune.choice(["fp32", "fp8"])}, RANDOM, "run.precision = 'fp8'"),
        ({"objective.beta": tune.randn(1, 1)}, RANDOM, "objective.beta: a distribution without bounds"),
        ({"objective.beta": tune.sample_from(lambda _: 1)}, RANDOM, "objective.beta: a function cannot be checked"),
        ({"objective.beta": tune.uniform(0, 1)}, {"searcher": "random"}, "searcher 'random' needs a budget"),
        ({"objective.beta": tune.uniform(0, 1)}, {"searcher": "optuna"}, "searcher 'optuna' needs a budget"),
        ({"run.seed": [0, 1]}, SEARCHED, "run.seed: chance is nothing to search for; seeds=3 repeats"),
        ({"objective.beta": tune.qloguniform(0.5, 4, 0.5)}, SEARCHED, "objective.beta: Optuna draws no rounded values"),
        (
            {"run.batch": [8]},
            {"scheduler": Asha(9), "metric": ["val/kl", "val/neg_elbo"], "mode": ["min"] * 2},
            'Asha stops trials by one metric, and there are 2; .*searcher="optuna" takes several',
        ),
        ({"run.batch": [8]}, {"scheduler": Median(9, 9), "seeds": 3}, "seeds = 3 with Median: .*search with one seed"),
        ({"run.batch": [8]}, {"scheduler": Asha(0)}, "Asha: grace = 0"),
        ({"run.batch": [8]}, {"scheduler": Asha(1e4)}, "Asha: grace = 10000.0: give a whole number"),  # type: ignore[arg-type]
        ({"run.batch": [8]}, {"scheduler": Median(9, "9")}, "Median: every = '9': give a whole number"),  # type: ignore[arg-type]
        ({"run.batch": [8]}, {"scheduler": Asha(9, reduction="3")}, "Asha: reduction = '3': should be of numbers"),  # type: ignore[arg-type]
        ({"run.batch": [8]}, {"scheduler": Pbt(9, factors=2.0)}, "Pbt: factors = 2.0: should be of numbers"),  # type: ignore[arg-type]
        ({"run.batch": [8]}, {"scheduler": Asha(9, reduction=1)}, "Asha: reduction = 1: should be greater than 1"),
        ({"run.batch": [8]}, {"scheduler": Asha(9, brackets=0)}, "Asha: brackets = 0: there is at least one"),
        ({"run.batch": [8]}, {"scheduler": Median(9, every=0)}, "Median: every = 0"),
        ({"run.seed": [0, 1]}, {"seeds": 3}, "run.seed: varied, and set by seeds = 3"),
        ({"run.batch": [8]}, {"seeds": 0}, "seeds = 0: a sweep has at least one"),
        ({"run.batch": [8]}, {"searcher": "tpe"}, "searcher = 'tpe': there are grid, random, optuna"),
        ({"run.batch": [8]}, {"scheduler": "asha"}, r"scheduler = 'asha': give Asha\(\.\.\.\)"),
        ({"run.batch": [8]}, {"keep": -1}, "keep = -1: a number of trials, from 0 on"),
        ({"run.batch": [8]}, {"budget": Budget(trials=0)}, "trials = 0: should be greater than or equal to 1"),
        ({"run.batch": [8]}, {"per_gpu": 0}, "per_gpu = 0: a GPU is taken by one trial at least"),
        ({"run.batch": [8]}, {"metric": ["val/kl", "val/neg_elbo"]}, "mode = 'min': give min or max for each metric"),
        ({"run.batch": [8]}, {"metric": ["val/kl"] * 2, "mode": ["min"] * 2}, "several different ones"),
        (
            {"objective.beta": When("model.latent_dim", [2], [1.0])},
            {},
            "objective.beta: varied only where model.latent_dim .*must vary it",
        ),
        (
            {"model.latent_dim": [2, 8], "objective.beta": When("model.latent_dim", [4], [1.0])},
            {},
            "objective.beta: varied only where model.latent_dim is 4, which it never is",
        ),
        (
            {"model.latent_dim": [2, 8], "objective.beta": When("model.latent_dim", [2], [-1.0])},
            {},
            "objective.beta = -1.0",
        ),
    ],
)
def test_a_space_that_the_family_has_no_options_for_is_refused(vary: Any, more: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space(space(vary, **more), VAEConfig())


def test_only_trials_of_one_worker_share_a_gpu() -> None:
    check_space(space({"run.batch": [8]}, per_gpu=2), VAEConfig())
    with pytest.raises(ConfigError, match=r"per_gpu = 2: trials of one worker can share a GPU, and run\.workers = 2"):
        check_space(space({"run.batch": [8]}, per_gpu=2), VAEConfig(run=Run(workers=2)))


@pytest.mark.parametrize(
    "vary",
    [
        {"optimization.beta1": tune.uniform(0, 1), "model.latent_dim": tune.lograndint(2, 65)},
        {"objective.beta": tune.quniform(0, 1, 0.25), "run.batch": tune.choice([32, 64])},
        {"model.latent_dim": [2, 8], "objective.beta": When("model.latent_dim", [8], tune.loguniform(0.1, 10))},
    ],
)
def test_a_space_within_the_ranges_is_taken(vary: Any) -> None:
    check_space(space(vary, **RANDOM), VAEConfig())


def test_one_metric_may_be_a_list_of_one() -> None:
    for metric, mode in (("val/kl", ["min"]), (["val/kl"], "min"), (["val/kl"], ["min"])):
        one = space({"run.batch": [8]}, metric=metric, mode=mode)
        check_space(one, VAEConfig())
        assert one.objectives == {"val/kl": "min"}


def test_trials_are_compared_on_the_same_images(data: Path, tmp_path: Path) -> None:
    plan = make_plan("vae", vae(data, tmp_path), sealed=True)
    for name in ("data.images", "data.test_split"):
        with pytest.raises(ConfigError, match=f"{name}: cannot be varied, since trials are compared on the same"):
            check_plan(space({name: ["one", "other"]}), plan)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets ``digits``, ``a`` and ``b`` with validation images, and ``few``, whose test split is too small."""
    root = tmp_path_factory.mktemp("data")
    for name, source in (("digits", "digits"), ("a", "scenes-a"), ("b", "scenes-b")):
        config = IngestConfig(f"synthetic:{source}", str(root / name), count=60, size=32, test_fraction=0.2)
        ingest(override(config, {"validation_fraction": 0.5}))
    ingest(IngestConfig("synthetic:digits", str(root / "few"), count=40, size=32, test_fraction=0.2))
    return root


def vae(data: Path, tmp_path: Path, name: str = "digits") -> VAEConfig:
    run = {"run.batch": 4, "run.steps": 2, "run.storage": str(tmp_path)}
    return override(VAEConfig(), {"data.images": str(data / name), **run})


@pytest.mark.parametrize(
    ("metric", "name", "message"),
    [
        ("test/neg_elbo", "digits", "'test/neg_elbo' is of the images that results are.*compared by 'val/neg_elbo'"),
        ("val/neg_elboo", "digits", "'val/neg_elboo'.*did you mean val/neg_elbo"),
        ("neg_elbo", "digits", "did you mean val/neg_elbo"),
        ("score/gain", "digits", "has none; .*Scores against true counterparts exist for drawn scenes alone"),
        ("val/neg_elbo", "few", "'validation', which is missing, and the split 'test' is .*--validation-fraction"),
    ],
)
def test_a_metric_that_no_run_has_is_refused_with_the_nearest(
    metric: str, name: str, message: str, data: Path, tmp_path: Path
) -> None:
    plan = make_plan("vae", vae(data, tmp_path, name), sealed=True)
    with pytest.raises(ConfigError, match=message):
        check_plan(space({"model.latent_dim": [2]}, metric), plan)


def test_measurements_of_pictures_need_evaluated_checkpoints(data: Path, tmp_path: Path) -> None:
    config = override(
        CycleGANConfig(),
        {
            "data.a": str(data / "a"),
            "data.b": str(data / "b"),
            "run.storage": str(tmp_path),
            "run.steps": 2,
            "model.width": 4,
            "model.discriminator_width": 4,
        },
    )
    plan = make_plan("cyclegan", config, sealed=True)
    of_pictures = Space("cyclegan", {"objective.lambda_cycle": [1.0]}, "val/kid", "min")
    with pytest.raises(ConfigError, match=r"'val/kid' is measured of evaluated checkpoints; set run.evaluate_every"):
        check_plan(of_pictures, plan)
    evaluated = make_plan("cyclegan", override(config, {"run.evaluate_every": 2}), sealed=True)
    check_plan(of_pictures, evaluated)
    stopping = replace(of_pictures, scheduler=Asha(1))
    check_plan(stopping, replace(evaluated, rungs=(1,)))
    with pytest.raises(ConfigError, match=r"Asha: the metric 'score/.*exists when a trial has ended.*use val/kid or"):
        check_plan(replace(stopping, metric="score/translation.a_to_b.gain"), replace(evaluated, rungs=(1,)))
    with pytest.raises(ConfigError, match=r"Asha: the metric 'score/.*use val/kid, and set run.evaluate_every"):
        check_plan(replace(stopping, metric="score/translation.a_to_b.gain"), replace(plan, rungs=(1,)))
    population = replace(stopping, metric="score/translation.a_to_b.gain", scheduler=Pbt(every=1))
    with pytest.raises(ConfigError, match=r"Pbt: the metric 'score/.*exists when a trial has ended.*use val/kid or"):
        check_plan(population, replace(evaluated, rungs=(1,)))
    assert {"val/kid", "val/kid_a_to_b", "val/cycle_a", "val/psnr_b_to_a"} <= set(metric_names(evaluated))
    assert {name for name in metric_names(plan) if name.startswith("score/")} >= {"score/translation.a_to_b.gain"}


def test_a_scheduler_needs_a_metric_that_is_measured_at_rungs_and_rungs(data: Path, tmp_path: Path) -> None:
    config = override(vae(data, tmp_path), {"run.log_every": 1})

    def refused(scheduler: Asha | Pbt, metric: str, message: str) -> None:
        chosen = space({"objective.beta": [1.0]}, metric, scheduler=scheduler)
        [trial] = plan_trials(chosen, config, locate(tmp_path / "sweep"))
        with pytest.raises(ConfigError, match=message):
            check_plan(chosen, trial.plan)

    refused(Asha(8), "val/neg_elbo", "Asha: grace = 8 images, and a trial sees 8: none would stop")
    refused(Pbt(every=8), "val/neg_elbo", "Pbt: every 8 images, and a trial sees 8: none is replaced")
    config = override(config, {"run.steps": 4})
    refused(Asha(8, brackets=3), "val/neg_elbo", "Asha: brackets = 3: at most one more than the 1 rung of a trial")
    chosen = space({"objective.beta": [1.0]}, scheduler=Asha(8))
    [trial] = plan_trials(chosen, config, locate(tmp_path / "sweep"))
    check_plan(chosen, trial.plan)


@pytest.mark.parametrize("form", get_args(Form))
def test_a_network_of_any_form_names_its_metrics_before_it_is_trained(form: str, tiny: Callable[..., Any]) -> None:
    plan = make_plan("stylegan", tiny("stylegan", {"model.form": form}), sealed=True)
    assert "val/real_logit" in metric_names(plan)
