"""Training the variational autoencoder (Kingma & Welling 2013, arXiv:1312.6114)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from genlab.config import OPERATIONAL
from genlab.data.images import sheet
from genlab.metrics.elbo import gaussian_kl
from genlab.models.model import Model
from genlab.models.pixels import to_unit
from genlab.models.precision import full_precision
from genlab.models.vae import VAE, VAEArchitecture
from genlab.recipes.options import Data, Optimization, Run
from genlab.recipes.recipe import Batches, DomainInfo, Recipe, Step


@dataclass(frozen=True)
class VAEData(Data):
    """The images."""

    images: Annotated[str, OPERATIONAL] = "synthetic:digits"
    """Data set made by `genlab ingest`: a folder or URL. `synthetic:digits` is drawn on the spot."""

    @property
    def domains(self) -> dict[str, str]:
        """URL of each domain's data set."""
        return {"images": self.images}


@dataclass(frozen=True)
class VAEObjective:
    """The negative evidence lower bound: Bernoulli reconstruction on grey levels, plus the KL term."""

    beta: Annotated[float, Ge(0)] = 1.0
    """Weight of the KL term (Higgins et al. 2017); 1 is the ELBO."""


@dataclass(frozen=True)
class VAEConfig:
    """Train a variational autoencoder on a genlab data set."""

    run: Run = field(default_factory=lambda: Run(epochs=50))
    data: VAEData = field(default_factory=VAEData)
    model: VAEArchitecture = field(default_factory=VAEArchitecture)
    objective: VAEObjective = field(default_factory=VAEObjective)
    optimization: Optimization = field(default_factory=Optimization)


class VAERecipe(Recipe[VAEConfig]):
    """Maximises the ELBO by the reparameterised gradient; losses are nats per image."""

    config_type = VAEConfig
    averaged = ("vae",)

    def __init__(self, config: VAEConfig, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        self.vae = VAE(domains["images"].shape, config.model)
        self.networks = nn.ModuleDict({"vae": self.vae})

    def step(self, batches: Batches, step: Step) -> dict[str, Tensor]:
        """One Adam step on −ELBO (with β on its KL term)."""
        reconstruction, kl = self._negative_elbo(batches["images"].image, step)
        step.update("vae", reconstruction + self.config.objective.beta * kl)
        return self._named(reconstruction, kl)

    def test_metrics(self, batches: Batches, step: Step) -> dict[str, Tensor]:
        """−ELBO of held-out rows with one draw of z a row, and its two parts, in nats an image."""
        return self._named(*self._negative_elbo(batches["images"].image, step))

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Inputs above their reconstructions, and samples from the prior."""
        images = batches["images"].image[:16]
        pairs = torch.cat([images, self.vae.reconstruct(images)]).cpu().numpy()
        return {
            "reconstructions": sheet(pairs, columns=len(images)),
            "samples": sheet(self.vae.sample(64, seed=self.config.run.seed).cpu().numpy(), columns=8),
        }

    def model(self) -> Model:
        """The VAE itself."""
        return self.vae

    def _negative_elbo(self, pixels: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        images = to_unit(pixels)
        with step.autocast():
            mean, log_variance = self.vae.encoder(images)
            noise = step.noise("z", self.config.model.latent_dim)
            mean, log_variance = full_precision(mean), full_precision(log_variance)
            latents = mean + (0.5 * log_variance).exp() * noise
            logits = self.vae.decoder(latents)
        pixelwise = F.binary_cross_entropy_with_logits(full_precision(logits), images, reduction="none")
        return pixelwise.flatten(1).sum(1).mean(), gaussian_kl(mean, log_variance).mean()

    @staticmethod
    def _named(reconstruction: Tensor, kl: Tensor) -> dict[str, Tensor]:
        return {
            "neg_elbo": (reconstruction + kl).detach(),
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
        }


RECIPE = VAERecipe
