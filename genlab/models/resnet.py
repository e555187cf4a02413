"""The ResNet generator of the CycleGAN paper (Zhu et al. 2017), after Johnson et al. 2016 (arXiv:1603.08155).

Layers have the order and the names of the reference implementation (junyanz/pytorch-CycleGAN-and-pix2pix), so that its
weights can be imported under the same names.
"""

from torch import Tensor, nn

from genlab.models.cpu import Conv2d, ConvTranspose2d
from genlab.models.initialisation import initialise, instance_norm
from genlab.models.padding import ReflectionPad2d


class Residual(nn.Module):
    """A residual block, x + norm(conv(ReLU(norm(conv(x))))), of 3x3 convolutions with reflection padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            ReflectionPad2d(1),
            Conv2d(channels, channels, 3),
            instance_norm(channels, affine=False),
            nn.ReLU(inplace=True),
            ReflectionPad2d(1),
            Conv2d(channels, channels, 3),
            instance_norm(channels, affine=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Transform [N, channels, H, W], H and W at least 2, into the same shape."""
        added: Tensor = self.conv_block(features)
        return features + added


class ResNet(nn.Module):
    """The ResNet generator, which halves the image twice, transforms it by residual blocks, and doubles it twice.

    The first and the last layer are 7x7 convolutions, then comes tanh. The norm learns nothing and convolutions have
    biases. At width 64 and 3 channels it has 7,837,699 parameters with 6 blocks (the paper's for 128x128) and
    11,378,179 with 9 (for 256x256 and more).

    Attributes:
        size_multiple: height and width must be multiples of this.
        smallest_size: least height and width, in pixels: residual blocks reflect a border of the quartered image.
    """

    size_multiple = 4
    smallest_size = 8

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()

        def normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
            return [convolution, instance_norm(convolution.out_channels, affine=False), nn.ReLU(inplace=True)]

        self.model = nn.Sequential(
            ReflectionPad2d(3),
            *normed(Conv2d(channels, width, 7)),
            *normed(Conv2d(width, 2 * width, 3, stride=2, padding=1)),
            *normed(Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)),
            *(Residual(4 * width) for _ in range(blocks)),
            *normed(ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1)),
            *normed(ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1)),
            ReflectionPad2d(3),
            Conv2d(width, channels, 7),
            nn.Tanh(),
        )
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Translate float [N, C, H, W] in [-1, 1], H and W multiples of 4 and at least 8: the same shape and range."""
        translated: Tensor = self.model(images)
        return translated
