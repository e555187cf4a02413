"""The variational autoencoder (VAE; Kingma & Welling 2014, ICLR) of the Keras example
(keras.io/examples/generative/vae), with residual blocks as an option.

At 28x28x1 and latent size 2 the encoder has 69,076 parameters and the decoder 65,089.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn

from genlab.models.cpu import ConvTranspose2d, Linear
from genlab.models.latent_model import LatentModel, Likelihood
from genlab.models.model import Shape


@dataclass(frozen=True)
class VAEArchitecture:
    """Architecture of the VAE's networks."""

    latent_dim: Annotated[int, Gt(0)] = 2
    """Size of the latent vector z."""
    channels: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (32, 64)
    """Channels of the encoder's stride-2 convolutions; the decoder mirrors them. Each halves the image."""
    hidden: Annotated[int, Gt(0)] = 16
    """Width of the dense layer before mean and log-variance, and with `blocks` of one after the latent vector."""
    blocks: Annotated[int, Ge(0)] = 0
    """Residual blocks at each size that the stride-2 convolutions lead to, in both networks; 0, the default, is the
    network of the Keras example."""
    likelihood: Likelihood = "bernoulli"
    """p(x|z): bernoulli (grey levels as probabilities), binary (black and white, drawn anew each time), or gaussian
    (for colour; one sigma is learned)."""


class Residual(nn.Module):
    """A residual block, x + conv(SiLU(conv(SiLU(x)))), of 3x3 convolutions (pre-activation: He et al. 2016, ECCV)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Transform [N, channels, H, W] into the same shape."""
        return features + self.second(F.silu(self.first(F.silu(features))))


class Encoder(nn.Module):
    """The posterior q(z|x): 3x3 convolutions of stride 2, a dense layer, then mean and log-variance, all with ReLU."""

    def __init__(self, image_shape: Shape, architecture: VAEArchitecture) -> None:
        super().__init__()
        height, width, channels = image_shape
        layers: list[nn.Module] = []
        for out in architecture.channels:
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.ReLU()]
            layers += [Residual(out) for _ in range(architecture.blocks)]
            channels = out
        features = channels * (height >> len(architecture.channels)) * (width >> len(architecture.channels))
        self.features = nn.Sequential(*layers, nn.Flatten(), Linear(features, architecture.hidden), nn.ReLU())
        self.mean = Linear(architecture.hidden, architecture.latent_dim)
        self.log_variance = Linear(architecture.hidden, architecture.latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Infer mean and log-variance of q(z|x), each [N, latent_dim], of float [N, C, H, W] in [0, 1]."""
        features = self.features(images)
        return self.mean(features), self.log_variance(features)


class Decoder(nn.Module):
    """The likelihood p(x|z): a dense layer, then transposed 3x3 convolutions up to the logits of the image."""

    def __init__(self, image_shape: Shape, architecture: VAEArchitecture) -> None:
        super().__init__()
        height, width, channels = image_shape
        scale = len(architecture.channels)
        wide = architecture.channels[-1]
        self.start = (wide, height >> scale, width >> scale)
        narrow = architecture.latent_dim
        dense: list[nn.Module] = []
        if architecture.blocks:
            dense += [Linear(narrow, architecture.hidden), nn.ReLU()]
            narrow = architecture.hidden
        self.dense = nn.Sequential(*dense, Linear(narrow, math.prod(self.start)), nn.ReLU())
        layers: list[nn.Module] = []
        for out in reversed(architecture.channels):
            layers += [Residual(wide) for _ in range(architecture.blocks)]
            layers += [ConvTranspose2d(wide, out, 3, stride=2, padding=1, output_padding=1), nn.ReLU()]
            wide = out
        self.layers = nn.Sequential(*layers, ConvTranspose2d(wide, channels, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """Decode [N, latent_dim] into logits [N, C, H, W]; the sigmoid is in the loss and the operations."""
        logits: Tensor = self.layers(self.dense(latents).unflatten(1, self.start))
        return logits


class VAE(LatentModel):
    """The VAE: an encoder and a decoder, without classes.

    Raises:
        ValueError: when the image cannot be halved once per encoder layer.
    """

    family = "vae"
    Architecture = VAEArchitecture
    architecture: VAEArchitecture
    encoder: Encoder
    decoder: Decoder

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
        self.initialise()
        for module in self.modules():
            if isinstance(module, Residual):
                nn.init.zeros_(module.second.weight)  # Each block is the identity before training.

    def infer(self, images: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Infer q(z|x), see :meth:`LatentModel.infer`; the label is not used."""
        mean, log_variance = self.encoder(images)
        return mean, log_variance

    def generate(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """Decode p(x|z), see :meth:`LatentModel.generate`; the label is not used."""
        logits: Tensor = self.decoder(latents)
        return logits


MODEL = VAE
