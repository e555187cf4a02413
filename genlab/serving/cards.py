"""Cards of models, made of what their directories say."""

import math
from collections.abc import Mapping, Sequence

from genlab.core.errors import RunError
from genlab.core.option_text import options_schema
from genlab.inference.operations import ModelInfo
from genlab.models.model import NoOptions
from genlab.serving.edits import Editing, describe_edits
from genlab.serving.operations import OPERATIONS
from genlab.serving.schema import ImageForm, ModelCard, Quality
from genlab.store import model_directory
from genlab.store.model_store import ModelVersion, StoredModel


def make_card(model: StoredModel, version: ModelVersion, quality: Sequence[Quality], editing: Editing) -> ModelCard:
    """Make the card of a model.

    Args:
        model: the model.
        version: what its name alone stands for.
        quality: what was measured of this version.
        editing: what it has to do with edits.

    Raises:
        RunError: its description is damaged.
    """
    info = ModelInfo.of(version.directory, version.description)
    height, width, channels = info.image_shape
    offered = offered_operations(info, editing)
    try:
        return ModelCard(
            name=model.name,
            version=version.version,
            versions=list(model.versions),
            aliases=dict(model.aliases),
            family=info.family,
            operations=list(offered),
            options={name: options_schema(options) for name, options in offered.items()},
            image=ImageForm(height=height, width=width, channels=channels),
            directions=list(info.directions),
            label_names=info.provenance["label_names"],
            classes=list(info.classes),
            latent_dim=info.latent_dim,
            value_ranges=dict(info.value_ranges),
            step=info.provenance["step"],
            images=info.provenance["images"],
            metrics={key: value if math.isfinite(value) else None for key, value in info.provenance["metrics"].items()},
            weights=info.weights,
            edits=describe_edits(editing),
            generator=editing.generator,
            quality=list(quality),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{version.directory}/{model_directory.DESCRIPTION}: damaged ({error}); export the model again"
        ) from None


def offered_operations(info: ModelInfo, editing: Editing) -> Mapping[str, type]:
    """Return the operations that have a route, each with the dataclass of the model's own options."""
    offered = {name: options for name, options in info.operations.items() if name in OPERATIONS}
    return offered if editing.directions is None else {**offered, "edit": NoOptions}
