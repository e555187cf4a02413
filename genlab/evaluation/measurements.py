"""Measurements, each with its interval and its settings; an evaluation of one model, and the file that holds it.

Fields that are written to files keep the names of the first version of these files: each ``Field(alias=...)`` is one.
"""

import dataclasses
import math
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import locate, read_json, write_json
from genlab.core.text import counted
from genlab.metrics.intervals import Interval
from genlab.store import model_directory

FORMAT = "genlab-evaluation"
VERSION = 1
FILE_NAME = "evaluation.json"
"""Name of the file of an evaluation, unless another is given."""

Settings = dict[str, str | int | float]
"""Everything that a measurement depends on besides the model: data set, split, rows, seed, extractor and its
weights, ... Only measurements of equal settings can be compared."""

Better = Literal["lower", "higher"]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One measured number."""

    title: str
    """Name of the measurement for people, in a few words."""
    value: float
    settings: Annotated[Settings, Field(alias="passport")]
    unit: str = ""
    better: Better | None = None
    """Whether lower or higher values are better; ``None`` where neither is."""
    interval: Interval | None = None
    """The 95% interval of what is random in it; ``None`` where nothing is, or where it is not known."""
    caution: str = ""
    """Reason not to trust the measurement; empty if it can be trusted."""

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width."""
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2

    def __str__(self) -> str:
        """The value to the second digit of its uncertainty: ``149.13 ± 0.49``."""
        if self.half_width is None or not self.half_width > 0:
            return f"{self.value:.5g}"
        decimals = min(max(1 - math.floor(math.log10(self.half_width)), 0), 8) if math.isfinite(self.half_width) else 2
        return f"{self.value:,.{decimals}f} ± {self.half_width:,.{decimals}f}"


def evaluation_file(directory: UPath) -> UPath:
    """Return the file in which the evaluation of a run, or of a model directory, is kept.

    It lies in the run directory, also for the run's ``model``, which holds only what was trained; for any other model
    directory it lies in that directory, since many of them may lie in one folder.
    """
    of_run = directory.name == "model" and (directory / model_directory.DESCRIPTION).exists()
    return (directory.parent if of_run else directory) / FILE_NAME


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The measurements of one model."""

    name: str
    """Name of the model, which is the name of its run."""
    model: dict[str, Any]
    """``path``, ``family``, ``step``, ``weights`` (SHA-256)."""
    measurements: Annotated[dict[str, Measurement], Field(alias="figures")]

    def save(self, file: UPath) -> None:
        """Write the evaluation as JSON."""
        content = TypeAdapter(Evaluation).dump_python(self, by_alias=True)
        write_json(file, {"format": FORMAT, "version": VERSION} | content)

    @staticmethod
    def load(path: str | UPath) -> "Evaluation":
        """Read an evaluation from its file, or from where that of a run or a model directory is kept.

        Raises:
            GenlabError: there is none, or the file is something else or of a newer format.
        """
        file = locate(path)
        if file.is_dir():
            file = evaluation_file(file)
        content = read_json(file)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise RunError(f"{file}: not an evaluation; `genlab evaluate RUN` writes them")
        if (version := content.pop("version", None)) != VERSION:
            raise RunError(f"{file}: evaluation format {version!r}; this genlab reads format {VERSION}")
        try:
            return TypeAdapter(Evaluation).validate_python(content, extra="forbid")
        except ValidationError as error:
            raise RunError(
                f"{file}: damaged ({counted(error.error_count(), 'fault')}); evaluate the model again"
            ) from None
