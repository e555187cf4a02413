"""Discriminators of images, real or generated (Isola et al. 2017, arXiv:1611.07004): of patches, pixels, or the whole.

All take float [N, C, H, W] in [-1, 1] and give logits [N, 1, H', W']; positive means real.
"""

import itertools
from typing import Literal

from torch import Tensor, nn

from genlab.models.initialisation import initialise, instance_norm
from genlab.models.model import Shape

DiscriminatorKind = Literal["patch", "patch-reference", "pixel", "image"]

PATCH_GANS: tuple[DiscriminatorKind, ...] = ("patch", "patch-reference")
PATCH_GAN_LAYERS = 3
"""Convolutions of stride 2 in the 70x70 PatchGAN."""


def smallest_side(kind: DiscriminatorKind, layers: int = PATCH_GAN_LAYERS) -> int:
    """The least height and width of images for a discriminator; ``layers`` are a PatchGAN's."""
    return {"pixel": 1, "image": 8}.get(kind, 4 * 2**layers)


def build_discriminator(
    kind: DiscriminatorKind, image_shape: Shape, width: int, layers: int = PATCH_GAN_LAYERS
) -> nn.Module:
    """A discriminator of images of ``image_shape``, whose sides are at least those of :func:`smallest_side`.

    Args:
        kind: patch, :class:`PatchGAN`; patch-reference, the same in the reference implementation's form; pixel,
            :class:`PixelGAN`; image, :class:`ImageGAN`.
        image_shape: which only the last depends on, but for the channels.
        width: channels of the first layer.
        layers: of a PatchGAN, its convolutions of stride 2.
    """
    channels = image_shape[2]
    match kind:
        case "patch" | "patch-reference":
            return PatchGAN(channels, width, reference=kind == "patch-reference", layers=layers)
        case "pixel":
            return PixelGAN(channels, width)
        case "image":
            return ImageGAN(image_shape, width)


class PatchGAN(nn.Module):
    """The PatchGAN discriminator: a logit for each overlapping patch of 9 · 2^layers - 2 pixels a side.

    ``layers`` are its convolutions of stride 2: three make the 70x70 PatchGAN, one and two 16x16 and 34x34. At
    256x256x3 and width 64 the 70x70 has a 30x30x1 output and 2,765,569 parameters. That is the report's and the
    tutorial's form: norms learn scale and shift, and of the convolutions only the last has a bias. In the ``reference``
    implementation's (junyanz/pytorch-CycleGAN-and-pix2pix, where they are n_layers_D) norms learn nothing and all
    convolutions have biases: 2,764,737 parameters.
    """

    def __init__(
        self, channels: int = 3, width: int = 64, reference: bool = False, layers: int = PATCH_GAN_LAYERS
    ) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(layers + 1)]

        def block(before: int, after: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=reference)
            return [convolution, instance_norm(after, affine=not reference), nn.LeakyReLU(0.2, inplace=True)]

        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=reference),
            nn.LeakyReLU(0.2, inplace=True),
            *(part for before, after in itertools.pairwise(widths[:-1]) for part in block(before, after, stride=2)),
            *block(widths[-2], widths[-1], stride=1),
            nn.Conv2d(widths[-1], 1, 4, padding=1),
        )
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Float [N, C, H, W] in [-1, 1] → logits [N, 1, H / 2^layers - 2, W / 2^layers - 2]; positive means real."""
        logits: Tensor = self.layers(images)
        return logits


class PixelGAN(nn.Module):
    """The 1x1 discriminator, in the reference implementation's form: a logit for each pixel, by its colour alone.

    At 3 channels and width 64 it has 8,705 parameters. The norm, which learns nothing, is over the whole image.
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 1),
            instance_norm(2 * width, affine=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * width, 1, 1),
        )
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Float [N, C, H, W] in [-1, 1] → logits [N, 1, H, W]; positive means real."""
        logits: Tensor = self.layers(images)
        return logits


class ImageGAN(nn.Module):
    """The discriminator of whole images: one logit, which sees every pixel.

    4x4 convolutions of stride 2 until the shorter side is 4 to 7, their channels doubling up to eight times the width,
    then a convolution over all that is left; norms and biases as in the report's PatchGAN. At 256x256x3 and width 64
    these are the layers of Isola et al.'s ImageGAN, C64-C128-C256-C512-C512-C512, with 11,156,225 parameters. In their
    code the sixth has stride 1, which gives 6x6 logits of 286x286 each, where here there is one.
    """

    def __init__(self, image_shape: Shape, width: int = 64) -> None:
        super().__init__()
        height, image_width, channels = image_shape
        halvings = min(height, image_width).bit_length() - 3
        layers: list[nn.Module] = []
        for level in range(halvings):
            after = width * min(2**level, 8)
            layers.append(nn.Conv2d(channels, after, 4, stride=2, padding=1, bias=False))
            if level:
                layers.append(instance_norm(after))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            channels = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, (height >> halvings, image_width >> halvings)))
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Float [N, C, H, W] in [-1, 1] of the image shape → logits [N, 1, 1, 1]; positive means real."""
        logits: Tensor = self.layers(images)
        return logits
