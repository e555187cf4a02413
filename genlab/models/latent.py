"""Models with a Gaussian latent (Kingma & Welling 2013): what the VAE and the conditional VAE share."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from genlab.models.model import Sampler, Shape
from genlab.models.pixels import from_unit, to_unit

Likelihood = Literal["bernoulli", "binary", "gaussian"]
"""p(x|z) of pixels x in [0, 1] with mean sigmoid(logits). ``bernoulli``: grey levels taken for probabilities, as in the
course report and the Keras example. ``binary``: Bernoulli over pixels that are drawn black or white anew each time,
white with the probability of the grey level (Salakhutdinov & Murray 2008), so that −log p(x) can be compared with the
literature. ``gaussian``: normal, with one learned σ for all pixels (Rybkin et al. 2021, σ-VAE), for colour."""

START_SIGMA = 0.1
"""σ of an untrained Gaussian likelihood, in the range [0, 1] of pixels."""


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

    operations: ClassVar[tuple[str, ...]] = ("sample", "reconstruct", "interpolate")
    architecture: Any
    encoder: nn.Module
    decoder: nn.Module
    classes: int = 0
    """Number of classes the model is conditioned on; 0 for none."""

    def __init__(self, image_shape: Shape, architecture: LatentArchitecture) -> None:
        super().__init__(image_shape, architecture)
        self.log_sigma = (
            nn.Parameter(torch.tensor(math.log(START_SIGMA))) if architecture.likelihood == "gaussian" else None
        )

    @abstractmethod
    def infer(self, images: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """q(z|x, y): float [N, C, H, W] in [0, 1] and int64 [N] → mean and log-variance, [N, latent_dim] each."""

    @abstractmethod
    def generate(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """p(x|z, y): [N, latent_dim] and int64 [N] → logits [N, C, H, W]."""

    def initialise(self) -> None:
        """Draw the weights as Keras does (Glorot uniform, zero bias): that decides the report's figure."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

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
        return self.infer(self.observe(pixels.to(self.device)), self._moved(label))

    @torch.inference_mode()
    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """Float [N, latent_dim] → mean image of p(x|z), uint8 [N, H, W, C]."""
        return from_unit(self.generate(latents.to(self.device), self._moved(label)).float().sigmoid())

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
        share = torch.linspace(0, 1, steps, device=begin.device)[:, None]
        return self.decode(torch.lerp(begin, end, share), None if label is None else label[:1].expand(steps))

    def _moved(self, label: Tensor | None) -> Tensor | None:
        return None if label is None else label.to(self.device)
