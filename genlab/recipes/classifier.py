"""Training of the classifier: cross-entropy of classes, absolute errors of numbers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch.nn.functional as F
from annotated_types import MinLen
from torch import Tensor, nn

from genlab.data.stream.batches import Batch
from genlab.models.classifier import LABEL, Classifier, ClassifierArchitecture, ClassifierNetwork, Target
from genlab.models.model import Model
from genlab.models.pixels import to_unit
from genlab.models.precision import full_precision
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Batches, DomainInfo, Metrics, Phase, Recipe, StepContext


@dataclass(frozen=True)
class ClassifierObjective:
    """What is learnt."""

    targets: Annotated[tuple[str, ...], MinLen(1)] = (LABEL,)
    """Columns of the data set to predict from the image, all by one network: `label` for the label, which also has the
    name of its column in the source, and other columns by name. Classes are learnt by cross-entropy in nats, numbers by
    their absolute error in standard deviations; the losses are added."""


@dataclass(frozen=True)
class ClassifierConfig:
    """Train a classifier on a labelled genlab data set, or a regressor of numbers such as ages."""

    run: Run = field(default_factory=lambda: Run(epochs=4))
    data: ImageData = field(default_factory=ImageData)
    model: ClassifierNetwork = field(default_factory=ClassifierNetwork)
    objective: ClassifierObjective = field(default_factory=ClassifierObjective)
    optimization: Optimization = field(default_factory=lambda: Optimization(schedule="cosine"))


class ClassifierRecipe(Recipe[ClassifierConfig]):
    """Trains the classifier on the sum of its targets' losses.

    The metrics of the label are ``cross_entropy``, in nats an image, and ``accuracy``, a share of images in [0, 1];
    those of other classes have the column's name behind, as ``accuracy_season``. Of a number it is the mean absolute
    error in the column's units, as ``mean_absolute_error_age``.
    """

    config_type = ClassifierConfig
    averaged = ("classifier",)

    def __init__(self, config: ClassifierConfig, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        images = domains["images"]
        columns = [images.column(name) for name in config.objective.targets]
        names = [column.name for column in columns]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"objective.targets names {min(twice)!r} twice")
        targets = []
        for column in columns:
            if column.kind == "category":
                targets.append(Target(column.name, column.names))
            else:
                spread = images.spread(column.name)
                targets.append(Target(column.name, mean=spread.mean, deviation=spread.deviation))
        architecture = ClassifierArchitecture(
            **{option.name: getattr(config.model, option.name) for option in dataclasses.fields(config.model)}
            | {"classes": images.classes(config.model.classes) if LABEL in names else 0},
            targets=tuple(target for target in targets if target.name != LABEL),
        )
        self.classifier = Classifier(images.shape, architecture)
        self.networks = nn.ModuleDict({"classifier": self.classifier})

    @classmethod
    def measured_columns(cls, config: ClassifierConfig) -> Sequence[str]:
        """Return the targets: the spread of those that are numbers is their unit of the loss."""
        return config.objective.targets

    def model(self) -> Model:
        """Return the classifier."""
        return self.classifier

    def phases(self) -> Sequence[Phase]:
        """Return the only phase."""
        return (Phase("classifier", "classifier", self._loss),)

    def _loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return the loss, and the metrics of each target."""
        loss, metrics = self._measure(batches["images"], step)
        return loss, {name: metric.detach() for name, metric in metrics.items()}

    def test_metrics(self, batches: Batches, step: StepContext) -> Metrics:
        """Return the metrics of each target on held-out rows."""
        return self._measure(batches["images"], step)[1]

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Return no pictures: metrics say all about a classifier."""
        return {}

    def _measure(self, batch: Batch, step: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        with step.autocast():
            outputs = self.classifier(to_unit(batch.image))
        found = self.classifier.by_target(full_precision(outputs))
        losses: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        if LABEL in found:
            assert batch.label is not None  # DomainInfo has refused data without labels
            losses.append(_add_class_metrics("", found[LABEL], batch.label, metrics))
        for target in self.classifier.architecture.targets:
            predicted, truth = found[target.name], batch.attributes[target.name]
            if target.classes:
                losses.append(_add_class_metrics(f"_{target.name}", predicted, truth, metrics))
            else:
                error = (predicted - truth.to(predicted.dtype)).abs().mean()
                metrics[f"mean_absolute_error_{target.name}"] = error
                losses.append(error / target.deviation)
        return sum(losses[1:], losses[0]), metrics


def _add_class_metrics(suffix: str, logits: Tensor, truth: Tensor, metrics: dict[str, Tensor]) -> Tensor:
    """Return the cross-entropy of logits, and put it and the accuracy into ``metrics``."""
    loss = F.cross_entropy(logits, truth)
    metrics[f"cross_entropy{suffix}"] = loss
    metrics[f"accuracy{suffix}"] = (logits.argmax(1) == truth).to(logits.dtype).mean()
    return loss


RECIPE = ClassifierRecipe
