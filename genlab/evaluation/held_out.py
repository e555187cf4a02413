"""Held-out rows: the images that a model is measured on; and training rows, which its samples are compared with."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from upath import UPath

from genlab import __version__
from genlab.core.seeds import derived_seed
from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import is_half
from genlab.data.stream.batches import Batch, read_batch
from genlab.data.stream.order import Ints, permutation
from genlab.evaluation.measurements import Settings
from genlab.models.model import images_per_pass

CHOSEN = "on these images"
"""The setting ``chosen`` of the measurements of a model that was chosen from others on the images that it is measured
on."""


@dataclass(frozen=True)
class HeldOut:
    """A split of a data set or one half of it, or a random part of these."""

    shards: ShardSet
    """The rows of the split."""
    split: str
    part: int | None = None
    """Number of rows that are measured; by default all."""
    seed: int = 0
    """Seed by which that part is drawn."""
    chosen: bool = False
    """Whether the model was chosen from others on rows of the split."""

    @staticmethod
    def open(url: str | UPath, split: str, *, chosen: bool = False) -> "HeldOut":
        """Open the rows of a split, or of one half of it, of the data set at ``url``.

        Raises:
            DataError: there is no such data set or split, or it is damaged.
        """
        return HeldOut(ShardSet.open(url).part(split), split, chosen=chosen)

    def __len__(self) -> int:
        return len(self.shards) if self.part is None else self.part

    def drawn(self, count: int, seed: int) -> "HeldOut":
        """Draw ``count`` rows of the split at random; the first rows may all be of one class.

        Args:
            count: number of rows; where the split has fewer, all are taken.
            seed: seed of the draw.
        """
        return self if count >= len(self) else replace(self, part=count, seed=seed)

    @cached_property
    def rows(self) -> Ints:
        """Numbers of the rows in the split, ascending: int64 [len]."""
        if self.part is None:
            return np.arange(len(self))
        return np.sort(permutation(derived_seed(self.seed, "rows"), 0, len(self.shards))[: self.part])

    @property
    def labels(self) -> Tensor | None:
        """Classes of the rows, int64 [len]; ``None`` when the images are not labelled."""
        if not self.shards.labelled:
            return None
        return torch.from_numpy(self.shards.columns(self.rows)["label"].astype(np.int64))

    @property
    def settings(self) -> Settings:
        """The settings of a measurement on these rows."""
        settings: Settings = {
            "data": self.shards.checksum,
            "split": self.split,
            "rows": len(self),
            "genlab": __version__,
        }
        if is_half(self.split):
            settings["halves"] = "by SHA-256 of the key"
        if self.chosen:
            settings["chosen"] = CHOSEN
        return settings if self.part is None else settings | {"subset": f"random by seed {self.seed}"}

    def batches(self) -> Iterator[Batch]:
        """Read these rows in their order, :func:`images_per_pass` at a time."""
        step = images_per_pass(self.shards.fixed_shape())
        for first in range(0, len(self), step):
            yield read_batch(self.shards, self.rows[first : first + step])
