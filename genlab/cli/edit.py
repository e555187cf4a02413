"""``genlab edit MODEL SEED|PICTURE OUT``: change an attribute of a picture that a StyleGAN draws."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from annotated_types import Ge
from torch import Tensor
from upath import UPath

from genlab.core.config import parse
from genlab.core.errors import ConfigError, RunError, run_command
from genlab.core.storage import exists, is_folder, json_bytes, locate, require_absolute, sha256
from genlab.core.text import counted
from genlab.data.ingest.sources.base import list_files
from genlab.editing.attributes import AttributeReader
from genlab.editing.edits import Start, amount_to_class, edit_by_steps, start_of_projection, start_of_seed
from genlab.editing.fitting import fit
from genlab.editing.projection import ProjectionOptions
from genlab.editing.projection_files import RECORD, Projector, project_all, require_box
from genlab.editing.provenance import provenance
from genlab.evaluation.trained_classifier import load_classifier
from genlab.imaging.images import Pixels, encode_film, encode_png
from genlab.imaging.sheets import sheet
from genlab.inference.engine import best_device
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import meant_as_file, require_elsewhere, save
from genlab.models.precision import allow_tf32
from genlab.models.stylegan import StyleGAN
from genlab.store import model_directory
from genlab.store.directions import Direction, Directions, Method, load_directions
from genlab.store.generators import load_generator

AGE, GENDER, OTHER = "age", "gender", "other"
PROJECTIONS = "projections"
"""Folder beside OUT that keeps projections."""
DIGITS = 12
"""Digits of the hash of what projections depend on, which names a folder of them."""
FRAMES, MILLISECONDS = 30, 80
"""Pictures of a film from the first amount to the last, and how long it shows each."""


@dataclass(frozen=True)
class EditConfig:
    """Change an attribute of a picture along a direction that `genlab directions` found for the model.

    A picture of any other origin is first projected, as by `genlab project`, unless that was done before: projections
    are kept beside OUT, in the folder projections. Written are the picture as it was, for a projected one also the
    original before it, and the edited one.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a StyleGAN, or of the run that trained it."""
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SEED|PICTURE")]
    """A seed, whose picture is that of `genlab sample MODEL --count 1 --seed SEED`; a picture of any size, or a folder
    of pictures; or what `genlab project` wrote: NAME.safetensors, or its folder."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write: NAME.png for the pictures side by side, each picture of a folder a row; NAME.gif for a film from
    the picture to the edit and back; or a folder for a file each."""
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
    method: Method | None = None
    """How the direction was found; by default by gradients, or by the first other method that found one."""
    label: str | None = None
    """Class of a seed's picture, by its name or number; needed by a model that knows classes."""
    encoder: str | None = None
    """An encoder that was trained for MODEL, or its run, for projecting; without one that begins at the mean of w."""
    box: tuple[int, int, int] | None = None
    """Left, top and side of the square to take of each picture, in its pixels; by default the largest in the middle."""
    projection: ProjectionOptions = field(default_factory=ProjectionOptions)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab edit``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for place, word in enumerate(words):
        if word == "--gender" and (place + 1 == len(words) or words[place + 1].startswith("--")):
            words[place] = f"--gender={OTHER}"
    run_command(lambda: edit_pictures(parse(EditConfig, words, prog="genlab edit")))


def edit_pictures(config: EditConfig) -> None:
    """Edit what ``config`` names, and print what is read before and after, and where the pictures are.

    Raises:
        ConfigError: not one edit, one that the direction does not reach, or a class that there is not.
        RunError: the model cannot be loaded, or has no such direction.
        DataError: a picture or a projection cannot be used, or the pictures cannot be written.
    """
    name = _direction_name(config)
    for option in ("model", "dest", "encoder"):
        if (url := getattr(config, option)) is not None:
            require_absolute(option, url)
    info = ModelInfo.find(config.model, "sample")
    dest = locate(config.dest)
    suffix = dest.suffix.lower() if meant_as_file(dest, ".png", ".gif") else ""
    found = load_directions(info.directory, model_directory.describe(info.directory))
    direction = found.find(name, config.method)
    asked = _asked_amount(config)
    if asked is not None:
        direction.steps_for(asked)  # refused before anything is projected
    model, starts = _starts(config, info, dest, film=suffix == ".gif")
    read = _reader(found)
    directions = [direction, *_others(found, direction, read)]

    rows, notes = dict[str, dict[str, Pixels]](), list[dict[str, Any]]()
    steps = torch.zeros(len(directions))
    for title, start in starts.items():
        [before] = edit_by_steps(model, start, directions, torch.zeros(1, len(directions)))
        amount = _amount_of_class(config, direction, _value(read, direction, before)) if asked is None else asked
        steps = _steps(model, start, found, directions, read, amount)
        [after] = edit_by_steps(model, start, directions, steps[None])
        rows[title] = _pictures(start, before, after)
        notes.append({**start.origin, "edit": _note(directions, amount, steps)})
        said = _said(read, direction, before, after)
        print(f"{title and f'{title}: '}{name}: {amount:+.3g} ({direction.axis.unit}); {said}")
    whole = notes[0] if len(notes) == 1 else {"pictures": notes}
    if suffix == ".png":
        shown = np.stack([picture for row in rows.values() for picture in row.values()])
        columns = len(shown) // len(rows)
        save(dest, encode_png(sheet(shown, columns), provenance("edit", info.weights, **whole)))
    elif suffix == ".gif":
        [start] = starts.values()
        frames = edit_by_steps(model, start, directions, torch.linspace(0, 1, FRAMES)[:, None] * steps).numpy()
        there_and_back = np.concatenate([frames, frames[-2:0:-1]])
        save(dest, encode_film(there_and_back, MILLISECONDS, "GIF", provenance("film", info.weights, **whole)))
    else:
        for (title, row), note in zip(rows.items(), notes, strict=True):
            origin = {key: value for key, value in note.items() if key != "edit"}
            for what, pixels in row.items():
                file = dest / f"{title and f'{title}-'}{what}.png"
                save(file, encode_png(pixels, provenance(what, info.weights, **(note if what == "edit" else origin))))
    several = f"{counted(len(rows), 'picture')}: " if len(rows) > 1 else ""
    print(f"{dest}: {several}{'film' if suffix == '.gif' else ', '.join(next(iter(rows.values())))}")


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


def _asked_amount(config: EditConfig) -> float | None:
    """Return the amount that is asked for; ``None`` where it depends on what is read of the picture."""
    if config.younger is not None:
        return -config.younger
    return config.older if config.older is not None else config.amount


def _starts(config: EditConfig, info: ModelInfo, dest: UPath, *, film: bool) -> tuple[StyleGAN, dict[str, Start]]:
    """Load the generator and what is edited, by names for files; a single one has the name ''."""
    source = locate(config.source)
    is_seed = config.source.isdecimal()
    projected = source.suffix == ".safetensors" or exists(source / RECORD)
    if config.label is not None and not is_seed:
        raise ConfigError(f"--label: only for the picture of a seed; {config.source} is none")
    allow_tf32(False)
    if is_seed or projected:
        for option, default in (("encoder", None), ("box", None), ("projection", ProjectionOptions())):
            if getattr(config, option) != default:
                raise ConfigError(f"--{option}: only for a picture that is projected; {config.source} is not")
        generator, weights = load_generator(config.model)
        model = generator.to(best_device())
        if is_seed:
            return model, {"": start_of_seed(model, int(config.source), info.class_number(config.label, needed=True))}
        files = {"": source}
        if source.suffix != ".safetensors":
            names = sorted(name for name, _ in list_files(str(source)) if name.endswith(".safetensors"))
            files = {name.removesuffix(".safetensors"): source / name for name in names}
    else:
        require_box(config.box)
        require_elsewhere(config.dest, config.source)
        projector = Projector(config.model, config.encoder, config.projection)
        model, weights = projector.generator, projector.weights
        from_folder = source if is_folder(source) else source.parent
        depends = {**projector.settings, "source": str(from_folder), "box": config.box and list(config.box)}
        folder = dest.parent / PROJECTIONS / sha256(json_bytes(depends))[:DIGITS]
        made = project_all(projector, source, folder, box=config.box)
        files = {str(file.relative_to(folder).with_suffix("")): file for _, file in sorted(made.items())}
        if not is_folder(source):
            files = {"": next(iter(files.values()))}
    if film and len(files) != 1:
        raise ConfigError(f"dest = {config.dest!r}: a film is of one picture; name one, or write to a folder or a PNG")
    return model, {name: start_of_projection(model, weights, file) for name, file in files.items()}


def _pictures(start: Start, before: Tensor, after: Tensor) -> dict[str, Pixels]:
    """Return the pictures to be shown side by side, by what they are."""
    if start.original is None:
        return {"picture": before.numpy(), "edit": after.numpy()}
    return {"original": start.original, "projection": before.numpy(), "edit": after.numpy()}


def _reader(found: Directions) -> AttributeReader | None:
    """Load what read the attributes when directions were found, if it is still there."""
    try:
        trained = load_classifier(locate(found.reader.path), "cpu", needs_label=False)
        if trained.weights != found.reader.weights:
            return None
        return AttributeReader(trained.model, found.reader.columns, trained.label_names, mirrored=trained.flip)
    except (RunError, ConfigError):
        return None


def _others(found: Directions, direction: Direction, read: AttributeReader | None) -> list[Direction]:
    """Return directions by which attributes that are not edited can be kept as they are: found likewise, and read."""
    there = {one.axis.name: one for one in found.directions if one.method == direction.method}
    axes = read.axes if read else []
    return [there[one.name] for one in axes if one.attribute != direction.axis.attribute and one.name in there]


def _steps(
    model: StyleGAN,
    start: Start,
    found: Directions,
    directions: Sequence[Direction],
    read: AttributeReader | None,
    amount: float,
) -> Tensor:
    """Return the steps along the directions, float [K], that change a picture by an amount along the first of them."""
    if read is None:
        return torch.tensor([directions[0].steps_for(amount)])
    names = [axis.name for axis in read.axes]
    places = [names.index(direction.axis.name) for direction in directions]
    amounts = [amount] + [0.0] * (len(directions) - 1)
    typical = [_typical(found, direction) for direction in directions]
    return fit(model, start, directions, read, places, amounts, typical).float()


def _typical(found: Directions, direction: Direction) -> float:
    """Return a typical difference of samples on a direction's axis: the most that directions were measured for."""
    same = [one for one in found.directions if one.axis.name == direction.axis.name]
    tried = [effect.amount for one in same for effect in one.effects] or [
        amount for one in same for amount in one.reach
    ]
    return max(abs(amount) for amount in tried)


def _note(directions: Sequence[Direction], amount: float, steps: Tensor) -> dict[str, Any]:
    """Return what a picture says of its edit."""
    first = directions[0]
    moved = {one.axis.name: taken for one, taken in zip(directions, steps.tolist(), strict=True)}
    return {"direction": first.axis.name, "method": first.method, "amount": amount, "steps": moved}


def _value(read: AttributeReader | None, direction: Direction, picture: Tensor) -> float | None:
    """Return what is read of a picture on the axis of a direction."""
    if read is None:
        return None
    return float(read(picture[None])[0, [axis.name for axis in read.axes].index(direction.axis.name)])


def _amount_of_class(config: EditConfig, direction: Direction, before: float | None) -> float:
    """Return the amount that leads to the class that --gender names, or to the one that is not read."""
    if before is None:
        raise ConfigError("--gender: the classifier of the directions is gone; find directions again, or give --amount")
    return amount_to_class(direction, before, None if config.gender == OTHER else config.gender)


def _said(read: AttributeReader | None, direction: Direction, before: Tensor, after: Tensor) -> str:
    """Say what is read before and after."""
    values = [_value(read, direction, picture) for picture in (before, after)]
    if None in values:
        return "its classifier is gone, so nothing is read, and the amount is an average over pictures"
    axis = direction.axis
    if axis.away:
        shown = [axis.towards if value is not None and value > 0 else axis.away for value in values]
        return f"read as {shown[0]} before, as {shown[1]} after"
    return f"read as {values[0]:.3g} before, as {values[1]:.3g} after"
