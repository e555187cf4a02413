"""Random changes of training images, each a pure function of (seed, epoch, row): the same on every run and any worker.

The jitter is that of pix2pix and CycleGAN (Isola et al. 2017, section 6.2): an image is enlarged and a piece of its
first size is cut out at a random place, then it is flipped left to right every other time.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """What is done to each of n images."""

    top: Ints
    """int64 [n], 0..jitter: first line of the enlarged image that is kept."""
    left: Ints
    """int64 [n], 0..jitter: first column that is kept."""
    flip: NDArray[np.bool_]
    """bool [n]."""


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random."""

    flip: bool
    """Flip every other image left to right."""
    jitter: int
    """Pixels, 0 or more, by which height and width grow before a piece of the first size is cut out."""
    seed: int
    """0..2**63 - 1."""

    def draw(self, epoch: Ints, row: Ints) -> Draws:
        """What happens to rows, int64 [n], in epochs, int64 [n]."""
        random = _mix(
            _mix(_mix(np.full(len(row), self.seed, np.uint64)) + epoch.astype(np.uint64)) + row.astype(np.uint64)
        )
        span = np.uint64(self.jitter + 1)
        # Three independent pieces of 64 random bits; the remainders' bias is below 2^-15 for any sensible jitter.
        top, left = (random & np.uint64(0xFFFFFFF)) % span, (random >> np.uint64(28) & np.uint64(0xFFFFFFF)) % span
        flip = (random >> np.uint64(63)).astype(bool) & self.flip
        return Draws(top.astype(np.int64), left.astype(np.int64), flip)

    def apply(self, images: Tensor, draws: Draws, out: Tensor | None = None) -> Tensor:
        """Change images, uint8 [n, height, width, channels] on any device.

        Enlarging is bilinear. Results are reproducible on one kind of device; two kinds may round differently.

        Args:
            images: the images.
            draws: what to do to each.
            out: where to put them, of the same shape and type; may be ``images`` itself. A new tensor otherwise.
        """
        height, width = images.shape[1:3]
        out = torch.empty_like(images) if out is None else out
        large = images
        if self.jitter:
            size = (height + self.jitter, width + self.jitter)
            planes = images.permute(0, 3, 1, 2)
            if images.is_cuda:  # which has no bilinear kernel for bytes
                large = F.interpolate(planes.float(), size, mode="bilinear").round_().to(torch.uint8)
            else:
                large = F.interpolate(planes, size, mode="bilinear")
            large = large.permute(0, 2, 3, 1)
        cut = cut_at_once if images.is_cuda else cut_one_by_one
        cut(large, draws, out)
        return out


def cut_one_by_one(large: Tensor, draws: Draws, out: Tensor) -> None:
    """Cut pieces out of ``large`` into ``out``: plain copies, the fastest on a CPU."""
    height, width = out.shape[1:3]
    for image, top, left, flip, target in zip(
        large, draws.top.tolist(), draws.left.tolist(), draws.flip.tolist(), out, strict=True
    ):
        piece = image[top : top + height, left : left + width]
        target.copy_(piece.flip(1) if flip else piece)


def cut_at_once(large: Tensor, draws: Draws, out: Tensor) -> None:
    """The same by one gather: a single kernel for a GPU."""
    height, width = out.shape[1:3]
    across = np.arange(width)
    line = draws.top[:, None] + np.arange(height)
    column = draws.left[:, None] + np.where(draws.flip[:, None], across[::-1], across)
    place = (torch.from_numpy(index).to(large.device, non_blocking=True) for index in (line, column))
    lines, columns = place
    number = torch.arange(len(large), device=large.device)
    out.copy_(large[number[:, None, None], lines[:, :, None], columns[:, None, :]])


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of the state."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return state ^ state >> np.uint64(31)
