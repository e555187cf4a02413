"""What the training loop offers a recipe during one optimisation step."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from genlab.core.seeds import derived_seed
from genlab.data.stream.order import rank_slice
from genlab.training.session import Session, start_sum_over_ranks
from genlab.training.state import TrainingState
from genlab.training.stopwatch import Lap


class LoopStepContext:
    """The :class:`genlab.recipes.recipe.StepContext` of one rank, for its rows of a global batch.

    Args:
        state: what ``update`` changes.
        session: this rank's place.
        index: the step's number, from 0.
        batch: rows of the global batch.
        key: what the row noise is drawn from, with its name.
        part: which part of this rank's share it is, and of how many (gradient accumulation).
        lap: told what the time since the last lap went to.
    """

    def __init__(
        self,
        state: TrainingState,
        session: Session,
        *,
        index: int,
        batch: int,
        key: tuple[int | str, ...],
        precision: str,
        part: tuple[int, int] = (0, 1),
        lap: Callable[[Lap], None] = lambda lap: None,
    ) -> None:
        self.index = index
        self._state = state
        self._session = session
        self._batch = batch
        self._part, self._parts = part
        self._rows = self._rows_of(session.rank)
        self._key = key
        self._precision = precision
        self._lap = lap
        self._awaited: list[_Gradients] = []

    @property
    def rows(self) -> slice:
        """This rank's rows of this part, within the global batch."""
        return self._rows

    @property
    def share(self) -> float:
        """This rank's share of the global batch's rows."""
        return (self._rows.stop - self._rows.start) / self._batch

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 autocast, or nothing in fp32."""
        if self._precision == "bf16":
            return torch.autocast(self._session.device.type, torch.bfloat16)
        return nullcontext()

    def noise(self, name: str, *shape: int) -> Tensor:
        """Standard normal noise of this rank's rows, in full precision [rows, *shape]."""
        whole = torch.randn(self._batch, *shape, generator=self._generator(name), device=self._session.device)
        return whole[self._rows]

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Uniform noise in [0, 1) of this rank's rows, in full precision [rows, *shape]."""
        whole = torch.rand(self._batch, *shape, generator=self._generator(name), device=self._session.device)
        return whole[self._rows]

    def gather(self, tensor: Tensor) -> Callable[[], tuple[Sequence[int], Tensor]]:
        """Begin to gather; what is returned waits for what every rank has of its rows."""
        own = tensor.detach()
        if self._session.world_size == 1:
            return lambda: (range(self._rows.start, self._rows.stop), own)
        whole = own.new_zeros(self._batch, *own.shape[1:])
        whole[self._rows] = own
        wait = start_sum_over_ranks(whole)

        def gathered() -> tuple[Sequence[int], Tensor]:
            self._lap("compute")
            wait()
            self._lap("all_reduce")
            parts = map(self._rows_of, range(self._session.world_size))
            rows = [row for part in parts for row in range(part.start, part.stop)]
            return rows, whole[rows]

        return gathered

    def _rows_of(self, rank: int) -> slice:
        """A rank's rows within the global batch, of this part."""
        share = rank_slice(self._batch, rank, self._session.world_size)
        part = rank_slice(share.stop - share.start, self._part, self._parts)
        return slice(share.start + part.start, share.start + part.stop)

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self._session.device).manual_seed(derived_seed(*self._key, name))

    def update(self, network: str, loss: Tensor) -> None:
        """Backward, and one all-reduce over the network's gradients as one flat buffer, then clip and Adam.

        One buffer in parameter order means one fixed layout for the whole run, whatever the recipe does between
        forward and backward: sums come out the same after a resume, and on every rank. With several ranks the sum is
        taken while the recipe goes on, and :meth:`finish` does the rest.
        """
        parameters = list(self._state.parameters[network].values())
        if self._part == 0:
            for parameter in parameters:
                parameter.grad = None
        alone = self._session.world_size == 1
        (loss if alone and self._parts == 1 else loss * self.share).backward(inputs=parameters)
        self._lap("compute")
        if self._part < self._parts - 1:
            return
        if alone:
            self._descend(network)
        else:
            self._awaited.append(_Gradients(network, parameters))

    def finish(self) -> None:
        """Step the optimisers whose gradients are still being added up; the loop's last word of a step."""
        self._lap("compute")
        for gradients in self._awaited:
            gradients.wait()
            self._lap("all_reduce")
            self._descend(gradients.network)
        self._awaited.clear()

    def _descend(self, network: str) -> None:
        parameters = self._state.parameters[network].values()
        if self._state.optimization.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self._state.optimization.clip_norm)
        self._state.optimizers[network].step()
        self._lap("optimiser")


class _Gradients:
    """A network's gradients, which are being summed over the ranks."""

    def __init__(self, network: str, parameters: Sequence[Tensor]) -> None:
        self.network = network
        self._parameters = parameters
        own = [_in_memory_order(p, torch.zeros_like(p) if p.grad is None else p.grad) for p in parameters]
        self._flat = torch.cat(own)
        self._wait = start_sum_over_ranks(self._flat)

    def wait(self) -> None:
        """Have each parameter's ``grad`` be the sum."""
        self._wait()
        start = 0
        for parameter in self._parameters:
            end = start + parameter.numel()
            parameter.grad = self._flat[start:end].as_strided(parameter.size(), parameter.stride())
            start = end


def _in_memory_order(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient's values, [n], as its parameter lies in memory (channels last, say)."""
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_like(parameter).copy_(gradient)
    return gradient.as_strided((gradient.numel(),), (1,))
