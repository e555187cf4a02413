"""Cards of models, made of what their directories say."""

import math
from collections.abc import Sequence

from genlab.core.errors import RunError
from genlab.core.option_text import options_schema
from genlab.inference.operations import ModelInfo
from genlab.serving.operations import OPERATIONS
from genlab.serving.schema import ImageForm, ModelCard, Quality
from genlab.store import model_directory
from genlab.store.model_store import ModelVersion, StoredModel


def make_card(model: StoredModel, version: ModelVersion, quality: Sequence[Quality]) -> ModelCard:
    """Make the card of a model, whose name alone stands for ``version``, of which ``quality`` was measured.

    Raises:
        RunError: its description is damaged.
    """
    info = ModelInfo.of(version.directory, version.description)
    height, width, channels = info.image_shape
    operations = [name for name in info.operations if name in OPERATIONS]
    try:
        return ModelCard(
            name=model.name,
            version=version.version,
            versions=list(model.versions),
            aliases=dict(model.aliases),
            family=info.family,
            operations=operations,
            options={name: options_schema(info.operations[name]) for name in operations},
            image=ImageForm(height=height, width=width, channels=channels),
            directions=list(info.directions),
            label_names=info.provenance["label_names"],
            classes=list(info.classes),
            latent_dim=info.latent_dim,
            value_ranges=dict(info.value_ranges),
            step=info.provenance["step"],
            images=info.provenance["images"],
            metrics={key: value if math.isfinite(value) else None for key, value in info.provenance["metrics"].items()},
            quality=list(quality),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{version.directory}/{model_directory.DESCRIPTION}: damaged ({error}); export the model again"
        ) from None
