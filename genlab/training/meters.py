"""Numbers that the loop gathers over several steps: means of metrics, and speed."""

import math
import time
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.data.stream.shard_stream import ShardStream
from genlab.recipes.recipe import Metrics
from genlab.training.session import gather


class Meter:
    """Means of metrics over the rows of several steps and all ranks, each by its name.

    A metric may come in some steps only, in any order, and on some ranks only: its mean is over the rows that it came
    with. Sums stay on the device until they are read.

    Args:
        taken: names that metrics must not have, because the loop logs something else under them.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._weights: dict[tuple[str, ...], float] = {}
        self._first_not_finite: dict[tuple[str, ...], Tensor] = {}
        self._meanings = dict.fromkeys(taken, "the training loop")

    def add(self, metrics: Metrics, meaning: str, step: int, weight: float) -> None:
        """Add metrics of some rows of a step.

        Args:
            metrics: scalar tensors, means over these rows.
            meaning: what gave them, such as the name of a phase.
            step: the step's number.
            weight: the weight of these rows in the means: their number, in a unit that is the same in all calls.

        Raises:
            ConfigError: when a metric is no scalar tensor, or another ``meaning`` has given one of its name.
        """
        for name, value in metrics.items():
            if not isinstance(value, Tensor) or value.dim():
                raise ConfigError(f"{meaning}: metric {name!r} must be a scalar tensor; it is {_kind(value)}")
            if self._meanings.setdefault(name, meaning) != meaning:
                raise ConfigError(
                    f"{meaning}: {self._meanings[name]} has a metric {name!r} too; give one of them another name"
                )
        if not metrics:
            return
        names = tuple(metrics)
        values = torch.stack([value.detach().double() for value in metrics.values()])
        not_finite = torch.where(values.isfinite(), math.inf, step)
        values *= weight
        if names in self._first_not_finite:
            not_finite = torch.minimum(self._first_not_finite[names], not_finite)
        self._first_not_finite[names] = not_finite
        self._sums[names] = self._sums[names] + values if names in self._sums else values
        self._weights[names] = self._weights.get(names, 0.0) + weight

    def means(self) -> dict[str, float]:
        """Return the mean of each metric since the last call. Every rank calls it, at the same steps."""
        own: dict[str, tuple[float, float]] = {}
        for names, sums in self._sums.items():
            for name, value in zip(names, sums.tolist(), strict=True):
                before, weight = own.get(name, (0.0, 0.0))
                own[name] = before + value, weight + self._weights[names]
        self._sums, self._weights = {}, {}
        totals: dict[str, tuple[float, float]] = {}
        for metrics in gather(own):
            for name, (value, weight) in metrics.items():
                before, others = totals.get(name, (0.0, 0.0))
                totals[name] = before + value, others + weight
        return {name: value / weight for name, (value, weight) in totals.items()}

    def first_not_finite(self) -> tuple[int, str]:
        """Return the first step in which metrics of any rank were not finite, and the names of these metrics.

        Every rank calls it when :meth:`means` has returned a number that is not finite, which all ranks see alike.
        """
        own: dict[str, float] = {}
        for names, steps in self._first_not_finite.items():
            for name, step in zip(names, steps.tolist(), strict=True):
                own[name] = min(step, own.get(name, math.inf))
        ranks = gather(own)
        first = min(step for metrics in ranks for step in metrics.values())
        named = dict.fromkeys(name for metrics in ranks for name, step in metrics.items() if step == first)
        return int(first), ", ".join(named)


def _kind(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


class Throughput:
    """Speed and time spent waiting for data, since the last reading.

    Args:
        streams: the streams of the domains, by name.
        images: images (or pairs) trained on before.
    """

    def __init__(self, streams: Mapping[str, ShardStream], images: int) -> None:
        self._streams = streams
        self._mark(images)

    def _mark(self, images: int) -> None:
        self._since = time.perf_counter()
        self._images = images  # Streams may be a batch ahead.
        self._waited = sum(stream.waited for stream in self._streams.values())

    def read(self, images: int) -> dict[str, float]:
        """Return images (or pairs) a second, and the fraction of time spent waiting for data, 0..1.

        Args:
            images: images (or pairs) trained on so far.
        """
        since, before, waited = self._since, self._images, self._waited
        self._mark(images)
        seconds = self._since - since
        return {
            "images_per_second": (self._images - before) / seconds,
            "data_wait_share": (self._waited - waited) / seconds,
        }
