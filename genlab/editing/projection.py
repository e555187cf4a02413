"""Projection: the styles w+, and the noise, by which a StyleGAN draws a given picture again.

An encoder, if there is one, finds first styles; then styles and noise are optimised for each picture, as in StyleGAN2
(Karras et al. 2020, CVPR, arXiv:1912.04958, appendix D), but in W+ and with pixels in the loss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from genlab.core.adam import Adam
from genlab.core.errors import RunError
from genlab.metrics.image import SSIM_WINDOW, perceptual_distance, psnr, ssim
from genlab.metrics.perceptual import PerceptualDistance, training_side
from genlab.models.encoder import Encoder
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed, to_signed
from genlab.models.stylegan import StyleGAN

RAMP_UP, RAMP_DOWN = 0.05, 0.25
"""Share of the steps in which the learning rate rises, and in which it falls, as in the paper."""
BETAS = 0.9, 0.99
"""Decays of Adam's moments."""
SMALLEST_NOISE = 8
"""Side of the smallest noise of the pyramid whose correlations are made small."""


@dataclass(frozen=True)
class ProjectionOptions:
    """Options of a projection."""

    steps: Annotated[int, Ge(0)] = 100
    """Steps of the optimisation; 0 leaves the encoder's styles as they are."""
    learning_rate: Annotated[float, Gt(0)] = 0.1
    """Adam's step size at its highest, in standard deviations of w, and of the noise."""
    pixels: Annotated[float, Ge(0)] = 10.0
    """Weight of the mean squared error of pixels, whose range is -1 to 1."""
    perceptual: Annotated[float, Ge(0)] = 0.2
    """Weight of the perceptual distance, in the layers of EfficientNet-Lite0."""
    prior: Annotated[float, Ge(0)] = 0.02
    """Weight of the mean square of w, in standard deviations from its mean: with a larger one projections are less true
    to the picture and easier to edit."""
    noise: Annotated[float, Ge(0)] = 1000.0
    """Weight of the correlation of neighbours in the noise of the layers, which keeps the picture out of the noise."""


@dataclass(frozen=True)
class Similarity:
    """How near drawn pictures are to the originals, after rounding to 8 bits."""

    psnr: Tensor
    """Peak signal-to-noise ratio in dB, float64 [N], see :func:`genlab.metrics.image.psnr`."""
    ssim: Tensor | None
    """Structural similarity, float64 [N]; ``None`` for pictures smaller than its window of 11 pixels."""
    perceptual: Tensor
    """Perceptual distance at 224x224, float32 [N], see :class:`genlab.metrics.perceptual.PerceptualDistance`."""


@dataclass(frozen=True)
class Projection:
    """Projections of N pictures, on the CPU."""

    styles: Tensor
    """w+: a style for each place of the generator, float32 [N, places, style_dim]."""
    noise: tuple[Tensor, ...]
    """Noise of each layer, float32 [N, 1, S, S]; none for a generator without, and where nothing was optimised."""
    images: Tensor
    """What the generator draws of them, uint8 [N, H, W, C]."""
    similarity: Similarity
    """Of these pictures."""
    encoded: Similarity | None
    """Of what the generator draws of the encoder's styles, without noise; ``None`` without an encoder."""


def project(
    generator: StyleGAN, pictures: Tensor, options: ProjectionOptions | None = None, encoder: Encoder | None = None
) -> Projection:
    """Project pictures. Each is a matter of its own, up to the rounding of the networks.

    Args:
        generator: the generator, without gradients of its weights.
        pictures: uint8 [N, H, W, C], of the generator's shape.
        options: options; by default their defaults.
        encoder: an encoder of the generator, on its device; without one the optimisation begins at the mean of w.
    """
    options = options or ProjectionOptions()
    target = to_signed(pictures.to(generator.device))
    mean, scale = generator.style_statistics()
    encoded = None
    styles = mean.expand(len(target), generator.synthesis.styles, -1)
    if encoder is not None:
        with torch.no_grad():
            styles = encoder(target)
        encoded = _similarity(_draw(generator, styles, ()), pictures)
    noise: Sequence[Tensor] = ()
    if options.steps:
        styles, noise = _optimise(generator, target, (styles - mean) / scale, mean, scale, options)
    images = _draw(generator, styles, noise)
    kept = tuple(layer.cpu() for layer in noise)
    return Projection(styles.cpu(), kept, images, _similarity(images, pictures), encoded)


def require_encoder_of(encoder: Encoder, weights: str, url: str) -> None:
    """Check that an encoder is one of a generator.

    Args:
        encoder: the encoder.
        weights: SHA-256 of the generator's weights.
        url: where the encoder is, for the message.

    Raises:
        RunError: it is of another generator.
    """
    if encoder.generator_weights != weights:
        raise RunError(
            f"{url}: an encoder of another generator, by the SHA-256 of its weights; train one of this model"
        )


def noise_correlation(noise: Sequence[Tensor]) -> Tensor:
    """Return how much neighbours in noise are alike, at the scale of pixels and at coarser ones (appendix D, eq. 5).

    Args:
        noise: noise of layers, float [N, 1, S, S] each.

    Returns:
        float [N], about 0 for independent normal numbers: squared correlations with the next pixel to the right and
        below, summed over the layers and over their halvings down to 8x8.
    """
    found = []
    for layer in noise:
        scaled = layer
        while True:
            found += [(scaled * scaled.roll(1, side)).mean((1, 2, 3)).square() for side in (2, 3)]
            if scaled.shape[2] <= SMALLEST_NOISE:
                break
            scaled = F.avg_pool2d(scaled, 2) * 2  # of unit variance again
    return torch.stack(found).sum(0)


def _optimise(
    generator: StyleGAN, target: Tensor, start: Tensor, mean: Tensor, scale: Tensor, options: ProjectionOptions
) -> tuple[Tensor, list[Tensor]]:
    """Optimise styles, which are ``mean + scale * offsets``, and noise: return them, without gradients."""
    offsets = start.clone().requires_grad_()
    sizes = generator.synthesis.noise_sizes if generator.architecture.noise else []
    drawn = generator.draw_noise(Noise(0, range(1), generator.device)) if sizes else []
    noise = [layer.repeat(len(target), 1, 1, 1).requires_grad_() for layer in drawn]
    distance = _distance(training_side(generator.image_shape[0])) if options.perceptual else None
    with torch.no_grad():
        features = distance.features(target) if distance else []
    optimizer = Adam({"styles": offsets} | {f"noise.{number}": layer for number, layer in enumerate(noise)}, *BETAS)
    for step in range(options.steps):
        optimizer.rate = options.learning_rate * _rate(step, options.steps)
        images = generator.synthesise(mean + scale * offsets, noise or None)
        loss = options.pixels * (images - target).square().mean((1, 2, 3))
        if distance:
            loss = loss + options.perceptual * perceptual_distance(distance.features(images), features)
        loss = loss + options.prior * offsets.square().mean((1, 2))
        if noise:
            loss = loss + options.noise * noise_correlation(noise)
        moving = (offsets, *noise)
        for tensor, gradient in zip(moving, torch.autograd.grad(loss.sum(), moving), strict=True):
            tensor.grad = gradient
        optimizer.step()
        with torch.no_grad():
            for layer in noise:
                layer.sub_(layer.mean((1, 2, 3), keepdim=True))
                layer.div_(layer.square().mean((1, 2, 3), keepdim=True).sqrt())
    return mean + scale * offsets.detach(), [layer.detach() for layer in noise]


def _rate(step: int, steps: int) -> float:
    """Return the factor of the learning rate in a step, which rises, stays and falls to nearly zero by a cosine."""
    begun, left = (step + 1) / steps, (steps - step) / steps
    return min(1.0, begun / RAMP_UP) * (1 - math.cos(math.pi * min(1.0, left / RAMP_DOWN))) / 2


@torch.no_grad()
def _draw(generator: StyleGAN, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
    return from_signed(generator.synthesise(styles, list(noise) or None)).cpu()


@torch.no_grad()
def _similarity(images: Tensor, pictures: Tensor) -> Similarity:
    pictures = pictures.cpu()
    perceptual = _distance()(to_signed(images), to_signed(pictures))
    small = min(images.shape[1:3]) < SSIM_WINDOW
    return Similarity(psnr(images, pictures), None if small else ssim(images, pictures), perceptual)


@cache
def _distance(side: int | None = None) -> PerceptualDistance:
    return PerceptualDistance() if side is None else PerceptualDistance(side)
