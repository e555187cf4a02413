"""What a run is followed by: the lines of ``metrics.jsonl``, TensorBoard event files and sample pictures.

Every line of ``metrics.jsonl`` is an object with ``kind`` (``train``: means over the steps since the last such line;
``val`` and ``test``: metrics of held-out rows, for choices and for results), ``step`` (steps done), ``images`` (images
seen), ``epoch``, and the metrics. The fields in :data:`CLOCK_FIELDS` depend on the clock and the machine; all others
are reproducible bit for bit. How the files are written is in :mod:`genlab.training.run_files`.
"""

import io
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from PIL import Image
from upath import UPath

from genlab.training import event_file
from genlab.training.attempts import Attempt
from genlab.training.run_files import METRICS, open_run_files, read_metrics
from genlab.training.stopwatch import PARTS

__all__ = ["CLOCK_FIELDS", "EVALUATION", "METRICS", "TIME_FIELDS", "Tracker", "read_metrics"]

CLOCK_FIELDS = frozenset({"time", "images_per_second", "data_wait_share"} | {f"{part}_share" for part in PARTS})
"""Fields that differ between equal runs: seconds since 1970, speed, fraction of time waiting for data, and, in
TensorBoard only (``time/...``), the fraction of time of each part of a step."""

TIME_FIELDS = frozenset({"kind", "step", "images", "epoch"})
"""Fields of ``metrics.jsonl`` that are no metrics: they say what was measured, and when."""

EVALUATION = "evaluation"
"""The mark of the TensorBoard values of evaluations. An earlier genlab marked the tags instead: ``evaluation/NAME``."""
FLUSH_SECONDS = 20.0
"""Least time between two flushes that no checkpoint asks for."""


class Tracker:
    """Writes rank 0's metrics, events and pictures.

    Args:
        directory: the run directory.
        step: the step the run goes on from. Lines and events that earlier attempts wrote past it are dropped, so that
            none is lost or doubled. Evaluations are dropped from TensorBoard whatever their step, because they are
            written at any time after it: the loop writes those it goes on with again.
        attempt: the attempt that writes them; ``None`` if nothing else can.

    Raises:
        SupersededError: a later attempt goes on with the run; :meth:`flush`, and :meth:`log`, raise it too.
    """

    def __init__(self, directory: UPath, step: int, attempt: Attempt | None = None) -> None:
        self.latest: dict[str, float] = {}
        """The last value of each metric, by kind and name: ``train/loss``."""
        self._files, lines = open_run_files(directory, step, EVALUATION, attempt)
        for line in lines:
            self._remember(json.loads(line))
        self._flushed = time.monotonic()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close(finished=error[0] is None)

    def log(self, kind: str, step: int, images: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Append a line to ``metrics.jsonl``, and write the same metrics to TensorBoard."""
        line = {"kind": kind, "step": step, "images": images, "epoch": epoch, **metrics, "time": time.time()}
        for name, value in metrics.items():
            self._files.event(event_file.scalar(step, f"{kind}/{name}", value))
        self._files.line(json.dumps(line))
        self._remember(line)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def time_fractions(self, step: int, fractions: Mapping[str, float]) -> None:
        """Write the fraction of time of each part of a step to TensorBoard, as ``time/NAME``."""
        for name, fraction in fractions.items():
            self._files.event(event_file.scalar(step, f"time/{name}", fraction))

    def evaluation(self, kind: str, step: int, measurements: Mapping[str, float]) -> None:
        """Write the evaluation of the checkpoint of ``step`` to TensorBoard, as ``KIND/NAME``: ``val/kid``."""
        for name, value in measurements.items():
            self._files.event(event_file.scalar(step, f"{kind}/{name}", value, mark=EVALUATION))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Write a picture, uint8 [H, W, C], as ``figures/step-00000100/NAME.png`` and to TensorBoard."""
        png = io.BytesIO()
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(png, "png")
        self._files.picture(f"figures/step-{step:08d}/{name}.png", png.getvalue())
        self._files.event(event_file.picture(step, name, png.getvalue(), image.shape))

    def table(self, step: int, name: str, rows: Sequence[Sequence[str]]) -> None:
        """Write a table, whose first row is its head, to TensorBoard as text."""
        head, *body = ("| " + " | ".join(row) + " |" for row in rows)
        rule = "| " + " | ".join(["---"] + ["---:"] * (len(rows[0]) - 1)) + " |"
        self._files.event(event_file.text(step, name, "\n".join([head, rule, *body])))

    def flush(self) -> Future[None]:
        """Begin to write all lines, events and pictures so far.

        Returns:
            A future that is done when they are written. A checkpoint, which must not be ahead of them, waits for it.
        """
        self._flushed = time.monotonic()
        return self._files.flush()

    def _remember(self, line: Mapping[str, Any]) -> None:
        self.latest |= {
            f"{line['kind']}/{name}": value for name, value in line.items() if name not in TIME_FIELDS | CLOCK_FIELDS
        }
