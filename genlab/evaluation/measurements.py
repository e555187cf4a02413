"""Measurements, each with its interval and its settings; an evaluation of one model, and the files that hold it.

Fields that are written to files keep the names of the first version of these files: each ``Field(alias=...)`` is one.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import safetensors.torch
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor
from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import is_folder, json_bytes, locate, read_bytes, sha256, write_atomic
from genlab.core.text import counted
from genlab.metrics.intervals import Interval, mean_interval
from genlab.store.evaluation_file import FORMAT, VERSION, evaluation_file, parse_evaluation
from genlab.store.tensor_file import tensor_file

DIGEST = "evaluation_sha256"
"""Name, in the file of single images' values, of the SHA-256 of the evaluation that they belong to: uint8 [32]."""

Settings = dict[str, str | int | float]
"""Everything that a measurement depends on besides the model: data set, split, rows, seed, extractor and its
weights, ... Only measurements of equal settings can be compared, :data:`ROUNDING` aside."""
ROUNDING = ("device", "torch")
"""Settings by which measurements differ in their last digits only: with others a measurement may still be compared."""

Better = Literal["lower", "higher"]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One measured number."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

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
    values: Annotated[Tensor | None, Field(exclude=True)] = dataclasses.field(default=None, compare=False, repr=False)
    """The value of each image, [N], where the measurement is their mean; ``None`` where it is not."""

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


def mean_measurement(
    title: str, values: Tensor, settings: Settings, unit: str = "", better: Better | None = None
) -> Measurement:
    """Measure the mean of ``values``, [N], one of each image, with its interval."""
    values = values.double()
    return Measurement(title, float(values.mean()), settings, unit, better, mean_interval(values), values=values)


def with_computation(measurements: Mapping[str, Measurement], device: torch.device) -> dict[str, Measurement]:
    """Add to the settings of measurements how they were computed: precision, kind of device, version of PyTorch."""
    tf32 = device.type == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    computation: Settings = {
        "precision": "tf32" if tf32 else "fp32",
        "device": device.type,
        "torch": torch.__version__,
    }
    return {
        name: dataclasses.replace(measurement, settings=measurement.settings | computation)
        for name, measurement in measurements.items()
    }


def values_file(file: UPath) -> UPath:
    """Return the file beside the evaluation ``file`` that holds the values of single images (safetensors, float32)."""
    return file.with_name(f"{file.stem}.images.safetensors")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The measurements of one model."""

    name: str
    """Name of the model, which is the name of its run."""
    model: dict[str, Any]
    """``path``, ``family``, ``step``, ``weights`` (SHA-256)."""
    measurements: Annotated[dict[str, Measurement], Field(alias="figures")]

    def save(self, file: UPath) -> None:
        """Write the evaluation as JSON, and the values of single images in a file beside it, if there are any."""
        content = json_bytes(
            {"format": FORMAT, "version": VERSION} | TypeAdapter(Evaluation).dump_python(self, by_alias=True)
        )
        write_atomic(file, content)
        values = {name: one.values.float() for name, one in self.measurements.items() if one.values is not None}
        if values:
            write_atomic(values_file(file), tensor_file(values | {DIGEST: _digest(content)}))

    @staticmethod
    def load(path: str | UPath) -> "Evaluation":
        """Read an evaluation from its file, or from where that of a run or a model directory is kept.

        The values of single images come with it, where the file beside it was written with it.

        Raises:
            GenlabError: there is none, or a file is damaged, something else, or of a newer format.
        """
        file = locate(path)
        if is_folder(file):
            file = evaluation_file(file)
        try:
            content = parse_evaluation(file, read_bytes(file))
        except FileNotFoundError:
            raise RunError(f"{file}: no such file") from None
        try:
            evaluation = TypeAdapter(Evaluation).validate_python(content, extra="forbid")
        except ValidationError as error:
            raise RunError(
                f"{file}: damaged ({counted(error.error_count(), 'fault')}); evaluate the model again"
            ) from None
        values = _read_values(file)
        measurements = {
            name: dataclasses.replace(one, values=values.get(name)) for name, one in evaluation.measurements.items()
        }
        return dataclasses.replace(evaluation, measurements=measurements)


def _read_values(file: UPath) -> dict[str, Tensor]:
    """Read the values of single images beside the evaluation ``file``; none where they belong to another evaluation."""
    beside = values_file(file)
    try:
        values = safetensors.torch.load(read_bytes(beside))
    except FileNotFoundError:
        return {}
    except SafetensorError:
        raise RunError(f"{beside}: damaged; evaluate the model again") from None
    digest = values.pop(DIGEST, None)
    return values if digest is not None and torch.equal(digest, _digest(read_bytes(file))) else {}


def _digest(content: bytes) -> Tensor:
    return torch.tensor(list(bytes.fromhex(sha256(content))), dtype=torch.uint8)
