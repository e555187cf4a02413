"""The random numbers that samples are made of.

Picture i of seed s has those of (s, i), however many pictures are drawn, and whatever parts they are drawn in. They are
drawn on the CPU, so that every device gets the same.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from genlab.core.seeds import derived_seed

RULE = "Philox by seed, name and picture"
"""The rule that the random numbers follow, as evaluations name it; another rule needs another name."""


class Noise:
    """The random numbers of some pictures, of one seed or of several.

    Each picture has a stream of NumPy's Philox bit generator of its own, whose raw output never changes between
    versions.

    Args:
        seed: the seed of all pictures, 0 or more.
        pictures: their numbers, 0 being the seed's first.
        device: where the tensors go.
    """

    def __init__(self, seed: int, pictures: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.drawn = [(seed, picture) for picture in pictures]
        """Seed and number of each picture."""
        self.device = device

    @classmethod
    def of(cls, drawn: Sequence[tuple[int, int]], device: torch.device | str = "cpu") -> Self:
        """Return the random numbers of pictures that are given by their seeds and numbers."""
        noise = cls(0, (), device)
        noise.drawn = list(drawn)
        return noise

    def __len__(self) -> int:
        return len(self.drawn)

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
        generator = np.random.Philox(key=0)
        state: Any = generator.state
        key, counter = state["state"]["key"], state["state"]["counter"]
        row = 0
        for seed, drawn in groupby(self.drawn, key=itemgetter(0)):
            key[0] = derived_seed(seed, "picture", name)
            for _, picture in drawn:
                counter[1] = picture
                generator.state = state  # five times as fast as a generator for each picture
                raw[row] = generator.random_raw(pairs)
                row += 1
        return (raw.view(np.uint32) + 0.5) * 2.0**-32

    def _tensor(self, values: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(values).to(torch.get_default_dtype()).reshape(len(self), *shape).to(self.device)
