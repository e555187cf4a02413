"""Small models of every family, as their runs leave them."""

from pathlib import Path

import pytest
import torch

from genlab import modelstore
from genlab.models.cvae import CVAE, CVAEArchitecture
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.model import Model
from genlab.models.vae import VAE, VAEArchitecture


def save(directory: Path, model: Model, label_names: tuple[str, ...] = (), contrast: float = 2) -> None:
    """Save ``model`` with contrast in what it makes, which fresh weights lack."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(contrast)
    provenance = modelstore.Provenance(
        run=str(directory), step=1, images=1, data={}, config={}, metrics={}, label_names=label_names
    )
    modelstore.save(directory / "model", model, provenance)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: ``digits`` is a VAE, ``classes`` a conditional one in colour; ``monet`` and ``resnet``
    are CycleGANs of U-Nets and of ResNets."""
    root = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    save(root / "digits", VAE((8, 12, 1), VAEArchitecture(latent_dim=3, channels=(4, 4))), ("a", "b"))
    conditional = CVAEArchitecture(channels=(4,), hidden=8, classes=3, likelihood="binary")
    save(root / "classes", CVAE((8, 8, 3), conditional), ("cat", "2", "a dog/puppy"))
    save(root / "monet", CycleGAN((8, 12, 3), CycleGANArchitecture(width=2)), contrast=10)
    save(root / "resnet", CycleGAN((8, 12, 3), CycleGANArchitecture("resnet-6", width=2)), contrast=10)
    return root
