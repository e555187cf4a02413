"""Training of the variational autoencoder (Kingma & Welling 2014, ICLR, arXiv:1312.6114)."""

from dataclasses import dataclass, field

from genlab.models.vae import VAE, VAEArchitecture
from genlab.recipes.latent_recipe import LatentObjective, LatentRecipe
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import DomainInfo


@dataclass(frozen=True)
class VAEConfig:
    """Train a variational autoencoder on a genlab data set."""

    run: Run = field(default_factory=lambda: Run(epochs=50))
    data: ImageData = field(default_factory=ImageData)
    model: VAEArchitecture = field(default_factory=VAEArchitecture)
    objective: LatentObjective = field(default_factory=LatentObjective)
    optimization: Optimization = field(default_factory=Optimization)


class VAERecipe(LatentRecipe[VAEConfig]):
    """Trains the VAE on the evidence lower bound of log p(x)."""

    config_type = VAEConfig
    vae: VAE

    def build(self, images: DomainInfo) -> VAE:
        """Build the model of the config."""
        return VAE(images.shape, self.config.model)


RECIPE = VAERecipe
