"""Similarity of images and their references (PSNR, SSIM, perceptual distance), best tone curves, and diversity."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256
"""Number of levels of 8-bit pixels."""
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
"""Side and standard deviation of SSIM's Gaussian window, in pixels."""


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image, 10 log10(255² / MSE); MSE over its pixels and channels.

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


def ssim(images: Tensor, references: Tensor) -> Tensor:
    """Return the structural similarity (SSIM; Wang et al. 2004, IEEE TIP) of each image: the mean over its pixels.

    As in the paper, the window is an 11x11 Gaussian of σ 1.5, K₁ = 0.01, K₂ = 0.03 and L = 255. It is taken where the
    window lies inside the image, and images are not scaled down first. SSIM is averaged over channels; the paper treats
    grey images.

    Args:
        images: uint8 [N, H, W, C], 0..255, H and W at least 11.
        references: the same shape and dtype.

    Returns:
        float64 [N] in [-1, 1], 1 where image and reference are equal.

    Raises:
        ValueError: when shapes differ, a tensor is not uint8, or an image is smaller than the window.
    """
    _check_pair(images, references)
    if min(images.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(f"images of {images.shape[1]}x{images.shape[2]}: smaller than SSIM's window, {SSIM_WINDOW}")
    ticks = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=images.device) - SSIM_WINDOW // 2
    window = torch.exp(-ticks.square() / (2 * SSIM_SIGMA**2))
    window /= window.sum()

    def local_mean(planes: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(planes, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    x, y = (pixels.double().permute(0, 3, 1, 2).flatten(0, 1)[:, None] for pixels in (images, references))
    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x, variance_y = local_mean(x * x) - mean_x.square(), local_mean(y * y) - mean_y.square()
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2)
    )
    return similarity.reshape(len(images), -1).mean(1)


def perceptual_distance(features: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
    """Return the distance of images and references in a network's features (LPIPS; Zhang et al. 2018, CVPR, eq. 1).

    All weights of the paper's equation are one. At each position of each layer the feature vectors are scaled to length
    one; their squared distances are averaged over positions and summed over layers.

    Args:
        features: features of the images: for each layer a float [N, C, H, W], with its own C, H and W.
        references: features of the references, of the same shapes.

    Returns:
        float [N], from 0 for equal features to 4 a layer.
    """
    layers = [
        (F.normalize(one) - F.normalize(other)).square().sum(1).mean((1, 2))
        for one, other in zip(features, references, strict=True)
    ]
    return torch.stack(layers).sum(0)


def mean_pairwise_distance(images: Tensor) -> float:
    """Return the diversity of images: the root mean square difference of two of them in levels, mean over all pairs.

    Args:
        images: uint8 [N, H, W, C], 0..255, N >= 2.
    """
    flat = images.flatten(1).float()
    return float(torch.pdist(flat).mean()) / flat.shape[1] ** 0.5


def best_colour_curve(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Fit the per-channel tone curve that brings images nearest to their targets in least squares.

    The curve gives each source level the mean target level of all pixels of that level, rounded: no other map from
    level to level has a smaller squared error on these pairs. Levels that no source pixel has are interpolated between
    their neighbours.

    Args:
        pairs: images and their targets, uint8 [N, H, W, C] each, pixel for pixel the true counterparts; at least one
            pair, with any N >= 1. How images are divided into pairs does not change the curve.

    Returns:
        uint8 [C, 256] on the CPU, the target level of each source level, for :func:`apply_colour_curve`.

    Raises:
        ValueError: when the shapes of a pair differ or a tensor is not uint8.
    """
    # Sums of integers, exact in float64 in any order.
    count, total = torch.stack([_level_sums(*pair) for pair in pairs]).sum(0).numpy(force=True)
    levels, curves = np.arange(LEVELS), []
    for of_level, target_sum in zip(count, total, strict=True):
        seen = np.flatnonzero(of_level)
        curves.append(np.interp(levels, seen, target_sum[seen] / of_level[seen]))
    return torch.from_numpy(np.stack(curves)).round().to(torch.uint8)


def apply_colour_curve(curve: Tensor, images: Tensor) -> Tensor:
    """Map the levels of each channel through its curve.

    Args:
        curve: uint8 [C, 256].
        images: uint8 [N, H, W, C].

    Returns:
        uint8 [N, H, W, C].
    """
    return curve.to(images.device)[torch.arange(images.shape[3], device=images.device), images.long()]


def _level_sums(sources: Tensor, targets: Tensor) -> Tensor:
    """Count the pixels of each channel and source level, and sum their targets: float64 [2, C, 256]."""
    _check_pair(sources, targets)
    channels = list(zip(sources.flatten(0, 2).T, targets.flatten(0, 2).T, strict=True))
    counts = [torch.bincount(source, minlength=LEVELS).double() for source, _ in channels]
    sums = [torch.bincount(source, weights=target.double(), minlength=LEVELS) for source, target in channels]
    return torch.stack([torch.stack(counts), torch.stack(sums)])


def _check_pair(images: Tensor, references: Tensor) -> None:
    if images.shape != references.shape or images.dtype != torch.uint8 or references.dtype != torch.uint8:
        raise ValueError(
            f"{images.dtype} {tuple(images.shape)} and {references.dtype} {tuple(references.shape)}: "
            "both must be uint8 of one shape [N, H, W, C]"
        )
