"""The encoder of a StyleGAN in training."""

from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.cli.train import main
from genlab.core.config import override
from genlab.core.errors import ConfigError, RunError
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.metrics.image import psnr
from genlab.metrics.perceptual import PerceptualDistance
from genlab.models.pixels import from_signed, to_signed
from genlab.recipes.encoder import EncoderConfig, EncoderRecipe
from genlab.recipes.recipe import DomainInfo
from genlab.store import model_directory
from genlab.training.tracking import read_metrics
from tests.conftest import save_run
from tests.models.test_encoder import generator
from tests.recipes.support import RecordingStepContext, batch

ROWS = 4
SMALL = {"model.channel_base": 32, "model.channel_max": 8, "model.features": 12}


def make(runs: Path, shape: tuple[int, int, int] = (8, 8, 1), **changes: Any) -> EncoderRecipe:
    torch.manual_seed(0)
    named = {f"objective.{name}": value for name, value in changes.items()}
    config = override(EncoderConfig(), {"model.generator": str(runs / "faces")} | SMALL | named)
    return EncoderRecipe(config, {"images": DomainInfo(100, shape, ())})


def test_the_loss_is_the_sum_of_its_terms(model_runs: Path) -> None:
    recipe = make(model_runs, styles=2.0, pixels=3.0, perceptual=0.5, prior=0.25)
    given = batch(ROWS, 8, 8, 1, seed=0)
    step = RecordingStepContext(recipe, ROWS)
    metrics = step.take({"images": given})
    encoder, real = recipe.encoder, to_signed(given.image)
    with torch.no_grad():
        styles = encoder(real)
        images = recipe.generator.synthesise(styles, None)
        w, drawn = recipe._pair({"images": given}, step)
        errors = ((encoder(drawn) - w) / encoder.scale).square().mean()
        expected = {
            "styles": errors,
            "pixels": (images - real).square().mean(),
            "perceptual": PerceptualDistance(64)(images, real).mean(),
            "prior": ((styles - encoder.mean) / encoder.scale).square().mean(),
        }
    torch.testing.assert_close(dict(metrics), expected)
    total = 2 * errors + 3 * expected["pixels"] + 0.5 * expected["perceptual"] + 0.25 * expected["prior"]
    torch.testing.assert_close(step.losses["encoder"], total)
    assert [
        name for name, gradient in step.gradients["encoder"].items() if gradient is None or not gradient.any()
    ] == []


def test_the_pictures_of_known_styles_are_of_two_latent_vectors(model_runs: Path) -> None:
    recipe = make(model_runs)
    given = {"images": batch(64, 8, 8, 1, seed=0)}
    w, drawn = recipe._pair(given, RecordingStepContext(recipe, 64))
    assert drawn.shape == (64, 1, 8, 8)
    different = [len(places.unique(dim=0)) for places in w]
    assert set(different) == {1, 2}


def test_the_generator_stays_as_it_is(model_runs: Path) -> None:
    recipe = make(model_runs)
    assert not any(parameter.requires_grad for parameter in recipe.generator.parameters())
    assert list(recipe.networks) == ["encoder"]
    description = model_directory.describe(model_runs / "faces" / "model")
    assert recipe.encoder.generator_weights == description["weights"]["sha256"]
    assert any(name.startswith("generator.") for name in recipe.state_dict()), "a run goes on with its own generator"
    assert not any("efficient" in name for name in recipe.state_dict())


def test_its_channels_are_the_generators_by_default(model_runs: Path) -> None:
    config = override(EncoderConfig(), {"model.generator": str(model_runs / "faces"), "model.channel_max": 4})
    architecture = EncoderRecipe(config, {"images": DomainInfo(100, (8, 8, 1), ())}).encoder.architecture
    assert (architecture.channel_base, architecture.channel_max) == (32, 4)


def test_psnr_is_of_the_encoder_alone(model_runs: Path) -> None:
    recipe, given = make(model_runs).eval(), batch(ROWS, 8, 8, 1, seed=3)
    found = recipe.test_metrics({"images": given}, RecordingStepContext(recipe, ROWS))["psnr"]
    images = from_signed(recipe.generator.synthesise(recipe.encoder.styles(given.image), None))
    assert found == psnr(images, given.image).mean()
    assert set(recipe.figures({"images": given})) == {"projections"}


def test_what_does_not_fit_is_refused(model_runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.generator: name the StyleGAN"):
        EncoderRecipe(EncoderConfig(), {"images": DomainInfo(100, (8, 8, 1), ())})
    with pytest.raises(ConfigError, match=r"images of 16x16x1, and model\.generator draws 8x8x1"):
        make(model_runs, (16, 16, 1))
    config = override(EncoderConfig(), {"model.generator": str(model_runs / "digits")})
    with pytest.raises(RunError, match="of family 'vae'; a stylegan is needed"):
        EncoderRecipe(config, {"images": DomainInfo(100, (8, 12, 1), ())})
    save_run(tmp_path / "classes", generator(classes=3))
    config = override(EncoderConfig(), {"model.generator": str(tmp_path / "classes")})
    with pytest.raises(ConfigError, match="no labels for the classes"):
        EncoderRecipe(config, {"images": DomainInfo(100, (8, 8, 3), ())})


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    """On digits of 8x8 pixels, of which the generator knows nothing: held-out ones come nearer all the same."""
    data = tmp_path / "digits"
    save_run(tmp_path / "generator", generator(channels=1), contrast=1)
    ingest(IngestConfig("synthetic:digits", str(data), size=8, count=80, test_fraction=0.2))
    given = ["--model.generator", str(tmp_path / "generator"), "--data.images", str(data)]
    size = ["--run.batch", "16", "--run.steps", "60", "--run.checkpoint-every", "20", "--run.workers", "0"]
    place = ["--run.storage", str(tmp_path), "--run.name", "encoder", "--run.threads", "1"]
    small = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    main(["encoder", *given, *size, *place, *small])
    lines = read_metrics(tmp_path / "encoder" / "metrics.jsonl")
    found = [line["psnr"] for line in lines if line["kind"] == "test"]
    assert len(found) > 2
    assert found[-1] > found[0]
    assert model_directory.load(tmp_path / "encoder" / "model").family == "encoder"
