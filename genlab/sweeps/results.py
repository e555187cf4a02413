"""What came out of the trials, trial by trial: state, cost, curves and pictures; and ``results.parquet``."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import locate, write_atomic
from genlab.imaging.images import Pixels
from genlab.reports.run import RunRecord, read_picture
from genlab.sweeps.trials import SEED, Outcome

FILE_NAME = "results.parquet"
SECONDS_PER_HOUR = 3600
LOG_LINES = 12
"""The most lines of what was said of a failure."""

State = Literal["waiting", "finished", "failed"]
"""``waiting``: it has not started, or not ended."""


@dataclass(frozen=True)
class TrialResult:
    """A trial with what its run says of it."""

    outcome: Outcome
    images: int = 0
    """Images seen, those before it branched off another trial among them."""
    hours: float = 0.0
    """Hours spent in training steps and what lies between them; starts and pauses are left out."""
    curves: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    """Images seen and value each time a metric of the sweep was measured, by its name; a score has no curve."""
    log: tuple[str, ...] = ()
    """The last lines of what was said of its failure, the error among them; none of a trial that did not fail."""

    @property
    def state(self) -> State:
        """How far it is."""
        if self.outcome.error:
            return "failed"
        return "finished" if self.outcome.metrics else "waiting"

    @property
    def images_of_its_own(self) -> int:
        """Images seen since it began: without those of the trial that it branched off."""
        origin = self.outcome.trial.origin
        return max(0, self.images - (origin.images if origin else 0))

    def value(self, metric: str) -> float:
        """Return a metric of the trained model; NaN where it has none."""
        return self.outcome.metrics.get(metric, math.nan)

    def pictures(self) -> dict[str, Pixels]:
        """Read the pictures that training drew last, by name."""
        folders = sorted(self._directory.glob("figures/step-*"), key=lambda folder: folder.name)
        files = sorted(folders[-1].glob("*.png"), key=lambda file: file.name) if folders else []
        return {file.stem: read_picture(file) for file in files}

    @property
    def _directory(self) -> UPath:
        return locate(self.outcome.trial.plan.directory)


def failed(result: TrialResult, fault: str) -> TrialResult:
    """Return the result of a trial with what was said of its failure, which has one line or more."""
    lines = tuple(line.rstrip() for line in fault.strip().splitlines() if line.strip())[-LOG_LINES:]
    return replace(result, outcome=replace(result.outcome, error=lines[-1].strip()), log=lines)


def read_result(outcome: Outcome, objectives: Sequence[str]) -> TrialResult:
    """Read what the run of a trial says of it.

    Args:
        outcome: what came out of the trial.
        objectives: the sweep's metrics, whose curves are read.
    """
    try:
        run = RunRecord.read(outcome.trial.plan.directory)
    except RunError:  # it has not started, or failed before its first metrics
        return TrialResult(outcome)
    curves = {metric: found for metric in objectives if (found := _curve(run, metric))}
    return TrialResult(outcome, run.images, run.training_seconds / SECONDS_PER_HOUR, curves)


def _curve(run: RunRecord, metric: str) -> tuple[tuple[int, float], ...]:
    kind, _, name = metric.partition("/")
    if kind != "val":
        return ()
    found = {line["images"]: line[name] for line in run.val if name in line}
    found |= {one.images: one.measurements[name].value for one in run.evaluations if name in one.measurements}
    return tuple(sorted(found.items()))


def write_results(folder: UPath, results: Sequence[TrialResult]) -> None:
    """Write ``results.parquet``: a row for each trial.

    Its columns are the options that vary, by name; ``run.seed``; all metrics, by name; ``images``, ``hours``,
    ``stopped``, the images at which a scheduler stopped it, ``parent``, the run that it branched off in a population,
    ``parent_images``, the images that had been seen there, ``state``, ``error`` and ``run``, the run directory. An
    option whose values are not all numbers, all texts or all truth values is written as JSON.

    Args:
        folder: the sweep's folder.
        results: the trials.
    """
    options = dict.fromkeys(name for one in results for name in one.outcome.trial.point)
    origins = [one.outcome.trial.origin for one in results]
    metrics = dict.fromkeys(name for one in results for name in one.outcome.metrics)
    columns: dict[str, Any] = {
        name: _column([one.outcome.trial.point.get(name) for one in results]) for name in options
    }
    columns[SEED] = pa.array([one.outcome.trial.seed for one in results], pa.int64())
    columns |= {name: pa.array([one.outcome.metrics.get(name) for one in results], pa.float64()) for name in metrics}
    columns |= {
        "images": pa.array([one.images for one in results], pa.int64()),
        "hours": pa.array([one.hours for one in results], pa.float64()),
        "stopped": pa.array([one.outcome.stopped for one in results], pa.int64()),
        "parent": pa.array([one and one.parent for one in origins], pa.string()),
        "parent_images": pa.array([one and one.images for one in origins], pa.int64()),
        "state": pa.array([one.state for one in results], pa.string()),
        "error": pa.array([one.outcome.error for one in results], pa.string()),
        "run": pa.array([one.outcome.trial.plan.directory for one in results], pa.string()),
    }
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    write_atomic(folder / FILE_NAME, content.getvalue())


def _column(values: Sequence[Any]) -> Any:
    types = {type(value) for value in values if value is not None}
    if types == {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64()), (str, pa.string())):
        if types == {kind}:
            return pa.array(values, arrow)
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
