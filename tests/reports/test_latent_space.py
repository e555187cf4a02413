"""The reports of tiny VAE and CVAE runs: each picture, cut out again, is what its caption says."""

import dataclasses
import json
import math
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.core.config import override
from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.attributes import FOLDER
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.imaging.images import Pixels
from genlab.imaging.latent_plane import prior_quantiles
from genlab.models.cvae import CVAE, CVAEArchitecture
from genlab.models.latent_model import LatentModel
from genlab.recipes.recipe import recipe_type
from genlab.reports import cvae as cvae_report
from genlab.reports import latent_space
from genlab.reports.latent_space import Subject
from genlab.reports.report import make_report
from genlab.reports.run import RunRecord, chosen_epochs, epoch_titles
from genlab.store import model_directory
from genlab.training.launch import launch

COMMON = {"data.images": "", "run.epochs": 2, "run.batch": 12, "run.workers": 0, "run.threads": 1, "run.log_every": 1}
CURVES = {"loss-elbo", "loss-reconstruction", "loss-kl", "learning-rate", "speed", "data-wait"}
ALWAYS = CURVES | {"reconstructions", "reconstructions-input", "samples"}
SCATTERS = {"latent-scatter", *(f"latent-scatter-class-{number}" for number in range(10))}


def reported(family: str, root: Path, data: Path, **options: Any) -> Path:
    """The directory of a finished run with its report."""
    changes = COMMON | {"data.images": str(data), "run.storage": str(root), "run.name": f"{family}-run"} | options
    launch(family, override(recipe_type(family).config_type(), changes))
    make_report(str(root / f"{family}-run"))
    return root / f"{family}-run"


@pytest.fixture(scope="module")
def reported_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    ingest(IngestConfig("synthetic:digits", str(root / "digits"), count=200, test_fraction=0.6))
    return root / "digits"


@pytest.fixture(scope="module")
def run_of_vae(reported_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a latent space of five dimensions."""
    root = tmp_path_factory.mktemp("vae")
    return reported("vae", root, reported_digits, **{"model.channels": [4], "model.hidden": 4, "model.latent_dim": 5})


@pytest.fixture(scope="module")
def cvae(reported_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"model.channels": [4, 4], "model.hidden": 8, "run.epochs": 1}
    return reported("cvae", tmp_path_factory.mktemp("cvae"), reported_digits, **small)


def page(run: Path) -> str:
    return (run / "report.html").read_text()


def drawn(run: Path, name: str) -> Pixels:
    return np.asarray(Image.open(run / "figures" / "report" / f"{name}.png"))


def names(run: Path) -> set[str]:
    return {file.stem for file in (run / "figures" / "report").iterdir()}


def cell(sheet: Pixels, row: int, column: int) -> np.ndarray:
    return sheet[2 + 30 * row :, 2 + 30 * column :, 0][:28, :28].astype(int)


def load(run: Path) -> LatentModel:
    model = model_directory.load(str(run / "model"))
    assert isinstance(model, LatentModel)
    return model


def held_out(reported_digits: Path) -> tuple[torch.Tensor, torch.Tensor]:
    rows = ShardSet.open(str(reported_digits)).split("test")
    found = rows.read(np.arange(len(rows)))
    return torch.from_numpy(found.image), torch.from_numpy(found.columns["label"])


def caption_of(run: Path, name: str) -> str:
    found = re.search(rf'alt="{name}">(?:(?!</figure>).)*?<figcaption>(.*?)</figcaption>', page(run), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def record() -> RunRecord:
    """A run of which nothing was read but its splits."""
    splits = {"choice": None, "report": "test"}
    return RunRecord(locate("memory://run"), "vae", {}, {}, [], [], [], recorded_splits=splits)


def test_more_images_than_are_drawn_are_shown_under_their_own_classes(
    tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are stored class by class, of which every fourth is drawn."""
    for number in range(3):
        (tmp_path / "photos" / f"class-{number}").mkdir(parents=True)
        grey = Image.new("L", (12, 12), 50 * (number + 1))
        for row in range(8):
            grey.save(tmp_path / "photos" / f"class-{number}" / f"{row}.png")
    ingest(IngestConfig(str(tmp_path / "photos"), str(tmp_path / "data"), label=FOLDER))
    monkeypatch.setattr(latent_space, "SCATTERED_IMAGES", 6)
    model = CVAE((12, 12, 3), CVAEArchitecture(channels=(4,), hidden=8, classes=3))
    figure = cvae_report._reconstructions(Subject(record, model, "images", ShardSet.open(str(tmp_path / "data"))))
    sheet = np.asarray(Image.open(BytesIO(figure.pictures[0].png)))
    assert figure.pictures[0].rows == ("class-0", "", "class-1", "", "class-2", "")
    assert [sheet[2 + 28 * number :, 2:][:12, :12, 0].mean() for number in range(3)] == [50, 100, 150]
    assert [sheet[2 + 28 * number :, 16:][:12, :12, 0].mean() for number in range(3)] == [50, 100, 150]


def test_the_lowest_elbo_is_a_number(record: RunRecord) -> None:
    values = (math.nan, 120.0, 90.0, math.inf)
    lines = [{"epoch": 1 + n, "neg_elbo": one, "reconstruction": 1.0, "kl": 2.0} for n, one in enumerate(values)]
    shown = latent_space.elbo(dataclasses.replace(record, test=lines)).tables[0].rows
    assert [row[:3] for row in shown] == [("last", "4", "inf"), ("lowest", "3", "90.00")]
    shown = latent_space.elbo(dataclasses.replace(record, test=lines[:1])).tables[0].rows
    assert [row[:3] for row in shown] == [("last", "1", "nan")]


@pytest.mark.slow
def test_the_vaes_pictures_and_its_elbo(run_of_vae: Path) -> None:
    epochs = {"reconstructions-epoch-1.05", "reconstructions-epoch-2.1"}
    assert names(run_of_vae) == ALWAYS | SCATTERS | epochs | {"latent-plane"}
    lines = [json.loads(line) for line in (run_of_vae / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "test"][-1]
    assert "".join(f"<td>{last[name]:.2f}</td>" for name in ("neg_elbo", "reconstruction", "kl")) in page(run_of_vae)


@pytest.mark.slow
def test_reconstructions_stand_beside_the_inputs_by_epoch(run_of_vae: Path, reported_digits: Path) -> None:
    images = held_out(reported_digits)[0].numpy()
    for title, step in (("input", None), ("epoch-1.05", 7), ("epoch-2.1", 14)):
        shown = drawn(run_of_vae, f"reconstructions-{title}")
        if step is None:
            np.testing.assert_array_equal(cell(shown, 9, 9), images[99, ..., 0])
        else:
            training = np.asarray(Image.open(run_of_vae / "figures" / f"step-{step:08d}" / "reconstructions.png"))[
                :, -302:
            ]
            np.testing.assert_array_equal(cell(shown, 4, 7), cell(training[..., None], 4, 7))
    assert "after the epochs 1.05, 2.1, as training drew them" in caption_of(run_of_vae, "reconstructions-epoch-2.1")


def test_up_to_five_epochs_are_chosen() -> None:
    each = [float(epoch) for epoch in range(1, 101)]
    assert chosen_epochs(each[:50]) == [10, 20, 30, 40, 50]
    assert chosen_epochs(each[:40]) == [10, 20, 30, 40]
    assert chosen_epochs([1.01 * epoch for epoch in each[:30]]) == pytest.approx([10.1, 20.2, 30.3])
    assert chosen_epochs(each) == [20, 40, 60, 80, 100]
    assert chosen_epochs(each[:15]) == [3, 6, 9, 12, 15]
    assert chosen_epochs(each[:3]) == [1, 2, 3]
    assert chosen_epochs([0.5]) == [0.5]
    assert chosen_epochs([0.0001 * epoch for epoch in each[:10]]) == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    assert chosen_epochs([0.0]) == [0.0]
    assert chosen_epochs([]) == []


def test_the_titles_of_epochs_tell_them_apart() -> None:
    assert epoch_titles([1.0526, 2.1053, 10, 100]) == ["1.05", "2.11", "10", "100"]
    assert epoch_titles([0.0034]) == ["0.003"]
    assert epoch_titles([0.0, 0.00012, 12_345.001, 12_345.002]) == ["0", "0.0001", "12345.001", "12345.002"]
    assert epoch_titles([]) == []


@pytest.mark.slow
def test_a_larger_latent_space_is_shown_in_its_two_widest_dimensions(run_of_vae: Path, reported_digits: Path) -> None:
    model, (images, labels) = load(run_of_vae), held_out(reported_digits)
    means = model.encode(images)[0]
    x, y = sorted(means.var(0).argsort()[-2:].tolist())
    plane, quantiles = drawn(run_of_vae, "latent-plane"), prior_quantiles(10)
    for row, column in ((0, 0), (9, 0), (3, 8)):
        latents = torch.zeros(1, 5)
        latents[0, x], latents[0, y] = float(quantiles[column]), float(quantiles[9 - row])
        np.testing.assert_allclose(cell(plane, row, column), model.decode(latents)[0, ..., 0], atol=1)
    for name in ("latent-scatter", "latent-plane"):
        assert "Of 5 dimensions the two whose posterior means vary most." in caption_of(run_of_vae, name)
    assert "The other dimensions are 0." in caption_of(run_of_vae, "latent-plane")

    own = means[labels == 3]
    spread = [f"{value:.2f}".replace("-", "−") for axis in (x, y) for value in _range(own[:, axis])]
    cells = "".join(f"<td>{text}</td>" for text in ("3", str(len(own)), *spread))
    assert f"<tr>{cells}</tr>" in page(run_of_vae)


@pytest.mark.slow
def test_the_cvaes_pictures_are_class_by_class(cvae: Path, reported_digits: Path) -> None:
    planes = {f"latent-plane-class-{number}" for number in range(10)}
    epochs = {name for name in names(cvae) if name.startswith("reconstructions-epoch-")}
    assert len(epochs) == 1
    assert names(cvae) == ALWAYS | SCATTERS | planes | epochs | {"class-by-latent"}
    model, (images, labels) = load(cvae), held_out(reported_digits)
    axis = int(model.encode(images, labels)[0].var(0).argmax())
    latents = torch.zeros(10, 2)
    latents[:, axis] = torch.from_numpy(prior_quantiles(10))
    grid = drawn(cvae, "class-by-latent")
    for row in (0, 7):
        expected = model.decode(latents, torch.full((10,), row))
        for column in (0, 9):
            np.testing.assert_allclose(cell(grid, row, column), expected[column, ..., 0], atol=1)


@pytest.mark.slow
def test_inputs_of_each_class_stand_above_their_outputs(cvae: Path, reported_digits: Path) -> None:
    model, (images, labels) = load(cvae), held_out(reported_digits)
    pairs = drawn(cvae, "reconstructions")
    for number in (0, 6):
        own = images[labels == number][:1]
        np.testing.assert_array_equal(cell(pairs, 2 * number, 0), own[0, ..., 0])
        output = model.reconstruct(own, torch.tensor([number]))
        np.testing.assert_allclose(cell(pairs, 2 * number + 1, 0), output[0, ..., 0], atol=1)
    assert "<li>0</li><li></li><li>1</li><li></li>" in page(cvae)


@pytest.mark.slow
def test_samples_of_each_class_stand_in_its_row(cvae: Path) -> None:
    model = load(cvae)
    assert isinstance(model, CVAE)
    labels = torch.arange(10).repeat_interleave(14)
    expected = model.sample(140, 0, labels).numpy()
    for row, column in ((0, 0), (9, 13)):
        np.testing.assert_allclose(
            cell(drawn(cvae, "samples"), row, column), expected[14 * row + column, ..., 0], atol=1
        )


@pytest.mark.slow
def test_images_without_labels_and_a_latent_line(tmp_path: Path) -> None:
    ingest(IngestConfig("synthetic:scenes-a", str(tmp_path / "scenes"), count=24, size=32, test_fraction=0.5))
    small = {"model.channels": [4], "model.hidden": 4, "run.batch": 4, "run.steps": 3}
    run = reported("vae", tmp_path, tmp_path / "scenes", **small)
    assert names(run) >= ALWAYS | {"latent-scatter", "latent-plane"}
    assert not any("class" in name for name in names(run))
    assert "coloured by class" not in caption_of(run, "latent-scatter")
    assert page(run).count('<tr class="marked"><td>all</td>') == 1
    line = reported("vae", tmp_path / "line", tmp_path / "scenes", **small | {"model.latent_dim": 1})
    assert names(line) >= ALWAYS
    assert not any("latent" in name for name in names(line))
    assert "z₁ SD" in page(line)


def _range(values: torch.Tensor) -> tuple[float, float, float]:
    return float(values.min()), float(values.max()), float(values.std(correction=0))
