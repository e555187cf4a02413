"""What a run tells Prometheus."""

from typing import Any

import pytest
import ray.util.metrics

from genlab.training.console import ProgressUpdate
from genlab.training.ray.telemetry import RunTelemetry


def test_a_run_tells_its_speed_its_progress_and_its_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[tuple[str, float, dict[str, str]]] = []

    def keep(self: Any, value: float, tags: dict[str, str]) -> None:
        self._validate_tags(tags)
        recorded.append((self.info["name"], value, tags))

    monkeypatch.setattr(ray.util.metrics.Metric, "_record", keep)
    telemetry, own = RunTelemetry("monet", "cyclegan"), {"run": "monet", "family": "cyclegan"}
    telemetry.progress(ProgressUpdate(30, 120, 0.5, 12.5, {"cycle_a": 0.25}))
    assert recorded == [
        ("genlab_run_images_per_second", 12.5, own),
        ("genlab_run_progress", 0.25, own),
        ("genlab_run_metric", 0.25, {**own, "metric": "cycle_a"}),
    ]
    telemetry.end()
    assert recorded[3:] == [("genlab_run_images_per_second", 0.0, own)]
