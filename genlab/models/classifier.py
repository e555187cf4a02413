"""A small convolutional network that reads images, by which generated images are measured.

It predicts the classes of generated images (class consistency), and its features are those in which grey images are
compared (FID and KID). Beside the label it predicts other columns of a data set: classes, or numbers by regression. At
28x28x1 and 10 classes it has 467,818 parameters. There is no batch normalisation: nothing in it is a statistic of a
batch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from genlab.models.model import Model, Shape
from genlab.models.pixels import to_unit

FINAL_SIDE = 8
"""Pixels that the longer side has at most when convolutions end: it is halved as often as that takes."""
LABEL = "label"
"""Name of the label among what is predicted."""


@dataclass(frozen=True)
class Target:
    """A column other than the label that the classifier predicts."""

    name: str
    classes: tuple[str, ...] = ()
    """Names of its classes; empty for a number."""
    mean: float = 0.0
    """The number that an output of 0 stands for: the mean of the column, in its units."""
    deviation: float = 1.0
    """How much one more of the output stands for: the standard deviation of the column, in its units."""

    @property
    def outputs(self) -> int:
        """How many outputs of the network it takes."""
        return max(1, len(self.classes))


@dataclass(frozen=True)
class ClassifierNetwork:
    """Architecture of the classifier, but for what it predicts beside the label."""

    width: Annotated[int, Gt(0)] = 32
    """Channels at the image's own size; they double each time it is halved, up to four times this."""
    features: Annotated[int, Gt(0)] = 128
    """Width of the layer before the logits: the features that FID and KID are taken in."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.25
    """Probability of dropping a feature, while training."""
    classes: Annotated[int, Ge(0)] = 0
    """Number of classes of the label; 0 takes as many as the data set has."""


@dataclass(frozen=True)
class ClassifierArchitecture(ClassifierNetwork):
    """Architecture of the classifier."""

    targets: tuple[Target, ...] = ()
    """The columns that it predicts beside the label."""


class Classifier(Model):
    """Pairs of 3x3 convolutions, the second of stride 2, then a layer of features and one of outputs, all with ReLU.

    The outputs are the logits of the label's classes, then those of each target in turn, see :meth:`by_target`.

    Raises:
        ValueError: when there is nothing to predict.
    """

    family = "classifier"
    Architecture = ClassifierArchitecture
    operations: ClassVar[Mapping[str, type]] = {}
    architecture: ClassifierArchitecture

    def __init__(self, image_shape: Shape, architecture: ClassifierArchitecture) -> None:
        super().__init__(image_shape, architecture)
        outputs = architecture.classes + sum(target.outputs for target in architecture.targets)
        if outputs < 1:
            raise ValueError("a classifier needs labelled images; ingest them with labels")
        height, width, channels = image_shape
        layers: list[nn.Module] = []
        out = architecture.width
        while max(height, width) > FINAL_SIDE:
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(out, out, 3, stride=2, padding=1), nn.ReLU()]
            height, width, channels = math.ceil(height / 2), math.ceil(width / 2), out
            out = min(2 * out, 4 * architecture.width)
        dense = nn.Linear(channels * height * width, architecture.features)
        self.trunk = nn.Sequential(*layers, nn.Flatten(), dense, nn.ReLU())
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Linear(architecture.features, outputs)
        for module in self.trunk:
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # He et al. 2015
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Read float [N, C, H, W] in [0, 1]: the outputs, [N, outputs]; for the label alone its logits."""
        outputs: Tensor = self.head(self.dropout(self.trunk(images)))
        return outputs

    def by_target(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return what the outputs, float [N, outputs], say of each column, by its name.

        Of ``label``, where it is predicted, and of other classes: logits [N, classes]. Of a number: its value in the
        column's units, [N].
        """
        targets = self.architecture.targets
        label, *parts = outputs.split([self.architecture.classes, *(target.outputs for target in targets)], dim=1)
        found = {LABEL: label} if self.architecture.classes else {}
        for target, part in zip(targets, parts, strict=True):
            found[target.name] = part if target.classes else target.mean + target.deviation * part[:, 0]
        return found

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """Return the activations of the layer before the logits, float32 [N, features], of uint8 [N, H, W, C]."""
        features: Tensor = self.trunk(to_unit(pixels.to(self.device)))
        return features

    @torch.inference_mode()
    def predict(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return what is seen in uint8 [N, H, W, C] of each column, as :meth:`by_target` does, in float32."""
        return self.by_target(self.head(self.features(pixels)))

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits of the label's classes, float32 [N, classes], of uint8 [N, H, W, C]."""
        outputs: Tensor = self.head(self.features(pixels))
        return outputs[:, : self.architecture.classes]

    def classify(self, pixels: Tensor) -> Tensor:
        """Return the most probable class of the label of each image, int64 [N], of uint8 [N, H, W, C]."""
        return self.logits(pixels).argmax(1)


MODEL = Classifier
