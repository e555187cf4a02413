"""``genlab mix MODEL OUT --rows SEED... --columns SEED...``: give pictures some styles of others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from annotated_types import Interval, MinLen

from genlab.cli.model_options import parse_for_model
from genlab.core.errors import run_command
from genlab.core.storage import locate
from genlab.core.text import counted
from genlab.imaging.images import encode_png
from genlab.inference.engine import Engine
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import encode_sheet, meant_as_file, save

Seed = Annotated[int, Interval(ge=0, lt=2**63)]


@dataclass(frozen=True)
class MixConfig:
    """Give the pictures of some seeds a part of the styles of others: style mixing, for a StyleGAN.

    Which styles, and how all are drawn, are options of the model: `genlab mix MODEL --help` lists them.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model that mixes styles, or of the run that trained it."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where to write: NAME.png for one sheet, with the seeds' own pictures in its first column and row, or a folder for
    a file each: row-1.png, column-4.png, and 1-4.png for what is mixed of both."""
    rows: Annotated[tuple[Seed, ...], MinLen(1)]
    """Seeds of the pictures that are changed, each a row: what `genlab sample MODEL --count 1` draws by them."""
    columns: Annotated[tuple[Seed, ...], MinLen(1)]
    """Seeds of the pictures whose styles they get, each a column."""
    label: str | None = None
    """Class of all pictures, by its name or number; needed by a model that knows classes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab mix``."""
    run_command(lambda: mix(*parse_for_model(MixConfig, "mix_styles", arguments, "genlab mix")))


def mix(config: MixConfig, options: Mapping[str, Any]) -> None:
    """Mix what ``config`` asks for, by the options of the operation, and print where it is.

    Raises:
        ConfigError: an unknown or missing class, or a destination of another kind.
        RunError: the model cannot be loaded, or does not mix styles.
        DataError: the destination cannot be written.
    """
    model = ModelInfo.find(config.model, "mix_styles")
    label = model.class_number(config.label, needed=True)
    dest = locate(config.dest)
    one_file = meant_as_file(dest, ".png")
    grid = Engine(model.directory).mix_styles(config.rows, config.columns, label, **options)
    if one_file:
        save(dest, encode_sheet(grid.reshape(-1, *model.image_shape), columns=grid.shape[1]))
    else:
        for column, image in zip(config.columns, grid[0, 1:], strict=True):
            save(dest / f"column-{column}.png", encode_png(image))
        for row, (own, *mixed) in zip(config.rows, grid[1:], strict=True):
            save(dest / f"row-{row}.png", encode_png(own))
            for column, image in zip(config.columns, mixed, strict=True):
                save(dest / f"{row}-{column}.png", encode_png(image))
    print(f"{dest}: {counted(len(config.rows), 'row')}, {counted(len(config.columns), 'column')}")
