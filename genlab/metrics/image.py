"""How near images are to their references, and how near a mere change of colours could bring them."""

import numpy as np
import torch
from torch import Tensor

LEVELS = 256


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, 10 log10(255² / MSE) dB, the MSE over its pixels and channels.

    Args:
        images: uint8 [N, H, W, C], 0..255.
        references: the same shape and dtype.

    Returns:
        float64 [N] in dB, infinite where image and reference are equal.

    Raises:
        ValueError: when shapes differ or a tensor is not uint8.
    """
    _check_pair(images, references)
    mse = (images.double() - references.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / mse)


def best_colour_curve(sources: Tensor, targets: Tensor) -> Tensor:
    """The per-channel tone curve that brings ``sources`` nearest to ``targets`` in least squares.

    It is the mean target level of all pixels of a source level, rounded: no other map from level to level has a
    smaller squared error on these pairs. Levels that no source pixel has are interpolated between their neighbours.

    Args:
        sources: uint8 [N, H, W, C], N >= 1.
        targets: the same shape and dtype, pixel for pixel the true counterparts.

    Returns:
        uint8 [C, 256], the target level of each source level, for :func:`apply_colour_curve`.

    Raises:
        ValueError: when shapes differ or a tensor is not uint8.
    """
    _check_pair(sources, targets)
    curves = []
    for source, target in zip(sources.flatten(0, 2).T, targets.flatten(0, 2).T, strict=True):
        count = torch.bincount(source, minlength=LEVELS).numpy(force=True)
        total = torch.bincount(source, weights=target.double(), minlength=LEVELS).numpy(force=True)
        seen = np.flatnonzero(count)
        curves.append(np.interp(np.arange(LEVELS), seen, total[seen] / count[seen]))
    return torch.from_numpy(np.stack(curves)).round().to(sources.device, torch.uint8)


def apply_colour_curve(curve: Tensor, images: Tensor) -> Tensor:
    """Map every level of every channel through its curve.

    Args:
        curve: uint8 [C, 256].
        images: uint8 [N, H, W, C].

    Returns:
        uint8 [N, H, W, C].
    """
    return curve[torch.arange(images.shape[3], device=images.device), images.long()]


def _check_pair(images: Tensor, references: Tensor) -> None:
    if images.shape != references.shape or images.dtype != torch.uint8 or references.dtype != torch.uint8:
        raise ValueError(
            f"{images.dtype} {tuple(images.shape)} and {references.dtype} {tuple(references.shape)}: "
            "both must be uint8 of one shape [N, H, W, C]"
        )
