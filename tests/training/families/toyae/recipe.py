"""Training of the toy autoencoder on the squared error of its reconstructions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from genlab.imaging.sheets import sheet, side_by_side
from genlab.models.model import Model
from genlab.models.pixels import to_unit
from genlab.models.precision import full_precision
from genlab.models.toyae import ToyAE, ToyAEArchitecture
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Batches, DomainInfo, Metrics, Phase, Recipe, StepContext


@dataclass(frozen=True)
class ToyAEConfig:
    """Train a toy autoencoder on a genlab data set."""

    run: Run = field(default_factory=lambda: Run(epochs=1))
    data: ImageData = field(default_factory=ImageData)
    model: ToyAEArchitecture = field(default_factory=ToyAEArchitecture)
    optimization: Optimization = field(default_factory=lambda: Optimization(learning_rate=3e-3))


class ToyAERecipe(Recipe[ToyAEConfig]):
    """Trains encoder and decoder together on the mean squared error, of values in [0, 1]."""

    config_type = ToyAEConfig
    averaged = ("autoencoder",)

    def __init__(self, config: ToyAEConfig, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        self.autoencoder = ToyAE(domains["images"].shape, config.model)
        self.networks = nn.ModuleDict({"autoencoder": self.autoencoder})

    def model(self) -> Model:
        """Return the autoencoder."""
        return self.autoencoder

    def phases(self) -> Sequence[Phase]:
        """Return the only phase."""
        return (Phase("autoencoder", "autoencoder", self._loss),)

    def _loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return the squared error."""
        error = self._error(batches, step)
        return error, {"error": error.detach()}

    def test_metrics(self, batches: Batches, step: StepContext) -> Metrics:
        """Return the squared error of held-out rows."""
        return {"error": self._error(batches, step)}

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Draw held-out images beside their reconstructions."""
        pixels = batches["images"].image
        inputs, outputs = (sheet(of.cpu().numpy(), 4) for of in (pixels, self.autoencoder.reconstruct(pixels)))
        return {"reconstructions": side_by_side(inputs, outputs)}

    def _error(self, batches: Batches, step: StepContext) -> Tensor:
        images = to_unit(batches["images"].image)
        with step.autocast():
            decoded = self.autoencoder(images)
        return (full_precision(decoded) - images).square().mean()


RECIPE = ToyAERecipe
