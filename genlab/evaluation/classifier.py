"""The classifier by which classes are recognised in images."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from upath import UPath

from genlab.core.errors import RunError
from genlab.evaluation.held_out import HeldOut
from genlab.models.classifier import Classifier
from genlab.store import model_directory


@dataclass(frozen=True)
class Judge:
    """A classifier that genlab trained, and what it knows."""

    classifier: Classifier
    weights: str
    """SHA-256 of the file of its weights."""
    label_names: tuple[str, ...]
    """Names of the classes 0, 1, ... that it was trained on."""
    data: str
    """Checksum of the data set that it was trained on."""
    split: str
    """Of that data set."""

    def caution(self, held_out: HeldOut) -> str:
        """Why not to trust what it recognises in these images; empty when it never saw them."""
        if (self.data, self.split) == (held_out.shards.checksum, held_out.split):
            return "the classifier was trained on these very images"
        return ""


def load_judge(directory: UPath, device: str | torch.device) -> Judge:
    """The classifier in a model directory.

    Raises:
        RunError: it cannot be loaded, or is something else than a classifier.
    """
    description: dict[str, Any] = model_directory.describe(directory)
    if description["family"] != Classifier.family:
        raise RunError(f"{directory}: a {description['family']}, not a classifier; train one with jobs/classifier.py")
    provenance = description["provenance"]
    return Judge(
        cast("Classifier", model_directory.load(directory, device)),
        description["weights"]["sha256"],
        tuple(provenance["label_names"]),
        provenance["data"]["images"]["checksum"],
        provenance["config"]["data"]["split"],
    )
