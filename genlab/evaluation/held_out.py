"""The rows that a model is measured on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genlab import __version__
from genlab.data.shards import ShardSet
from genlab.evaluation.figures import Passport
from genlab.models.model import Shape

MOST_ROWS, MOST_PIXELS = 500, 2**21
"""That go through a model at a time."""


def rows_a_pass(image_shape: Shape) -> int:
    """How many images of ``image_shape`` go through a model at a time, so that its layers fit in a few GiB.

    Noise is drawn by the pass: figures are a function of the seed and of this.
    """
    height, width, _ = image_shape
    return max(1, min(MOST_ROWS, MOST_PIXELS // (height * width)))


@dataclass(frozen=True)
class Rows:
    """Some rows."""

    first: int
    """The number of the first."""
    image: Tensor
    """uint8 [N, H, W, C]"""
    label: Tensor | None
    """int64 [N]; ``None`` when the images are not labelled."""


@dataclass(frozen=True)
class HeldOut:
    """A split of a data set."""

    shards: ShardSet
    """Its rows."""
    split: str

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def labels(self) -> Tensor | None:
        """int64 [rows]; ``None`` when the images are not labelled."""
        if not self.shards.labelled:
            return None
        return torch.from_numpy(self.shards.columns(np.arange(len(self)))["label"].astype(np.int64))

    def passport(self, rows: int) -> Passport:
        """Of a figure that is measured on the first ``rows`` of these."""
        return {"data": self.shards.checksum, "split": self.split, "rows": rows, "genlab": __version__}

    def batches(self, rows: int | None = None) -> Iterator[Rows]:
        """The first ``rows`` (all by default) in their order, :func:`rows_a_pass` at a time."""
        end, step = len(self) if rows is None else rows, rows_a_pass(self.shards.fixed_shape())
        for first in range(0, end, step):
            read = self.shards.read(np.arange(first, min(first + step, end)))
            label = read.label
            yield Rows(first, torch.from_numpy(read.image), None if label is None else torch.from_numpy(label))
