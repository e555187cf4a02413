"""What a run tells Prometheus, through the agent of Ray on its node, which gives all names the prefix ``ray_``.

* ``genlab_run_images_per_second`` (run, family): images that all workers train on in a second; 0 from its end on.
* ``genlab_run_progress`` (run, family): share of its steps that are done, 0..1.
* ``genlab_run_metric`` (run, family, metric): the newest means of training that ``metrics.jsonl`` has, losses say.
"""

from functools import cache

from ray.util.metrics import Gauge

from genlab.training.console import ProgressUpdate

RUN = ("run", "family")
SPEED, PROGRESS, METRIC = "genlab_run_images_per_second", "genlab_run_progress", "genlab_run_metric"


class RunTelemetry:
    """Records the progress of a run; of rank 0.

    Args:
        run: the run's name.
        family: its model family.
    """

    def __init__(self, run: str, family: str) -> None:
        self._labels = {"run": run, "family": family}

    def progress(self, update: ProgressUpdate) -> None:
        """Record how far the run is; takes microseconds."""
        _gauge(SPEED).set(update.images_per_second, self._labels)
        _gauge(PROGRESS).set(update.step / update.steps, self._labels)
        for name, value in update.metrics.items():
            _gauge(METRIC).set(value, {**self._labels, "metric": name})

    def end(self) -> None:
        """Record that the run is not trained any more: its process may live on."""
        _gauge(SPEED).set(0.0, self._labels)


@cache
def _gauge(name: str) -> Gauge:
    """Return the gauge of this process."""
    described = {
        SPEED: ("Images trained on in a second.", RUN),
        PROGRESS: ("Share of the steps that are done.", RUN),
        METRIC: ("Newest means of training.", (*RUN, "metric")),
    }
    text, labels = described[name]
    return Gauge(name, description=text, tag_keys=labels)
