"""Evaluations of a run's checkpoints that are made beside training: their file, and the choice of the best."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import is_folder, locate, read_bytes, write_atomic
from genlab.core.text import counted
from genlab.evaluation.evaluate import measure_pictures
from genlab.evaluation.extractors import EfficientNetLite
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Measurement, with_computation
from genlab.store import model_directory

EVALUATIONS = "evaluations.jsonl"
IMAGES = 1000
"""The most images of a domain that are translated, drawn at random, or that samples are compared with, one for each."""


@dataclasses.dataclass(frozen=True)
class CheckpointEvaluation:
    """The measurements of the model of one checkpoint."""

    step: int
    """Steps done."""
    images: int
    """Images seen."""
    epoch: float
    weights: str
    """SHA-256 of the model's weights."""
    measurements: Annotated[dict[str, Measurement], Field(alias="figures")]

    @property
    def better(self) -> dict[str, float]:
        """The values of the measurements by which models can be ranked, by name."""
        return {name: measurement.value for name, measurement in self.measurements.items() if measurement.better}


def measure_model(
    directory: str, data: Mapping[str, str], split: str, reported_too: bool, seed: int
) -> dict[str, Measurement]:
    """Measure the pictures that the model in a directory makes, and print nothing.

    Args:
        directory: the model directory.
        data: the data set of each domain.
        split: the split, or half of one, to measure on, at most :data:`IMAGES` rows of it.
        reported_too: whether results are reported on these rows too, which the settings then say.
        seed: seed of everything that is drawn at random.

    Raises:
        GenlabError: when the model or the data cannot be read, or the model neither samples nor translates.
    """
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        model = model_directory.load(directory)
        domains = {domain: HeldOut.open(url, split, chosen=reported_too) for domain, url in data.items()}
        measurements = measure_pictures(model, domains, EfficientNetLite(model.device), IMAGES, seed)
        return with_computation(measurements, model.device)


def read_evaluations(directory: UPath) -> list[CheckpointEvaluation]:
    """Read the evaluations in the run ``directory``, in the order of steps; none when none was made.

    Raises:
        RunError: when the file is damaged.
    """
    file = directory / EVALUATIONS
    try:
        content = read_bytes(file)
    except FileNotFoundError:
        return []
    adapter = TypeAdapter(CheckpointEvaluation)
    try:
        return [adapter.validate_json(line) for line in content.decode().splitlines()]
    except (ValidationError, UnicodeDecodeError) as error:
        why = counted(error.error_count(), "fault") if isinstance(error, ValidationError) else error
        found = f"{file}: damaged ({why})"
        raise RunError(f"{found}; delete it, and the candidates that are left are evaluated again") from None


def write_evaluations(directory: UPath, evaluations: Sequence[CheckpointEvaluation]) -> None:
    """Write ``evaluations.jsonl``: one object a line, in the order of steps."""
    by_step = sorted(evaluations, key=lambda one: one.step)
    lines: list[Any] = TypeAdapter(list[CheckpointEvaluation]).dump_python(by_step, by_alias=True)
    write_atomic(directory / EVALUATIONS, "".join(f"{json.dumps(line)}\n" for line in lines).encode())


def best_of(evaluations: Sequence[CheckpointEvaluation], measurement: str) -> CheckpointEvaluation | None:
    """Return the evaluation whose ``measurement`` is lowest, the later of equal ones; ``None`` where none has it."""
    measured = [one for one in evaluations if measurement in one.measurements]
    return min(measured, key=lambda one: (one.measurements[measurement].value, -one.step), default=None)


def best_step(directory: UPath, measurement: str, last: int) -> int | None:
    """Return the step of the best model of a run; ``None`` while the checkpoint of ``last`` waits for evaluation."""
    evaluations = read_evaluations(directory)
    best = best_of(evaluations, measurement)
    last_is_evaluated = any(one.step == last for one in evaluations)
    return best.step if best and (last_is_evaluated or not is_folder(candidate_directory(directory, last))) else None


def candidate_directory(run: str | UPath, step: int) -> UPath:
    """Return the directory of a checkpoint's model, which is kept while it is measured, and while it is the best."""
    return locate(run) / "candidates" / f"step-{step:08d}"
