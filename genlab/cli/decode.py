"""``genlab decode MODEL IN OUT``: draw the pictures of latent vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

import tyro
from upath import UPath

from genlab.cli.model_options import parse_for_model
from genlab.core.errors import DataError, run_command
from genlab.core.storage import locate
from genlab.core.text import counted
from genlab.imaging.images import encode_png
from genlab.inference.engine import Engine
from genlab.inference.latent_files import read_latents
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import encode_sheet, meant_as_file, png_name, save


@dataclass(frozen=True)
class DecodeConfig:
    """Draw the pictures of latent vectors, such as `genlab encode` writes."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model that decodes, or of the run that trained it."""
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A JSON file with lists of as many numbers as the model has latent dimensions: {"latents": [[0.5, -1.25]]}."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write: NAME.png for one sheet (a picture alone is that picture), or a folder for a file each, called as
    in `pictures` of the file, or by its number."""
    label: str | None = None
    """Class of the pictures, by its name or number; needed by a model that knows classes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab decode``."""
    run_command(lambda: decode(*parse_for_model(DecodeConfig, "decode", arguments, "genlab decode")))


def decode(config: DecodeConfig, options: Mapping[str, Any]) -> None:
    """Decode the vectors that ``config`` names, by the options of the model's own, and print where the pictures are.

    Raises:
        ConfigError: an unknown or missing class, vectors of another length, or a destination of another kind.
        RunError: the model cannot be loaded, or does not decode.
        DataError: the file of vectors is missing or damaged, or the destination cannot be written.
    """
    model = ModelInfo.find(config.model, "decode")
    label = model.class_number(config.label, needed=True)
    source, dest = locate(config.source), locate(config.dest)
    one_file = meant_as_file(dest, ".png")
    latents, pictures = read_latents(source)
    files = [] if one_file else _file_names(source, pictures or [f"{number:05d}" for number in range(len(latents))])
    images = Engine(model.directory).decode(latents, label, **options)
    if one_file:
        save(dest, encode_sheet(images))
    else:
        for file, image in zip(files, images, strict=True):
            save(dest / file, encode_png(image))
    print(f"{dest}: {counted(len(images), 'picture')}")


def _file_names(source: UPath, pictures: Sequence[str]) -> list[str]:
    """Name the files of pictures, below the destination: the names in ``source`` may come from anywhere.

    Raises:
        DataError: two of them have one name, or one would lie elsewhere.
    """
    files: dict[str, None] = {}
    for name in pictures:
        path = PurePosixPath(name)
        if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name or png_name(name) in files:
            raise DataError(f"{source}: {name!r} of its pictures is no path of a file, or would be written twice")
        files[png_name(name)] = None
    return list(files)
