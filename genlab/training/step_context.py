"""What the training loop offers a recipe during one optimisation step."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.core.seeds import derived_seed
from genlab.data.stream.order import group_slice
from genlab.training.session import Session, start_sum_over_ranks
from genlab.training.stopwatch import Lap


class LoopStepContext:
    """The :class:`genlab.recipes.recipe.StepContext` of one rank, for one part of its rows of a global batch.

    Args:
        session: this rank's session.
        index: the step's number, from 0.
        batch: rows of the global batch.
        rows_of: which rows of the global batch each rank has in this part, by its number.
        key: what the seed of row noise is derived from, together with the noise's name.
        precision: ``fp32`` or ``bf16``.
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
        lap: Callable[[Lap], object] = lambda lap: None,
    ) -> None:
        self.index = index
        self._session = session
        self._batch = batch
        self._rows_of = rows_of
        self._rows = rows_of(session.rank)
        self._key = key
        self._precision = precision
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

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self._session.device).manual_seed(derived_seed(*self._key, name))


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
