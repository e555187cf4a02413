"""What the training loop offers a recipe during one optimisation step."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.core.families import module_file
from genlab.core.seeds import derived_seed
from genlab.data.stream.order import rank_slice
from genlab.training.session import Session, start_sum_over_ranks
from genlab.training.state import TrainingState
from genlab.training.stopwatch import Lap


class LoopStepContext:
    """The :class:`genlab.recipes.recipe.StepContext` of one rank and its rows of a global batch.

    Args:
        state: the networks and optimisers that ``update`` changes.
        session: this rank's session.
        index: the step's number, from 0.
        batch: rows of the global batch.
        key: what the seed of row noise is derived from, together with the noise's name.
        precision: ``fp32`` or ``bf16``.
        part: (part, parts): with gradient accumulation, which part of this rank's rows this is, and of how many parts.
        lap: called with the part of a step that has just ended, see :meth:`genlab.training.stopwatch.Stopwatch.lap`.
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
        self._summing: list[_Gradients] = []

    @property
    def rows(self) -> slice:
        """This rank's rows of this part, within the global batch."""
        return self._rows

    @property
    def fraction(self) -> float:
        """This part's fraction of the global batch's rows, 0..1."""
        return (self._rows.stop - self._rows.start) / self._batch

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context of bf16 autocast; in fp32 one without effect."""
        if self._precision == "bf16":
            return torch.autocast(self._session.device.type, torch.bfloat16)
        return nullcontext()

    def noise(self, name: str, *shape: int) -> Tensor:
        """Draw standard normal noise for this rank's rows, in full precision: [rows, *shape]."""
        noise = torch.randn(self._batch, *shape, generator=self._generator(name), device=self._session.device)
        return noise[self._rows]

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Draw uniform noise in [0, 1) for this rank's rows, in full precision: [rows, *shape]."""
        noise = torch.rand(self._batch, *shape, generator=self._generator(name), device=self._session.device)
        return noise[self._rows]

    def gather(self, tensor: Tensor) -> Callable[[], tuple[Sequence[int], Tensor]]:
        """Begin to gather ``tensor`` from all ranks; the returned function waits for the end of that."""
        own = tensor.detach()
        if self._session.world_size == 1:
            return lambda: (range(self._rows.start, self._rows.stop), own)
        all_rows = own.new_zeros(self._batch, *own.shape[1:])
        all_rows[self._rows] = own
        wait = start_sum_over_ranks(all_rows)

        def gathered() -> tuple[Sequence[int], Tensor]:
            self._lap("compute")
            wait()
            self._lap("all_reduce")
            parts = map(self._rows_of, range(self._session.world_size))
            rows = [row for part in parts for row in range(part.start, part.stop)]
            return rows, all_rows[rows]

        return gathered

    def _rows_of(self, rank: int) -> slice:
        """Return the rows of ``rank`` in this part, within the global batch."""
        rows = rank_slice(self._batch, rank, self._session.world_size)
        part = rank_slice(rows.stop - rows.start, self._part, self._parts)
        return slice(rows.start + part.start, rows.start + part.stop)

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self._session.device).manual_seed(derived_seed(*self._key, name))

    def update(self, network: str, loss: Tensor) -> None:
        """Compute the network's gradients, sum them over the ranks in one flat buffer, then clip them and step Adam.

        The buffer holds all parameters in their order, so its layout is the same in the whole run, whatever the recipe
        does between forward and backward: sums are bit for bit the same after a resume, and on every rank. With
        several ranks the sum is taken while the recipe goes on, and :meth:`finish` steps Adam.

        Raises:
            ConfigError: when the recipe has no network of that name.
        """
        if network not in self._state.parameters:
            known = ", ".join(self._state.parameters)
            file = module_file(*type(self._state.recipe).__module__.rsplit(".", 1))
            raise ConfigError(f"{file}: step.update({network!r}, ...): no such network; self.networks has: {known}")
        parameters = list(self._state.parameters[network].values())
        if self._part == 0:
            for parameter in parameters:
                parameter.grad = None
        alone = self._session.world_size == 1
        (loss if alone and self._parts == 1 else loss * self.fraction).backward(inputs=parameters)
        self._lap("compute")
        if self._part < self._parts - 1:
            return
        if alone:
            self._step_optimizer(network)
        else:
            self._summing.append(_Gradients(network, parameters))

    def finish(self) -> None:
        """Wait for the sums of gradients under way and step their optimisers; called at the end of a part."""
        self._lap("compute")
        for gradients in self._summing:
            gradients.wait()
            self._lap("all_reduce")
            self._step_optimizer(gradients.network)
        self._summing.clear()

    def _step_optimizer(self, network: str) -> None:
        parameters = self._state.parameters[network].values()
        if self._state.optimization.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self._state.optimization.clip_norm)
        self._state.optimizers[network].step()
        self._lap("optimiser")


class _Gradients:
    """The gradients of a network while they are summed over the ranks."""

    def __init__(self, network: str, parameters: Sequence[Tensor]) -> None:
        self.network = network
        self._parameters = parameters
        own = [_in_memory_order(p, torch.zeros_like(p) if p.grad is None else p.grad) for p in parameters]
        self._flat = torch.cat(own)
        self._wait = start_sum_over_ranks(self._flat)

    def wait(self) -> None:
        """Wait for the sum, and set each parameter's ``grad`` to it."""
        self._wait()
        start = 0
        for parameter in self._parameters:
            end = start + parameter.numel()
            parameter.grad = self._flat[start:end].as_strided(parameter.size(), parameter.stride())
            start = end


def _in_memory_order(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient's values, [n], in the order of the parameter's memory, such as channels last."""
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_like(parameter).copy_(gradient)
    return gradient.as_strided((gradient.numel(),), (1,))
