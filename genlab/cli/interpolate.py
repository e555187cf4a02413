"""``genlab interpolate MODEL A B OUT``: go from one picture or draw to another through a trained model."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from annotated_types import Interval

from genlab.cli.model_options import parse_for_model
from genlab.core.errors import ConfigError, run_command
from genlab.core.storage import locate
from genlab.imaging.images import encode_film, encode_png
from genlab.inference.engine import Engine
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import encode_sheet, load_fitting, meant_as_file, save

FRAME = 80
"""Milliseconds that an animation shows each image."""


@dataclass(frozen=True)
class InterpolateConfig:
    """Go from one picture to another, or from one draw to another, through a model's latent space."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model that interpolates, or of the run that trained it."""
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[A B] OUT")]
    """Two pictures of the size of the model's images, unless --seeds stands for them, and where to write: NAME.png for
    a strip, NAME.gif for an animation, or a folder for a file each."""
    seeds: tuple[Annotated[int, Interval(ge=0, lt=2**63)], Annotated[int, Interval(ge=0, lt=2**63)]] | None = None
    """Go between what `genlab sample MODEL --count 1` draws by these two seeds: genlab interpolate MODEL OUT --seeds 1
    2."""
    label: str | None = None
    """Class of the pictures, by its name or number; needed by a model that knows classes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab interpolate``."""
    words = sys.argv[1:] if arguments is None else arguments
    operation = "interpolate_draws" if any(word.partition("=")[0] == "--seeds" for word in words) else "interpolate"
    run_command(lambda: interpolate(*parse_for_model(InterpolateConfig, operation, words, "genlab interpolate")))


def interpolate(config: InterpolateConfig, options: Mapping[str, Any]) -> None:
    """Interpolate as ``config`` says, by the options of the operation, and print where it is.

    Raises:
        ConfigError: neither two pictures nor two seeds, an unknown or missing class, or a destination of another kind.
        RunError: the model cannot be loaded, or does not interpolate.
        DataError: a picture cannot be used, or the destination cannot be written.
    """
    if len(config.paths) != (3 if config.seeds is None else 1):
        raise ConfigError(f"paths = {' '.join(config.paths)!r}: give two pictures and OUT, or OUT and --seeds alone")
    *ends, out = config.paths
    model = ModelInfo.find(config.model, "interpolate_draws" if config.seeds else "interpolate")
    label = model.class_number(config.label, needed=True)
    dest = locate(out)
    one_file = meant_as_file(dest, ".png", ".gif")
    engine = Engine(model.directory)
    if config.seeds:
        images = engine.interpolate_draws(config.seeds, label, **options)
    else:
        begin, end = (load_fitting(locate(end), engine) for end in ends)
        images = engine.interpolate(begin, end, label, **options)
    if not one_file:
        for number, image in enumerate(images):
            save(dest / f"{number:05d}.png", encode_png(image))
    elif dest.suffix.lower() == ".gif":
        save(dest, encode_film(images, FRAME, "GIF"))
    else:
        save(dest, encode_sheet(images, columns=len(images)))
    print(f"{dest}: {len(images)} steps")
