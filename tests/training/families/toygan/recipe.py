"""Training of the toy GAN (Goodfellow et al. 2014): a generator and a discriminator, with a lazy gradient penalty."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from genlab.imaging.sheets import sheet
from genlab.metrics.adversarial import adversarial_loss
from genlab.models.model import Model
from genlab.models.pixels import to_signed
from genlab.models.precision import full_precision
from genlab.models.toygan import ToyGAN, ToyGANArchitecture
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Batches, DomainInfo, Metrics, Phase, Recipe, StepContext

PENALTY_EVERY = 2
"""Steps between gradient penalties."""


@dataclass(frozen=True)
class ToyGANConfig:
    """Train a toy GAN on a genlab data set."""

    run: Run = field(default_factory=lambda: Run(epochs=1))
    data: ImageData = field(default_factory=ImageData)
    model: ToyGANArchitecture = field(default_factory=ToyGANArchitecture)
    optimization: Optimization = field(default_factory=lambda: Optimization(learning_rate=0.03, beta1=0.5))


class ToyGANRecipe(Recipe[ToyGANConfig]):
    """Trains both networks on the binary cross-entropy of the discriminator's logits, in nats.

    In every other step a third phase moves the discriminator down R1, the gradient penalty on real images (Mescheder
    et al. 2018, ICML). Its weight grows with the share of real images that the discriminator recognises.
    """

    config_type = ToyGANConfig
    averaged = ("generator",)
    ranked_by = "kid"
    recognised: Tensor
    """1 for each row of the last global batch whose real image got a positive logit, else 0, [batch]."""

    def __init__(self, config: ToyGANConfig, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        shape = domains["images"].shape
        self.generator = ToyGAN(shape, config.model)
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 8), nn.Softplus(), nn.Linear(8, 1))
        self.networks = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator})
        self.register_buffer("recognised", torch.zeros(config.run.batch))

    def optimization(self, network: str) -> Optimization:
        """Return the config's options, with a lower learning rate for the discriminator."""
        options = self.config.optimization
        return options if network == "generator" else replace(options, learning_rate=options.learning_rate / 2)

    def phases(self) -> Sequence[Phase]:
        """Return the generator's phase, the discriminator's, and that of its penalty."""
        return (
            Phase("generator", "generator", self._generator_loss),
            Phase("discriminator", "discriminator", self._discriminator_loss),
            Phase("penalty", "discriminator", self._penalty, every=PENALTY_EVERY, reads=("discriminator",)),
        )

    def _generator_loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        with step.autocast():
            logits = self.discriminator(self.generator(step.noise("z", self.config.model.latent_dim)))
        loss = adversarial_loss("bce", full_precision(logits), real=True)
        return loss, {"adversarial": loss.detach()}

    def _discriminator_loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        with step.autocast():
            fake = self.generator(step.noise("z of the discriminator", self.config.model.latent_dim))
            logits = self.discriminator(torch.cat([to_signed(batches["images"].image), fake]))
        real, fake = full_precision(logits).chunk(2)
        rows, recognised = step.gather((real > 0).to(real.dtype).flatten())()
        self.recognised[list(rows)] = recognised.to(self.recognised.dtype)
        loss = adversarial_loss("bce", real, real=True) + adversarial_loss("bce", fake, real=False)
        return loss, {"discriminator": loss.detach()}

    def _penalty(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        images = to_signed(batches["images"].image).requires_grad_()
        with step.autocast():
            logits = self.discriminator(images)
        (slopes,) = torch.autograd.grad(full_precision(logits).sum(), images, create_graph=True)
        penalty = slopes.square().sum((1, 2, 3)).mean()
        # Once in PENALTY_EVERY steps, so that many times as heavy.
        weight = 0.5 * PENALTY_EVERY * (1 + self.recognised.mean())
        return weight * penalty, {"r1": penalty.detach()}

    def model(self) -> Model:
        """Return the generator."""
        return self.generator

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Draw samples, of the same latent vectors each time."""
        return {"samples": sheet(self.generator.sample(16, seed=self.config.run.seed).cpu().numpy(), 4)}


RECIPE = ToyGANRecipe
