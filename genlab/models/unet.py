"""The U-Net generator of pix2pix (Isola et al. 2017; Ronneberger et al. 2015), as in TensorFlow's CycleGAN tutorial.

LeakyReLU has slope 0.2. Instance norms have epsilon 1e-5 and a scale that is drawn from N(1, 0.02²); weights are drawn
from N(0, 0.02²). Keras has other defaults, under which training differs.
"""

import torch
from torch import Tensor, nn

from genlab.models.cpu import ConvTranspose2d
from genlab.models.initialisation import initialise, instance_norm
from genlab.models.model import Shape

LEVEL_LIMIT = 8
"""Number of times that a U-Net halves an image, at most."""
UPS_WITH_DROPOUT = 3
"""Number of the innermost ups that have dropout while training."""


def max_levels(image_shape: Shape) -> int:
    """Return how many times, up to 8, the height and the width of an image can both be halved."""
    height, width, _ = image_shape
    return next(level for level in range(LEVEL_LIMIT, -1, -1) if not (height % 2**level or width % 2**level))


class UNet(nn.Module):
    """The U-Net generator: ``levels`` downs, ``levels - 1`` ups with skip connections, an up to the image, and tanh.

    All convolutions are 4x4 with stride 2. At 256x256, width 64 and 8 levels it has 54,413,955 parameters: the
    tutorial's 54,414,979 less the 1,024 of the instance norm over the innermost level. There the image is 1x1, where
    that norm outputs its bias whatever comes in (and PyTorch refuses it), so it is left out.

    Attributes:
        size_multiple: height and width must be multiples of this, 2^levels.
        smallest_size: least height and width, in pixels; the same.
    """

    def __init__(self, channels: int, width: int, levels: int, dropout: float) -> None:
        super().__init__()
        self.size_multiple = self.smallest_size = 2**levels
        widths = [width * min(2**level, 8) for level in range(levels)]
        innermost = levels - 1
        self.downs = nn.ModuleList()
        for level, (before, after) in enumerate(zip([channels, *widths], widths, strict=False)):
            layers: list[nn.Module] = [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)]
            if 0 < level < innermost:
                layers.append(instance_norm(after))
            self.downs.append(nn.Sequential(*layers, nn.LeakyReLU(0.2)))
        self.ups = nn.ModuleList()
        before = widths[-1]
        for index, after in enumerate(reversed(widths[:-1])):
            layers = [ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False), instance_norm(after)]
            if index < UPS_WITH_DROPOUT:
                layers.append(nn.Dropout(dropout))
            self.ups.append(nn.Sequential(*layers, nn.ReLU()))
            before = 2 * after
        self.last = ConvTranspose2d(before, channels, 4, stride=2, padding=1)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Translate float [N, C, H, W] in [-1, 1], H and W multiples of 2^levels: the same shape and range."""
        skips: list[Tensor] = []
        features = images
        for down in self.downs:
            features = down(features)
            skips.append(features)
        for up, skip in zip(self.ups, reversed(skips[:-1]), strict=True):
            features = torch.cat([up(features), skip], dim=1)
        return torch.tanh(self.last(features))
