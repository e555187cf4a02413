"""Layers for a CPU, behind one switch: faster ones, and one whose results do not depend on the batch.

In and out: :class:`Conv2d`, :class:`ConvTranspose2d` and :class:`Linear` take the arguments, the tensors and the names
of weights of the layers of ``torch.nn`` that they replace; their results differ from those by rounding. A network uses
them by importing them from here, and needs to know nothing else of this folder. The switch is the environment variable
``GENLAB_CPU_KERNELS``: with ``GENLAB_CPU_KERNELS=0`` the layers are exactly PyTorch's own and the C library's allocator
is left as it is (to tell whether a fault lies here, or to compare times). Within a process :func:`kernels` turns the
layers off and on. On a GPU, and in exported graphs, they are PyTorch's own in any case.

Read this file first, then ``winograd`` (3x3 convolutions) or ``transposed`` (transposed convolutions), both under the
derivatives of ``bilinear``; ``dense``; or ``allocator``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.cpu import allocator, dense, transposed, winograd

__all__ = ["Conv2d", "ConvTranspose2d", "Linear", "keep_freed_memory", "kernels", "linear"]

_enabled = os.environ.get("GENLAB_CPU_KERNELS", "1") != "0"


@contextmanager
def kernels(enabled: bool) -> Iterator[None]:
    """Turn the kernels of this process on or off within a ``with`` block, whatever ``GENLAB_CPU_KERNELS`` says."""
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` that takes Winograd's algorithm where :func:`genlab.models.cpu.winograd.suits` says it is faster.

    That is for 3x3 convolutions of stride 1, without padding, of many channels, on a CPU.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve a float [N, in, H, W] into [N, out, H', W']."""
        if _enabled and winograd.suits(self, input):
            return winograd.convolve(self, input)
        return super().forward(input)


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` that is faster on a CPU: see :mod:`genlab.models.cpu.transposed`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve a float [N, in, H, W] into [N, out, H', W']."""
        if _enabled and input.device.type == "cpu" and output_size is None and not torch.compiler.is_exporting():
            if torch.is_grad_enabled():
                return transposed.convolve(self, input)
            plain = torch.is_inference_mode_enabled() and not torch.compiler.is_compiling()
            if plain and transposed.suits_inference(self, input):
                return transposed.infer(self, input)
        return super().forward(input, output_size)


class Linear(nn.Linear):
    """``nn.Linear`` whose rows do not depend on the batch in inference mode on a CPU: see :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map a float [N, inputs] to [N, outputs]."""
        return linear(input, self.weight, self.bias)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map a float [N, inputs] by a weight [outputs, inputs] to [N, outputs]: :mod:`genlab.models.cpu.dense`."""
    if _enabled and input.device.type == "cpu" and not torch.compiler.is_compiling():
        return dense.multiply(input, weight, bias)
    return F.linear(input, weight, bias)


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step (:mod:`genlab.models.cpu.allocator`); to call once."""
    if _enabled:
        allocator.keep_freed_memory()
