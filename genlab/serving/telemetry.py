"""Metrics of a server, for Prometheus.

* ``genlab_requests_total`` (model, operation, status): requests answered.
* ``genlab_request_seconds`` (model, operation): from the head of a request to the end of its answer.
* ``genlab_phase_seconds`` (model, phase): of a request to decode, wait and encode; of a batch to compute.
* ``genlab_batch_pictures`` (model, operation): pictures of a batch.
* ``genlab_pixels_total`` (model, operation): pixels computed, padding included.
* ``genlab_waiting_requests`` (model): requests that wait to be computed, after each batch.
* ``genlab_model_bytes`` (model): memory that the weights of the model's loaded versions hold.
* ``genlab_row_bytes`` (model, operation): memory that a picture of a batch was measured to take.

``model`` and ``operation`` are empty for requests of no model, such as those that are refused before a route has them.
Buckets are the same everywhere, so histograms of several replicas can be summed.
"""

import abc
import dataclasses
from typing import Any, Literal

import prometheus_client

Phase = Literal["decode", "wait", "compute", "encode"]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PICTURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Metric:
    """What is recorded under one name."""

    name: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


_REQUESTS = Metric("genlab_requests", "Requests answered.", ("model", "operation", "status"))
_REQUEST_SECONDS = Metric("genlab_request_seconds", "Time to answer a request.", ("model", "operation"), SECONDS)
_PHASE_SECONDS = Metric("genlab_phase_seconds", "Time of a part of the work.", ("model", "phase"), SECONDS)
_BATCH_PICTURES = Metric("genlab_batch_pictures", "Pictures of a batch.", ("model", "operation"), PICTURES)
_PIXELS = Metric("genlab_pixels", "Pixels computed, padding included.", ("model", "operation"))
_WAITING = Metric("genlab_waiting_requests", "Requests that wait to be computed.", ("model",))
_BYTES = Metric("genlab_model_bytes", "Memory that a model's weights hold.", ("model",))
_ROW_BYTES = Metric("genlab_row_bytes", "Memory that a picture of a batch takes.", ("model", "operation"))

_COUNTERS = (_REQUESTS, _PIXELS)
_HISTOGRAMS = (_REQUEST_SECONDS, _PHASE_SECONDS, _BATCH_PICTURES)
_GAUGES = (_WAITING, _BYTES, _ROW_BYTES)


class Telemetry(abc.ABC):
    """Where the parts of a server record what they do. Methods take microseconds and may be called in any thread."""

    def answered(self, model: str, operation: str, status: int, seconds: float) -> None:
        """Record an answer and the seconds that it took."""
        self._count(_REQUESTS, (model, operation, str(status)), 1)
        self._observe(_REQUEST_SECONDS, (model, operation), seconds)

    def batch(self, model: str, operation: str, pictures: int, pixels: int) -> None:
        """Record that a batch of ``pictures`` with ``pixels`` pixels together, padding included, was computed."""
        self._observe(_BATCH_PICTURES, (model, operation), pictures)
        self._count(_PIXELS, (model, operation), pixels)

    def phase(self, model: str, phase: Phase, seconds: float) -> None:
        """Record how long a part of the work took."""
        self._observe(_PHASE_SECONDS, (model, phase), seconds)

    def waiting(self, model: str, requests: int) -> None:
        """Record how many requests wait for a model now."""
        self._set(_WAITING, (model,), requests)

    def memory(self, model: str, size: int) -> None:
        """Record how many bytes a model holds now; 0 once it is gone."""
        self._set(_BYTES, (model,), size)

    def row(self, model: str, operation: str, size: int) -> None:
        """Record the bytes of memory that a picture of a batch was measured to take."""
        self._set(_ROW_BYTES, (model, operation), size)

    @abc.abstractmethod
    def _count(self, metric: Metric, labels: tuple[str, ...], value: float) -> None: ...

    @abc.abstractmethod
    def _observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None: ...

    @abc.abstractmethod
    def _set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None: ...


class PrometheusTelemetry(Telemetry):
    """The metrics of a server of one process, which it hands out itself, with those of the process."""

    def __init__(self) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)
        common: dict[str, Any] = {"registry": self._registry}
        self._metrics: dict[Metric, Any] = {
            **{m: prometheus_client.Counter(m.name, m.help, m.labels, **common) for m in _COUNTERS},
            **{m: prometheus_client.Gauge(m.name, m.help, m.labels, **common) for m in _GAUGES},
            **{
                m: prometheus_client.Histogram(m.name, m.help, m.labels, buckets=m.buckets, **common)
                for m in _HISTOGRAMS
            },
        }
        self._series: dict[tuple[Metric, tuple[str, ...]], Any] = {}

    def text(self) -> tuple[bytes, str]:
        """Return all metrics as Prometheus reads them, and their media type."""
        return prometheus_client.generate_latest(self._registry), prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

    def _count(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._of(metric, labels).inc(value)

    def _observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._of(metric, labels).observe(value)

    def _set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._of(metric, labels).set(value)

    def _of(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        series = self._series.get((metric, labels))
        if series is None:
            series = self._series[metric, labels] = self._metrics[metric].labels(*labels)
        return series


class RayTelemetry(Telemetry):
    """The metrics of a replica under Ray, which each node's agent hands out: all names get the prefix ``ray_``.

    Ray sends buckets only, so the ``_sum`` of a histogram is made of their middles.

    Args:
        replica: names the replica in the label ``replica``, so that no gauge hides another's.
    """

    def __init__(self, replica: str) -> None:
        from ray.util import metrics as ray_metrics  # a server of one process starts faster without Ray

        self._replica = replica
        self._metrics: dict[Metric, Any] = {}
        for m in _COUNTERS:
            self._metrics[m] = ray_metrics.Counter(m.name, m.help, (*m.labels, "replica"))
        for m in _GAUGES:
            self._metrics[m] = ray_metrics.Gauge(m.name, m.help, (*m.labels, "replica"))
        for m in _HISTOGRAMS:
            self._metrics[m] = ray_metrics.Histogram(m.name, m.help, list(m.buckets), (*m.labels, "replica"))
        self._tags: dict[tuple[Metric, tuple[str, ...]], dict[str, str]] = {}

    def _count(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        if value > 0:  # Ray refuses 0
            self._metrics[metric].inc(value, self._of(metric, labels))

    def _observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._metrics[metric].observe(value, self._of(metric, labels))

    def _set(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._metrics[metric].set(value, self._of(metric, labels))

    def _of(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
        tags = self._tags.get((metric, labels))
        if tags is None:
            tags = self._tags[metric, labels] = dict(zip(metric.labels, labels, strict=True), replica=self._replica)
        return tags
