"""``genlab edit MODEL SEED|PROJECTION OUT``: change an attribute of a picture that a StyleGAN draws."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from annotated_types import Ge
from torch import Tensor

from genlab.core.config import parse
from genlab.core.errors import ConfigError, RunError, run_command
from genlab.core.storage import locate
from genlab.editing.attributes import AttributeReader, Read
from genlab.editing.edits import amount_to_class, edit, start_of_projection, start_of_seed
from genlab.editing.provenance import provenance
from genlab.evaluation.trained_classifier import load_classifier
from genlab.imaging.images import encode_png
from genlab.imaging.sheets import sheet
from genlab.inference.engine import best_device
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import is_file, save
from genlab.models.stylegan import StyleGAN
from genlab.store import model_directory
from genlab.store.directions import Direction, Directions, Method, load_directions

AGE, GENDER, OTHER = "age", "gender", "other"


@dataclass(frozen=True)
class EditConfig:
    """Change an attribute of a picture along a direction that `genlab directions` found for the model.

    Written are the picture as it was, for a projected one also the original before it, and the edited one.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a StyleGAN, or of the run that trained it."""
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SEED|PROJECTION")]
    """A seed, whose picture is that of `genlab sample MODEL --count 1 --seed SEED`; or NAME.safetensors, which `genlab
    project` wrote for a picture."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write: NAME.png for the pictures side by side, or a folder for a file each."""
    younger: Annotated[float, Ge(0)] | None = None
    """So many years younger, along the direction age."""
    older: Annotated[float, Ge(0)] | None = None
    """So many years older."""
    gender: str | None = None
    """The class that shall be read along the direction gender; without a name the one that is not read now."""
    direction: str | None = None
    """Another direction by its name, with --amount."""
    amount: float | None = None
    """How far, in the units of the attribute; for a class in nats of log-odds."""
    method: Method = "linear"
    """How the direction was found."""
    label: str | None = None
    """Class of a seed's picture, by its name or number; needed by a model that knows classes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab edit``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for place, word in enumerate(words):
        if word == "--gender" and (place + 1 == len(words) or words[place + 1].startswith("--")):
            words[place] = f"--gender={OTHER}"
    run_command(lambda: edit_picture(parse(EditConfig, words, prog="genlab edit")))


def edit_picture(config: EditConfig) -> None:
    """Edit what ``config`` names, and print what is read before and after, and where the pictures are.

    Raises:
        ConfigError: not one edit, one that the direction does not reach, or a class that there is not.
        RunError: the model cannot be loaded, or has no such direction.
        DataError: the projection cannot be used, or the pictures cannot be written.
    """
    name = _direction_name(config)
    info = ModelInfo.find(config.model, "sample")
    dest = locate(config.dest)
    one_file = is_file(dest, ".png")
    description = model_directory.describe(info.directory)
    weights = description["weights"]["sha256"]
    found = load_directions(info.directory, description)
    direction = found.find(name, config.method)
    model = model_directory.load(info.directory, best_device())
    if not isinstance(model, StyleGAN):
        raise RunError(f"{config.model}: a {model.family}; edits are of a StyleGAN")
    if config.source.isdecimal():
        start = start_of_seed(model, int(config.source), info.class_number(config.label, needed=True))
    else:
        start = start_of_projection(model, weights, locate(config.source))
    [before] = edit(model, start, direction, [0.0])
    read, place = _reader(found, direction)
    amount = _amount(config, direction, _read(read, place, before))
    [after] = edit(model, start, direction, [amount])
    pictures = {"picture": before.numpy(), "edit": after.numpy()}
    if start.original is not None:
        pictures = {"original": start.original, "projection": before.numpy(), "edit": after.numpy()}
    said = {"direction": name, "method": direction.method, "amount": amount}
    if one_file:
        shown = sheet(np.stack(list(pictures.values())), columns=len(pictures))
        save(dest, encode_png(shown, provenance("edit", weights, **start.origin, edit=said)))
    else:
        for what, pixels in pictures.items():
            note = provenance(what, weights, **start.origin, **({"edit": said} if what == "edit" else {}))
            save(dest / f"{what}.png", encode_png(pixels, note))
    print(f"{name}: {amount:+.3g} ({direction.axis.unit}); {_said(read, place, direction, before, after)}")
    print(f"{dest}: {', '.join(pictures)}")


def _direction_name(config: EditConfig) -> str:
    """Return the name of the direction; raise a ConfigError where not exactly one edit is asked for."""
    asked = {
        "--younger": config.younger,
        "--older": config.older,
        "--gender": config.gender,
        "--direction": config.direction,
    }
    given = [option for option, value in asked.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(f"give one of {', '.join(asked)}; given: {', '.join(given) or 'none'}")
    if (config.direction is None) != (config.amount is None):
        raise ConfigError("--direction and --amount: give both")
    return config.direction or (GENDER if config.gender is not None else AGE)


def _reader(found: Directions, direction: Direction) -> tuple[Read | None, int]:
    """Load what read the attributes when directions were found, if it is still there, and its place for an axis."""
    try:
        directory = locate(found.reader.path)
        trained = load_classifier(directory, "cpu", needs_label=False)
        if trained.weights != found.reader.weights:
            return None, 0
        read = AttributeReader(trained.model, found.reader.columns, trained.label_names)
    except (RunError, ConfigError):
        return None, 0
    return read, [axis.name for axis in read.axes].index(direction.axis.name)


def _read(read: Read | None, place: int, picture: Tensor) -> float | None:
    return None if read is None else float(read(picture[None])[0, place])


def _amount(config: EditConfig, direction: Direction, before: float | None) -> float:
    if config.younger is not None:
        return -config.younger
    if config.older is not None or config.amount is not None:
        return config.older if config.older is not None else config.amount or 0.0
    if before is None:
        raise ConfigError("--gender: the classifier of the directions is gone; find directions again, or give --amount")
    return amount_to_class(direction, before, None if config.gender == OTHER else config.gender)


def _said(read: Read | None, place: int, direction: Direction, before: Tensor, after: Tensor) -> str:
    """Say what is read before and after."""
    values = [_read(read, place, picture) for picture in (before, after)]
    if None in values:
        return "its classifier is gone, so nothing is read"
    axis = direction.axis
    if axis.away:
        shown = [axis.towards if value is not None and value > 0 else axis.away for value in values]
        return f"read as {shown[0]} before, as {shown[1]} after"
    return f"read as {values[0]:.3g} before, as {values[1]:.3g} after"
