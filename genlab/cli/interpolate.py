"""The way from one picture to another through a model: ``genlab interpolate MODEL A B OUT``."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
import tyro
from annotated_types import Ge, Interval
from PIL import Image
from torch import Tensor

from genlab.core.config import parse
from genlab.core.errors import ConfigError, run_command
from genlab.core.storage import locate
from genlab.inference.operations import class_names, class_number, find, labels
from genlab.inference.pictures import as_png, as_sheet, best_device, is_file, load_fitting, save
from genlab.store import model_directory

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
    steps: Annotated[int, Ge(2)] = 10
    """Images from end to end, both included."""
    label: str | None = None
    """Class of the pictures, by its name or number; needed by a model that knows classes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``genlab interpolate``."""
    run_command(lambda: interpolate(parse(InterpolateConfig, arguments, prog="genlab interpolate")))


def interpolate(config: InterpolateConfig) -> None:
    """Interpolate as ``config`` says and tell where it is.

    Raises:
        ConfigError: neither two pictures nor two seeds, an unknown or missing class, or a destination of another kind.
        RunError: the model cannot be loaded, or does not interpolate.
        DataError: a picture cannot be used, or the destination cannot be written.
    """
    if len(config.paths) != (3 if config.seeds is None else 1):
        raise ConfigError(f"paths = {' '.join(config.paths)!r}: give two pictures and OUT, or OUT and --seeds alone")
    *ends, out = config.paths
    directory, description = find(config.model, "interpolate_draws" if config.seeds else "interpolate")
    label = class_number(class_names(description), config.label, needed=True)
    dest = locate(out)
    one_file = is_file(dest, ".png", ".gif")
    model = model_directory.load(directory, best_device())
    if config.seeds:
        images = cast("Any", model).interpolate_draws(config.seeds, config.steps, labels(label, 2))
    else:
        pixels = torch.cat([load_fitting(locate(end), model) for end in ends])
        images = cast("Any", model).interpolate(pixels, config.steps, labels(label, 2))
    if not one_file:
        for number in range(config.steps):
            save(dest / f"{number:05d}.png", as_png(images[number : number + 1]))
    elif dest.suffix.lower() == ".gif":
        save(dest, _animate(images))
    else:
        save(dest, as_sheet(images, columns=config.steps))
    print(f"{dest}: {config.steps} steps")


def _animate(images: Tensor) -> bytes:
    """The GIF file that shows uint8 [N, H, W, C] one after the other, over and over."""
    first, *others = (Image.fromarray(image.squeeze(2).numpy()) for image in images.cpu())
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=FRAME, loop=0)
    return file.getvalue()
