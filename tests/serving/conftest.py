"""Small models, as their runs leave them."""

from pathlib import Path

import pytest
import torch

from genlab.models.cvae import CVAE, CVAEArchitecture
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.model import Model
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory


@pytest.fixture(scope="session")
def served_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder: ``digits`` holds a VAE of 28x28x1, ``monet`` a CycleGAN of 32x32x3, ``classes`` a
    conditional VAE of 16x16x1."""
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
    return root
