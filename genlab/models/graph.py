"""Graphs: the parts of a model that ``genlab export`` writes, as functions of tensors with weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass(frozen=True)
class TensorSpec:
    """Dtype and shape of an input or an output of a graph."""

    dtype: torch.dtype
    """uint8 for pixels, float32 for latent vectors and distributions, int64 for classes."""
    shape: tuple[int | str, ...]
    """Length of each dimension. A dimension that may have any length has a name instead; equal names, equal lengths."""
    below: int = 256
    """Integers are from 0 to ``below`` - 1."""


@dataclass(frozen=True)
class Graph:
    """A function of tensors that can be exported, such as a decoder."""

    module: nn.Module
    """A module that takes the tensors of ``inputs`` in their order and returns one tensor or a tuple, ``outputs``. Its
    parameters are the weights that the function needs, and no others."""
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    sizes: dict[str, tuple[int, int]]
    """The length of each named dimension at which the function is traced, and another at which the trace is tested. A
    trace holds for any length only if no two of the first are equal, and none is 1 or leads to a length of 1 inside."""
    multiples: Mapping[str, int] = field(default_factory=dict)
    """What the length of a named dimension must be a multiple of, where not any will do."""
