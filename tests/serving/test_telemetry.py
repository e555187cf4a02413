"""Metrics as Prometheus reads them."""

import threading
import time
from typing import Any

import httpx
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray.util import metrics as ray_metrics

from genlab.core.ray_cluster import connected
from genlab.serving.telemetry import PrometheusTelemetry, RayTelemetry, Telemetry


def record(telemetry: Telemetry) -> None:
    telemetry.answered("digits", "sample", 200, 0.004)
    telemetry.answered("digits", "sample", 503, 0.0001)
    telemetry.batch("digits", "sample", 8, 8 * 784)
    telemetry.phase("digits", "compute", 0.003)
    telemetry.waiting("digits", 5)
    telemetry.waiting("digits", 2)
    telemetry.memory("digits", 1 << 20)


def values(telemetry: PrometheusTelemetry) -> dict[tuple[str, ...], float]:
    """By name and label values, in the order of the labels' names, of every sample."""
    text, media_type = telemetry.text()
    assert media_type.startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(text.decode())
    return {(s.name, *dict(sorted(s.labels.items())).values()): s.value for family in families for s in family.samples}


def test_what_a_server_does_is_counted_by_model() -> None:
    telemetry = PrometheusTelemetry()
    record(telemetry)
    found = values(telemetry)
    assert found["genlab_requests_total", "digits", "sample", "200"] == 1
    assert found["genlab_requests_total", "digits", "sample", "503"] == 1
    assert found["genlab_request_seconds_count", "digits", "sample"] == 2
    assert found["genlab_request_seconds_bucket", "0.0025", "digits", "sample"] == 1
    assert found["genlab_batch_pictures_sum", "digits", "sample"] == 8
    assert found["genlab_pixels_total", "digits", "sample"] == 8 * 784
    assert found["genlab_phase_seconds_sum", "digits", "compute"] == pytest.approx(0.003)
    assert found["genlab_waiting_requests", "digits"] == 2
    assert found["genlab_model_bytes", "digits"] == 1 << 20
    assert found[("process_resident_memory_bytes",)] > 1 << 20


def test_servers_of_one_process_do_not_share_their_counts() -> None:
    first, second = PrometheusTelemetry(), PrometheusTelemetry()
    record(first)
    assert ("genlab_waiting_requests", "digits") not in values(second)


def test_threads_count_together() -> None:
    telemetry = PrometheusTelemetry()

    def work() -> None:
        for _ in range(500):
            telemetry.answered("digits", "sample", 200, 0.1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(telemetry)["genlab_requests_total", "digits", "sample", "200"] == 2000


def test_a_replica_records_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[tuple[str, float, dict[str, str]]] = []

    def keep(self: Any, value: float, tags: dict[str, str]) -> None:
        self._validate_tags(tags)
        recorded.append((self.info["name"], value, tags))

    monkeypatch.setattr(ray_metrics.Metric, "_record", keep)
    telemetry = RayTelemetry("replica-1")
    record(telemetry)
    telemetry.batch("digits", "sample", 1, 0)
    own = {"model": "digits", "replica": "replica-1"}
    assert ("genlab_requests", 1, {**own, "operation": "sample", "status": "503"}) in recorded
    assert ("genlab_pixels", 8 * 784, {**own, "operation": "sample"}) in recorded
    assert ("genlab_phase_seconds", 0.003, {**own, "phase": "compute"}) in recorded
    assert ("genlab_waiting_requests", 2, own) in recorded


@pytest.mark.cluster
def test_prometheus_can_sum_over_the_replicas_of_a_cluster() -> None:
    with connected():

        @ray.remote(num_cpus=0)
        class Replica:
            def __init__(self, name: str) -> None:
                self.telemetry = RayTelemetry(name)

            def work(self) -> None:
                record(self.telemetry)

        replicas = [Replica.remote(name) for name in ("one", "two")]  # type: ignore[attr-defined]
        ray.get([replica.work.remote() for replica in replicas])
        [node] = ray.nodes()
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for _ in range(120):
            found = [
                (sample.labels["replica"], sample.labels["status"], sample.value)
                for family in text_string_to_metric_families(httpx.get(url).text)
                for sample in family.samples
                if sample.name == "ray_genlab_requests_total"
            ]
            if len(found) == 4:
                break
            time.sleep(0.5)
    assert sorted(found) == [("one", "200", 1), ("one", "503", 1), ("two", "200", 1), ("two", "503", 1)]
