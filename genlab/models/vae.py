"""The variational autoencoder (Kingma & Welling 2013) of the course report, after the Keras example.

At 28x28x1 and latent size 2 the encoder has 69,076 parameters and the decoder 65,089.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, MinLen
from torch import Tensor, nn

from genlab.models.model import Sampler, Shape
from genlab.models.pixels import from_unit, to_unit


@dataclass(frozen=True)
class VAEArchitecture:
    """Shape of the VAE's networks."""

    latent_dim: Annotated[int, Gt(0)] = 2
    """Size of the latent vector z."""
    channels: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (32, 64)
    """Channels of the encoder's stride-2 convolutions; the decoder mirrors them. Each halves the image."""
    hidden: Annotated[int, Gt(0)] = 16
    """Width of the dense layer before mean and log-variance."""


class Encoder(nn.Module):
    """q(z|x): stride-2 3x3 convolutions, a dense layer, then mean and log-variance. ReLU throughout."""

    def __init__(self, image_shape: Shape, architecture: VAEArchitecture) -> None:
        super().__init__()
        height, width, channels = image_shape
        layers: list[nn.Module] = []
        for out in architecture.channels:
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.ReLU()]
            channels = out
        features = channels * (height >> len(architecture.channels)) * (width >> len(architecture.channels))
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, architecture.hidden), nn.ReLU())
        self.mean = nn.Linear(architecture.hidden, architecture.latent_dim)
        self.log_variance = nn.Linear(architecture.hidden, architecture.latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Float [N, C, H, W] in [0, 1] → mean and log-variance of q(z|x), each [N, latent_dim]."""
        features = self.features(images)
        return self.mean(features), self.log_variance(features)


class Decoder(nn.Module):
    """p(x|z): a dense layer, then transposed 3x3 convolutions up to the image. Returns logits."""

    def __init__(self, image_shape: Shape, architecture: VAEArchitecture) -> None:
        super().__init__()
        height, width, channels = image_shape
        scale = len(architecture.channels)
        wide = architecture.channels[-1]
        self.start = (wide, height >> scale, width >> scale)
        self.dense = nn.Sequential(nn.Linear(architecture.latent_dim, math.prod(self.start)), nn.ReLU())
        layers: list[nn.Module] = []
        for out in reversed(architecture.channels):
            layers += [nn.ConvTranspose2d(wide, out, 3, stride=2, padding=1, output_padding=1), nn.ReLU()]
            wide = out
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(wide, channels, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """[N, latent_dim] → logits [N, C, H, W]; the sigmoid is in the loss and the operations."""
        logits: Tensor = self.layers(self.dense(latents).unflatten(1, self.start))
        return logits


class VAE(Sampler):
    """Encoder and decoder, initialised as Keras does (Glorot uniform, zero bias): that decides its figure.

    Raises:
        ValueError: when the image cannot be halved once per encoder layer.
    """

    family = "vae"
    Architecture = VAEArchitecture
    operations = ("sample", "reconstruct")
    architecture: VAEArchitecture

    def __init__(self, image_shape: Shape, architecture: VAEArchitecture) -> None:
        super().__init__(image_shape, architecture)
        height, width, _ = image_shape
        factor = 2 ** len(architecture.channels)
        if height % factor or width % factor:
            raise ValueError(
                f"{height}x{width} images cannot be halved {len(architecture.channels)} times (model.channels has that "
                f"many layers); use sizes divisible by {factor}, or fewer channels"
            )
        self.encoder = Encoder(image_shape, architecture)
        self.decoder = Decoder(image_shape, architecture)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, H, W, C] → mean and log-variance of q(z|x), float32 [N, latent_dim] each."""
        mean, log_variance = self.encoder(to_unit(pixels.to(self.device)))
        return mean, log_variance

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Float [N, latent_dim] → mean image of p(x|z), uint8 [N, H, W, C]."""
        return from_unit(self.decoder(latents.to(self.device)).float().sigmoid())

    def sample(self, count: int, seed: int) -> Tensor:
        """Decode ``count`` draws from the prior N(0, I): uint8 [count, H, W, C]."""
        generator = torch.Generator().manual_seed(seed)
        return self.decode(torch.randn(count, self.architecture.latent_dim, generator=generator))

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Decode the posterior means of uint8 [N, H, W, C]: the same shape."""
        return self.decode(self.encode(pixels)[0])


MODEL = VAE
