"""A toy GAN: an image is a linear map of a latent vector, then tanh."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Interval
from torch import Tensor, nn

from genlab.models.model import Sampler, Shape
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed


@dataclass(frozen=True)
class ToyGANArchitecture:
    """Architecture of the generator."""

    latent_dim: Annotated[int, Gt(0)] = 4
    """Size of the latent vector z."""


@dataclass(frozen=True)
class ToyGANOptions:
    """Options of sampling."""

    truncation: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Scale of the latent vectors (Brock et al. 2019): less than 1 draws images nearer to the one of z = 0."""


class ToyGAN(Sampler):
    """A generator of one dense layer."""

    family = "toygan"
    Architecture = ToyGANArchitecture
    operations: ClassVar[Mapping[str, type]] = {"sample": ToyGANOptions}
    architecture: ToyGANArchitecture

    def __init__(self, image_shape: Shape, architecture: ToyGANArchitecture) -> None:
        super().__init__(image_shape, architecture)
        height, width, channels = image_shape
        self.generator = nn.Sequential(
            nn.Linear(architecture.latent_dim, math.prod(image_shape)),
            nn.Tanh(),
            nn.Unflatten(1, (channels, height, width)),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Generate float [N, C, H, W] in [-1, 1] of latent vectors z, [N, latent_dim]."""
        images: Tensor = self.generator(latents)
        return images

    def draw(self, noise: Noise, label: Tensor | None, options: ToyGANOptions) -> Tensor:
        """Draw an image for each picture of ``noise``, uint8 [len(noise), H, W, C]."""
        return from_signed(self(options.truncation * noise.normal("z", self.architecture.latent_dim)))


MODEL = ToyGAN
