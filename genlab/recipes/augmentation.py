"""Adaptive discriminator augmentation (Karras et al. 2020, NeurIPS, arXiv:2006.06676).

All images that the discriminator is shown are augmented, each transformation with a probability that grows while the
discriminator overfits. Appendix B of the paper gives the transformations and their distributions.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Interval
from torch import Tensor, nn

from genlab.models.precision import full_precision
from genlab.models.warping import warp, warp_nearest

UNIFORMS = 28
"""Uniform random numbers that the augmentation of an image takes, whatever groups are on."""
ADJUSTMENT_STEPS = 4
"""Steps between adjustments of the probability."""
LEAST_UNIFORM = 2.0**-25
"""What a uniform number of 0 is taken for where it becomes a normal one: half of the next number of float32."""


@dataclass(frozen=True)
class Augmentation:
    """Adaptive augmentation of what the discriminator is shown (Karras et al. 2020)."""

    blitting: bool = True
    """Flip images left to right, turn them by multiples of 90 degrees, and shift them by up to an eighth of a side."""
    geometry: bool = True
    """Scale images, turn them by any angle, stretch them, and shift them by a fraction of a side."""
    colour: bool = True
    """Change brightness and contrast, and invert the luma; for RGB images, turn the hue and change the saturation."""
    target: Annotated[float, Interval(ge=-1, le=1)] = 0.6
    """The mean sign of the discriminator's outputs for real training images above which it is said to overfit."""
    adjustment_images: Annotated[int, Gt(0)] = 500_000
    """Images over which the probability would rise from 0 to 1."""


@dataclass(frozen=True)
class Transformations:
    """What is done to each of N images, in this order: float [N] each, of which an image not changed has the first."""

    flip: Tensor
    """0, or 1: flipped left to right."""
    quarter_turns: Tensor
    """0, 1, 2 or 3: turns by 90 degrees, as ``torch.rot90`` counts them."""
    shift: Tensor
    """0, or -1/8..1/8: how far to the right and down, as fractions of width and height, [N, 2]. Whole pixels are
    made of it."""
    scale: Tensor
    """1, or any positive factor: its logarithm is normal."""
    turn: Tensor
    """0, or -pi..pi: an angle in radians, counterclockwise."""
    stretch: Tensor
    """1, or the factor by which an image becomes wider and less high: its logarithm is normal."""
    second_turn: Tensor
    """0, or -pi..pi: an angle in radians, after the stretch."""
    offset: Tensor
    """0, or a normal number: how far to the right and down, as fractions of width and height, [N, 2]."""
    brightness: Tensor
    """0, or a normal number: what is added to values in [-1, 1]."""
    contrast: Tensor
    """1, or any positive factor: its logarithm is normal."""
    luma_flip: Tensor
    """0, or 1: the luma, the mean of the channels, is negated."""
    hue: Tensor
    """0, or -pi..pi: an angle in radians, around the grey axis."""
    saturation: Tensor
    """1, or any positive factor of the distance from the grey axis: its logarithm is normal."""


def draw_transformations(probability: Tensor, uniform: Tensor) -> Transformations:
    """Draw the transformations of N images, those of an image from its own random numbers.

    Args:
        probability: scalar in 0..1, of each transformation; that either turn comes has this probability too.
        uniform: [N, UNIFORMS] in [0, 1).
    """
    columns = iter(uniform.unbind(1))

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * next(columns)

    def normal(deviation: float) -> Tensor:
        return deviation * torch.special.ndtri(next(columns).clamp(min=LEAST_UNIFORM))

    def factor(octaves: float) -> Tensor:
        return torch.exp2(normal(octaves))

    def perhaps(unchanged: float, *values: Tensor, by: Tensor = probability) -> Tensor:
        changed = next(columns) < by
        return torch.stack([torch.where(changed, value, unchanged) for value in values], -1)

    either_turn = 1 - (1 - probability).sqrt()
    return Transformations(
        flip=perhaps(0, between(0, 2).floor())[:, 0],
        quarter_turns=perhaps(0, between(0, 4).floor())[:, 0],
        shift=perhaps(0, between(-0.125, 0.125), between(-0.125, 0.125)),
        scale=perhaps(1, factor(0.2))[:, 0],
        turn=perhaps(0, between(-math.pi, math.pi), by=either_turn)[:, 0],
        stretch=perhaps(1, factor(0.2))[:, 0],
        second_turn=perhaps(0, between(-math.pi, math.pi), by=either_turn)[:, 0],
        offset=perhaps(0, normal(0.125), normal(0.125)),
        brightness=perhaps(0, normal(0.2))[:, 0],
        contrast=perhaps(1, factor(0.5))[:, 0],
        luma_flip=perhaps(0, between(0, 2).floor())[:, 0],
        hue=perhaps(0, between(-math.pi, math.pi))[:, 0],
        saturation=perhaps(1, factor(1))[:, 0],
    )


def augment(images: Tensor, probability: Tensor, uniform: Tensor, augmentation: Augmentation) -> Tensor:
    """Augment images for the discriminator, differentiably; an image that no transformation met stays bit for bit.

    Where pixels only change places (flips, quarter turns, shifts by whole pixels) an image is exact too, but for its
    colours. What comes from beyond the borders is a reflection of the image. Values may leave [-1, 1]. Computed in
    full precision, whether autocast is on or off.

    Args:
        images: float [N, C, H, W] in [-1, 1], C 1 or 3.
        probability: scalar in 0..1 on the device of the images, see :class:`AdaptiveProbability`.
        uniform: random numbers in [0, 1), [N, UNIFORMS]; those of a row make the augmentation of that row.
        augmentation: which groups of transformations are on.

    Returns:
        [N, C, H, W], of PyTorch's default dtype.
    """
    return transform(images, draw_transformations(full_precision(probability), full_precision(uniform)), augmentation)


def transform(images: Tensor, drawn: Transformations, augmentation: Augmentation) -> Tensor:
    """Transform images, see :func:`augment`.

    Args:
        images: float [N, C, H, W] in [-1, 1], C 1 or 3.
        drawn: what is done to each image.
        augmentation: which groups of transformations are on; the others are left out.

    Returns:
        [N, C, H, W], of PyTorch's default dtype.
    """
    images = full_precision(images)
    if augmentation.blitting or augmentation.geometry:
        images = _transform_geometry(images, drawn, augmentation)
    return _transform_colours(images, drawn) if augmentation.colour else images


class AdaptiveProbability(nn.Module):
    """The probability of augmentations: it rises while the discriminator overfits, and falls while it does not.

    The discriminator overfits when its outputs for real training images are positive more often than ``target`` says:
    the paper's r_t = E[sign(D(real))]. All is kept on the device, in buffers.

    Args:
        augmentation: ``target`` and ``adjustment_images``.
        batch: rows of a global batch; the probability is adjusted after each ``ADJUSTMENT_STEPS`` of them.
    """

    probability: Tensor
    """Scalar in 0..1, at first 0."""
    signs: Tensor
    """Scalar, the sum of the signs since the last adjustment."""
    rows: Tensor
    """Scalar, the number of these signs."""

    def __init__(self, augmentation: Augmentation, batch: int) -> None:
        super().__init__()
        self._target = augmentation.target
        self._interval = ADJUSTMENT_STEPS * batch
        self._change = self._interval / augmentation.adjustment_images
        for name in ("probability", "signs", "rows"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def observe(self, logits: Tensor) -> None:
        """Take note of the discriminator's outputs for real images, and adjust the probability when it is time.

        Once a step for each row of the global batch, on every rank the same rows, as ``StepContext.gather`` gives them:
        then the probability does not depend on the number of ranks, nor on gradient accumulation.

        Args:
            logits: the outputs for augmented real images of all ranks, of any shape; the order does not matter.
        """
        self.signs += logits.sign().sum()
        self.rows += logits.numel()
        due = self.rows >= self._interval
        change = self._change * (self.signs / self.rows - self._target).sign()
        self.probability.copy_(torch.where(due, (self.probability + change).clamp(0, 1), self.probability))
        self.signs.masked_fill_(due, 0)
        self.rows.masked_fill_(due, 0)


def _transform_geometry(images: Tensor, drawn: Transformations, augmentation: Augmentation) -> Tensor:
    """Flip, turn, scale, stretch and shift images; only what is no move of whole pixels is resampled."""
    height, width = images.shape[2:]
    blit = general = torch.eye(3, dtype=images.dtype, device=images.device).expand(len(images), 3, 3)
    if augmentation.blitting:
        blit = _scaling(1 - 2 * drawn.flip, torch.ones_like(drawn.flip))  # the inverses, from the last to the first
        blit = _product(blit, _rotation(drawn.quarter_turns * (math.pi / 2)))
        blit = _product(blit, _translation((-width * drawn.shift[:, 0]).round(), (-height * drawn.shift[:, 1]).round()))
        moved = warp_nearest(images, blit)
    else:
        moved = images
    if not augmentation.geometry:
        return moved
    identity = general
    general = _scaling(1 / drawn.scale, 1 / drawn.scale)
    general = _product(general, _rotation(drawn.turn))
    general = _product(general, _scaling(1 / drawn.stretch, drawn.stretch))
    general = _product(general, _rotation(drawn.second_turn))
    general = _product(general, _translation(-width * drawn.offset[:, 0], -height * drawn.offset[:, 1]))
    resampled, inverse = (general != identity).flatten(1).any(1), _product(blit, general)
    if images.device.type == "cpu":  # where to know how many they are costs no wait for the device
        rows = resampled.nonzero()[:, 0]
        return moved.index_copy(0, rows, warp(images[rows], inverse[rows])) if len(rows) else moved
    return torch.where(resampled[:, None, None, None], warp(images, inverse), moved)


def _transform_colours(images: Tensor, drawn: Transformations) -> Tensor:
    """Multiply the colours of an image by a matrix, and add its brightness.

    Each transformation acts on the luma along the grey axis, or on the chroma in the plane across it, where it turns
    or scales. So their product is a circulant matrix, of three numbers.
    """
    luma = drawn.contrast * (1 - 2 * drawn.luma_flip)
    chroma = drawn.contrast * drawn.saturation
    if images.shape[1] == 1:
        factors = [luma]
    elif images.shape[1] == 3:
        along, across = chroma * drawn.hue.cos() / 3, chroma * drawn.hue.sin() / math.sqrt(3)
        factors = [luma / 3 + 2 * along, luma / 3 - along + across, luma / 3 - along - across]
    else:
        raise ValueError(f"images of {images.shape[1]} channels: colours are changed of 1 or 3 channels")
    changed = (luma * drawn.brightness)[:, None, None, None] + factors[0][:, None, None, None] * images
    for shift, factor in enumerate(factors[1:], 1):
        changed = changed + factor[:, None, None, None] * images.roll(shift, 1)
    return changed


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrices [N, 3, 3] that scale by x and y."""
    return torch.stack([x, y, torch.ones_like(x)], -1).diag_embed()


def _rotation(angle: Tensor) -> Tensor:
    """Return the matrices [N, 3, 3] that turn clockwise on a screen, where y is down: the inverse of a turn."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).unflatten(-1, (3, 3))


def _translation(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrices [N, 3, 3] that shift by x to the right and y down."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([one, zero, x, zero, one, y, zero, zero, one], -1).unflatten(-1, (3, 3))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the products of matrices [N, 3, 3], in full precision under autocast and TF32 too."""
    return (left[..., None] * right[:, None]).sum(-2)
