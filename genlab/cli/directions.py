"""``genlab directions MODEL --data DATA --attributes NAME,NAME``: find how attributes of pictures can be changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from annotated_types import Ge, Interval
from rich.console import Console
from rich.table import Table
from rich.text import Text
from upath import UPath

from genlab.cli.classifier_training import split_to_train_on, trained_classifier
from genlab.core.config import parse
from genlab.core.errors import ConfigError, DataError, RunError, run_command
from genlab.core.seeds import derived_seed
from genlab.core.storage import writing
from genlab.core.text import counted
from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import overlap
from genlab.data.stream.order import permutation
from genlab.editing.attributes import AttributeReader
from genlab.editing.directions import find_directions
from genlab.editing.identity import identity_scale
from genlab.evaluation.trained_classifier import load_classifier
from genlab.inference.engine import best_device
from genlab.metrics.identity import FaceNetwork
from genlab.models.precision import allow_tf32
from genlab.models.style_model import StyleModel
from genlab.recipes.recipe import DomainInfo
from genlab.store import model_directory
from genlab.store.directions import Axis, Direction, Directions, Effect, IdentityScale, Reader

IDENTITY_FACES = 400
"""Held-out faces, at most, that identity distances are compared with."""
METHODS = {"gradient": "gradients in W", "linear": "linear fit in W", "channel": "style channel", "sefa": "SeFa"}


@dataclass(frozen=True)
class DirectionsConfig:
    """Find a direction in the styles of a generator for each attribute of a data set, measure what it changes, and keep
    it in the model's directory.

    A classifier that is trained on the data set reads the attributes of the generator's samples.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a StyleGAN, or of the run that trained it."""
    attributes: str
    """Columns of the data set, numbers or classes, joined by commas: age,gender. The label has the name of its column
    in the source, or is called label."""
    data: str | None = None
    """Data set with these columns, of images of the model's size. By default the one that the model was trained on."""
    split: str = "test"
    """Rows on which the classifier's errors are measured; it should not be trained on them."""
    classifier: str | None = None
    """Run or model directory of a classifier that predicts the attributes. By default one is trained, once for each
    data set."""
    samples: Annotated[int, Interval(ge=100, le=1_000_000)] = 10_000
    """The number of samples that directions are fitted on."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the samples."""
    identity: bool = False
    """Measure, too, how far each direction leads away from who is shown, by a face network: of a model of faces,
    aligned and cropped, in colour."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab directions``."""

    def command() -> None:
        found, file = run_directions(parse(DirectionsConfig, arguments, prog="genlab directions"))
        show(found)
        print(f"directions: {file}")

    run_command(command)


def run_directions(config: DirectionsConfig) -> tuple[Directions, UPath]:
    """Find the directions that ``config`` asks for and write them; return them, and the file that holds them.

    Raises:
        ConfigError, DataError, RunError: the model, its data or the classifier cannot be used, or none is found.
    """
    directory = model_directory.find_one(config.model)
    description = model_directory.describe(directory)
    device = best_device()
    allow_tf32(False)
    model = model_directory.load(directory, device)
    if not isinstance(model, StyleModel):
        raise RunError(f"{config.model}: a {model.family}, which has no styles; directions are of a StyleGAN")
    provenance = description["provenance"]
    url = config.data or provenance["data"].get("images", {}).get("path")
    if url is None:
        raise ConfigError("data: name the data set with the attributes, --data DATA")
    shards = ShardSet.open(url)
    if shards.fixed_shape() != model.image_shape:
        sizes = ("x".join(map(str, shape)) for shape in (shards.fixed_shape(), model.image_shape))
        raise ConfigError("data: images of {}, and the model draws {}; ingest them with --size".format(*sizes))
    columns = _columns(shards, config.attributes)
    held_out = shards.part(config.split)
    if config.classifier:
        place = model_directory.find_one(config.classifier)
    else:
        place = trained_classifier(shards, split_to_train_on(shards, provenance), tuple(columns.values()))
    trained = load_classifier(place, device, needs_label=False)
    if trained.model.image_shape != model.image_shape:
        size = "x".join(map(str, trained.model.image_shape))
        raise ConfigError(f"classifier: it takes images of {size}, and the model draws others")
    if trained.data == shards.checksum and overlap(trained.split, config.split):
        raise ConfigError(f"split = {config.split!r}: the classifier was trained on these rows; name others, --split")
    network = FaceNetwork("--identity") if config.identity else None
    scale = _identity_scale(network, held_out) if network else None
    read = AttributeReader(trained.model, columns, trained.label_names)
    errors = read.errors(held_out)
    reader = Reader(str(place), trained.weights, shards.checksum, config.split, len(held_out), columns, errors)
    directions = find_directions(model, read, read.of_images, read.axes, config.samples, config.seed, network)
    found = Directions(description["weights"]["sha256"], reader, config.samples, config.seed, directions, scale)
    with writing(directory):
        return found, found.save(directory)


def _identity_scale(network: FaceNetwork, shards: ShardSet) -> IdentityScale:
    """Measure what identity distances of held-out faces are like."""
    rows = permutation(derived_seed(0, "identity"), 0, len(shards))[:IDENTITY_FACES]
    if len(rows) < 2:
        raise ConfigError(f"identity: {counted(len(rows), 'held-out face')}; two at least can be compared")
    return identity_scale(network, torch.from_numpy(shards.read(rows).image))


def _columns(shards: ShardSet, attributes: str) -> dict[str, str]:
    """Return the column of each attribute that is named, by that name."""
    info = DomainInfo.of(shards.manifest, len(shards))
    try:
        names = [name.strip() for name in attributes.split(",")]
        columns = {name: info.column(name).name for name in names}
    except ValueError as error:
        raise DataError(f"{shards.directory}: {error}") from None
    if len(set(columns.values())) < len(names):
        raise ConfigError(f"attributes = {attributes!r}: names a column twice")
    return columns


def show(found: Directions) -> None:
    """Print how well attributes are read, and what each direction does."""
    console = Console(soft_wrap=True, highlight=False)
    axes = list({one.axis.name: one.axis for one in found.directions}.values())
    numbers = {axis.attribute for axis in axes if not axis.towards}
    errors = [
        f"{name} with a mean absolute error of {error:.3g}" if name in numbers else f"{name}, wrong in {error:.1%}"
        for name, error in found.reader.errors.items()
    ]
    rows = f"{found.reader.rows:,} rows of {found.reader.split}"
    console.print(f"attributes are read by {found.reader.path}: {'; '.join(errors)} ({rows})", markup=False)
    table = Table(show_edge=False)
    identity = ("identity distance",) if found.identity else ()
    for head in ("direction", "found by", "asked for", "moves", "and others", *identity):
        table.add_column(head)
    for direction in found.directions:
        for effect in direction.effects:
            cells = [direction.axis.name, METHODS[direction.method], *_cells(direction, effect, axes)]
            cells += [] if effect.identity is None else [f"{effect.identity:.2f}"]
            table.add_row(*map(Text, cells))
    console.print(table)
    for one in found.directions:
        if one.accuracy is not None:
            told = f"{one.accuracy:.1%} of samples right" if one.axis.towards else f"R² {one.accuracy:.2f}"
            console.print(f"{one.axis.name}: a linear function of w tells it with {told}", markup=False)
    if scale := found.identity:
        console.print(
            f"identity distance of {counted(scale.pictures, 'held-out face')}: from its mirror image "
            f"{scale.mirrored:.2f}, from another {scale.others:.2f} (medians)"
        )
    console.print("means over pictures that took no part in finding or calibrating a direction", style="dim")


def _cells(direction: Direction, effect: Effect, axes: Sequence[Axis]) -> tuple[str, str, str]:
    """Return what was asked for, how far the direction moved its own axis, and how far others."""
    axis, own = direction.axis, effect.changes[direction.axis.name]
    others = []
    for other in axes:
        if other.attribute == axis.attribute:
            continue
        change = effect.changes[other.name]
        if change.same_class is None:
            others.append(f"{other.name} {change.mean:+.3g} (size {change.size:.3g})")
        else:
            others.append(f"{other.attribute} same in {change.same_class:.0%}")
    others = list(dict.fromkeys(others))
    if not axis.towards:
        return f"{effect.amount:+.3g}", f"{own.mean:+.3g}", ", ".join(others)
    towards = axis.towards if effect.amount > 0 else axis.away
    assert own.same_class is not None
    return f"{towards}, {effect.amount:+.3g} nats", f"{1 - own.same_class:.0%} change class", ", ".join(others)
