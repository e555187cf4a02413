"""Sweeps: what is refused before a trial starts, and the command that trains the best again."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from genlab.core.config import as_arguments, override, parse
from genlab.core.errors import ConfigError, RunError
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.imaging.images import encode_png
from genlab.recipes.cyclegan import CycleGANConfig, CycleGANData, CycleGANModel
from genlab.recipes.options import Run
from genlab.recipes.recipe import recipe_type
from genlab.sweeps.checks import check_space
from genlab.sweeps.space import Space, load_space
from genlab.sweeps.sweep import command_of, sweep
from genlab.sweeps.trials import Trial, trial_name
from genlab.training.launch import launch
from genlab.training.plan import make_plan

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


@pytest.mark.parametrize(("steps", "counts"), [(None, "--run.epochs 0.5"), (2, "--run.steps 2")])
def test_the_command_that_trains_the_best_again_says_how_long_once(
    steps: int | None, counts: str, scene_folders: Path, tmp_path: Path
) -> None:
    base = config(scene_folders, "scenes", tmp_path, steps=steps, epochs=0.5)
    point = {"objective.lambda_cycle": 1.0}
    plan = make_plan("cyclegan", override(base, point))
    space = Space("cyclegan", {"objective.lambda_cycle": [1.0]}, "val/kid", "min")
    words = command_of(base, space, Trial(point, plan))
    assert counts in words
    assert ("--run.epochs" in words) + ("--run.steps" in words) == 1
    assert make_plan("cyclegan", parse(CycleGANConfig, words.split())).steps == plan.steps


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_every_point_of_a_space_that_comes_with_genlab_is_a_config_of_its_family(file: Path) -> None:
    space = load_space(str(file))
    base = override(recipe_type(space.family).config_type(), space.options(space.base))
    check_space(space, base)
    points = list(space.grid() if space.searcher == "grid" else itertools.islice(space.draws(0), space.budget.trials))
    assert len({as_arguments(override(base, space.options(point))) for point in points}) == len(points) > 1
