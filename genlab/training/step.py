"""One optimisation step, as the loop offers it to a recipe."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from genlab.data.order import rank_slice
from genlab.seeds import derived_seed
from genlab.training.session import Session, sum_over_ranks
from genlab.training.state import TrainingState
from genlab.training.stopwatch import Lap


class LoopStep:
    """Implements :class:`genlab.recipes.recipe.Step` for one rank's share of a global batch.

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

    def gather(self, tensor: Tensor) -> tuple[Sequence[int], Tensor]:
        """What every rank has of its rows, and their numbers in the global batch."""
        if self._session.world_size == 1:
            return range(self._rows.start, self._rows.stop), tensor.detach()
        self._lap("compute")
        whole = tensor.new_zeros(self._batch, *tensor.shape[1:])
        whole[self._rows] = tensor.detach()
        sum_over_ranks(whole)
        self._lap("all_reduce")
        parts = map(self._rows_of, range(self._session.world_size))
        rows = [row for part in parts for row in range(part.start, part.stop)]
        return rows, whole[rows]

    def _rows_of(self, rank: int) -> slice:
        """A rank's rows within the global batch, of this part."""
        share = rank_slice(self._batch, rank, self._session.world_size)
        part = rank_slice(share.stop - share.start, self._part, self._parts)
        return slice(share.start + part.start, share.start + part.stop)

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self._session.device).manual_seed(derived_seed(*self._key, name))

    def update(self, network: str, loss: Tensor) -> None:
        """Backward, one all-reduce over the network's gradients as one flat buffer, clip, Adam.

        One buffer in parameter order means one fixed layout for the whole run, whatever the recipe does between
        forward and backward: sums come out the same after a resume, and on every rank.
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
        if not alone:
            _all_reduce_gradients(parameters)
            self._lap("all_reduce")
        if self._state.optimization.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self._state.optimization.clip_norm)
        self._state.optimizers[network].step()
        self._lap("optimiser")


def _all_reduce_gradients(parameters: list[Tensor]) -> None:
    flat = torch.cat([_in_memory_order(p, torch.zeros_like(p) if p.grad is None else p.grad) for p in parameters])
    sum_over_ranks(flat)
    start = 0
    for parameter in parameters:
        parameter.grad = flat[start : start + parameter.numel()].as_strided(parameter.size(), parameter.stride())
        start += parameter.numel()


def _in_memory_order(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient's values, [n], as its parameter lies in memory (channels last, say)."""
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_like(parameter).copy_(gradient)
    return gradient.as_strided((gradient.numel(),), (1,))
