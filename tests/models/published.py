"""The published generators, written down a second time with PyTorch's own layers."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            *(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU()),
            *(nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv_block(features)


def published_resnet(channels: int, width: int, blocks: int) -> nn.Module:
    """Its state dict has the reference implementation's key names, as in ``latest_net_G_A.pth``."""

    def up(before: int, after: int) -> nn.Module:
        return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)

    layers: list[nn.Module] = [
        *(nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), nn.InstanceNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width), nn.ReLU()),
        *(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), nn.InstanceNorm2d(4 * width), nn.ReLU()),
        *(Block(4 * width) for _ in range(blocks)),
        *(up(4 * width, 2 * width), nn.InstanceNorm2d(2 * width), nn.ReLU()),
        *(up(2 * width, width), nn.InstanceNorm2d(width), nn.ReLU()),
        *(nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh()),
    ]
    return nn.Sequential(OrderedDict(model=nn.Sequential(*layers)))


class PublishedUNet(nn.Module):
    """The TensorFlow tutorial's, for 256x256 images, with the paper's slope; the innermost norm, over 1x1, left out."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()

        def down(before: int, after: int, norm: bool = True) -> nn.Module:
            norms = [nn.InstanceNorm2d(after * width, affine=True)] if norm else []
            return nn.Sequential(nn.Conv2d(before, after * width, 4, 2, 1, bias=False), *norms, nn.LeakyReLU(0.2))

        def up(before: int, after: int, drop: bool = False) -> nn.Module:
            convolution = nn.ConvTranspose2d(before * width, after * width, 4, 2, 1, bias=False)
            norm = nn.InstanceNorm2d(after * width, affine=True)
            return nn.Sequential(convolution, norm, *([nn.Dropout(dropout)] if drop else []), nn.ReLU())

        self.down = nn.ModuleList(
            [
                *(down(3, 1, norm=False), down(width, 2), down(2 * width, 4), down(4 * width, 8)),
                *(down(8 * width, 8), down(8 * width, 8), down(8 * width, 8), down(8 * width, 8, norm=False)),
            ]
        )
        self.up = nn.ModuleList(
            [up(8, 8, drop=True), up(16, 8, drop=True), up(16, 8, drop=True), up(16, 8), up(16, 4), up(8, 2), up(4, 1)]
        )
        self.last = nn.ConvTranspose2d(2 * width, 3, 4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.last(self.within(images, 0)))

    def within(self, features: Tensor, level: int) -> Tensor:
        """What the level below makes of the features, beside the features themselves."""
        below = self.down[level](features)
        if level < 7:
            below = self.within(below, level + 1)
        return below if level == 0 else torch.cat([self.up[7 - level](below), features], 1)
