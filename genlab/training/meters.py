"""Numbers that the loop gathers over several steps: means of metrics, and speed."""

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from genlab.data.stream.shard_stream import ShardStream
from genlab.training.session import gather, sum_over_ranks


class Meter:
    """Means of metrics over the rows of several steps, kept on the device until they are read."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._weight = 0.0
        self._first_not_finite: Tensor | None = None

    def add(self, metrics: Mapping[str, Tensor], step: int, fraction: float, weight: float = 1.0) -> None:
        """Add the metrics of one step.

        Args:
            metrics: scalar tensors, means over this rank's rows.
            step: the step's number.
            fraction: the number of this rank's rows, divided by that of all ranks' rows.
            weight: the weight of the step in the means.
        """
        self._names = list(metrics)
        self._weight += weight
        if metrics:
            values = torch.stack([value.double() for value in metrics.values()])
            not_finite = torch.where(values.isfinite(), math.inf, step)
            first = self._first_not_finite
            self._first_not_finite = not_finite if first is None else torch.minimum(first, not_finite)
            values *= fraction * weight
            self._sums = values if self._sums is None else self._sums + values

    def means(self) -> dict[str, float]:
        """Return the means over the rows of all ranks since the last call. Every rank calls it, at the same steps."""
        sums, weight, self._sums, self._weight = self._sums, self._weight, None, 0.0
        if sums is None:
            return {}
        return dict(zip(self._names, (sum_over_ranks(sums) / weight).tolist(), strict=True))

    def first_not_finite(self) -> tuple[int, str]:
        """Return the first step in which metrics of any rank were not finite, and the names of these metrics.

        Every rank calls it when :meth:`means` has returned a number that is not finite, which all ranks see alike.
        """
        assert self._first_not_finite is not None
        ranks = gather(self._first_not_finite.tolist())
        first = int(min(step for steps in ranks for step in steps if math.isfinite(step)))
        named = zip(self._names, zip(*ranks, strict=True), strict=True)
        return first, ", ".join(name for name, steps in named if first in steps)


class Throughput:
    """Speed and time spent waiting for data, since the last reading.

    Args:
        streams: the streams of the domains, by name; they advance together.
    """

    def __init__(self, streams: Mapping[str, ShardStream]) -> None:
        self._streams = streams
        self._mark()

    def _mark(self) -> None:
        self._since = time.perf_counter()
        self._position = next(iter(self._streams.values())).position
        self._waited = sum(stream.waited for stream in self._streams.values())

    def read(self) -> dict[str, float]:
        """Return images (or pairs) a second, and the fraction of time spent waiting for data, 0..1."""
        since, position, waited = self._since, self._position, self._waited
        self._mark()
        seconds = self._since - since
        return {
            "images_per_second": (self._position - position) / seconds,
            "data_wait_share": (self._waited - waited) / seconds,
        }
