"""``genlab export DATA|MODEL OUT``: write a data set as files, or a model's graphs for other runtimes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from genlab.core.config import parse
from genlab.core.errors import ConfigError, DataError, run_command
from genlab.core.storage import exists, locate
from genlab.data.format import manifest
from genlab.store import model_directory


@dataclass(frozen=True)
class ExportConfig:
    """Write a data set's images as files, with their labels and attributes in metadata.csv; or a model's networks as
    graphs that run without genlab, with export.json."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA|MODEL")]
    """Directory or s3:// URL of a data set, of a model, or of the run that trained it."""
    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Directory or s3:// URL to write to; it must be empty or not there. Files of a data set have the images'
    keys as names, with .jpg or .png appended to a key that does not end so; where a key cannot be a path, or is taken,
    the number of the image is the name."""
    format: Literal["files", "onnx", "torch-export"] | None = None
    """files for a data set, which is its default; for a model onnx, or torch-export (what torch.export.load reads)."""
    split: str | None = None
    """Only the images of this split of a data set."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab export``."""
    run_command(lambda: export(parse(ExportConfig, arguments, prog="genlab export")))


def export(config: ExportConfig) -> None:
    """Export the data set or the model at ``config.source``, and print what was written.

    Raises:
        ConfigError: the format or the split does not go with the source.
        DataError: the source is neither a data set nor a model, or ``folder`` is not empty or cannot be written.
        RunError: see :func:`genlab.inference.graph_export.export_graphs`.
    """
    root = locate(config.source)
    if exists(root / manifest.FILE_NAME):
        _export_data(config)
    elif any(exists(place / model_directory.DESCRIPTION) for place in (root, root / "model")):
        _export_model(config)
    else:
        raise DataError(
            f"{config.source}: neither a data set (there is no {manifest.FILE_NAME}), nor a model or a run with one "
            f"(there is no {model_directory.DESCRIPTION})"
        )


def _export_data(config: ExportConfig) -> None:
    from genlab.data.ingest.to_files import TABLE, export_files, ingest_command

    if config.format not in (None, "files"):
        raise ConfigError(f"--format {config.format}: {config.source} is a data set, which is written as files")
    written = export_files(config.source, config.folder, config.split)
    folder = locate(config.folder)
    print(f"{folder}: written, with {TABLE}; back again, pixel for pixel:")
    print(ingest_command(written, folder))


def _export_model(config: ExportConfig) -> None:
    from genlab.inference.graph_export import DESCRIPTION, export_graphs

    if config.format is None or config.format == "files":
        raise ConfigError(f"{config.source} is a model: say --format onnx or --format torch-export")
    if config.split is not None:
        raise ConfigError(f"--split {config.split}: {config.source} is a model, which has no splits")
    for line in export_graphs(config.source, config.folder, config.format):
        print(line)
    print(f"{locate(config.folder)}: written, with {DESCRIPTION}")
