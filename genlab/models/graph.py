"""What of a model can be taken out of Python: functions of tensors, with weights."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that goes into a graph or comes out of it."""

    dtype: torch.dtype
    """uint8 for pixels, float32 for latent vectors and distributions, int64 for classes."""
    shape: tuple[int | str, ...]
    """Its sides. One that may have any size has a name instead; sides of one name are equal."""
    below: int = 256
    """Integers lie in 0 .. below - 1."""


@dataclass(frozen=True)
class Graph:
    """A function of tensors."""

    module: nn.Module
    """Takes the tensors of ``inputs`` in their order, and gives one tensor or a tuple. Its parameters are the weights
    that the function needs, and no others."""
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    sizes: dict[str, tuple[int, int]]
    """For each named side the size to trace the function at, and another to try the trace at. To be traced for any
    size, no two may be equal, and none may be 1 or lead to a side of 1 inside."""
