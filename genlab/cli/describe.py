"""``genlab describe CONFIG|MODEL``: print the layers of a family's networks, with output shapes and parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Gt
from rich.console import Console
from rich.table import Table

from genlab.cli.family_options import read_options, split_options
from genlab.core.errors import ConfigError, run_command
from genlab.core.storage import exists, locate
from genlab.models.summary import Network
from genlab.proofs.describe import describe_config, describe_model
from genlab.store import model_directory

PROG = "genlab describe"


@dataclass(frozen=True)
class DescribeOptions:
    """Print the layers of a model: the shape that comes out of each for one image, and its parameters. Layers
    without parameters that keep the shape, such as activations, are left out.

    Options of the family follow with their dotted names: genlab describe vae --model.latent-dim 16
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG|MODEL")]
    """A run or its config.json, the name of a family, or a model directory, with its served networks alone."""
    side: Annotated[int, Gt(0)] | None = None
    """Height and width of the images in pixels. By default those of the data or of the model."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab describe``."""

    def command() -> None:
        options, load = read_options(DescribeOptions, arguments, PROG)
        root = locate(options.what)
        if exists(root / model_directory.DESCRIPTION):
            if theirs := split_options(arguments)[1]:
                raise ConfigError(f"{theirs[0]}: {root} is a trained model, which has its options; leave this one out")
            if options.side is not None:
                raise ConfigError(f"side: {root} is a trained model, whose images have a size; leave it out")
            title, found = describe_model(root)
        else:
            title, found = describe_config(*load(options.what), side=options.side)
        _print(title, found)

    run_command(command)


def _print(title: str, found: Sequence[Network]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(title, markup=False)
    for network in found:
        table = Table(title=network.name, title_justify="left", title_style="bold", show_footer=True)
        table.add_column("layer", footer="total")
        table.add_column("kind")
        table.add_column("output, channels first")
        table.add_column("parameters", justify="right", footer=f"{network.parameters:,}")
        for layer in network.layers:
            shape = "" if layer.shape is None else " x ".join(map(str, layer.shape))
            table.add_row(layer.name, layer.kind, shape, f"{layer.parameters:,}")
        console.print(table)
    console.print(f"in all {sum(network.parameters for network in found):,} parameters", markup=False)
