"""Batch sizes in which a network gives a picture the same bits, as measured on this machine.

Matrix and convolution libraries choose a kernel by the shape of the whole batch, and kernels sum in different orders.
So a picture may differ by rounding with the number of pictures beside it, and by a whole level of 255 where rounding
tips it. Which sizes agree depends on the network, the processor, the library and the number of threads; only a trial
tells.
"""

import bisect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from genlab.inference.kinds import Kind
from genlab.inference.memory import free_bytes, peak_bytes
from genlab.models.model import MOST_PIXELS

SMALL = 2**14
"""Pixels up to which a picture may be computed twice, to have company that makes it agree with larger batches."""


WORTHWHILE = 0.97
"""Time of a row in a batch, in that of a row in a batch half as large, above which larger batches are not tried."""

MANY, LONG = 16, 0.01
"""Rows, and seconds, of a batch from which on no larger one is tried: there is little to gain, and others wait."""

BATCHES, BRIEF = 5, 0.02
"""The most batches by which a size is timed, and the seconds after which no other is computed for that."""

SHARE = 0.5
"""Share of the free memory that a batch may take. What a row takes is measured roughly: a process may keep what it
freed, and use it again."""
NEGLIGIBLE = 2**26
"""Bytes of a batch up to which it is not looked how much memory is free."""

DECISIVE = 4
"""The batch size up to which it is decided with which sizes others have to agree."""


class Trial:
    """The batch sizes in which a model computes a kind of work.

    Those of small pictures are tried at once, those of larger ones by :meth:`step`; until then they go one by one. Of
    sizes that agree, those that are no faster than smaller ones are left out. No size is tried or used whose memory, by
    what rows took before, is more than a share of what is free at that moment.

    Args:
        model: the model.
        kind: the kind of work.
        exact: whether sizes have to agree; otherwise all will do.
        most_cost: time of a picture in the best of the sizes that agree, in that of the best of all sizes, above which
            they do not have to.
    """

    def __init__(self, model: Any, kind: Kind, exact: bool, most_cost: float = math.inf) -> None:
        self._model = model
        self._kind = kind
        self._pixels = kind.pixels(model.image_shape)
        self._most = max(1, MOST_PIXELS // self._pixels) if kind.trial else 1
        self._digests: dict[int, str | None] = {}
        self._seconds: dict[int, float] = {}
        self._next = 1
        self._most_cost = most_cost
        self.exact = exact or self._most == 1
        """Whether a picture is the same bits in all sizes."""
        self.sizes: Sequence[int] = (1,) if exact else range(1, self._most + 1)
        """The sizes of batches, in ascending order."""
        self.row_bytes: int | None = None
        """The bytes that a row of a batch was measured to take; ``None`` where it was not measured."""
        if not exact:
            self._next = self._most + 1
            if self._most > 1:
                self._measure(1, lambda: self._run(1))
        elif self._pixels <= SMALL:
            while self.step():
                pass

    @property
    def over(self) -> bool:
        """Whether all sizes are tried."""
        return self._next > self._most or self._most == 1

    def step(self) -> bool:
        """Try the next size.

        Returns:
            Whether there was one to try.
        """
        if self.over or self._most_now(self._next) < self._next:
            self._next = self._most + 1
            return False
        size, before = self._next, self._seconds.get(self._next // 2)
        self._measure(size, lambda: self._digests.update({size: self._digest(size)}))
        self._seconds[size] = self._seconds_per_row(size)
        self._next *= 2
        if size >= min(DECISIVE, self._most):
            agreed = agreeing(self._digests, self._pixels)
            best = min(self._seconds.values())
            if size <= DECISIVE and min(self._seconds[one] for one in agreed) > self._most_cost * best:
                self.exact = False
            self.sizes = agreed if self.exact else tuple(self._seconds)
        slower = before is not None and self._seconds[size] > WORTHWHILE * before
        enough = size >= MANY and self._seconds[size] * size > LONG
        if size >= DECISIVE and (slower or enough or self.sizes == (1,)):
            self._next = self._most + 1
        return True

    def fitting(self) -> Sequence[int]:
        """Return the sizes that the free memory allows now; the smallest always."""
        return _up_to(self.sizes, self._most_now(self.sizes[-1]))

    def next_size(self, waiting: int) -> int:
        """Return the size of the next batch, of those that the free memory allows, see :func:`choose`."""
        return choose(waiting, self.fitting(), self._seconds)

    def _most_now(self, wanted: int) -> float:
        """Return the most rows of a batch that the free memory allows now, of ``wanted`` ones."""
        if not self.row_bytes or wanted * self.row_bytes <= NEGLIGIBLE:
            return wanted
        free = free_bytes(self._model.device)
        return wanted if free is None else SHARE * free / self.row_bytes

    def _measure(self, size: int, run: Callable[[], None]) -> None:
        taken = peak_bytes(run, self._model.device)
        if taken is not None:
            self.row_bytes = taken // size

    def _run(self, size: int) -> None:
        self._kind.compute(self._model, [self._kind.example(self._model)] * size)

    def _seconds_per_row(self, size: int) -> float:
        """Return the seconds of a row: the least of a few batches where they are short, as other work interrupts."""
        taken: list[float] = []
        while len(taken) < BATCHES and sum(taken) < BRIEF:
            begin = time.perf_counter()
            self._run(size)
            taken.append(time.perf_counter() - begin)
        return min(taken) / size

    def _digest(self, size: int) -> str | None:
        """Compute copies of one picture, and hash what all layers give for it; ``None`` if copies differ."""
        rows = [xxhash.xxh3_128() for _ in range(size)]

        def add(layer: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in output if isinstance(output, tuple) else (output,):
                if isinstance(tensor, Tensor) and tensor.dim() and len(tensor) == size:
                    for row, values in zip(rows, tensor, strict=True):
                        row.update(values.contiguous().cpu().view(-1).view(torch.uint8).numpy())

        layers = [layer for layer in self._model.modules() if not list(layer.children())]
        handles = [layer.register_forward_hook(add) for layer in layers]
        try:
            self._run(size)
        finally:
            for handle in handles:
                handle.remove()
        found = {row.hexdigest() for row in rows}
        return found.pop() if len(found) == 1 else None


def agreeing(digests: Mapping[int, str | None], pixels: int) -> tuple[int, ...]:
    """Choose the batch sizes to compute in, which all give a picture the same bits.

    Args:
        digests: by batch size, powers of two from 1 on, a hash of what all layers gave for a picture; ``None`` where
            copies of one picture differed.
        pixels: pixels of a picture, as it goes through the network.

    Returns:
        The sizes, in ascending order. They begin with 1; or with 2 where single pictures agree with no larger batch and
        a picture is so small that it may be computed twice.
    """
    for first in (1, 2) if pixels <= SMALL else (1,):
        wanted = digests.get(first)
        sizes = tuple(sorted(size for size, found in digests.items() if size >= first and found == wanted))
        # By the smallest sizes alone, which every process tries, so that all come to the same bits.
        if wanted is not None and len(sizes) > 1 and sizes[1] <= DECISIVE:
            return sizes
    return (1,)


def choose(waiting: int, sizes: Sequence[int], row_seconds: Mapping[int, float]) -> int:
    """Choose the size of the next batch: that in which each of the rows that wait takes the least time.

    Args:
        waiting: the number of rows that wait.
        sizes: the sizes that a batch may have, in ascending order. One above ``waiting`` has room to spare.
        row_seconds: by size, how long a row takes in a full batch; nothing where that was not measured.

    Returns:
        A size; without measurements the largest that the rows fill, or else the smallest.
    """
    filled = _up_to(sizes, waiting)
    if sizes[-1] not in row_seconds:
        return filled[-1]
    larger = sizes[len(filled) : len(filled) + 1]
    return min((*reversed(filled), *larger), key=lambda size: row_seconds[size] * size / min(size, waiting))


def _up_to(sizes: Sequence[int], most: float) -> Sequence[int]:
    """Return the sizes up to ``most``; the smallest always."""
    return sizes[: max(1, bisect.bisect_right(sizes, most))]
