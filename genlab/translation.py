"""A picture, or a folder of them, through a translator: ``genlab translate MODEL IN OUT``.

One picture is translated in this process; a folder by Ray Data, on a pool of processes that hold the model.
"""

import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import tyro
from upath import UPath

from genlab import modelstore
from genlab.config import parse
from genlab.data.images import ImageError
from genlab.data.progress import progress
from genlab.errors import ConfigError, DataError, run_command
from genlab.models.model import Translator, model_type
from genlab.storage import locate, write_atomic
from genlab.use.models import find
from genlab.use.pictures import as_png, best_device, folder_keys, is_file, png_name, read_picture

BATCH = 8
"""Pictures that a process translates before it reports."""
THREADS = 4
"""CPU threads of each process, at most: more of them speed one picture up by less than one more process does."""


@dataclass(frozen=True)
class TranslateConfig:
    """Translate a picture, or all pictures below a folder, into a model's other domain."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model that translates, or of the run that trained it."""
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A picture of any size (BMP, GIF, JPEG, PNG, TIFF or WebP), or a folder of pictures."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write: a file NAME.png or a folder for a picture, a folder for a folder. Pictures keep their size and
    their names, and are written as PNG."""
    direction: str | None = None
    """Which way, such as a_to_b or b_to_a; by default the model's first."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``genlab translate``."""
    run_command(lambda: translate(parse(TranslateConfig, arguments, prog="genlab translate")))


def translate(config: TranslateConfig) -> None:
    """Translate what ``config`` names and say what was written.

    Pictures of a folder that cannot be used are reported and left out.

    Raises:
        ConfigError: an unknown direction, or a destination that does not fit the source.
        RunError: the model cannot be loaded, or does not translate.
        DataError: the source is missing, or nothing in it could be translated.
    """
    source, dest = locate(config.source), locate(config.dest)
    if dest == source:
        raise ConfigError(f"dest = {config.dest!r}: the same as the source; write to another place")
    directory, description = find(config.model, "translate")
    direction = _direction(config, description)
    if source.is_dir():
        _translate_folder(directory, source, dest, direction)
    elif source.is_file():
        _translate_file(directory, source, dest, direction)
    else:
        raise DataError(f"{config.source}: no such file or folder")


def translate_picture(model: Translator, picture: bytes, direction: str) -> bytes:
    """Translate an image file into a PNG file of the same size.

    Raises:
        ImageError: it cannot be decoded.
    """
    return as_png(model.translate(read_picture(picture, model), direction))


def directions(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The directions of the model that ``description`` (a ``genlab.json``) describes; none if it does not translate."""
    if "translate" not in description["operations"]:
        return ()
    return cast("type[Translator]", model_type(description["family"])).directions


class Worker:
    """A process of the pool: holds the model, and translates batches of pictures."""

    def __init__(self, directory: str, source: str, dest: str, direction: str) -> None:
        self._model = cast("Translator", modelstore.load(directory, best_device()))
        self._source, self._dest, self._direction = locate(source), locate(dest), direction

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Translate the pictures named in the column ``key``; the column ``why`` says why not, where it could not."""
        keys = [str(key) for key in batch["key"]]
        return {"key": keys, "why": [self._translate(key) for key in keys]}

    def _translate(self, key: str) -> str:
        try:
            picture = (self._source / key).read_bytes()
            write_atomic(self._dest / png_name(key), translate_picture(self._model, picture, self._direction))
        except (ImageError, OSError) as error:
            return str(error)
        return ""


def _direction(config: TranslateConfig, description: Mapping[str, Any]) -> str:
    known = directions(description)
    if config.direction is not None and config.direction not in known:
        raise ConfigError(f"direction = {config.direction!r}: choose from {', '.join(known)}")
    return config.direction or known[0]


def _translate_file(directory: UPath, source: UPath, dest: UPath, direction: str) -> None:
    if not is_file(dest, ".png"):
        dest = dest / png_name(source.name)
    model = cast("Translator", modelstore.load(directory, best_device()))
    try:
        write_atomic(dest, translate_picture(model, source.read_bytes(), direction))
    except ImageError as error:
        raise DataError(f"{source}: {error}") from None
    except OSError as error:
        raise DataError(f"{error.filename or dest}: {error.strerror or error}") from None
    print(f"{dest}: {direction}")


def _translate_folder(directory: UPath, source: UPath, dest: UPath, direction: str) -> None:
    if dest.is_file():
        raise ConfigError(f"dest = {str(dest)!r}: a file; a folder of pictures needs a folder to go to")
    keys = folder_keys(source)
    from genlab.ray_cluster import connected  # one picture does without Ray

    done = 0
    with connected(), progress("translate", len(keys), "images") as advance:
        for key, why in _on_ray(keys, (str(directory), str(source), str(dest), direction)):
            advance(1)
            done += not why
            if why:
                print(f"skipped: {source}/{key}: {why}", file=sys.stderr)
    if not done:
        raise DataError(f"{source}: none of its {len(keys)} images could be translated")
    print(f"{dest}: {done:,} of {len(keys):,} images {direction}")


def _on_ray(keys: list[str], arguments: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The key of each picture once it is done, and why it could not be translated ("" if it was)."""
    import ray.data  # one picture does without

    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
    threads = min(THREADS, cpus)
    batches = math.ceil(len(keys) / BATCH)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its plan and its warnings are not the user's business
    rows = ray.data.from_items([{"key": key} for key in keys], override_num_blocks=batches)
    done = rows.map_batches(
        Worker,
        fn_constructor_args=arguments,
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=min(batches, gpus or cpus // threads)),
        num_cpus=1 if gpus else threads,
        num_gpus=1 if gpus else None,
    )
    for row in done.iter_rows():
        yield row["key"], row["why"]
