"""What the training loop offers a recipe during one optimisation step."""

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.core.seeds import derived_seed
from genlab.data.stream.order import group_slice
from genlab.training.session import Session, start_gather_over_ranks, start_sum_over_ranks
from genlab.training.stopwatch import Lap

NUMBERS_AT_ONCE = 1 << 16
"""Most numbers of row noise that are drawn with one seed, or those of one row. What is drawn depends on it."""


class LoopStepContext:
    """The :class:`genlab.recipes.recipe.StepContext` of one rank, for one part of its rows of a global batch.

    Args:
        session: this rank's session.
        index: the step's number, from 0.
        batch: rows of the global batch.
        rows_of: which rows of the global batch each rank has in this part, by its number.
        key: what the seed of row noise is derived from, together with the noise's name.
        precision: ``fp32``, ``tf32`` or ``bf16``.
        numbers_at_once: see :data:`NUMBERS_AT_ONCE`; ``None`` draws row noise of the whole global batch with one seed.
        lap: called with the part of a step that has just ended, see :meth:`genlab.training.stopwatch.Stopwatch.lap`.
    """

    def __init__(
        self,
        session: Session,
        *,
        index: int,
        batch: int,
        rows_of: Callable[[int], slice],
        key: tuple[int | str, ...],
        precision: str,
        numbers_at_once: int | None = NUMBERS_AT_ONCE,
        lap: Callable[[Lap], object] = lambda lap: None,
    ) -> None:
        self.index = index
        self._session = session
        self._batch = batch
        self._rows_of = rows_of
        self._rows = rows_of(session.rank)
        self._key = key
        self._precision = precision
        self._numbers_at_once = numbers_at_once
        self._lap = lap
        self._left: dict[str, Any] = {}

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
        return self._drawn(torch.randn, name, shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Draw uniform noise in [0, 1) for this rank's rows, in full precision: [rows, *shape]."""
        return self._drawn(torch.rand, name, shape)

    def gather(
        self, tensor: Tensor, wanted: Collection[int] | None = None
    ) -> Callable[[], tuple[Sequence[int], Tensor]]:
        """Begin to gather ``tensor`` from all ranks; the returned function waits for the end of that.

        See :meth:`genlab.recipes.recipe.StepContext.gather`.
        """
        own = tensor.detach()
        ranks = range(self._session.world_size)
        parts = [
            [row for row in range(part.start, part.stop) if wanted is None or row in wanted]
            for part in map(self._rows_of, ranks)
        ]
        mine = parts[self._session.rank]
        if wanted is not None:
            own = own[[row - self._rows.start for row in mine]]
        if len(parts) == 1:
            return lambda: (mine, own)
        rows = [row for part in parts for row in part]
        most = max(map(len, parts))
        if wanted is None:
            padded = own if len(own) == most else torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
            gathered, wait = start_gather_over_ranks(padded)
        else:  # Few ranks may have rows that are wanted: a sum moves less than as many rows of each rank.
            total = own.new_zeros(len(rows), *own.shape[1:])
            first = sum(map(len, parts[: self._session.rank]))
            total[first : first + len(mine)] = own
            gathered, wait = [total], start_sum_over_ranks(total)

        def result() -> tuple[Sequence[int], Tensor]:
            self._lap("compute")
            wait()
            self._lap("all_reduce")
            if wanted is not None:
                return rows, gathered[0]
            return rows, torch.cat([values[: len(part)] for values, part in zip(gathered, parts, strict=True)])

        return result

    def leave(self, name: str, value: Any) -> None:
        """Leave a value for a later phase of this step; a tensor is detached."""
        self._left[name] = value.detach() if isinstance(value, Tensor) else value

    def left(self, name: str) -> Any:
        """Return what an earlier phase of this step left under ``name``.

        Raises:
            ConfigError: when none did.
        """
        if name not in self._left:
            known = ", ".join(self._left) or "nothing"
            raise ConfigError(f"step.left({name!r}): no earlier phase of this step left it; left was: {known}")
        return self._left[name]

    def _drawn(self, draw: Callable[..., Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
        """Draw numbers for this rank's rows: [rows, *shape].

        The rows of the global batch are drawn some at a time, each time with a seed of their own; those times that
        have none of this rank's rows are left out.
        """
        at_once = self._batch
        if self._numbers_at_once is not None:
            at_once = max(1, self._numbers_at_once // max(1, math.prod(shape)))
        device, begin = self._session.device, self._rows.start // at_once * at_once
        drawn = []
        for first in range(begin, self._rows.stop, at_once):
            seed = derived_seed(*self._key, name, *([first] if first else []))
            generator = torch.Generator(device).manual_seed(seed)
            drawn.append(draw(min(at_once, self._batch - first), *shape, generator=generator, device=device))
        whole = drawn[0] if len(drawn) == 1 else torch.cat(drawn)
        return whole[self._rows.start - begin : self._rows.stop - begin]


def rows_of_part(batch: int, rank: int, world_size: int, part: int, parts: int, group: int) -> slice:
    """Return the rows of a global batch that a rank has in one of the parts that it divides its rows into.

    Args:
        batch: rows of the global batch, a multiple of ``group``.
        rank: the rank.
        world_size: number of ranks.
        part: the part, 0..parts - 1.
        parts: number of parts of each rank's rows.
        group: rows that stay together.
    """
    rows = group_slice(batch, rank, world_size, group)
    within = group_slice(rows.stop - rows.start, part, parts, group)
    return slice(rows.start + within.start, rows.start + within.stop)
