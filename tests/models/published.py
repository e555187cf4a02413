"""The published ResNet generator, written down a second time with PyTorch's own layers."""

from collections import OrderedDict

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
