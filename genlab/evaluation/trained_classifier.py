"""A classifier that genlab trained, with what its results depend on: it recognises classes in images."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from upath import UPath

from genlab.core.errors import RunError
from genlab.data.format.splits import overlap
from genlab.evaluation.held_out import HeldOut
from genlab.models.classifier import Classifier
from genlab.store import model_directory


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier, and what it was trained on."""

    model: Classifier
    weights: str
    """SHA-256 of the file of its weights."""
    label_names: tuple[str, ...]
    """Names of the classes 0, 1, ... that it was trained on."""
    data: str
    """Checksum of the data set that it was trained on."""
    split: str
    """Name of the split of that data set that it was trained on."""
    flip: bool
    """Whether it was trained on mirror images, too."""

    def caution(self, held_out: HeldOut) -> str:
        """Say why its results on these images should not be trusted; empty if it was not trained on them."""
        if self.data == held_out.shards.checksum and overlap(self.split, held_out.split):
            return "the classifier was trained on these images"
        return ""


def load_classifier(directory: UPath, device: str | torch.device, *, needs_label: bool = True) -> TrainedClassifier:
    """Load a classifier from a model directory.

    Args:
        directory: the model directory.
        device: the device to load it onto.
        needs_label: whether it is to predict the label.

    Raises:
        RunError: it cannot be loaded, is something else than a classifier, or does not predict the label.
    """
    description: dict[str, Any] = model_directory.describe(directory)
    if description["family"] != Classifier.family:
        raise RunError(
            f"{directory}: a {description['family']}, not a classifier; train one with genlab train classifier"
        )
    if needs_label and not description["architecture"]["classes"]:
        raise RunError(f"{directory}: it does not predict the label; train one that does with genlab train classifier")
    provenance = description["provenance"]
    return TrainedClassifier(
        cast("Classifier", model_directory.load(directory, device)),
        description["weights"]["sha256"],
        tuple(provenance["label_names"]),
        provenance["data"]["images"]["checksum"],
        provenance["config"]["data"]["split"],
        provenance["config"]["data"].get("flip", False),  # the first versions had no such option
    )
