"""Training of the classifier on cross-entropy."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.data.stream.batches import Batch
from genlab.models.classifier import Classifier, ClassifierArchitecture
from genlab.models.model import Model
from genlab.models.pixels import to_unit
from genlab.models.precision import full_precision
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Batches, DomainInfo, Metrics, Phase, Recipe, StepContext


@dataclass(frozen=True)
class ClassifierConfig:
    """Train a classifier on a labelled genlab data set."""

    run: Run = field(default_factory=lambda: Run(epochs=4))
    data: ImageData = field(default_factory=ImageData)
    model: ClassifierArchitecture = field(default_factory=ClassifierArchitecture)
    optimization: Optimization = field(default_factory=lambda: Optimization(schedule="cosine"))


class ClassifierRecipe(Recipe[ClassifierConfig]):
    """Trains the classifier on softmax cross-entropy, in nats an image; accuracy is a share of images in [0, 1]."""

    config_type = ClassifierConfig
    averaged = ("classifier",)

    def __init__(self, config: ClassifierConfig, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        images = domains["images"]
        architecture = dataclasses.replace(config.model, classes=images.classes(config.model.classes))
        self.classifier = Classifier(images.shape, architecture)
        self.networks = nn.ModuleDict({"classifier": self.classifier})

    def model(self) -> Model:
        """Return the classifier."""
        return self.classifier

    def phases(self) -> Sequence[Phase]:
        """Return the only phase."""
        return (Phase("classifier", "classifier", self._loss),)

    def _loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return the cross-entropy, and it with the accuracy."""
        loss, accuracy = self._measure(batches["images"], step)
        return loss, {"cross_entropy": loss.detach(), "accuracy": accuracy}

    def test_metrics(self, batches: Batches, step: StepContext) -> Metrics:
        """Return cross-entropy and accuracy on held-out rows."""
        loss, accuracy = self._measure(batches["images"], step)
        return {"cross_entropy": loss, "accuracy": accuracy}

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Return no pictures: metrics say all about a classifier."""
        return {}

    def _measure(self, batch: Batch, step: StepContext) -> tuple[Tensor, Tensor]:
        assert batch.label is not None  # Classifier has refused data without labels
        with step.autocast():
            logits = self.classifier(to_unit(batch.image))
        hits = logits.argmax(1) == batch.label
        return F.cross_entropy(full_precision(logits), batch.label), full_precision(hits).mean()


RECIPE = ClassifierRecipe
