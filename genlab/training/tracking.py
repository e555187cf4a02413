"""The files in which a run is followed: ``metrics.jsonl``, TensorBoard event files and sample pictures.

Every line of ``metrics.jsonl`` is an object with ``kind`` (``train``: means over the steps since the last such line;
``val`` and ``test``: metrics of held-out rows, for choices and for results), ``step`` (steps done), ``images`` (images
seen), ``epoch``, and the metrics. The fields in :data:`CLOCK_FIELDS` depend on the clock and the machine; all others
are reproducible bit for bit.
"""

import json
import shutil
import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.writer import SummaryWriter
from upath import UPath

from genlab.core.storage import is_remote, write_atomic
from genlab.training.stopwatch import PARTS

CLOCK_FIELDS = frozenset({"time", "images_per_second", "data_wait_share"} | {f"{part}_share" for part in PARTS})
"""Fields that differ between equal runs: seconds since 1970, speed, fraction of time waiting for data, and, in
TensorBoard only (``time/...``), the fraction of time of each part of a step."""

TIME_FIELDS = frozenset({"kind", "step", "images", "epoch"})
"""Fields of ``metrics.jsonl`` that are no metrics: they say what was measured, and when."""

METRICS = "metrics.jsonl"
EVALUATION = "evaluation"
"""The mark (``node_name``) of the TensorBoard values of evaluations. An earlier genlab marked the tags instead:
``evaluation/NAME``."""
SYNC_SECONDS = 20.0
"""Least time between two copies of the scratch folder to an object store."""


class Tracker:
    """Writes rank 0's files. For a run on an object store they go to a scratch folder, which is copied now and then.

    Args:
        directory: the run directory.
        step: the step the run goes on from. Lines and events that earlier attempts wrote past it are dropped, so that
            none is lost or doubled. Evaluations are dropped from TensorBoard whatever their step, because they are
            written at any time after it: the loop writes those it goes on with again.
    """

    def __init__(self, directory: UPath, step: int) -> None:
        self._directory = directory
        self._scratch = Path(tempfile.mkdtemp(prefix="genlab-")) if is_remote(directory) else None
        self._root = self._scratch or Path(str(directory))
        self._root.mkdir(parents=True, exist_ok=True)
        self._copied: dict[Path, tuple[int, int]] = {}
        self._synced = time.monotonic()
        if self._scratch:
            self._download()
        self._rewind(step)
        self.metrics_file = self._root / METRICS
        self._metrics = self.metrics_file.open("a")
        self._tensorboard = SummaryWriter(str(self._root / "tensorboard"), purge_step=step + 1 if step else None)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *error: object) -> None:
        self._metrics.close()
        self._tensorboard.close()
        self.flush()
        if self._scratch:
            shutil.rmtree(self._scratch)

    def log(self, kind: str, step: int, images: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Append a line to ``metrics.jsonl``, and write the same metrics to TensorBoard."""
        line = {"kind": kind, "step": step, "images": images, "epoch": epoch, **metrics, "time": time.time()}
        self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()
        for name, value in metrics.items():
            self._tensorboard.add_scalar(f"{kind}/{name}", value, step)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.flush()

    def time_fractions(self, step: int, fractions: Mapping[str, float]) -> None:
        """Write the fraction of time of each part of a step to TensorBoard, as ``time/NAME``."""
        for name, fraction in fractions.items():
            self._tensorboard.add_scalar(f"time/{name}", fraction, step)

    def evaluation(self, kind: str, step: int, measurements: Mapping[str, float]) -> None:
        """Write the evaluation of the checkpoint of ``step`` to TensorBoard, as ``KIND/NAME``: ``val/kid``."""
        for name, value in measurements.items():
            marked = Summary.Value(node_name=EVALUATION, tag=f"{kind}/{name}", simple_value=value)
            self._tensorboard._get_file_writer().add_summary(Summary(value=[marked]), step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Write a picture, uint8 [H, W, C], as ``figures/step-00000100/NAME.png`` and to TensorBoard."""
        folder = self._root / "figures" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(folder / f"{name}.png")
        self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def table(self, step: int, name: str, rows: Sequence[Sequence[str]]) -> None:
        """Write a table, whose first row is its head, to TensorBoard as text."""
        head, *body = ("| " + " | ".join(row) + " |" for row in rows)
        rule = "| " + " | ".join(["---"] + ["---:"] * (len(rows[0]) - 1)) + " |"
        self._tensorboard.add_text(name, "\n".join([head, rule, *body]), step)

    def flush(self) -> None:
        """Write out all lines and events so far; to be called before a checkpoint, which must not be ahead of them."""
        if not self._metrics.closed:
            self._metrics.flush()
            self._tensorboard.flush()
        self._synced = time.monotonic()
        if not self._scratch:
            return
        for file in sorted(path for path in self._scratch.rglob("*") if path.is_file()):
            stat = file.stat()
            if self._copied.get(file) != (stat.st_size, stat.st_mtime_ns):
                target = self._directory / file.relative_to(self._scratch).as_posix()
                write_atomic(target, file.read_bytes())
                self._copied[file] = (stat.st_size, stat.st_mtime_ns)

    def _download(self) -> None:
        for name in (METRICS, "tensorboard"):
            source = self._directory / name
            if source.exists():
                source.fs.get(source.path, str(self._root / name), recursive=source.is_dir())

    def _rewind(self, step: int) -> None:
        metrics = self._root / METRICS
        kept = [line for line in read_metrics(metrics) if line["step"] <= step]
        write_atomic(UPath(metrics), "".join(json.dumps(line) + "\n" for line in kept).encode())
        folder = self._root / "tensorboard"
        for partial in folder.glob(".events.*.partial"):
            partial.unlink()  # left when a process was killed in this loop; TensorBoard would read it
        for events in sorted(folder.glob("events.*")):
            _drop_events_after(events, step)


def read_metrics(file: Path | UPath) -> list[dict[str, Any]]:
    """Return the lines of a ``metrics.jsonl``, up to one that a crash cut short; none when there is no file."""
    lines: list[dict[str, Any]] = []
    if not file.exists():
        return lines
    for text in file.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _is_of_evaluation(value: Summary.Value) -> bool:
    return bool(value.node_name == EVALUATION or value.tag.startswith(f"{EVALUATION}/"))


def _drop_events_after(file: Path, step: int) -> None:
    """Rewrite a TensorBoard event file without evaluations and without events past ``step``.

    The other records are copied byte for byte.
    """
    data = file.read_bytes()
    kept = bytearray()
    start = 0
    while start + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        end = start + 12 + length + 4
        if end > len(data):
            break
        event = Event.FromString(data[start + 12 : end - 4])
        if event.step <= step and not any(map(_is_of_evaluation, event.summary.value)):
            kept += data[start:end]
        start = end
    write_atomic(UPath(file), kept)
