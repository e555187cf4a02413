"""Gradients of a network, summed over the ranks while the backward pass goes on."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genlab.training.session import start_sum_over_ranks

BUCKET_BYTES = 4 << 20
"""Bytes of gradients that are summed over the ranks at once: small enough that most of them are on their way before the
backward pass ends, large enough that the time of a message counts little."""


class Gradients:
    """The gradients of one network, of all parts of a step, summed over the ranks in buckets.

    The buckets are cut out of the parameters in reverse order, which is about the order in which a backward pass
    reaches them, and depend on nothing else. So the ranks send the same buckets in the same order, in each step of a
    run and after a resume, and sums have the same bits. A bucket is sent when all its gradients are there and the
    buckets before it are sent. A parameter without a gradient counts as zeros.

    Args:
        parameters: the network's parameters, in their order.
        alone: there is one rank, so nothing is summed.
    """

    def __init__(self, parameters: Sequence[Tensor], alone: bool) -> None:
        self.parameters = list(parameters)
        self._buckets: list[_Bucket] = []
        self._unsent: list[_Bucket] = []
        self._last_part = False
        if not alone:
            for parameter in reversed(self.parameters):
                if not self._buckets or self._buckets[-1].bytes + parameter.nbytes > BUCKET_BYTES:
                    self._buckets.append(_Bucket())
                self._buckets[-1].add(parameter)
            for bucket in self._buckets:
                for parameter in bucket.parameters:
                    parameter.register_post_accumulate_grad_hook(self._hook(bucket))

    def backward(self, loss: Tensor, first: bool, last: bool) -> None:
        """Add the gradients of ``loss``; with those of the last part, begin to sum them over the ranks.

        Args:
            loss: scalar.
            first: this is the first part of the rows.
            last: this is the last part of the rows.
        """
        if first:
            for parameter in self.parameters:
                parameter.grad = None
        self._last_part = last
        if last:
            self._unsent = list(self._buckets)
            for bucket in self._buckets:
                bucket.missing = len(bucket.parameters)
        loss.backward(inputs=self.parameters)
        if last:
            while self._unsent:
                self._unsent.pop(0).send()

    def wait(self) -> None:
        """Wait for the sums; then each parameter's ``grad`` is its gradient."""
        for bucket in self._buckets:
            bucket.receive()
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _hook(self, bucket: "_Bucket") -> Callable[[Tensor], None]:
        def accumulated(_: Tensor) -> None:
            if self._last_part:
                bucket.missing -= 1
                while self._unsent and not self._unsent[0].missing:
                    self._unsent.pop(0).send()

        return accumulated


class _Bucket:
    """Some of a network's gradients, which are summed over the ranks in one flat tensor."""

    def __init__(self) -> None:
        self.parameters: list[Tensor] = []
        self.bytes = 0
        self.missing = 0
        """How many gradients the backward pass has not computed yet."""
        self._flat: Tensor | None = None
        self._wait: Callable[[], object] = lambda: None

    def add(self, parameter: Tensor) -> None:
        """Add a parameter."""
        self.parameters.append(parameter)
        self.bytes += parameter.nbytes

    def send(self) -> None:
        """Begin to sum the gradients."""
        self._flat = torch.cat([_in_memory_order(parameter) for parameter in self.parameters])
        for parameter in self.parameters:
            parameter.grad = None
        self._wait = start_sum_over_ranks(self._flat)

    def receive(self) -> None:
        """Wait for the sum, and set each parameter's ``grad`` to its part of it."""
        self._wait()
        assert self._flat is not None
        parts = self._flat.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.as_strided(parameter.size(), parameter.stride())
        self._flat = None


def _in_memory_order(parameter: Tensor) -> Tensor:
    """Return a parameter's gradient, [n], in the order of the parameter's memory, such as channels last."""
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_like(parameter).copy_(gradient)
    return gradient.as_strided((gradient.numel(),), (1,))
