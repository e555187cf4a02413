"""Random changes of training images, each a pure function of (seed, epoch, row): the same on every run and any worker.

The jitter is that of pix2pix and CycleGAN (Isola et al. 2017, section 6.2): an image is enlarged, cropped to its
original size at a random place, and flipped left to right with probability 1/2.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from genlab.data.stream.mixing import mix

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """The random numbers that say how each of n images is changed."""

    top: Ints
    """int64 [n], 0..jitter: first row of pixels of the enlarged image that is kept."""
    left: Ints
    """int64 [n], 0..jitter: first column that is kept."""
    flip: NDArray[np.bool_]
    """bool [n]: whether the image is flipped left to right."""


@dataclass(frozen=True)
class Augmentation:
    """The random changes of a data set's images."""

    flip: bool
    """Whether images are flipped left to right, each with probability 1/2."""
    jitter: int
    """Pixels, 0 or more, by which height and width grow before the image is cropped to its original size."""
    seed: int
    """0..2**63 - 1."""

    def draw(self, epoch: Ints, row: Ints) -> Draws:
        """Return how rows, int64 [n], are changed in epochs, int64 [n]."""
        random = mix(
            mix(mix(np.full(len(row), self.seed, np.uint64)) + epoch.astype(np.uint64)) + row.astype(np.uint64)
        )
        span = np.uint64(self.jitter + 1)
        # Three independent parts of 64 random bits; the remainders' bias is below 2^-15 for any sensible jitter.
        top, left = (random & np.uint64(0xFFFFFFF)) % span, (random >> np.uint64(28) & np.uint64(0xFFFFFFF)) % span
        flip = (random >> np.uint64(63)).astype(bool) & self.flip
        return Draws(top.astype(np.int64), left.astype(np.int64), flip)

    def apply(self, images: Tensor, draws: Draws, out: Tensor | None = None) -> Tensor:
        """Change images, uint8 [n, height, width, channels] on any device.

        Enlarging is bilinear. Results are reproducible on one kind of device; two kinds may round differently.

        Args:
            images: the images.
            draws: how to change each.
            out: where to put the changed images, of the same shape and type; may be ``images`` itself. A new tensor by
                default.

        Returns:
            ``out``.
        """
        height, width = images.shape[1:3]
        out = torch.empty_like(images) if out is None else out
        large = images
        if self.jitter:
            size = (height + self.jitter, width + self.jitter)
            planes = images.permute(0, 3, 1, 2)
            if images.is_cuda:  # CUDA has no bilinear kernel for bytes.
                large = F.interpolate(planes.float(), size, mode="bilinear").round_().to(torch.uint8)
            else:
                large = F.interpolate(planes, size, mode="bilinear")
            large = large.permute(0, 2, 3, 1)
        crop = crop_batch if images.is_cuda else crop_each
        crop(large, draws, out)
        return out


def crop_each(large: Tensor, draws: Draws, out: Tensor) -> None:
    """Crop and flip the images of ``large`` into ``out``, one after another by plain copies: the fastest on a CPU.

    Args:
        large: uint8 [n, height + jitter, width + jitter, channels].
        draws: how to change each image.
        out: uint8 [n, height, width, channels].
    """
    height, width = out.shape[1:3]
    for image, top, left, flip, target in zip(
        large, draws.top.tolist(), draws.left.tolist(), draws.flip.tolist(), out, strict=True
    ):
        crop = image[top : top + height, left : left + width]
        target.copy_(crop.flip(1) if flip else crop)


def crop_batch(large: Tensor, draws: Draws, out: Tensor) -> None:
    """Do what :func:`crop_each` does, by one gather of all images: a single kernel on a GPU."""
    height, width = out.shape[1:3]
    across = np.arange(width)
    y = draws.top[:, None] + np.arange(height)
    x = draws.left[:, None] + np.where(draws.flip[:, None], across[::-1], across)
    ys, xs = (torch.from_numpy(index).to(large.device, non_blocking=True) for index in (y, x))
    number = torch.arange(len(large), device=large.device)
    out.copy_(large[number[:, None, None], ys[:, :, None], xs[:, None, :]])
