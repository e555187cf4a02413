"""Perceptual distances that a gradient can go through, in features that need no download."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.metrics.image import perceptual_distance
from genlab.models.efficientnet import EfficientNetLite0
from genlab.models.precision import without_autocast

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
        height, width = levels.shape[2:]
        if (height, width) != (self.side, self.side):
            rows, columns = (_resampling(side, self.side, levels.dtype, levels.device) for side in (height, width))
            with without_autocast(levels.device):
                levels = rows @ levels @ columns.mT
        return self._network.layers(levels)

    def __call__(self, images: Tensor, references: Tensor) -> Tensor:
        """Return the distance of each image and its reference, [N], both float [N, 1 or 3, H, W] in [-1, 1]."""
        return perceptual_distance(self.features(images), self.features(references))


@cache
def _resampling(before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return antialiased bicubic resampling along a side as a matrix, [after, before].

    The gradient of PyTorch's own resampling is not deterministic on a GPU, and so refused in exact runs.
    """
    with torch.inference_mode(False):
        eye = torch.eye(before, dtype=torch.float64, device="cpu")  # whatever the defaults are at the first call
        whole = F.interpolate(eye[None, None], (after, before), mode="bicubic", antialias=True)
        return whole[0, 0].to(device, dtype)


def training_side(image_side: int) -> int:
    """Return the side at which a training step compares images: their own, but from 64 to :data:`LARGEST`."""
    return min(max(image_side, 64), LARGEST)
