"""``genlab inspect DATA``: show what is in a data set, check it, and draw some of its images."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, cast

import numpy as np
import tyro
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from genlab.core import config as configs
from genlab.core.errors import run_command
from genlab.core.progress import progress
from genlab.core.storage import locate, write_atomic, writing
from genlab.core.text import counted
from genlab.data.format.manifest import Attribute, Manifest
from genlab.data.format.shards import ShardSet
from genlab.imaging.images import Channels, Pixels, encode_png, prepare
from genlab.imaging.sheets import sheet
from genlab.imaging.value_range import range_text

GRID = 8
"""Most images in a row of a sheet, and most rows."""

CELL = 128
"""Side in pixels of the squares into which images of different sizes are cut for a sheet."""

CHUNK = 4096
"""Rows whose columns are read at a time."""


@dataclasses.dataclass(frozen=True)
class InspectConfig:
    """Show what is in a data set."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Directory or s3:// URL of the data set."""
    verify: bool = False
    """Check every checksum; ends with an error that names the first damaged file."""
    grid: str | None = None
    """PNG file to draw a sheet of images in, evenly spread over the data set (8x8 at most)."""
    split: str | None = None
    """Draw the sheet from this split only."""


def describe(shards: ShardSet) -> Table:
    """Return the facts of a data set as a table of two columns."""
    manifest = shards.manifest
    rows = [
        *_facts(manifest),
        *_column_facts(shards),
        *(("skipped", f"{skipped.key}: {skipped.why}") for skipped in manifest.skipped),
    ]
    # The cells are texts, for names of files may look like rich's markup.
    table = Table(show_edge=False)
    table.add_column()
    table.add_column(Text(str(shards.directory)), overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def draw_grid(shards: ShardSet) -> Pixels:
    """Draw a sheet of up to 8x8 images, evenly spread over the rows.

    Returns:
        uint8 [height, width, channels]. Images of different sizes are cut to squares of 128 pixels.

    Raises:
        DataError: a shard is damaged.
    """
    count = min(len(shards), GRID * GRID)
    rows = np.linspace(0, len(shards) - 1, count).round().astype(np.int64)
    if shards.shape is not None:
        images = shards.read(rows).image
    else:
        channels = cast("Channels", shards.manifest.channels)
        cells = [prepare(data, channels=channels, size=CELL, fit="crop").image for data in shards.encoded(rows)]
        images = np.stack([cell for cell in cells if isinstance(cell, np.ndarray)])
    return sheet(images, min(GRID, count))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab inspect``."""

    def command() -> None:
        config = configs.parse(InspectConfig, arguments, prog="genlab inspect")
        shards = ShardSet.open(config.data)
        chosen = shards.split(config.split) if config.split else shards
        Console(soft_wrap=True).print(describe(shards))
        if config.verify:
            with progress("verify", len(shards.shards), "shards") as advance:
                shards.verify(lambda _: advance(1))
            print("every checksum matches")
        if config.grid:
            file = locate(config.grid)
            grid = encode_png(draw_grid(chosen))
            with writing(file):
                write_atomic(file, grid)
            print(f"drawn: {file}")

    run_command(command)


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    origin = manifest.origin
    size = "different sizes" if manifest.shape is None else f"{manifest.shape[1]}x{manifest.shape[0]}"
    options = (
        f"{name.replace('_', '-')}={value}"
        for name, value in configs.flatten(origin.options).items()
        if value is not None and value != []
    )
    return [
        ("images", f"{manifest.rows:,}"),
        *((f"split {name}", f"{rows:,}") for name, rows in manifest.splits.items()),
        ("size", f"{size}, {counted(manifest.channels, 'channel')}"),
        ("encoding", manifest.encoding),
        *([("range", range_text(manifest.value_range))] if manifest.value_range else []),
        ("shards", f"{len(manifest.shards):,}, {decimal(manifest.bytes)}"),
        ("source", f"{origin.kind}:{origin.path}"),
        ("options", ", ".join(options)),
        ("made with", ", ".join(f"{name} {version}" for name, version in origin.versions.items())),
        *((f"converted {what}", f"{count:,}") for what, count in manifest.converted.items()),
        ("skipped", f"{len(manifest.skipped):,}"),
        ("checksum", manifest.checksum),
    ]


def _column_facts(shards: ShardSet) -> Iterator[tuple[str, str]]:
    """Yield the count of each label and of each name of a category, and the range and mean of numbers."""
    manifest = shards.manifest
    label = (Attribute("label", "category", manifest.label_names),) if shards.labelled else ()
    for attribute in (*label, *manifest.attributes):
        parts = (shards.columns(rows) for rows in shards.row_ranges(CHUNK))
        values = np.concatenate([part[attribute.name] for part in parts])
        if attribute.kind == "category":
            counts = np.bincount(values, minlength=len(attribute.names)).tolist()
            for name, count in zip(attribute.names, counts, strict=True):
                yield f"{attribute.name} {name}", f"{count:,}"
        else:
            yield (
                f"{attribute.name} ({attribute.kind})",
                f"{values.min():g} to {values.max():g}, mean {values.mean():.4g}",
            )
