"""Models with a Gaussian latent (Kingma & Welling 2013): what the VAE and the conditional VAE share."""

import math
from abc import ABC, abstractmethod
from itertools import count as numbers
from itertools import repeat
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from genlab.models.graph import Graph, TensorSpec
from genlab.models.model import Sampler, Shape
from genlab.models.pixels import from_unit, to_unit

Likelihood = Literal["bernoulli", "binary", "gaussian"]
"""p(x|z) of pixels x in [0, 1] with mean sigmoid(logits). ``bernoulli``: grey levels taken for probabilities, as in the
course report and the Keras example. ``binary``: Bernoulli over pixels that are drawn black or white anew each time,
white with the probability of the grey level (Salakhutdinov & Murray 2008), so that −log p(x) can be compared with the
literature. ``gaussian``: normal, with one learned σ for all pixels (Rybkin et al. 2021, σ-VAE), for colour."""

INITIAL_SIGMA = 0.1
"""σ of an untrained Gaussian likelihood, in the range [0, 1] of pixels."""

DECODE_BATCH = 1024
"""Samples decoded at a time, to bound the memory."""


class LatentArchitecture(Protocol):
    """What every such model's architecture says."""

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

    operations: ClassVar[tuple[str, ...]] = ("sample", "reconstruct", "interpolate", "interpolate_draws")
    architecture: Any
    encoder: nn.Module
    decoder: nn.Module
    classes: int = 0
    """Number of classes the model is conditioned on; 0 for none."""

    def __init__(self, image_shape: Shape, architecture: LatentArchitecture) -> None:
        super().__init__(image_shape, architecture)
        self.log_sigma = (
            nn.Parameter(torch.tensor(math.log(INITIAL_SIGMA))) if architecture.likelihood == "gaussian" else None
        )

    @abstractmethod
    def infer(self, images: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """q(z|x, y): float [N, C, H, W] in [0, 1] and int64 [N] → mean and log-variance, [N, latent_dim] each."""

    @abstractmethod
    def generate(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """p(x|z, y): [N, latent_dim] and int64 [N] → logits [N, C, H, W]."""

    def initialise(self) -> None:
        """Draw the weights as Keras does (Glorot uniform, zero bias): that decides the report's figure.

        They lie channels last, as the pixels do: a fifth faster in fp32 on a CPU, and clear of its slow paths in bf16.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)

    def observe(self, pixels: Tensor, uniform: Tensor | None = None) -> Tensor:
        """What the encoder sees and the likelihood is of: uint8 [N, H, W, C] → float [N, C, H, W] in [0, 1].

        Args:
            pixels: on any device.
            uniform: of the shape of ``pixels``, in [0, 1): what black-and-white pixels are drawn by; they are cut at
                one half without. Used for a ``binary`` likelihood only.
        """
        images = to_unit(pixels)
        if self.architecture.likelihood != "binary":
            return images
        threshold = 0.5 if uniform is None else uniform.permute(0, 3, 1, 2)
        return (images > threshold).to(images.dtype)

    @torch.inference_mode()
    def encode(self, pixels: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """uint8 [N, H, W, C] → mean and log-variance of q(z|x), float32 [N, latent_dim] each."""
        return self.infer(self.observe(pixels.to(self.device)), self._on_device(label))

    @torch.inference_mode()
    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """Float [N, latent_dim] → mean image of p(x|z), uint8 [N, H, W, C]."""
        return self.decode_traceable(latents.to(self.device), self._on_device(label))

    def decode_traceable(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """What :meth:`decode` does, on the device where the weights are, and open to be traced."""
        return from_unit(self.generate(latents, label).float().sigmoid())

    def draw_latents(self, count: int, seed: int) -> Tensor:
        """Draws from the prior N(0, I): float32 [count, latent_dim], on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.architecture.latent_dim, generator=generator)

    def sample(self, count: int, seed: int, label: Tensor | None = None) -> Tensor:
        """Decode ``count`` draws from the prior: uint8 [count, H, W, C].

        Args:
            count: how many.
            seed: of the draws.
            label: int64 [count], the class of each where the model has classes; the classes in turn by default.
        """
        if label is None and self.classes:
            label = torch.arange(count) % self.classes
        labels = repeat(None) if label is None else label.split(DECODE_BATCH)
        parts = zip(self.draw_latents(count, seed).split(DECODE_BATCH), labels, strict=False)
        return torch.cat([self.decode(latents, classes) for latents, classes in parts])

    def reconstruct(self, pixels: Tensor, label: Tensor | None = None) -> Tensor:
        """Decode the posterior means of uint8 [N, H, W, C]: the same shape."""
        return self.decode(self.encode(pixels, label)[0], label)

    def interpolate(self, pixels: Tensor, steps: int, label: Tensor | None = None) -> Tensor:
        """Decode the straight line between the posterior means of two images.

        Args:
            pixels: uint8 [2, H, W, C].
            steps: images on the line, the reconstructions of both ends included; at least 2.
            label: int64 [2], where the model has classes; the line keeps to the first's.

        Returns:
            uint8 [steps, H, W, C].
        """
        begin, end = self.encode(pixels, label)[0]
        share = _fractions(steps).to(begin.device)
        return self.decode(torch.lerp(begin, end, share), None if label is None else label[:1].expand(steps))

    def interpolate_draws(self, seeds: tuple[int, int], steps: int, label: Tensor | None = None) -> Tensor:
        """Decode the line between two draws from the prior, kept to where the prior has its mass.

        A point between two draws is nearer to the origin than draws are, the more so the larger the latent size. Its
        division by sqrt((1-t)² + t²) makes it a draw from N(0, I) again (Agustsson et al. 2019).

        Args:
            seeds: of the ends, which are the images that ``sample(1, seed)`` gives.
            steps: images on the line, both ends included; at least 2.
            label: int64 [2], where the model has classes; the line keeps to the first's.

        Returns:
            uint8 [steps, H, W, C].
        """
        begin, end = (self.draw_latents(1, seed) for seed in seeds)
        share = _fractions(steps)
        line = torch.lerp(begin, end, share) / (share**2 + (1 - share) ** 2).sqrt()
        return self.decode(line, None if label is None else label[:1].expand(steps))

    def graphs(self) -> dict[str, Graph]:
        """``encoder``: pixels → mean and log-variance; ``decoder``: z → pixels; both with the class, where there is
        one."""
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

    def _on_device(self, label: Tensor | None) -> Tensor | None:
        return None if label is None else label.to(self.device)


class _EncoderGraph(nn.Module):
    """uint8 [N, H, W, C] and int64 [N] → mean and log-variance, of the encoder's weights alone."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.encoder = model.encoder
        self._observe, self._infer = model.observe, model.infer  # methods, so the decoder's weights stay out

    def forward(self, pixels: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._infer(self._observe(pixels), label)


class _DecoderGraph(nn.Module):
    """[N, latent_dim] and int64 [N] → uint8 [N, H, W, C], of the decoder's weights alone."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.decoder = model.decoder
        self._decode = model.decode_traceable  # a method, so the encoder's weights stay out

    def forward(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        return self._decode(latents, label)


def _fractions(steps: int) -> Tensor:
    """How far along a line each of its points is: [steps, 1] in [0, 1]."""
    return torch.linspace(0, 1, steps)[:, None]
