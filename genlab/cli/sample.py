"""Pictures drawn by a trained model: ``genlab sample MODEL OUT``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import tyro
from annotated_types import Gt, Interval
from torch import Tensor
from upath import UPath

from genlab.core.config import parse
from genlab.core.errors import run_command
from genlab.core.storage import locate
from genlab.inference.operations import class_names, class_number, find, labels
from genlab.inference.pictures import as_png, as_sheet, best_device, is_file, save
from genlab.models.model import Sampler
from genlab.store import model_directory


@dataclass(frozen=True)
class SampleConfig:
    """Draw pictures from a trained model."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model that samples, or of the run that trained it."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write: NAME.png for one sheet (a picture alone is that picture), or a folder for a file each, called by
    its number, and its class where it has one."""
    count: Annotated[int, Gt(0)] = 16
    """How many pictures."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """The same seed and count draw the same pictures."""
    label: str | None = None
    """Class of all pictures, by its name or number, for a model that knows classes; by default all classes in turn."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``genlab sample``."""
    run_command(lambda: sample(parse(SampleConfig, arguments, prog="genlab sample")))


def sample(config: SampleConfig) -> None:
    """Draw what ``config`` asks for and say where it is.

    Raises:
        ConfigError: an unknown class, or a destination of another kind.
        RunError: the model cannot be loaded, or does not sample.
        DataError: the destination cannot be written.
    """
    directory, description = find(config.model, "sample")
    names = class_names(description)
    label = class_number(names, config.label)
    dest = locate(config.dest)
    sheet = is_file(dest, ".png")
    model = cast("Sampler", model_directory.load(directory, best_device()))
    images = model.sample(config.count, config.seed, labels(label, config.count))
    if sheet:
        in_turn = label is None and 0 < len(names) <= config.count
        save(dest, as_sheet(images, columns=len(names) if in_turn else None))  # a class a column
    else:
        _save_each(images, dest, names if label is None else [names[label]])
    print(f"{dest}: {'1 picture' if config.count == 1 else f'{config.count:,} pictures'}, seed {config.seed}")


def _save_each(images: Tensor, folder: UPath, classes: Sequence[str]) -> None:
    """Write a file for each image, ``classes`` coming in turn."""
    for number in range(len(images)):
        name = f"{number:05d}-{classes[number % len(classes)]}" if classes else f"{number:05d}"
        file = folder / (re.sub(r"[^\w.-]+", "_", name) + ".png")  # a class may be called anything
        save(file, as_png(images[number : number + 1]))
