"""Derivatives of a convolution that is computed in another way than PyTorch does: of any order.

A convolution is linear in its input and in its weight, so its gradients are values and gradients of the same map at
other tensors: who gives a value and the gradients gives all derivatives. Gradient penalties such as R1 and the path
lengths of StyleGAN differentiate gradients.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""The gradients of an input, a weight and a bias; ``None`` for those that are not wanted."""
Wanted = tuple[bool, bool, bool]
"""Which gradients are wanted: of the input, the weight and the bias."""


class Convolution(Protocol):
    """A map of an input and a weight, linear in each, plus a bias for each channel."""

    def value(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output, of the dtype of ``input``. Need not be differentiable."""

    def gradients(self, gradient: Tensor, input: Tensor, weight: Tensor, wanted: Wanted) -> Gradients:
        """Return the gradients for a ``gradient`` of the output. Need not be differentiable."""

    def broadcast(self, bias: Tensor, like: Tensor) -> Tensor:
        """Return a bias [out] in the shape and dtype of an output ``like``."""


def convolve(convolution: Convolution, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``convolution.value(input, weight, bias)``, differentiable as often as wanted.

    All is computed in the dtypes of the tensors, whether autocast is on or off, backward as forward.
    """
    output: Tensor = _Value.apply(convolution, input, weight, bias)
    return output


class _Value(torch.autograd.Function):
    """The output of a convolution."""

    @staticmethod
    def forward(ctx: Any, convolution: Convolution, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.convolution = convolution
        ctx.save_for_backward(input, weight)
        with torch.autocast("cpu", enabled=False):
            return convolution.value(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Gradients.apply(ctx.convolution, gradient, *ctx.saved_tensors, ctx.needs_input_grad[1:])


class _Gradients(torch.autograd.Function):
    """The gradients of a convolution, which are linear in the gradient of its output and in input or weight."""

    @staticmethod
    def forward(
        ctx: Any, convolution: Convolution, gradient: Tensor, input: Tensor, weight: Tensor, wanted: Wanted
    ) -> Gradients:
        ctx.convolution = convolution
        ctx.save_for_backward(gradient, input, weight)
        ctx.set_materialize_grads(False)
        with torch.autocast("cpu", enabled=False):
            return convolution.gradients(gradient, input, weight, wanted)

    @staticmethod
    def backward(
        ctx: Any, for_input: Tensor | None, for_weight: Tensor | None, for_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        convolution: Convolution = ctx.convolution
        gradient, input, weight = ctx.saved_tensors
        _, wants_gradient, wants_input, wants_weight, _ = ctx.needs_input_grad
        to_gradient = to_input = to_weight = None
        if wants_gradient:
            terms = []
            if for_input is not None:
                terms.append(_Value.apply(convolution, for_input, weight, None))
            if for_weight is not None:
                terms.append(_Value.apply(convolution, input, for_weight, None))
            if for_bias is not None:
                terms.append(convolution.broadcast(for_bias, gradient))
            to_gradient = sum(terms[1:], terms[0]) if terms else None
        if wants_input and for_weight is not None:
            to_input, _, _ = _Gradients.apply(convolution, gradient, input, for_weight, (True, False, False))
        if wants_weight and for_input is not None:
            _, to_weight, _ = _Gradients.apply(convolution, gradient, for_input, weight, (False, True, False))
        return None, to_gradient, to_input, to_weight, None
