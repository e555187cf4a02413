"""The random numbers that samples are made of.

Picture i of seed s has those of (s, i), however many pictures are drawn, and whatever parts they are drawn in. They are
drawn on the CPU, so that every device gets the same.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.core.seeds import derived_seed

RULE = "Philox by seed, name and picture"
"""The rule that the random numbers follow, as evaluations name it; another rule needs another name."""


@dataclass(frozen=True)
class Noise:
    """The random numbers of some pictures of a seed.

    Each picture has a stream of NumPy's Philox bit generator of its own, whose raw output never changes between
    versions.
    """

    seed: int
    """0 or more."""
    pictures: range
    """Numbers of the pictures, 0 being the seed's first."""
    device: torch.device | str = "cpu"
    """Where the tensors go."""

    def __len__(self) -> int:
        return len(self.pictures)

    def normal(self, name: str, *shape: int) -> Tensor:
        """Draw standard normal numbers of PyTorch's default dtype (float32): [pictures, *shape].

        Those of a picture are a pure function of (seed, name, picture, shape); by Box & Muller (1958).

        Args:
            name: what the numbers are for; numbers of different names are independent.
            shape: shape of the numbers of one picture.
        """
        size = math.prod(shape)
        pairs = -(-size // 2)
        uniform = self._uniform(name, pairs)
        radius, angle = np.sqrt(-2 * np.log(uniform[:, :pairs])), 2 * np.pi * uniform[:, pairs:]
        values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :size]
        return self._tensor(values, shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Draw numbers uniform in [0, 1], as :meth:`normal` draws normal ones; under another name than those."""
        size = math.prod(shape)
        return self._tensor(self._uniform(name, -(-size // 2))[:, :size], shape)

    def _uniform(self, name: str, pairs: int) -> np.ndarray:
        """Draw numbers uniform in (0, 1), none of which is 0 or 1: float64 [pictures, 2 * pairs]."""
        raw = np.empty((len(self), pairs), np.uint64)
        generator = np.random.Philox(key=derived_seed(self.seed, "picture", name))
        state: Any = generator.state
        for row, picture in zip(raw, self.pictures, strict=True):
            state["state"]["counter"][1] = picture
            generator.state = state  # five times as fast as a generator for each picture
            row[:] = generator.random_raw(pairs)
        return (raw.view(np.uint32) + 0.5) * 2.0**-32

    def _tensor(self, values: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(values).to(torch.get_default_dtype()).reshape(len(self), *shape).to(self.device)
