"""Training of the toy GAN (Goodfellow et al. 2014): a generator and a discriminator, each with its own optimiser."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from genlab.imaging.sheets import sheet
from genlab.metrics.adversarial import adversarial_loss
from genlab.models.model import Model
from genlab.models.pixels import to_signed
from genlab.models.precision import full_precision
from genlab.models.toygan import ToyGAN, ToyGANArchitecture
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Batches, DomainInfo, Recipe, StepContext


@dataclass(frozen=True)
class ToyGANConfig:
    """Train a toy GAN on a genlab data set."""

    run: Run = field(default_factory=lambda: Run(epochs=1))
    data: ImageData = field(default_factory=ImageData)
    model: ToyGANArchitecture = field(default_factory=ToyGANArchitecture)
    optimization: Optimization = field(default_factory=lambda: Optimization(learning_rate=0.03, beta1=0.5))


class ToyGANRecipe(Recipe[ToyGANConfig]):
    """Trains both networks on the binary cross-entropy of the discriminator's logits, in nats."""

    config_type = ToyGANConfig
    averaged = ("generator",)

    def __init__(self, config: ToyGANConfig, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        shape = domains["images"].shape
        self.generator = ToyGAN(shape, config.model)
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 1))
        self.networks = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator})

    def model(self) -> Model:
        """Return the generator."""
        return self.generator

    def step(self, batches: Batches, step: StepContext) -> dict[str, Tensor]:
        """Take one step of the generator and one of the discriminator."""
        real = to_signed(batches["images"].image)
        with step.autocast():
            fake = self.generator(step.noise("z", self.config.model.latent_dim))
            logits = self.discriminator(fake)
        adversarial = adversarial_loss("bce", full_precision(logits), real=True)
        step.update("generator", adversarial)
        with step.autocast():
            logits_real, logits_fake = self.discriminator(real), self.discriminator(fake.detach())
        discrimination = adversarial_loss("bce", full_precision(logits_real), real=True)
        discrimination = discrimination + adversarial_loss("bce", full_precision(logits_fake), real=False)
        step.update("discriminator", discrimination)
        return {"adversarial": adversarial.detach(), "discriminator": discrimination.detach()}

    def test_metrics(self, batches: Batches, step: StepContext) -> dict[str, Tensor]:
        """Return nothing: the losses of a GAN say little of the quality of its images."""
        return {}

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Draw samples, of the same latent vectors each time."""
        return {"samples": sheet(self.generator.sample(16, seed=self.config.run.seed).cpu().numpy(), 4)}


RECIPE = ToyGANRecipe
