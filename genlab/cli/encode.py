"""``genlab encode MODEL IN OUT``: write the latent vectors of pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import tyro

from genlab.cli.fitting_pictures import fitting_pictures
from genlab.cli.model_options import parse_for_model
from genlab.core.errors import ConfigError, DataError, run_command
from genlab.core.storage import is_file, is_folder, locate
from genlab.core.text import counted
from genlab.inference.engine import Engine
from genlab.inference.latent_files import latent_file
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import folder_keys, load_fitting, save


@dataclass(frozen=True)
class EncodeConfig:
    """Write the latent vector of a picture, or of all pictures below a folder: the mean of q(z|x)."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model that encodes, or of the run that trained it."""
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A picture (BMP, GIF, JPEG, PNG, TIFF or WebP) of the size of the model's images, or a folder of such."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write: NAME.json, with the vectors as `latents` and the pictures' names as `pictures`, which `genlab
    decode` reads."""
    label: str | None = None
    """Class of the pictures, by its name or number; needed by a model that knows classes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab encode``."""
    run_command(lambda: encode(*parse_for_model(EncodeConfig, "encode", arguments, "genlab encode")))


def encode(config: EncodeConfig, options: Mapping[str, Any]) -> None:
    """Encode what ``config`` names, by the options of the model's own, and print what was written.

    Pictures of a folder that cannot be used are reported and left out.

    Raises:
        ConfigError: an unknown or missing class, or a destination that is no JSON file.
        RunError: the model cannot be loaded, or does not encode.
        DataError: the source is missing, or nothing in it could be encoded.
    """
    source, dest = locate(config.source), locate(config.dest)
    if dest.suffix.lower() != ".json" or is_folder(dest):
        raise ConfigError(f"dest = {config.dest!r}: latent vectors are written as JSON; name it {dest.stem}.json")
    model = ModelInfo.find(config.model, "encode")
    label = model.class_number(config.label, needed=True)
    if is_folder(source):
        keys = folder_keys(source)
        engine = Engine(model.directory)
        names: list[str] = []
        vectors = []
        for pictures in fitting_pictures(source, keys, engine, "encode"):
            names += pictures
            vectors.append(engine.encode(list(pictures.values()), label, **options))
        latents = np.concatenate(vectors)
    elif is_file(source):
        engine = Engine(model.directory)
        names, latents = [source.name], engine.encode([load_fitting(source, engine)], label, **options)
    else:
        raise DataError(f"{config.source}: no such file or folder")
    save(dest, latent_file(latents, names))
    print(f"{dest}: {counted(len(latents), 'latent vector')} of {latents.shape[1]} numbers")
