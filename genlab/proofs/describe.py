"""The tables of ``genlab describe CONFIG|MODEL``: the layers of a family's networks, output shapes and parameters."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from upath import UPath

from genlab.core.config import from_dict, to_dict
from genlab.core.errors import ConfigError, DataError, RunError
from genlab.data.format.manifest import LABEL, Attribute
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.sources import open_source
from genlab.data.stream.batches import Batch
from genlab.imaging.images import Channels, prepare
from genlab.models.model import model_type
from genlab.models.summary import Network, summarise
from genlab.recipes.recipe import DomainInfo, Recipe, recipe_type
from genlab.store import model_directory
from genlab.training.plan import SYNTHETIC, build_on_meta

ROWS = 2
"""Rows of the batch that goes through the networks, or a group of rows; norms over a batch need more than one."""


class ShapeOnlyStepContext:
    """A :class:`genlab.recipes.recipe.StepContext` for a step that only computes shapes and changes no weight."""

    index = 0

    def __init__(self, rows: int) -> None:
        self.rows = slice(0, rows)
        self._left: dict[str, Any] = {}

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context without effect."""
        return nullcontext()

    def noise(self, name: str, *shape: int) -> Tensor:
        """Draw normal noise for each row."""
        return torch.randn(self.rows.stop, *shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Draw uniform noise for each row."""
        return torch.rand(self.rows.stop, *shape)

    def gather(
        self, tensor: Tensor, wanted: Collection[int] | None = None
    ) -> Callable[[], tuple[Sequence[int], Tensor]]:
        """Return the rows of the only worker."""
        rows = [row for row in range(len(tensor)) if wanted is None or row in wanted]
        return lambda: (rows, tensor.detach()[rows])

    def leave(self, name: str, value: Any) -> None:
        """Leave a value for a later phase."""
        self._left[name] = value

    def left(self, name: str) -> Any:
        """Return what an earlier phase left."""
        return self._left[name]


def describe_config(family: str, config: Any, side: int | None = None) -> tuple[str, list[Network]]:
    """Describe what ``config`` trains.

    Args:
        family: the family.
        config: its config.
        side: height and width of the images, instead of those of the data.

    Returns:
        A title that names the family and its images, and all networks.

    Raises:
        ConfigError, DataError: when a data set is missing, or config and data do not fit each other.
    """
    domains = {name: _info(name, url, config.data.split) for name, url in config.data.domains.items()}
    if side is not None:
        domains = {name: replace(info, shape=(side, side, info.shape[2])) for name, info in domains.items()}
    recipe = build_on_meta(family, config, domains)
    return _title(family, domains), _layers(recipe, dict(recipe.networks.items()), domains)


def describe_model(directory: UPath) -> tuple[str, list[Network]]:
    """Describe what a model directory holds.

    Returns:
        A title that names the family and its images, and the networks that are served.

    Raises:
        RunError: when ``directory`` is not a model directory, or its config is unknown to this genlab.
    """
    description = model_directory.describe(directory)
    family, image, provenance = description["family"], description["image"], description["provenance"]
    info = DomainInfo(
        0,
        (image["height"], image["width"], image["channels"]),
        tuple(provenance["label_names"]),
        tuple(Attribute(**attribute) for attribute in provenance.get("attributes", ())),
        provenance.get("label_column", LABEL),
    )
    kind, trained = model_type(family), provenance["config"]
    try:
        architecture: Any = from_dict(kind.Architecture, description["architecture"])
        option_names = {field.name for field in fields(recipe_type(family).config_type().model)}
        options = {name: value for name, value in to_dict(architecture).items() if name in option_names}
        values = trained | {"model": trained.get("model", {}) | options}
        config: Any = from_dict(recipe_type(family).config_type, values)
        domains = dict.fromkeys(config.data.domains, info)
        recipe = build_on_meta(family, config, domains)
    except ConfigError as error:
        raise RunError(f"{directory}: was trained with a config that this genlab does not know: {error}") from None
    with torch.device("meta"):
        served = {f"{family}.{name}".rstrip(".") for name, _ in kind(info.shape, architecture).named_modules()}
    found = _layers(recipe, {family: recipe.model()}, domains)
    return _title(family, domains), [network for network in found if network.name in served]


def names_of_test_metrics(recipe: Recipe[Any]) -> list[str]:
    """Return the names of a recipe's test metrics, without an image.

    Args:
        recipe: the recipe, built on the meta device.
    """
    if not recipe.has_test_metrics:
        return []
    rows = max(ROWS, recipe.group)
    with torch.device("meta"), torch.no_grad():
        return list(recipe.test_metrics(_batches(recipe.domains, rows), ShapeOnlyStepContext(rows)))


def _info(name: str, url: str, split: str) -> DomainInfo:
    """Return what a recipe may know of the data set at ``url``; a ``synthetic:`` one need not have been ingested."""
    try:
        if url.startswith(SYNTHETIC):
            source = open_source(url, count=1)
            with source.reader() as load:
                example = prepare(load(next(source.entries())).image, channels=cast("Channels", source.channels))
            return DomainInfo(1, example.shape, source.label_names(), source.declared())
        shards = ShardSet.open(url).split(split)
        shards.fixed_shape()  # raises for images of different sizes
        return DomainInfo.of(shards.manifest, len(shards))
    except DataError as error:
        raise DataError(f"data.{name}: {error}") from None


def _layers(recipe: Recipe[Any], modules: dict[str, nn.Module], domains: Mapping[str, DomainInfo]) -> list[Network]:
    """Return the layers of ``modules``, with the shapes that a step of ``recipe`` on the meta device gives them."""

    def step() -> None:
        rows = max(ROWS, recipe.group)
        with torch.device("meta"):
            batches, step = _batches(domains, rows), ShapeOnlyStepContext(rows)
            for phase in recipe.phases():
                phase.loss(batches, step)

    return summarise(modules, step)


def _batches(domains: Mapping[str, DomainInfo], rows: int) -> dict[str, Batch]:
    return {
        name: Batch(
            torch.empty(rows, *info.shape, dtype=torch.uint8),
            torch.zeros(rows, dtype=torch.int64) if info.label_names else None,
            {attribute.name: torch.zeros(rows, dtype=torch.int64) for attribute in info.attributes},
        )
        for name, info in domains.items()
    }


def _title(family: str, domains: Mapping[str, DomainInfo]) -> str:
    shapes = {"x".join(map(str, info.shape)) for info in domains.values()}
    return f"{family}, images of {', '.join(sorted(shapes))} (height x width x channels)"
