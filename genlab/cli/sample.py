"""``genlab sample MODEL OUT``: draw pictures from a trained model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from annotated_types import Gt, Interval
from upath import UPath

from genlab.cli.model_options import parse_for_model
from genlab.core.errors import run_command
from genlab.core.storage import locate
from genlab.core.text import counted
from genlab.imaging.images import Pixels, encode_png
from genlab.inference.engine import Engine
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import encode_sheet, meant_as_file, save


@dataclass(frozen=True)
class SampleConfig:
    """Draw pictures from a trained model.

    A model may have options of its own, such as a truncation: `genlab sample MODEL --help` lists them.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model that samples, or of the run that trained it."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write: NAME.png for one sheet (a picture alone is that picture), or a folder for a file each, called by
    its number, and its class where it has one."""
    count: Annotated[int, Gt(0)] = 16
    """How many pictures."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Picture i of a seed is the same for any count."""
    label: str | None = None
    """Class of all pictures, by its name or number, for a model that knows classes; by default all classes in turn."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab sample``."""
    run_command(lambda: sample(*parse_for_model(SampleConfig, "sample", arguments, "genlab sample")))


def sample(config: SampleConfig, options: Mapping[str, Any]) -> None:
    """Draw what ``config`` asks for, by the options of the model's own, and print where it is.

    Raises:
        ConfigError: an unknown class, or a destination of another kind.
        RunError: the model cannot be loaded, or does not sample.
        DataError: the destination cannot be written.
    """
    model = ModelInfo.find(config.model, "sample")
    label = model.class_number(config.label)
    dest = locate(config.dest)
    one_file = meant_as_file(dest, ".png")
    images = Engine(model.directory).sample(config.count, config.seed, label, **options)
    if one_file:
        in_turn = label is None and 0 < len(model.classes) <= config.count
        save(dest, encode_sheet(images, columns=len(model.classes) if in_turn else None))  # a class a column
    else:
        _save_each(images, dest, model.classes if label is None else [model.classes[label]])
    print(f"{dest}: {counted(config.count, 'picture')}, seed {config.seed}")


def _save_each(images: Pixels, folder: UPath, classes: Sequence[str]) -> None:
    """Write a file for each of uint8 [N, H, W, C], named by its number and its class, ``classes`` coming in turn."""
    for number, image in enumerate(images):
        name = f"{number:05d}-{classes[number % len(classes)]}" if classes else f"{number:05d}"
        file = folder / (re.sub(r"[^\w.-]+", "_", name) + ".png")  # a class may be called anything
        save(file, encode_png(image))
