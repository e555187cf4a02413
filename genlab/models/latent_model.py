"""Models with a Gaussian latent variable (Kingma & Welling 2014, ICLR): what the VAE and the conditional VAE share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import count as numbers
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from genlab.models.graph import Graph, TensorSpec
from genlab.models.model import InterpolationOptions, NoOptions, Sampler, Shape
from genlab.models.noise import Noise
from genlab.models.pixels import from_unit, to_unit

Likelihood = Literal["bernoulli", "binary", "gaussian"]
"""The distribution p(x|z) of pixels x in [0, 1], whose mean is sigmoid(logits). ``bernoulli``: grey levels count as
probabilities, as in the Keras example of a VAE. ``binary``: Bernoulli over black and white pixels, which
are drawn anew each time, white with the probability of the grey level (Salakhutdinov & Murray 2008), so that −log p(x)
can be compared with the literature. ``gaussian``: normal, for colour, with one learned σ for all pixels (the σ-VAE of
Rybkin et al. 2021)."""

INITIAL_SIGMA = 0.1
"""Value of σ before training, on the scale [0, 1] of pixels."""

NO_OPTIONS, INTERPOLATION = NoOptions(), InterpolationOptions()


class LatentArchitecture(Protocol):
    """The architecture values that every latent model has."""

    @property
    def latent_dim(self) -> int: ...  # noqa: D102

    @property
    def likelihood(self) -> Likelihood: ...  # noqa: D102


class LatentModel(Sampler, ABC):
    """An encoder q(z|x, y) and a decoder p(x|z, y), with the prior N(0, I); y is the class, where there is one.

    A subclass sets ``encoder`` and ``decoder``, and then calls :meth:`initialise`.

    Attributes:
        log_sigma: log σ of a Gaussian likelihood, a scalar; ``None`` for the others.
    """

    operations: ClassVar[Mapping[str, type]] = {
        "sample": NoOptions,
        "reconstruct": NoOptions,
        "interpolate": InterpolationOptions,
        "interpolate_draws": InterpolationOptions,
        "decode": NoOptions,
        "encode": NoOptions,
    }
    architecture: Any
    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, image_shape: Shape, architecture: LatentArchitecture) -> None:
        super().__init__(image_shape, architecture)
        self.log_sigma = (
            nn.Parameter(torch.tensor(math.log(INITIAL_SIGMA))) if architecture.likelihood == "gaussian" else None
        )

    @abstractmethod
    def infer(self, images: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Infer mean and log-variance of the posterior q(z|x, y), [N, latent_dim] each.

        Args:
            images: x, float [N, C, H, W] in [0, 1].
            label: y, int64 [N]; ``None`` for a model without classes.
        """

    @abstractmethod
    def generate(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """Return the logits of p(x|z, y), [N, C, H, W].

        Args:
            latents: z, float [N, latent_dim].
            label: y, int64 [N]; ``None`` for a model without classes.
        """

    def initialise(self) -> None:
        """Draw the weights as Keras does: Glorot uniform (Glorot & Bengio 2010), biases zero.

        The loss that training reaches depends on this choice. The weights lie channels last in memory, as the pixels
        do: that is a fifth faster in fp32 on a CPU, and avoids slow paths in bf16.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)

    def observe(self, pixels: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Turn pixels into the observed variable x, which the encoder takes and p(x|z) is the distribution of.

        Args:
            pixels: uint8 [N, H, W, C], on any device.
            uniform: random numbers in [0, 1), of the shape of ``pixels``, by which the black and white pixels of a
                ``binary`` likelihood are drawn; without them, pixels above one half are white.

        Returns:
            float [N, C, H, W] in [0, 1].
        """
        images = to_unit(pixels)
        if self.architecture.likelihood != "binary":
            return images
        threshold = 0.5 if uniform is None else uniform.permute(0, 3, 1, 2)
        return (images > threshold).to(images.dtype)

    @torch.inference_mode()
    def encode(
        self, pixels: Tensor, label: Tensor | None = None, options: NoOptions = NO_OPTIONS
    ) -> tuple[Tensor, Tensor]:
        """Encode uint8 [N, H, W, C]: mean and log-variance of q(z|x), float32 [N, latent_dim] each."""
        return self.infer(self.observe(pixels.to(self.device)), self._on_device(label))

    @torch.inference_mode()
    def decode(self, z: Tensor, label: Tensor | None = None, options: NoOptions = NO_OPTIONS) -> Tensor:
        """Decode z, float [N, latent_dim], into the means of p(x|z), uint8 [N, H, W, C]."""
        return self.decode_traceable(z.to(self.device), self._on_device(label))

    def decode_traceable(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """Decode as :meth:`decode` does, from tensors on the model's device and outside inference mode, for tracing."""
        return from_unit(self.generate(latents, label).float().sigmoid())

    def draw_latents(self, noise: Noise) -> Tensor:
        """Draw the latent vectors of pictures from the prior N(0, I): float32 [len(noise), latent_dim]."""
        return noise.normal("z", self.architecture.latent_dim)

    def draw(self, noise: Noise, label: Tensor | None, options: NoOptions) -> Tensor:
        """Decode draws from the prior, see :meth:`Sampler.draw`."""
        return self.decode(self.draw_latents(noise), label)

    def reconstruct(self, pixels: Tensor, label: Tensor | None = None, options: NoOptions = NO_OPTIONS) -> Tensor:
        """Decode the posterior means of uint8 [N, H, W, C] into images of the same shape."""
        return self.decode(self.encode(pixels, label)[0], label)

    def interpolate(
        self, pixels: Tensor, label: Tensor | None = None, options: InterpolationOptions = INTERPOLATION
    ) -> Tensor:
        """Decode the straight line between the posterior means of two images.

        Args:
            pixels: uint8 [2, H, W, C].
            label: classes of the two images, int64 [2], for a model with classes; the line has the first class.
            options: the number of images on the line, the reconstructions of both ends included.

        Returns:
            uint8 [steps, H, W, C].
        """
        begin, end = self.encode(pixels, label)[0]
        share = _fractions(options.steps).to(begin.device)
        return self.decode(torch.lerp(begin, end, share), _expanded(label, options.steps))

    def interpolate_draws(
        self, seeds: tuple[int, int], label: Tensor | None = None, options: InterpolationOptions = INTERPOLATION
    ) -> Tensor:
        """Decode a line between two draws from the prior, each point of which is distributed as the prior.

        A point (1 - t) z₁ + t z₂ between two draws is nearer to the origin than draws are, the more so the larger the
        latent size. Division by sqrt((1 - t)² + t²) gives it the distribution N(0, I) again (Agustsson et al. 2019).

        Args:
            seeds: seeds of the two ends, which are the images that ``sample(1, seed)`` gives.
            label: classes, int64 [2], for a model with classes; the line has the first.
            options: the number of images on the line, both ends included.

        Returns:
            uint8 [steps, H, W, C].
        """
        begin, end = (self.draw_latents(Noise(seed, range(1))) for seed in seeds)
        share = _fractions(options.steps)
        line = torch.lerp(begin, end, share) / (share**2 + (1 - share) ** 2).sqrt()
        return self.decode(line, _expanded(label, options.steps))

    def graphs(self) -> dict[str, Graph]:
        """Return the graphs ``encoder``, pixels to mean and log-variance, and ``decoder``, z to pixels.

        Both take the class as well, for a model with classes.
        """
        pixels = TensorSpec(torch.uint8, ("N", *self.image_shape))
        latents = TensorSpec(torch.float32, ("N", self.architecture.latent_dim))
        label = {"label": TensorSpec(torch.int64, ("N",), self.classes)} if self.classes else {}
        fixed = {*self.image_shape, self.architecture.latent_dim}
        sizes = {"N": (next(size for size in numbers(2) if size not in fixed), 1)}
        return {
            "encoder": Graph(
                _EncoderGraph(self), {"pixels": pixels, **label}, {"mean": latents, "log_variance": latents}, sizes
            ),
            "decoder": Graph(_DecoderGraph(self), {"z": latents, **label}, {"pixels": pixels}, sizes),
        }

    def networks(self) -> dict[str, Graph]:
        """Return encoder and decoder, which take nearly all of the time."""
        height, width, channels = self.image_shape
        images = TensorSpec(torch.float32, ("N", channels, height, width))
        latents = TensorSpec(torch.float32, ("N", self.architecture.latent_dim))
        label = {"label": TensorSpec(torch.int64, ("N",), self.classes)} if self.classes else {}
        sizes = self.graphs()["decoder"].sizes
        return {
            "encoder": Graph(
                self.encoder, {"images": images, **label}, {"mean": latents, "log_variance": latents}, sizes
            ),
            "decoder": Graph(self.decoder, {"latents": latents, **label}, {"logits": images}, sizes),
        }

    def _on_device(self, label: Tensor | None) -> Tensor | None:
        return None if label is None else label.to(self.device)


class _EncoderGraph(nn.Module):
    """The encoder with only its own weights, for export: uint8 [N, H, W, C] and int64 [N] to mean and log-variance."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.encoder = model.encoder
        self._observe, self._infer = model.observe, model.infer  # methods, so the decoder's weights stay out

    def forward(self, pixels: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._infer(self._observe(pixels), label)


class _DecoderGraph(nn.Module):
    """The decoder with only its own weights, for export: [N, latent_dim] and int64 [N] to uint8 [N, H, W, C]."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.decoder = model.decoder
        self._decode = model.decode_traceable  # a method, so the encoder's weights stay out

    def forward(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        return self._decode(latents, label)


def _expanded(label: Tensor | None, count: int) -> Tensor | None:
    """Repeat the first class of a line for each of its images: int64 [count]."""
    return None if label is None else label[:1].expand(count)


def _fractions(steps: int) -> Tensor:
    """Return ``steps`` equally spaced positions along a line, [steps, 1] from 0 to 1."""
    return torch.linspace(0, 1, steps)[:, None]
