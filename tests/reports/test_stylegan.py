"""The report of a tiny StyleGAN: its sheets, cut out again, are what their captions say."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.evaluation.measurements import Evaluation, Measurement, Settings
from genlab.models.model import Model
from genlab.models.stylegan import LatentInterpolationOptions, MixingOptions, SamplingOptions, StyleGAN
from genlab.recipes.growth import Growth
from genlab.recipes.options import ImageData, Run
from genlab.recipes.stylegan import StyleGANConfig, StyleGANModel
from genlab.reports.report import make_report
from genlab.store import model_directory
from genlab.training.launch import launch

pytestmark = pytest.mark.slow


def trained(root: Path, source: str, model: StyleGANModel) -> Path:
    """Train for four steps on drawn images of 32x32, and write the report; return the run's directory."""
    ingest(IngestConfig(f"synthetic:{source}", str(root / "data"), size=32, count=40, test_fraction=0.4, seed=5))
    run = Run(
        name="run", storage=str(root), steps=4, batch=4, workers=0, threads=1, log_every=1, figures_every=2, seed=3
    )
    growth = Growth(stable_images=4, fade_images=4)
    launch("stylegan", StyleGANConfig(run=run, data=ImageData(images=str(root / "data")), model=model, growth=growth))
    directory = root / "run"
    model_of = model_directory.load(directory / "model")
    with torch.no_grad():
        for name, parameter in model_of.named_parameters():
            if name.endswith("strength"):
                parameter.fill_(0.5)  # four steps leave little
    save_again(directory, model_of)
    make_report(str(directory))
    return directory


def save_again(run: Path, model: Model) -> None:
    """Put other weights into the model directory of a run."""
    provenance = model_directory.describe(run / "model")["provenance"]
    shutil.rmtree(run / "model")
    model_directory.save(run / "model", model, model_directory.Provenance(**provenance))


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = StyleGANModel(channel_base=64, channel_max=8, latent_dim=8, mapping_layers=2, group=2)
    return trained(tmp_path_factory.mktemp("scenes"), "scenes-a", tiny)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional one, in grey, grown progressively with AdaIN."""
    tiny = StyleGANModel(
        channel_base=64,
        channel_max=8,
        latent_dim=8,
        mapping_layers=2,
        group=2,
        form="progressive",
        styles="adain",
        conditional=True,
    )
    return trained(tmp_path_factory.mktemp("digits"), "digits", tiny)


def generator(run: Path) -> StyleGAN:
    return cast("StyleGAN", model_directory.load(run / "model"))


def page(run: Path) -> str:
    return (run / "report.html").read_text()


def cut(run: Path, name: str, columns: int) -> np.ndarray:
    """The images of a sheet of the report, without opacity: uint8 [N, 32, 32, C]."""
    sheet = np.asarray(Image.open(run / "figures" / "report" / f"{name}.png"))[2:, 2:, :-1]
    rows = len(sheet) // 34
    assert sheet.shape[:2] == (rows * 34, columns * 34)
    tiles = sheet.reshape(rows, 34, columns, 34, -1).transpose(0, 2, 1, 3, 4)[:, :, :32, :32]
    return tiles.reshape(-1, *tiles.shape[2:])


def assert_close(sheet: np.ndarray, images: Tensor) -> None:
    """Check that pictures are these but for the rounding of networks that see other numbers of images together."""
    np.testing.assert_allclose(sheet.astype(int), images.numpy().astype(int), atol=1)


@pytest.mark.parametrize("run", ["scenes", "digits"])
def test_the_page_has_all_sections_and_needs_no_other_file(run: str, request: pytest.FixtureRequest) -> None:
    html = page(request.getfixturevalue(run))
    titles = re.findall("<h2>(.*)</h2>", html)
    assert titles == [
        "Samples",
        "Truncation",
        "Style mixing",
        "Noise of the layers",
        "Interpolation",
        "Nearest training images",
        "Curves",
        "The run",
    ]
    assert all(reference.startswith("data:image/png;base64,") for reference in re.findall(r'src="([^"]*)"', html))
    assert "could not be" not in html


def test_samples_are_the_seeds_first_pictures_whole_and_truncated_and_on_the_way(scenes: Path) -> None:
    model = generator(scenes)
    assert_close(cut(scenes, "samples", 8), model.sample(48, 3))
    assert_close(cut(scenes, "samples-truncated", 8), model.sample(48, 3, options=SamplingOptions(0.7)))
    assert len(list((scenes / "figures" / "report").glob("samples-epoch-*.png"))) == 2


def test_a_conditional_model_draws_a_class_a_column(digits: Path) -> None:
    label = torch.arange(10).repeat(6)
    assert_close(cut(digits, "samples", 10), generator(digits).sample(60, 3, label))
    assert "A class a column" in page(digits)


def test_the_strip_goes_through_the_average_picture(scenes: Path) -> None:
    strip = cut(scenes, "truncation", 9).reshape(4, 9, 32, 32, 3)
    assert np.ptp(strip[:, 4].astype(int), axis=0).max() <= 1
    assert_close(strip[:, -1], generator(scenes).sample(4, 3, options=SamplingOptions(noise="fixed")))


@pytest.mark.parametrize("styles", ["coarse", "middle", "fine"])
def test_mixing_sheets_have_their_sources_at_the_borders(scenes: Path, styles: Any) -> None:
    grid = generator(scenes).mix_styles((3, 4, 5), (6, 7, 8, 9), None, MixingOptions(0.7, styles=styles))
    assert_close(cut(scenes, f"mixing-{styles}", 5), grid.flatten(0, 1))


def test_noise_is_shown_by_many_pictures_of_one_latent_and_layer_by_layer(scenes: Path) -> None:
    model = generator(scenes)
    rows = cut(scenes, "noise-layers", 8).reshape(4, 8, 32, 32, 3)
    for row, noise in ((0, "random"), (1, "none")):
        assert_close(rows[row], model.sample(8, 3, options=SamplingOptions(0.7, cast("Any", noise))))
    assert len({row.tobytes() for row in rows}) == 4
    variation = cut(scenes, "noise", 6).reshape(3, 6, 32, 32, 3)
    assert len({picture.tobytes() for picture in variation[0]}) == 6
    assert variation[:, 5].max() == 255, "the standard deviation, white where it is greatest"


def test_the_film_goes_there_and_back(scenes: Path) -> None:
    options = LatentInterpolationOptions(0.7, "fixed", 13)
    way = generator(scenes).interpolate_draws((3, 4), None, options)
    with Image.open(scenes / "figures" / "report" / "interpolation-film.png") as film:
        assert getattr(film, "n_frames", 1) == 24
        for frame, image in ((0, way[0]), (6, way[6]), (12, way[12]), (18, way[6])):
            film.seek(frame)
            assert_close(np.asarray(film.convert("RGBA"))[2:34, 2:34, :3], image)


def test_samples_are_compared_with_training_and_held_out_images(scenes: Path) -> None:
    training, held_out = (ShardSet.open(str(scenes.parent / "data")).split(name) for name in ("train", "test"))
    assert "<td>64 samples</td>" in page(scenes)
    assert f"<td>{len(held_out)} held-out images</td>" in page(scenes)
    real = {image.tobytes() for image in training.read(np.arange(len(training))).image}
    nearest = cut(scenes, "nearest", 8)
    assert [image.tobytes() in real for image in nearest] == [False] * 8 + [True] * 8


def test_curves_over_truncation_are_of_evaluations_of_this_model_alone(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scenes, run)
    weights = model_directory.describe(run / "model")["weights"]["sha256"]

    def evaluate(name: str, truncation: float, **others: Any) -> None:
        settings: Settings = {"data": "x", "sample_truncation": truncation}
        measurement = Measurement("KID", 0.1 * truncation, settings, better="lower", interval=(0.0, 0.2))
        Evaluation("run", {"weights": weights} | others, {"kid": measurement}).save(cast("Any", run / name))

    drawn = run / "figures" / "report" / "truncation-kid.png"
    evaluate("evaluation.json", 1.0)
    evaluate("evaluation-0.7.json", 0.7, weights="of another model")
    (run / "evaluation-bad.json").write_text("{}")
    make_report(str(run))
    assert not drawn.exists()
    evaluate("evaluation-0.7.json", 0.7)
    make_report(str(run))
    assert drawn.exists()


def test_without_its_data_all_but_the_comparison_is_shown(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scenes, run)
    config = json.loads((run / "config.json").read_text())
    config["data"]["images"]["path"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    make_report(str(run))
    assert "Samples could not be compared with real images: " in page(run)
    assert "Style mixing" in page(run)
    assert "Nearest training images" not in page(run)


def test_samples_that_are_all_alike_are_noted(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scenes, run)
    model = generator(run)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mapping" in name or name.endswith("strength"):
                parameter.zero_()
    save_again(run, model)
    make_report(str(run))
    assert "Samples are alike (mode collapse)" in page(run)
