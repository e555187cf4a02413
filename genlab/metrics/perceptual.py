"""Perceptual distances that a gradient can go through, in features that need no download."""

import torch.nn.functional as F
from torch import Tensor

from genlab.metrics.image import perceptual_distance
from genlab.models.efficientnet import EfficientNetLite0

LARGEST = 224
"""Side, in pixels, of the images that EfficientNet-Lite0 was trained on."""


class PerceptualDistance:
    """The distance of images in the layers of EfficientNet-Lite0, see :func:`genlab.metrics.image.perceptual_distance`.

    Args:
        side: height and width, in pixels, that images are brought to first, by antialiased bicubic resampling.
            Distances of different sides cannot be compared; a smaller one is faster.
    """

    def __init__(self, side: int = LARGEST) -> None:
        self.side = side
        self._network = EfficientNetLite0()

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the features of five layers, float [N, D, S, S] each, of float [N, 1 or 3, H, W] in [-1, 1]."""
        self._network.to(images)  # where the images are, and in their precision
        levels = (images.expand(-1, 3, -1, -1) + 1) * 127.5
        if levels.shape[2:] != (self.side, self.side):
            levels = F.interpolate(levels, (self.side, self.side), mode="bicubic", antialias=True)
        return self._network.layers(levels)

    def __call__(self, images: Tensor, references: Tensor) -> Tensor:
        """Return the distance of each image and its reference, [N], both float [N, 1 or 3, H, W] in [-1, 1]."""
        return perceptual_distance(self.features(images), self.features(references))


def training_side(image_side: int) -> int:
    """Return the side at which a training step compares images: their own, but from 64 to :data:`LARGEST`."""
    return min(max(image_side, 64), LARGEST)
