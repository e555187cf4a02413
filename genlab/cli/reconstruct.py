"""``genlab reconstruct MODEL IN OUT``: send pictures through a trained model and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from upath import UPath

from genlab.cli.fitting_pictures import fitting_pictures
from genlab.cli.model_options import parse_for_model
from genlab.core.errors import ConfigError, DataError, run_command
from genlab.core.storage import is_file, is_folder, locate
from genlab.imaging.images import encode_png
from genlab.inference.engine import Engine
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import folder_keys, load_fitting, meant_as_file, png_name, require_elsewhere, save


@dataclass(frozen=True)
class ReconstructConfig:
    """Send a picture, or all pictures below a folder, through a model that encodes and decodes them."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model that reconstructs, or of the run that trained it."""
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A picture (BMP, GIF, JPEG, PNG, TIFF or WebP) of the size of the model's images, or a folder of such."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write. For one picture: NAME.png or a folder. For a folder: a folder. Pictures keep their names, and are
    written as PNG."""
    label: str | None = None
    """Class of the pictures, by its name or number; needed by a model that knows classes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab reconstruct``."""
    run_command(
        lambda: reconstruct(*parse_for_model(ReconstructConfig, "reconstruct", arguments, "genlab reconstruct"))
    )


def reconstruct(config: ReconstructConfig, options: Mapping[str, Any]) -> None:
    """Reconstruct what ``config`` names, by the options of the model's own, and print what was written.

    Pictures of a folder that cannot be used are reported and left out.

    Raises:
        ConfigError: an unknown or missing class, or a destination that does not fit the source.
        RunError: the model cannot be loaded, or does not reconstruct.
        DataError: the source is missing, or nothing in it could be reconstructed.
    """
    source, dest = locate(config.source), locate(config.dest)
    require_elsewhere(config.dest, config.source)
    model = ModelInfo.find(config.model, "reconstruct")
    label = model.class_number(config.label, needed=True)
    if is_folder(source):
        if meant_as_file(dest, ".png") or is_file(dest):
            raise ConfigError(f"dest = {str(dest)!r}: a file; a folder of pictures needs a folder to go to")
        _reconstruct_folder(Engine(model.directory), source, dest, label, options)
    elif is_file(source):
        file = dest if meant_as_file(dest, ".png") else dest / png_name(source.name)
        engine = Engine(model.directory)
        [reconstructed] = engine.reconstruct([load_fitting(source, engine)], label, **options)
        save(file, encode_png(reconstructed))
        print(f"{file}: reconstructed")
    else:
        raise DataError(f"{config.source}: no such file or folder")


def _reconstruct_folder(
    engine: Engine, source: UPath, folder: UPath, label: int | None, options: Mapping[str, Any]
) -> None:
    keys = folder_keys(source)
    done = 0
    for pictures in fitting_pictures(source, keys, engine, "reconstruct"):
        images = engine.reconstruct(list(pictures.values()), label, **options)
        for key, image in zip(pictures, images, strict=True):
            save(folder / png_name(key), encode_png(image))
        done += len(pictures)
    print(f"{folder}: {done:,} of {len(keys):,} images reconstructed")
