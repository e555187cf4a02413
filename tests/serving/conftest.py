"""Small models, as their runs leave them."""

from pathlib import Path

import pytest
import torch

from genlab.core.storage import locate
from genlab.evaluation.measurements import Evaluation, Measurement, Settings
from genlab.models.cvae import CVAE, CVAEArchitecture
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.encoder import Encoder, EncoderNetworks
from genlab.models.model import Model
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from genlab.store.directions import Axis, Change, Direction, Directions, Effect, Reader
from tests.conftest import save_run


@pytest.fixture(scope="session")
def served_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder: ``digits`` holds a VAE of 28x28x1, which was evaluated, ``monet`` a CycleGAN of 32x32x3,
    ``classes`` a conditional VAE of 16x16x1."""
    root = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    models: dict[str, Model] = {
        "digits": VAE((28, 28, 1), VAEArchitecture(channels=(4, 4))),
        "monet": CycleGAN((32, 32, 3), CycleGANArchitecture(width=4)),
        "classes": CVAE((16, 16, 1), CVAEArchitecture(channels=(4,), hidden=8, classes=3)),
    }
    label_names = {"digits": ("zero", "one"), "classes": ("cat", "dog")}
    for name, model in models.items():
        provenance = model_directory.Provenance(
            run=str(root / name),
            step=100,
            images=1600,
            data={"a": {"path": "/data/a", "checksum": "0" * 64}},
            config={"run": {"name": name}},
            metrics={"test/loss": 0.25, "test/diverged": float("nan")},
            label_names=label_names.get(name, ()),
        )
        model_directory.save(str(root / name / "model"), model, provenance)
    evaluate_as(root / "digits")
    return root


@pytest.fixture(scope="session")
def edited_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: ``faces`` is a StyleGAN of 8x8x3 with directions of age (from -30 to 20) and gender, and
    ``encoder`` its encoder."""
    root = tmp_path_factory.mktemp("edited-runs")
    torch.manual_seed(1)
    small = StyleGANArchitecture(channel_base=32, channel_max=8, latent_dim=8, mapping_layers=2)
    generator = StyleGAN((8, 8, 3), small)
    save_run(root / "faces", generator)
    weights = model_directory.describe(root / "faces" / "model")["weights"]["sha256"]
    save_run(root / "encoder", Encoder.of(generator, weights, EncoderNetworks(channel_base=32, channel_max=8)))
    steps, vector = (-2.0, 0.0, 2.0), torch.linspace(-1, 1, 8)
    changes = {"age": Change(-13.5, 13.5), "gender": Change(0.1, 0.5, 0.82)}
    effects = (Effect(-15.0, 200, changes), Effect(12.0, 200, changes))
    reach = (-30.0, 0.0, 20.0)
    age = Direction(Axis("age", "age"), "linear", tuple(vector.tolist()), "", 0, 0.0, steps, reach, 0.5, effects)
    gender = Axis("gender", "gender", "woman", "man")
    turned = tuple(vector.flip(0).square().tolist())
    effects = (Effect(-6.0, 200, changes), Effect(5.0, 200, changes))
    found = (
        age,
        Direction(gender, "linear", turned, "", 0, 0.0, steps, (-8.0, 0.0, 8.0), 0.9, effects),
        Direction(gender, "channel", (), "layers.1.style", 2, 0.5, steps, (-4.0, 0.0, 4.0), None, effects),
    )
    reader = Reader("gone", "0" * 64, "0" * 64, "test", 500, {"age": "age"}, {"age": 6.5, "gender": 0.1})
    Directions(weights, reader, 100, 0, found).save(locate(root / "faces" / "model"))
    return root


def evaluate_as(run: Path, weights: str | None = None, kid: float = 0.0625) -> None:
    """Write the evaluation of a run, made of ``weights``, by default those of its model."""
    weights = weights or model_directory.describe(run / "model")["weights"]["sha256"]
    settings: Settings = {
        "data": "0" * 64,
        "split": "test",
        "rows": 10_000,
        "extractor": "classifier, 128",
        "samples": 5000,
    }
    measurements = {
        "neg_elbo": Measurement("negative ELBO", 101.5, {"data": "0" * 64}, "nats", "lower", (101.0, 102.0)),
        "fid": Measurement("FID in classifier features", 5.5, settings, "", "lower"),
        "fid_infinity": Measurement("FID∞ in classifier features", 5.25, settings, "", "lower", (5.0, 5.5)),
        "kid": Measurement("KID in classifier features", kid, settings, "", "lower", (kid - 2**-8, kid + 2**-8)),
    }
    Evaluation(run.name, {"weights": weights}, measurements).save(locate(run / "evaluation.json"))
