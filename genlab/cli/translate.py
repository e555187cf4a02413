"""``genlab translate MODEL IN OUT``: translate a picture, a folder or a data set with a trained model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from upath import UPath

from genlab.cli.model_options import parse_for_model
from genlab.core.errors import ConfigError, DataError, run_command
from genlab.core.storage import exists, is_file, is_folder, locate, read_bytes, require_absolute
from genlab.data.format.manifest import FILE_NAME as MANIFEST
from genlab.imaging.images import ImageError, encode_png
from genlab.inference.batch_translation import on_ray
from genlab.inference.engine import Engine
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import meant_as_file, png_name, require_elsewhere, save
from genlab.inference.sources import is_data_set
from genlab.inference.translation import RECORD, Job, Runner, translate_all


@dataclass(frozen=True)
class TranslateConfig:
    """Translate a picture, or all pictures of a folder or a data set, into a model's other domain.

    Pictures keep their size and their names, and are written as PNG. One with more than 1,024 pixels on a side goes
    through the model in tiles whose seams are blended. A picture that cannot be used is reported and left out. After a
    crash, or with new pictures in IN, the same command goes on with what is missing in OUT; that a picture of a folder
    has changed under its name it does not notice.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model that translates, or of the run that trained it."""
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A picture of any size (BMP, GIF, JPEG, PNG, TIFF or WebP), a folder of pictures, or a data set; or its s3:// URL.
    Pictures of a data set are called by their keys; one whose key is no good as a path, or is taken, by its number."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write, a path or an s3:// URL: a folder, or for one picture a file NAME.png."""
    direction: str | None = None
    """Which way, such as a_to_b or b_to_a; by default the model's first."""
    split: str | None = None
    """Only the pictures of this split of a data set."""


def main(arguments: Sequence[str] | None = None, run: Runner = on_ray) -> None:
    """Run the command ``genlab translate``; ``run`` is that of :func:`translate`."""
    run_command(lambda: translate(*parse_for_model(TranslateConfig, "translate", arguments, "genlab translate"), run))


def translate(config: TranslateConfig, options: Mapping[str, Any], run: Runner = on_ray) -> None:
    """Translate what ``config`` names and print what was written.

    Pictures of a folder or a data set that cannot be used are reported and left out, and those that are done already
    are counted.

    Args:
        config: what to translate.
        options: the options of the model's own, by name.
        run: translates the pictures of a folder or a data set.

    Raises:
        ConfigError: an unknown direction, a split of what is no data set, or a destination that does not fit the
            source.
        RunError: the model cannot be loaded, or does not translate.
        DataError: the source is missing, a shard is damaged, nothing in it could be translated, or the destination
            holds pictures of another translation or cannot be written.
        StorageError: a store cannot be reached, or a folder cannot be written, on the way.
    """
    for option, url in (("model", config.model), ("source", config.source), ("dest", config.dest)):
        require_absolute(option, url)
    source, dest = locate(config.source), locate(config.dest)
    require_elsewhere(config.dest, config.source)
    model = ModelInfo.find(config.model, "translate")
    direction = model.direction(config.direction)
    if config.split is not None and not is_data_set(source):
        raise ConfigError(f"split = {config.split!r}: {config.source} is no data set (no {MANIFEST}); leave it out")
    if is_folder(source):
        job = Job(str(model.directory), str(source), config.split, str(dest), direction, options)
        translate_all(job, model.weights, run)
    elif is_file(source):
        _translate_file(model.directory, source, dest, direction, options)
    else:
        raise DataError(f"{config.source}: no such file or folder")


def _translate_file(directory: UPath, source: UPath, dest: UPath, direction: str, options: Mapping[str, Any]) -> None:
    if not meant_as_file(dest, ".png"):
        dest = dest / png_name(source.name)
    if exists(dest.parent / RECORD):  # the picture would pass for one of the record's
        raise ConfigError(f"dest = {str(dest)!r}: its folder holds the pictures of {RECORD}; write to another place")
    engine = Engine(directory)
    try:
        translated = engine.translate(read_bytes(source), direction, **options)
    except ImageError as error:
        raise DataError(f"{source}: {error}") from None
    except OSError as error:
        raise DataError(f"{source}: {error.strerror or error}") from None
    save(dest, encode_png(translated))
    print(f"{dest}: {direction}")
