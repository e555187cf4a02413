"""Generators with a space of styles between latent vectors and images (Karras et al. 2019, CVPR, arXiv:1812.04948)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.model import Sampler
from genlab.models.noise import Noise


class StyleModel(Sampler, ABC):
    """A model that draws images of z, normal noise, by way of a style w: image = synthesis(mapping(z), noise)."""

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """Size of z."""

    @abstractmethod
    def map_latents(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """Map latent vectors to styles, without truncation.

        Args:
            latents: z, float [N, latent_dim].
            label: class of each, int64 [N], for a conditional model; else ``None``.

        Returns:
            w, float [N, D] of any D.
        """

    @abstractmethod
    def synthesise(self, w: Tensor, noise: Noise | None) -> Tensor:
        """Draw an image of each style.

        Args:
            w: styles, float [N, D].
            noise: random numbers for what differs between images of one style, of N pictures; ``None`` for none.

        Returns:
            float [N, C, H, W], black at -1 and white at 1, not clipped.
        """

    def style_layers(self) -> Mapping[str, nn.Module]:
        """Return the layers that make the styles of other layers of w, by name: affine, from [N, D] to [N, S] of any S.

        Their outputs together are the model's StyleSpace (Wu et al. 2021, CVPR, arXiv:2011.12799). By default none.
        """
        return {}


def spherical_interpolation(begin: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Interpolate between vectors along a great circle, and between their lengths linearly (Shoemake 1985).

    Args:
        begin: float [N, D], none of them zero.
        end: float [N, D].
        share: of the way, 0..1, [M, 1]; N must be M or 1.

    Returns:
        float [M, D].
    """
    length = begin.norm(dim=1, keepdim=True)
    one, two = F.normalize(begin), F.normalize(end)
    cosine = (one * two).sum(1, keepdim=True).clamp(-1, 1)
    direction, angle = F.normalize(two - cosine * one), cosine.acos() * share
    length = length + share * (end.norm(dim=1, keepdim=True) - length)
    return (one * angle.cos() + direction * angle.sin()) * length
