"""Training of the conditional variational autoencoder (CVAE; Sohn et al. 2015, NeurIPS)."""

import dataclasses
from dataclasses import dataclass, field

from genlab.models.cvae import CVAE, CVAEArchitecture
from genlab.recipes.latent_recipe import LatentObjective, LatentRecipe
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import DomainInfo


@dataclass(frozen=True)
class CVAEConfig:
    """Train a conditional variational autoencoder on a labelled genlab data set."""

    run: Run = field(default_factory=lambda: Run(epochs=40))
    data: ImageData = field(default_factory=ImageData)
    model: CVAEArchitecture = field(default_factory=CVAEArchitecture)
    objective: LatentObjective = field(default_factory=LatentObjective)
    optimization: Optimization = field(default_factory=Optimization)


class CVAERecipe(LatentRecipe[CVAEConfig]):
    """Trains the conditional VAE on the evidence lower bound of log p(x|y)."""

    config_type = CVAEConfig
    vae: CVAE

    def build(self, images: DomainInfo) -> CVAE:
        """Build the model of the config for the classes of the data set.

        Raises:
            ValueError: when images have no labels, or more than ``model.classes``.
        """
        architecture = self.config.model
        return CVAE(images.shape, dataclasses.replace(architecture, classes=images.classes(architecture.classes)))


RECIPE = CVAERecipe
