"""A toy autoencoder: two small dense networks, from pixels to a code and back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor, nn

from genlab.models.model import Model, NoOptions, Shape
from genlab.models.pixels import from_unit, to_unit


@dataclass(frozen=True)
class ToyAEArchitecture:
    """Architecture of the autoencoder."""

    hidden: Annotated[int, Gt(0)] = 64
    """Width of the hidden layers."""
    latent_dim: Annotated[int, Gt(0)] = 16
    """Size of the code of an image."""


class ToyAE(Model):
    """An encoder and a decoder, each of two dense layers (Hinton & Salakhutdinov 2006).

    Raises:
        ValueError: when the code is not smaller than the images.
    """

    family = "toyae"
    Architecture = ToyAEArchitecture
    operations: ClassVar[Mapping[str, type]] = {"reconstruct": NoOptions}
    architecture: ToyAEArchitecture

    def __init__(self, image_shape: Shape, architecture: ToyAEArchitecture) -> None:
        super().__init__(image_shape, architecture)
        values, code = math.prod(image_shape), architecture.latent_dim
        if code >= values:
            raise ValueError(f"model.latent_dim = {code}: an image has {values} values, and a code must have fewer")
        height, width, channels = image_shape
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(values, architecture.hidden), nn.ReLU(), nn.Linear(architecture.hidden, code)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, architecture.hidden),
            nn.ReLU(),
            nn.Linear(architecture.hidden, values),
            nn.Sigmoid(),
            nn.Unflatten(1, (channels, height, width)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encode and decode float [N, C, H, W] in [0, 1]: the same shape and range."""
        decoded: Tensor = self.decoder(self.encoder(images))
        return decoded

    @torch.inference_mode()
    def reconstruct(self, pixels: Tensor, label: Tensor | None = None, options: Any = None) -> Tensor:
        """Encode and decode uint8 [N, H, W, C]: the same shape."""
        return from_unit(self(to_unit(pixels.to(self.device))))


MODEL = ToyAE
