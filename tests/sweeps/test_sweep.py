"""Sweeps: what is refused before a trial starts, and the command that trains the best again."""

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from safetensors.torch import load_file

from genlab.core.claims import ClaimError, claimed
from genlab.core.config import as_arguments, override, parse
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.imaging.images import encode_png
from genlab.recipes.cyclegan import CycleGANConfig, CycleGANData, CycleGANModel
from genlab.recipes.options import Run
from genlab.recipes.recipe import recipe_type
from genlab.recipes.vae import VAEConfig
from genlab.store import model_directory
from genlab.sweeps.checks import check_space
from genlab.sweeps.commands import command_of
from genlab.sweeps.disk import bytes_needed
from genlab.sweeps.page import SweepPage
from genlab.sweeps.space import Space, load_space
from genlab.sweeps.sweep import sweep
from genlab.sweeps.trials import Trial, plan_trials, trial_name
from genlab.training.console import RunConsole
from genlab.training.launch import launch
from genlab.training.loop import train
from genlab.training.plan import make_plan, owned, start_or_resume
from genlab.training.session import LocalSession

SPACES = sorted((Path(__file__).resolve().parents[2] / "tune_spaces").glob("*.py"))


@pytest.fixture(scope="module")
def scene_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets ``scenes`` and ``nights``, drawn, and ``photos``, of which nothing is held out."""
    root = tmp_path_factory.mktemp("domains")
    (root / "files").mkdir()
    for number in range(4):
        pixels = np.full((32, 32, 3), number, np.uint8)
        (root / "files" / f"{number}.png").write_bytes(encode_png(pixels))
    ingest(IngestConfig(f"folder:{root}/files", str(root / "photos"), size=32))
    for name, source in (("scenes", "scenes-a"), ("nights", "scenes-b")):
        ingest(
            IngestConfig(
                f"synthetic:{source}", str(root / name), size=32, count=12, test_fraction=0.3, validation_fraction=0.3
            )
        )
    return root


def config(scene_folders: Path, a: str, storage: Path, **run: Any) -> CycleGANConfig:
    return CycleGANConfig(
        run=Run(storage=str(storage), **({"steps": 2, "batch": 2, "threads": 1} | run)),
        data=CycleGANData(a=str(scene_folders / a), b=str(scene_folders / "nights")),
        model=CycleGANModel(width=4, discriminator_width=4),
    )


def space(metric: str) -> Space:
    return Space("cyclegan", {"objective.lambda_cycle": [0.0, 1.0]}, metric, "max")


def test_a_metric_that_no_trial_has_is_refused_before_any_trial(scene_folders: Path, tmp_path: Path) -> None:
    for metric, a in (("score/translation.a_to_b.gain", "photos"), ("val/kidd", "scenes")):
        with pytest.raises(ConfigError, match=f"'{metric}'|--validation-fraction"):
            sweep(space(metric), config(scene_folders, a, tmp_path), "lambda")
    assert not ray.is_initialized()
    assert not list(tmp_path.iterdir())


def test_a_folder_of_trials_with_other_options_is_refused_before_any_trial(scene_folders: Path, tmp_path: Path) -> None:
    point = {"objective.lambda_cycle": 1.0}
    trial = override(config(scene_folders, "scenes", tmp_path / "lambda"), point | {"run.workers": 0})
    launch("cyclegan", override(trial, {"run.name": trial_name(point, trial)}))
    with pytest.raises(RunError, match=r"run\.batch was 2, now 4"):
        sweep(space("score/translation.a_to_b.gain"), config(scene_folders, "scenes", tmp_path, batch=4), "lambda")
    assert not ray.is_initialized()
    assert [path.name for path in (tmp_path / "lambda").iterdir()] == [trial_name(point, trial)]


def test_a_sweep_that_another_process_trains_is_refused(scene_folders: Path, tmp_path: Path) -> None:
    metric = "score/translation.a_to_b.gain"
    with claimed(locate(tmp_path / "lambda"), "sweep", ""), pytest.raises(ClaimError, match=r"another --run\.name"):
        sweep(space(metric), config(scene_folders, "scenes", tmp_path), "lambda")
    assert not ray.is_initialized()


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/b", ".hidden", "data"])
def test_a_name_that_would_lie_elsewhere_is_refused_as_that_of_a_run_is(
    name: str, scene_folders: Path, tmp_path: Path
) -> None:
    settings = config(scene_folders, "scenes", tmp_path, workers=0)  # refused later: nothing is trained
    for start in (
        lambda: sweep(space("score/translation.a_to_b.gain"), settings, name),
        lambda: make_plan("cyclegan", override(settings, {"run.name": name})),
    ):
        with pytest.raises(ConfigError, match=rf"run\.name = '{name}': (a name, not a path|taken)"):
            start()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> VAEConfig:
    """The config of a sweep ``betas`` of tiny VAEs, β 1 and 2, two seeds each, whose trials have ended."""
    root = tmp_path_factory.mktemp("ended")
    ingest(IngestConfig("synthetic:digits", str(root / "digits"), count=200, size=16, test_fraction=0.4))
    config = override(
        VAEConfig(),
        {
            "data.images": str(root / "digits"),
            "model.channels": [4],
            "model.hidden": 8,
            "run.batch": 8,
            "run.steps": 2,
            "run.threads": 1,
            "run.storage": str(root),
        },
    )
    for trial in plan_trials(betas(), config, locate(root / "betas")):
        with owned(trial.plan) as mine, RunConsole() as console:
            start_or_resume(mine)
            train(mine, LocalSession(console, 1, claim=mine.claim))
        (locate(trial.plan.directory) / "report.html").touch()
    return config


def chosen_text(chosen: dict[str, Any]) -> str:
    return f"{int(chosen['measurement']['value'])}."


def betas(
    metric: Any = "val/neg_elbo", mode: Any = "min", values: tuple[float, ...] = (1.0, 2.0), keep: int = 4
) -> Space:
    return Space("vae", {"objective.beta": list(values)}, metric, mode, seeds=2, keep=keep)


def test_a_sweep_whose_trials_have_ended_needs_no_ray_and_measures_the_chosen_one_once(
    ended: VAEConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    [trial, *_] = plan_trials(betas(), ended, locate(ended.run.storage or "") / "betas")
    [state] = Path(trial.plan.directory).glob("checkpoints/*/state-*.safetensors")
    in_file = sum(tensor.nbytes for tensor in load_file(state).values())
    assert bytes_needed(trial.plan)[0] == pytest.approx(in_file, rel=0.01)
    points = sweep(betas(), ended, "betas")
    said = capsys.readouterr().out
    assert "(4 models, and the checkpoints of the best 4)" in said
    assert not ray.is_initialized()
    assert "4 trials, of which 4 have ended" in said
    assert [len(point.outcomes) for point in points] == [2, 2]
    file = Path(str(ended.run.storage)) / "betas" / "sweep.json"
    content = json.loads(file.read_text())
    assert [(trial["point"]["objective.beta"], trial["seed"]) for trial in content["trials"]] == [
        (point.point["objective.beta"], seed) for point in points for seed in (0, 1)
    ]
    assert not [name for trial in content["trials"] for name in trial["metrics"] if name.startswith("test/")]
    chosen = content["chosen"]
    values = {trial["run"]: trial["metrics"]["val/neg_elbo"] for trial in content["trials"][:2]}
    assert chosen["run"] == min(values, key=values.__getitem__)
    assert chosen["split"] == "test:reporting"
    low, high = chosen["measurement"]["interval"]
    assert low < chosen["measurement"]["value"] < high
    assert f"genlab promote {chosen['run']} ROOT --name betas" in said
    assert "--run.steps 4" in said.split("train it for longer: genlab train vae ")[1]

    page = (file.parent / "sweep.html").read_text()
    assert f"all of it, with charts and pictures: {file.parent / 'sweep.html'}" in said
    assert page.index("objective.beta = ") < page.index("genlab promote") < page.index("All points")
    assert f"on &#39;test:reporting&#39;, where no other trial was measured: −ELBO {chosen_text(chosen)}" in page
    rows = pq.read_table(file.parent / "results.parquet").to_pylist()
    assert [row["val/neg_elbo"] for row in rows] == [values.get(row["run"], row["val/neg_elbo"]) for row in rows], (
        "a row for each trial"
    )
    assert {(row["objective.beta"], row["run.seed"], row["images"], row["state"]) for row in rows} == {
        (beta, seed, 16, "finished") for beta in (1.0, 2.0) for seed in (0, 1)
    }

    def again(*_: Any) -> None:
        pytest.fail("the test split is read once")

    monkeypatch.setattr("genlab.sweeps.sweep.measure_chosen", again)
    monkeypatch.setattr(SweepPage, "write", lambda page: page.folder)  # it takes a second
    sweep(betas(), ended, "betas")
    assert json.loads(file.read_text()) == content


def test_checkpoints_go_but_for_those_of_the_best_and_trials_outside_of_a_changed_space_stay(
    ended: VAEConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SweepPage, "write", lambda page: page.folder)
    monkeypatch.setattr("genlab.sweeps.sweep.measure_chosen", lambda *_: None)
    shutil.copytree(Path(str(ended.run.storage)) / "betas", tmp_path / "betas")
    moved = override(ended, {"run.storage": str(tmp_path)})
    for _ in range(2):
        points = sweep(betas(values=(1.0,), keep=1), moved, "betas")
        said = capsys.readouterr().out
        assert "2 earlier trials of this folder lie outside of the space, and are left out" in said
        assert "2 trials, of which 2 have ended" in said, "also those whose checkpoints are gone"
    best, other = sorted(points[0].outcomes, key=lambda one: one.metrics["val/neg_elbo"])
    assert list(Path(best.trial.plan.directory).glob("checkpoints/*/state-*"))
    assert not list(Path(other.trial.plan.directory).glob("checkpoints/*/state-*"))
    assert len(list(tmp_path.glob("betas/*/checkpoints/*/state-*"))) == 3


def test_what_is_not_finite_is_null_in_the_json_of_a_sweep(
    ended: VAEConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SweepPage, "write", lambda page: page.folder)
    monkeypatch.setattr("genlab.sweeps.sweep.measure_chosen", lambda *_: None)
    shutil.copytree(Path(str(ended.run.storage)) / "betas", tmp_path / "betas")
    moved = override(ended, {"run.storage": str(tmp_path)})
    [trial, *_] = plan_trials(betas(), moved, locate(tmp_path / "betas"))
    file = Path(trial.plan.directory) / "model" / model_directory.DESCRIPTION
    described = json.loads(file.read_text())
    described["provenance"]["metrics"]["val/neg_elbo"] = math.inf
    file.write_text(json.dumps(described))
    sweep(betas(), moved, "betas")
    content = json.loads((tmp_path / "betas" / "sweep.json").read_text(), parse_constant=pytest.fail)
    assert [one["run"] for one in content["trials"] if one["metrics"]["val/neg_elbo"] is None] == [trial.plan.directory]


def test_two_metrics_end_in_a_front_and_in_no_reading_of_the_test_split(
    ended: VAEConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("genlab.sweeps.sweep.measure_chosen", lambda *_: pytest.fail("nothing is chosen"))
    monkeypatch.setattr(SweepPage, "write", lambda page: page.folder)
    sweep(betas(["val/reconstruction", "val/kl"], ["min", "min"]), ended, "betas")
    said = capsys.readouterr().out
    assert "Pareto front: " in said
    assert "front" in said.split("best run")[1]


@pytest.mark.parametrize(("steps", "counts"), [(None, "--run.epochs 1.0"), (2, "--run.steps 4")])
def test_the_command_that_trains_the_best_for_longer_says_how_long_once(
    steps: int | None, counts: str, scene_folders: Path, tmp_path: Path
) -> None:
    base = config(scene_folders, "scenes", tmp_path, steps=steps, epochs=0.5)
    point = {"objective.lambda_cycle": 1.0}
    plan = make_plan("cyclegan", override(base, point))
    space = Space("cyclegan", {"objective.lambda_cycle": [1.0]}, "val/kid", "min")
    words = command_of(base, space, Trial(point, plan), times=2)
    assert counts in words
    assert ("--run.epochs" in words) + ("--run.steps" in words) == 1
    assert make_plan("cyclegan", parse(CycleGANConfig, words.split())).steps in (2 * plan.steps, 2 * plan.steps - 1)


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_every_point_of_a_space_that_comes_with_genlab_is_a_config_of_its_family(file: Path) -> None:
    space = load_space(str(file))
    base = override(recipe_type(space.family).config_type(), space.options(space.base))
    check_space(space, base)
    points = list(space.grid() if space.searcher == "grid" else itertools.islice(space.draws(0), space.budget.trials))
    assert len({as_arguments(override(base, space.options(point))) for point in points}) == len(points) > 1
