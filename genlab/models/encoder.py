"""The encoder of a StyleGAN: from pictures to the styles by which the generator draws them again.

Its convolutions are those of StyleGAN2's discriminator (Karras et al. 2020, CVPR, arXiv:1912.04958); as in Richardson
et al. 2021 (CVPR, arXiv:2008.00951) it gives each place of the generator a style of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from genlab.models.equalized import ROOT_2, SLOPE, EqualizedConv2d, EqualizedLinear
from genlab.models.model import Model, NoOptions, Shape, images_per_pass
from genlab.models.pixels import to_signed
from genlab.models.precision import without_autocast
from genlab.models.stylegan import Channels, StyleGAN, require_square_power_of_two, resolutions
from genlab.models.stylegan_discriminator import Block

HASH_BYTES = 32
"""Bytes of a SHA-256."""


@dataclass(frozen=True)
class EncoderNetworks(Channels):
    """Architecture of the encoder, but for what the generator says."""

    features: Annotated[int, Ge(1)] = 512
    """Width of the dense layer before the styles."""


@dataclass(frozen=True)
class EncoderArchitecture(EncoderNetworks):
    """Architecture of the encoder."""

    places: Annotated[int, Ge(1)] = 1
    """Places of the generator where styles come in."""
    style_dim: Annotated[int, Ge(1)] = 1
    """Size of w."""


class Encoder(Model):
    """Residual blocks that halve the picture down to 4x4, a dense layer, and one to a style for each place.

    Attributes:
        mean: mean of the generator's w, float [style_dim].
        scale: their standard deviation, float [style_dim]; the networks give ``(w - mean) / scale``.
        generator_hash: SHA-256 of the generator's weights, uint8 [32].

    Raises:
        ValueError: pictures that no StyleGAN draws.
    """

    family = "encoder"
    Architecture = EncoderArchitecture
    operations: ClassVar[Mapping[str, type]] = {"encode": NoOptions}
    architecture: EncoderArchitecture
    mean: Tensor
    scale: Tensor
    generator_hash: Tensor

    def __init__(self, image_shape: Shape, architecture: EncoderArchitecture) -> None:
        require_square_power_of_two(image_shape)
        super().__init__(image_shape, architecture)
        sizes = list(reversed(resolutions(image_shape[0])))
        self.from_colours = EqualizedConv2d(image_shape[2], architecture.at(sizes[0]), 1, gain=ROOT_2)
        self.blocks = nn.Sequential(
            *(
                Block(architecture.at(size), architecture.at(size // 2), residual=True, resampling="bilinear")
                for size in sizes[:-1]
            )
        )
        self.dense = EqualizedLinear(architecture.at(4) * 16, architecture.features, gain=ROOT_2)
        self.head = EqualizedLinear(architecture.features, architecture.places * architecture.style_dim)
        self.register_buffer("mean", torch.zeros(architecture.style_dim))
        self.register_buffer("scale", torch.ones(architecture.style_dim))
        self.register_buffer("generator_hash", torch.zeros(HASH_BYTES, dtype=torch.uint8))

    @classmethod
    def of(cls, generator: StyleGAN, weights: str, networks: EncoderNetworks) -> "Encoder":
        """Return a new encoder for a generator.

        Args:
            generator: the generator.
            weights: SHA-256 of its weights, in hexadecimal digits.
            networks: architecture of the encoder.
        """
        architecture = EncoderArchitecture(
            networks.channel_base,
            networks.channel_max,
            networks.features,
            places=generator.synthesis.styles,
            style_dim=generator.style_dim,
        )
        encoder = cls(generator.image_shape, architecture)
        mean, scale = generator.style_statistics()
        encoder.mean.copy_(mean)
        encoder.scale.copy_(scale)
        encoder.generator_hash.copy_(torch.tensor(list(bytes.fromhex(weights)), dtype=torch.uint8))
        return encoder

    @property
    def generator_weights(self) -> str:
        """Return the SHA-256 of the weights of the generator whose styles it gives, in hexadecimal digits."""
        return bytes(self.generator_hash.tolist()).hex()

    def forward(self, images: Tensor) -> Tensor:
        """Encode float [N, C, H, W] in [-1, 1]: w+, float [N, places, style_dim], in full precision."""
        features = F.leaky_relu(self.from_colours(images), SLOPE)
        features = self.blocks(features)
        with without_autocast(images.device):
            features = F.leaky_relu(self.dense(features.to(images.dtype).flatten(1)), SLOPE)
            offsets: Tensor = self.head(features)
            offsets = offsets.unflatten(1, (self.architecture.places, self.architecture.style_dim))
            return self.mean + self.scale * offsets

    def normalised(self, w: Tensor) -> Tensor:
        """Return (w - mean) / scale of float [..., style_dim]: how unusual styles are, in standard deviations."""
        return (w - self.mean) / self.scale

    @torch.inference_mode()
    def styles(self, pixels: Tensor) -> Tensor:
        """Return w+ of pictures, float32 [N, places, style_dim], of uint8 [N, H, W, C]."""
        parts = pixels.to(self.device).split(images_per_pass(self.image_shape))
        return torch.cat([self(to_signed(part)) for part in parts])

    def encode(self, pixels: Tensor, label: Tensor | None, options: NoOptions) -> tuple[Tensor, Tensor]:
        """Return w+ of pictures as vectors, the places one after the other: float32 [N, places * style_dim].

        Args:
            pixels: uint8 [N, H, W, C].
            label: ``None``.
            options: none.

        Returns:
            The vectors, and minus infinity for each of their numbers: the logarithm of no variance.
        """
        vectors = self.styles(pixels).flatten(1)
        return vectors, torch.full_like(vectors, -torch.inf)


MODEL = Encoder
