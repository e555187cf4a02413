"""``genlab describe CONFIG|MODEL``: the layers of a family's networks, with output shapes and parameters."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from upath import UPath

from genlab import modelstore
from genlab.config import from_dict
from genlab.data.images import Channels, prepare
from genlab.data.shards import ShardSet
from genlab.data.sources import open_source
from genlab.errors import ConfigError, DataError, RunError, run_command
from genlab.models.layers import Network, networks
from genlab.recipes.recipe import Batch, DomainInfo, Recipe, recipe_type
from genlab.storage import locate
from genlab.training.command import read_options, split_options
from genlab.training.plan import SYNTHETIC, build_undrawn

PROG = "genlab describe"
ROWS = 2
"""Of the batch that goes through the networks; norms over a batch need more than one."""


@dataclass(frozen=True)
class DescribeOptions:
    """Print the layers of a model: the shape that comes out of each for one image, and its parameters. Activations, and
    whatever else has no parameters and leaves the shape as it is, are left out.

    Options of the family follow with their dotted names: genlab describe vae --model.latent-dim 16
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG|MODEL")]
    """A run or its config.json, the name of a family, or a model directory, of which there are only the networks that
    are served."""


class Onlooker:
    """A :class:`genlab.recipes.recipe.Step` that trains nothing."""

    index = 0
    rows = slice(0, ROWS)

    def autocast(self) -> AbstractContextManager[Any]:
        """Nothing."""
        return nullcontext()

    def noise(self, name: str, *shape: int) -> Tensor:
        """As of a step of :data:`ROWS` rows."""
        return torch.randn(ROWS, *shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """As of a step of :data:`ROWS` rows."""
        return torch.rand(ROWS, *shape)

    def gather(self, tensor: Tensor) -> Callable[[], tuple[Sequence[int], Tensor]]:
        """There is one worker."""
        return lambda: (range(len(tensor)), tensor.detach())

    def update(self, network: str, loss: Tensor) -> None:
        """Leave the network as it is."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""

    def command() -> None:
        options, load = read_options(DescribeOptions, arguments, PROG)
        root = locate(options.what)
        if (root / modelstore.DESCRIPTION).exists():
            if theirs := split_options(arguments)[1]:
                raise ConfigError(f"{theirs[0]}: {root} is a trained model, which has its options; leave this one out")
            title, found = describe_model(root)
        else:
            title, found = describe_config(*load(options.what))
        _print(title, found)

    run_command(command)


def describe_config(family: str, config: Any) -> tuple[str, list[Network]]:
    """What ``config`` trains: the family and its images in a few words, and all networks.

    Raises:
        ConfigError, DataError: when a data set is missing, or config and data do not fit each other.
    """
    domains = {name: _info(name, url, config.data.split) for name, url in config.data.domains.items()}
    recipe = build_undrawn(family, config, domains)
    return _title(family, domains), _layers(recipe, dict(recipe.networks.items()), domains)


def describe_model(directory: UPath) -> tuple[str, list[Network]]:
    """What a model directory holds: the family and its images in a few words, and the networks that are served.

    Raises:
        RunError: when it is none, or was saved with a config that this genlab does not know.
    """
    description = modelstore.describe(directory)
    family, image, provenance = description["family"], description["image"], description["provenance"]
    info = DomainInfo(0, (image["height"], image["width"], image["channels"]), tuple(provenance["label_names"]))
    trained = provenance["config"]
    values = trained | {"model": trained.get("model", {}) | description["architecture"]}
    try:
        config: Any = from_dict(recipe_type(family).config_type, values)
        domains = dict.fromkeys(config.data.domains, info)
        recipe = build_undrawn(family, config, domains)
    except ConfigError as error:
        raise RunError(f"{directory}: was trained with a config that this genlab does not know: {error}") from None
    return _title(family, domains), _layers(recipe, {family: recipe.model()}, domains)


def _info(name: str, url: str, split: str) -> DomainInfo:
    """What a recipe may know of the data set at ``url``; one that is drawn on the spot need not be there."""
    try:
        if url.startswith(SYNTHETIC):
            source = open_source(url, count=1)
            with source.reader() as load:
                drawn = prepare(load(source.entries()[0]).image, channels=cast("Channels", source.channels))
            return DomainInfo(1, drawn.shape, source.label_names())
        shards = ShardSet.open(url).split(split)
        return DomainInfo(len(shards), shards.fixed_shape(), tuple(shards.manifest.label_names))
    except DataError as error:
        raise DataError(f"data.{name}: {error}") from None


def _layers(recipe: Recipe[Any], modules: dict[str, nn.Module], domains: Mapping[str, DomainInfo]) -> list[Network]:
    """The networks in ``modules``, as a step of ``recipe`` on the meta device calls them."""

    def step() -> None:
        with torch.device("meta"):
            batches = {
                name: Batch(
                    torch.empty(ROWS, *info.shape, dtype=torch.uint8),
                    torch.zeros(ROWS, dtype=torch.int64) if info.label_names else None,
                )
                for name, info in domains.items()
            }
            recipe.step(batches, Onlooker())

    return networks(modules, step)


def _title(family: str, domains: Mapping[str, DomainInfo]) -> str:
    shapes = {"x".join(map(str, info.shape)) for info in domains.values()}
    return f"{family}, images of {', '.join(sorted(shapes))} (height x width x channels)"


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
