"""A small convolutional classifier, by which generated images are measured.

It predicts the classes of generated images (class consistency), and its features are those in which grey images are
compared (FID and KID). At 28x28x1 and 10 classes it has 467,818 parameters. There is no batch normalisation: nothing in
it is a statistic of a batch.
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


@dataclass(frozen=True)
class ClassifierArchitecture:
    """Architecture of the classifier."""

    width: Annotated[int, Gt(0)] = 32
    """Channels at the image's own size; they double each time it is halved, up to four times this."""
    features: Annotated[int, Gt(0)] = 128
    """Width of the layer before the logits: the features that FID and KID are taken in."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.25
    """Probability of dropping a feature, while training."""
    classes: Annotated[int, Ge(0)] = 0
    """Number of classes; 0 takes as many as the data set has."""


class Classifier(Model):
    """Pairs of 3x3 convolutions, the second of stride 2, then a layer of features and one of logits, all with ReLU.

    Raises:
        ValueError: when there are no classes.
    """

    family = "classifier"
    Architecture = ClassifierArchitecture
    operations: ClassVar[Mapping[str, type]] = {}
    architecture: ClassifierArchitecture

    def __init__(self, image_shape: Shape, architecture: ClassifierArchitecture) -> None:
        super().__init__(image_shape, architecture)
        if architecture.classes < 1:
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
        self.head = nn.Linear(architecture.features, architecture.classes)
        for module in self.trunk:
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # He et al. 2015
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Classify float [N, C, H, W] in [0, 1]: logits [N, classes]."""
        logits: Tensor = self.head(self.dropout(self.trunk(images)))
        return logits

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """Return the activations of the layer before the logits, float32 [N, features], of uint8 [N, H, W, C]."""
        features: Tensor = self.trunk(to_unit(pixels.to(self.device)))
        return features

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits of the classes, float32 [N, classes], of uint8 [N, H, W, C]."""
        logits: Tensor = self.head(self.features(pixels))
        return logits

    def classify(self, pixels: Tensor) -> Tensor:
        """Return the most probable class of each image, int64 [N], of uint8 [N, H, W, C]."""
        return self.logits(pixels).argmax(1)


MODEL = Classifier
