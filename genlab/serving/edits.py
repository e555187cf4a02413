"""Whether served models can be edited: the directions of a StyleGAN, and which generator an encoder is of."""

import logging
from dataclasses import dataclass

import torch

from genlab.core.errors import GenlabError, StorageError
from genlab.models.encoder import Encoder
from genlab.models.stylegan import StyleGAN
from genlab.serving.beside import Beside
from genlab.serving.schema import EditDirection, EditedAxis, EditEffect, Edits
from genlab.store import model_directory
from genlab.store.directions import Direction, Directions, cautions, find_directions, parse_directions
from genlab.store.model_store import ModelVersion
from genlab.store.tensor_file import read_tensor_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Editing:
    """What a version has to do with edits."""

    directions: Directions | None = None
    """Directions of a StyleGAN's very weights."""
    latent_dim: int = 0
    """Numbers of its styles w+, if it has directions."""
    generator: str = ""
    """Of an encoder: the SHA-256 of the weights of its generator."""


class Editings(Beside[Editing]):
    """What versions of models have to do with edits."""

    def __init__(self) -> None:
        super().__init__(_read, Editing())


def describe_edits(editing: Editing) -> Edits | None:
    """Return what a card says of a model's directions; ``None`` for a model without."""
    found = editing.directions
    if found is None:
        return None
    return Edits(
        latent_dim=editing.latent_dim,
        directions=[_describe(one) for one in found.directions],
        read_errors=dict(found.reader.errors),
        read_rows=found.reader.rows,
        cautions=list(cautions(found)),
    )


def _describe(direction: Direction) -> EditDirection:
    axis, (low, high) = direction.axis, direction.reach
    return EditDirection(
        name=axis.name,
        attribute=axis.attribute,
        method=direction.method,
        unit=axis.unit,
        low=low,
        high=high,
        towards=axis.towards,
        away=axis.away,
        effects=[
            EditEffect(
                amount=effect.amount,
                pictures=effect.pictures,
                changes={
                    name: EditedAxis(mean=change.mean, size=change.size, same_class=change.same_class)
                    for name, change in effect.changes.items()
                },
            )
            for effect in direction.effects
        ],
    )


def _read(version: ModelVersion) -> Editing:
    family, directory = version.description["family"], version.directory
    try:
        if family == Encoder.family:
            return Editing(generator=read_tensor_bytes(directory / model_directory.WEIGHTS, "generator_hash").hex())
        if family == StyleGAN.family and (content := find_directions(directory, version.description)) is not None:
            with torch.device("meta"):
                model = model_directory.build(version.description)
            assert isinstance(model, StyleGAN)
            directions = parse_directions(directory, content)
            return Editing(directions, model.synthesis.styles * model.style_dim)
    except StorageError:
        raise  # What is known of the version stays.
    except (GenlabError, OSError, EOFError, KeyError, ValueError) as error:
        logger.warning("%s: is not edited: %s", version.name, error)
    return Editing()
