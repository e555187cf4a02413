"""The conditional variational autoencoder (CVAE; Sohn et al. 2015, NeurIPS) with convolutions.

At 28x28x1, latent size 2 and 10 classes it has 339,998 parameters. The encoder takes the class as one more channel,
which holds the class number, scaled to [0, 1], at every pixel; the decoder takes it one-hot, beside the latent vector.
ReLU follows every layer but the outputs and the last but one of the decoder, whose single channel it would cut off
where an image is dark. Weights begin as those of the VAE.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn

from genlab.models.cpu import ConvTranspose2d, Linear
from genlab.models.latent_model import LatentModel, Likelihood
from genlab.models.model import Shape

KERNEL, STRIDE = 5, 2


@dataclass(frozen=True)
class CVAEArchitecture:
    """Architecture of the conditional VAE's networks."""

    latent_dim: Annotated[int, Gt(0)] = 2
    """Size of the latent vector z."""
    channels: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (16, 32)
    """Channels of the encoder's unpadded 5x5 convolutions of stride 2; the decoder mirrors them."""
    hidden: Annotated[int, Gt(0)] = 300
    """Width of the dense layers before mean and log-variance, and after latent vector and label."""
    classes: Annotated[int, Ge(0)] = 0
    """Number of classes; 0 takes as many as the data set has."""
    likelihood: Likelihood = "bernoulli"
    """p(x|z): bernoulli (grey levels as probabilities), binary (black and white, drawn anew each time), or gaussian
    (for colour; one sigma is learned)."""


class Encoder(nn.Module):
    """The posterior q(z|x, y): convolutions over image and label plane, a dense layer, then mean and log-variance."""

    def __init__(self, image_shape: Shape, architecture: CVAEArchitecture) -> None:
        super().__init__()
        self.classes = architecture.classes
        channels = image_shape[2] + 1
        layers: list[nn.Module] = []
        for out in architecture.channels:
            layers += [nn.Conv2d(channels, out, KERNEL, STRIDE), nn.ReLU()]
            channels = out
        features = channels * math.prod(_convolved_size(image_shape, len(architecture.channels)))
        self.features = nn.Sequential(*layers, nn.Flatten(), Linear(features, architecture.hidden), nn.ReLU())
        self.mean = Linear(architecture.hidden, architecture.latent_dim)
        self.log_variance = Linear(architecture.hidden, architecture.latent_dim)

    def forward(self, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Infer mean and log-variance of q(z|x, y), each [N, latent_dim].

        Args:
            images: float [N, C, H, W] in [0, 1].
            label: class numbers, int64 [N].
        """
        level = label.to(images.dtype) / max(1, self.classes - 1)
        plane = level[:, None, None, None].expand(-1, 1, *images.shape[2:])
        features = self.features(torch.cat([images, plane], dim=1))
        return self.mean(features), self.log_variance(features)


class Decoder(nn.Module):
    """The likelihood p(x|z, y): dense layers, transposed 5x5 convolutions of stride 2, one that restores the size."""

    def __init__(self, image_shape: Shape, architecture: CVAEArchitecture) -> None:
        super().__init__()
        height, width, channels = image_shape
        self.classes = architecture.classes
        low = _convolved_size(image_shape, len(architecture.channels))
        wide = architecture.channels[-1]
        self.start = (wide, *low)
        self.dense = nn.Sequential(
            Linear(architecture.latent_dim + architecture.classes, architecture.hidden),
            nn.ReLU(),
            Linear(architecture.hidden, math.prod(self.start)),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        for out in (*reversed(architecture.channels[:-1]), channels):
            layers += [ConvTranspose2d(wide, out, KERNEL, STRIDE), nn.ReLU()]
            wide = out
        # Unpadded convolutions drop up to 3 pixels at an edge, which this last layer restores.
        reached = [_transposed_side(side, len(architecture.channels)) for side in low]
        kernel = (height - reached[0] + 1, width - reached[1] + 1)
        self.layers = nn.Sequential(*layers[:-1], ConvTranspose2d(channels, channels, kernel))

    def forward(self, latents: Tensor, label: Tensor) -> Tensor:
        """Decode latent vectors [N, latent_dim] and class numbers int64 [N] into logits [N, C, H, W]."""
        one_hot = F.one_hot(label, self.classes).to(latents.dtype)
        features = self.dense(torch.cat([latents, one_hot], dim=1))
        logits: Tensor = self.layers(features.unflatten(1, self.start))
        return logits


class CVAE(LatentModel):
    """The conditional VAE: an encoder and a decoder that are given the class.

    Raises:
        ValueError: when there are no classes, or the image is too small for the encoder's convolutions.
    """

    family = "cvae"
    conditional = True
    Architecture = CVAEArchitecture
    architecture: CVAEArchitecture
    encoder: Encoder
    decoder: Decoder

    def __init__(self, image_shape: Shape, architecture: CVAEArchitecture) -> None:
        super().__init__(image_shape, architecture)
        if architecture.classes < 1:
            raise ValueError("a conditional VAE needs labelled images; ingest with labels, or use the family vae")
        if min(_convolved_size(image_shape, len(architecture.channels))) < 1:
            least = _transposed_side(1, len(architecture.channels))
            raise ValueError(
                f"{image_shape[0]}x{image_shape[1]} images are too small for {len(architecture.channels)} unpadded "
                f"convolutions (model.channels has that many); use images of {least} pixels or more, or fewer channels"
            )
        self.encoder = Encoder(image_shape, architecture)
        self.decoder = Decoder(image_shape, architecture)
        self.initialise()

    def infer(self, images: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Infer q(z|x, y), see :meth:`LatentModel.infer`."""
        mean, log_variance = self.encoder(images, _required(label))
        return mean, log_variance

    def generate(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """Decode p(x|z, y), see :meth:`LatentModel.generate`."""
        logits: Tensor = self.decoder(latents, _required(label))
        return logits


def _required(label: Tensor | None) -> Tensor:
    if label is None:
        raise ValueError("a conditional VAE needs the class of each image")
    return label


def _convolved_size(image_shape: Shape, layers: int) -> tuple[int, int]:
    """Return height and width after ``layers`` unpadded convolutions; 0 or less when they do not fit."""
    height, width, _ = image_shape
    for _ in range(layers):
        height, width = ((side - KERNEL) // STRIDE + 1 for side in (height, width))
    return height, width


def _transposed_side(side: int, layers: int) -> int:
    """Return the side that ``layers`` transposed convolutions make of ``side``."""
    for _ in range(layers):
        side = (side - 1) * STRIDE + KERNEL
    return side


MODEL = CVAE
