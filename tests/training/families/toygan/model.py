"""A toy GAN: an image is a linear map of a latent vector, then tanh."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from genlab.models.model import Sampler, Shape
from genlab.models.pixels import from_signed


@dataclass(frozen=True)
class ToyGANArchitecture:
    """Architecture of the generator."""

    latent_dim: Annotated[int, Gt(0)] = 4
    """Size of the latent vector z."""


class ToyGAN(Sampler):
    """A generator of one dense layer."""

    family = "toygan"
    Architecture = ToyGANArchitecture
    operations = ("sample",)
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

    @torch.inference_mode()
    def sample(self, count: int, seed: int, label: Tensor | None = None) -> Tensor:
        """Draw ``count`` images, uint8 [count, H, W, C]."""
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(count, self.architecture.latent_dim, generator=generator)
        return from_signed(self(latents.to(self.device)))


MODEL = ToyGAN
