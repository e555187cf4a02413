"""``sweep.html``: its answer first, and what it says of trials that failed or have not ended."""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from ray import tune

from genlab.core.storage import locate
from genlab.recipes.vae import VAEConfig
from genlab.sweeps.importance import importances, why_none
from genlab.sweeps.page import SweepPage, described
from genlab.sweeps.ranking import PointResult
from genlab.sweeps.results import TrialResult
from genlab.sweeps.space import Space, When
from genlab.sweeps.trials import Outcome, Trial

Z, BETA = "model.latent_dim", "objective.beta"


def result(
    tmp_path: Path, z: int, seed: int, error: str | None = None, stopped: int | None = None, **metrics: float
) -> TrialResult:
    """A trial as its page reads it: ``loss`` and ``kl`` are metrics of it; without any it has not ended."""
    name = f"trial-{z}-{seed}"
    plan = SimpleNamespace(
        directory=str(tmp_path / name),
        held_out=SimpleNamespace(choice="validation"),
        run=SimpleNamespace(name=name, seed=seed),
    )
    found = {f"val/{name}": value for name, value in metrics.items()}
    outcome = Outcome(Trial({Z: z}, cast("Any", plan)), found, error, stopped)
    curves = {name: ((32, 2 * value), (64, value)) for name, value in found.items()}
    return TrialResult(outcome, 64 if found else 0, 0.5 if found else 0.0, curves)


def page(
    tmp_path: Path, results: list[TrialResult], metric: Any = "val/loss", mode: Any = "min", seeds: int = 2
) -> SweepPage:
    space = Space("vae", {Z: [2, 4, 8]}, metric, mode, seeds=seeds)
    return SweepPage("dims", locate(tmp_path), space, VAEConfig(), tuple(results))


def test_the_answer_comes_first_and_the_page_needs_no_other_file(tmp_path: Path) -> None:
    values = {2: (9.0, 9.1), 4: (5.0, 5.1), 8: (5.2, 5.0)}
    results = [result(tmp_path, z, seed, loss=value) for z, pair in values.items() for seed, value in enumerate(pair)]
    file = page(tmp_path, results).write()
    html = Path(str(file)).read_text()
    heads = re.findall(r"<h2>(.*)</h2>", html)
    assert heads == ["The best", "All points", "Metrics by option", "Learning curves", "All options at once", "Cost",
                     "The sweep"]  # fmt: skip
    answer = html[html.index("The best") : html.index("All points")]
    assert "model.latent_dim = 4: val/loss 5.05 ± 0.64 (lower is better), the mean over 2 seeds" in answer
    assert "Of 2 other points, 1 cannot be told from it" in answer
    assert f"genlab promote {tmp_path}/trial-4-0 ROOT --name dims" in answer
    assert "genlab train vae --run.epochs 100.0 --model.latent-dim 4" in answer
    assert "Each trial saw 64 images" in html
    assert all(one.startswith("data:image/png;base64,") for one in re.findall(r'(?:src|href)="([^"]*)"', html))
    assert not re.search(r"url\(|@import|<script|<link", html)


def test_trials_that_were_stopped_that_failed_or_have_not_ended_are_said(tmp_path: Path) -> None:
    stopped = page(tmp_path, [result(tmp_path, 2, 0, loss=1.0), result(tmp_path, 4, 0, stopped=64, loss=0.9)])
    html = Path(str(stopped.write())).read_text()
    assert "<dt>stopped early</dt><dd>1</dd>" in html
    assert "Crosses: stopped there." in html
    assert "Hollow: trials that were stopped" in html
    assert "model.latent_dim = 2: val/loss 1 " in html, "one that was stopped is not the best"
    none_yet = page(tmp_path, [result(tmp_path, 2, 0)])
    assert next((one.title, one.text) for one in none_yet.sections()) == ("The best", "No trial has ended yet.")
    some = page(
        tmp_path, [result(tmp_path, 2, 0, loss=1.0), result(tmp_path, 4, 0, "no memory"), result(tmp_path, 8, 0)]
    )
    html = Path(str(some.write())).read_text()
    assert "1 trial of 3 have ended" in html
    assert "1 trial failed" in html
    failed = next(one for one in some.sections() if one.title == "Failed trials")
    assert [(one.caption, one.columns, one.rows) for one in failed.tables] == [
        ("trial-4-0", ("model.latent_dim = 4, run.seed = 0",), (("no memory",),))
    ]


def test_two_metrics_are_traded_off(tmp_path: Path) -> None:
    pairs = {2: (9.0, 1.0), 4: (5.0, 5.0), 8: (9.5, 6.0)}
    results = [result(tmp_path, z, 0, loss=loss, kl=kl) for z, (loss, kl) in pairs.items()]
    first, table, commands, *_ = itertools.islice(
        page(tmp_path, results, ["val/loss", "val/kl"], ["min", "min"]).sections(), 3
    )
    assert first.title == "Pareto front"
    assert first.text.startswith("2 points of 3 lie on the Pareto front")
    assert "Triangles lie beyond the axis." in first.figures[0].caption
    assert table.tables[0].marked == {0, 1}
    assert [name for name in commands.commands if "promote" in name] == [
        "model.latent_dim = 4: promote it",
        "model.latent_dim = 2: promote it",
    ]


def test_from_twenty_trials_on_the_option_that_matters_is_the_important_one() -> None:
    space = Space("vae", {Z: [2, 4], BETA: tune.loguniform(0.1, 10)}, "val/loss", "min", searcher="random")

    def points(count: int) -> list[PointResult]:
        found = []
        for number in range(count):
            point = {Z: 2 + 2 * (number % 2), BETA: 0.1 * 100 ** (number / count)}
            trial = Trial(point, cast("Any", None))
            found.append(PointResult(point, (Outcome(trial, {"val/loss": abs(math.log(point[BETA]))}),)))
        return found

    assert importances(space, points(19), "val/loss") == {}
    shares = importances(space, points(30), "val/loss")
    assert shares[BETA][0] > 0.8
    assert shares[BETA][0] + shares[Z][0] == pytest.approx(1)
    assert np.quantile(shares[BETA][1:], 0.025) > np.quantile(shares[Z][1:], 0.5)


@pytest.mark.parametrize(
    ("seeds", "planned", "doubt"),
    [
        ({2: 2, 4: 2, 8: 1}, 2, "Of 1 other point, 0 cannot be told from it (p ≥ 0.05); 1 more has too few seeds"),
        ({2: 2, 4: 1, 8: 1}, 2, "There are too few seeds to tell which differences are chance."),
        ({2: 1, 4: 2, 8: 2}, 2, "There are too few seeds to tell which differences are chance."),
        ({2: 1, 4: 1, 8: 1}, 1, "With one seed, which differences are chance is not known; --sweep.seeds 3 repeats"),
    ],
)
def test_only_points_of_several_seeds_are_compared(
    seeds: dict[int, int], planned: int, doubt: str, tmp_path: Path
) -> None:
    results = [result(tmp_path, z, seed, loss=z + 0.01 * seed) for z, count in seeds.items() for seed in range(count)]
    answer = next(page(tmp_path, results, seeds=planned).sections()).text
    assert doubt in answer
    assert ("--sweep.seeds" in answer) == (planned == 1)


def test_long_sweeps_say_their_hours_without_an_exponent(tmp_path: Path) -> None:
    results = [replace(result(tmp_path, z, 0, loss=1.0), hours=80.0) for z in (2, 4)]
    html = Path(str(page(tmp_path, results).write())).read_text()
    assert "<dt>hours of training</dt><dd>160</dd>" in html


def random_points(
    count: int, vary: dict[str, Any], loss: Callable[[dict[str, Any]], float]
) -> tuple[Space, list[PointResult]]:
    """A space of random draws, and its first points, of one seed each."""
    space = Space("vae", vary, "val/loss", "min", searcher="random")
    points = list(itertools.islice(space.draws(0), count))
    trials = [Trial(point, cast("Any", SimpleNamespace(directory="", run=None))) for point in points]
    return space, [PointResult(one.point, (Outcome(one, {"val/loss": loss(one.point)}),)) for one in trials]


@pytest.mark.parametrize(
    "values", [tune.qlograndint(2, 64, 2), tune.qloguniform(0.1, 6.4, 0.1), tune.quniform(0, 0.3, 0.1)]
)
def test_options_that_are_rounded_have_an_importance(values: Any) -> None:
    space, points = random_points(40, {Z: values, BETA: [0.5, 1.0]}, lambda point: point[Z])
    shares = importances(space, points, "val/loss")
    assert shares[Z][0] > shares[BETA][0]


@pytest.mark.parametrize(
    ("vary", "loss", "why"),
    [
        ({"preset": ["F"], BETA: [1.0, 2.0]}, lambda point: point[BETA], "fewer than two options have several values"),
        ({Z: [2, 4], BETA: [1.0, 2.0]}, lambda point: 1.0, "too few trials differ in val/loss"),
        (
            {Z: [2, 4], BETA: tune.uniform(1, 2)},
            lambda point: math.nan if point[Z] == 2 else point[BETA],
            "of 20 trials have ended with a finite val/loss",
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_importances_that_mean_nothing_are_left_out_with_the_reason(
    vary: dict[str, Any], loss: Callable[[dict[str, Any]], float], why: str
) -> None:
    space, points = random_points(24, vary, loss)
    assert why in why_none(space, points, "val/loss")
    assert importances(space, points, "val/loss") == {}


@pytest.mark.filterwarnings("error")
def test_importances_of_few_trials_that_differ_print_no_warnings() -> None:
    space, points = random_points(24, {Z: [2, 4], BETA: tune.uniform(1, 2)}, lambda point: max(1.9, point[BETA]))
    assert sum(shares[0] for shares in importances(space, points, "val/loss").values()) == pytest.approx(1)


def test_the_page_says_why_importances_are_left_out(tmp_path: Path) -> None:
    results = [result(tmp_path, z, seed, loss=1.0, kl=2.0) for z in (2, 4) for seed in range(12)]
    space = Space("vae", {Z: [2, 4], BETA: [1.0]}, ["val/loss", "val/kl"], ["min", "min"], seeds=12)
    for one in results:
        one.outcome.trial.point[BETA] = 1.0
    found = SweepPage("dims", locate(tmp_path), space, VAEConfig(), tuple(results)).sections()
    [importance] = [one for one in found if one.title == "Importance of the options"]
    assert importance.text == "Left out: fewer than two options have several values and vary in all points."
    assert not importance.figures


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([2, 4], "2, 4"),
        (tune.choice(["a", "b"]), "a, b"),
        (tune.loguniform(0.1, 100), "log-uniform, 0.1 to 100"),
        (tune.randint(1, 5), "uniform, whole, 1 to 4"),
        (tune.quniform(0, 1, 0.25), "uniform, 0 to 1, in steps of 0.25"),
        (When(Z, [2, 4], tune.uniform(0, 1)), "uniform, 0 to 1; where model.latent_dim is 2, 4"),
    ],
)
def test_what_an_option_may_be_is_told_in_words(values: Any, words: str) -> None:
    assert described(values) == words
