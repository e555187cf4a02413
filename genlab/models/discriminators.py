"""Discriminators, which classify patches, pixels or whole images as real or generated (Isola et al. 2017, pix2pix).

All take float [N, C, H, W] in [-1, 1] and return logits [N, 1, H', W']; a positive logit means real. The paper is
arXiv:1611.07004, the reference implementation junyanz/pytorch-CycleGAN-and-pix2pix.
"""

import itertools
from typing import Literal

from torch import Tensor, nn

from genlab.models.initialisation import initialise, instance_norm
from genlab.models.model import Shape

DiscriminatorKind = Literal["patch", "patch-reference", "pixel", "image"]

PATCH_GANS: tuple[DiscriminatorKind, ...] = ("patch", "patch-reference")
PATCH_GAN_LAYERS = 3
"""Number of convolutions of stride 2 in the 70x70 PatchGAN."""


def smallest_side(kind: DiscriminatorKind, layers: int = PATCH_GAN_LAYERS) -> int:
    """Return the smallest height and width, in pixels, that a discriminator takes; ``layers`` concerns PatchGANs."""
    return {"pixel": 1, "image": 8}.get(kind, 4 * 2**layers)


def build_discriminator(
    kind: DiscriminatorKind, image_shape: Shape, width: int, layers: int = PATCH_GAN_LAYERS
) -> nn.Module:
    """Build a discriminator for images of ``image_shape``, whose sides are at least :func:`smallest_side`.

    Args:
        kind: patch, :class:`PatchGAN`; patch-reference, the same in the reference implementation's form; pixel,
            :class:`PixelGAN`; image, :class:`ImageGAN`.
        image_shape: (height, width, channels); of height and width only :class:`ImageGAN` takes notice.
        width: channels of the first layer.
        layers: number of convolutions of stride 2 in a PatchGAN.
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

    ``layers`` is the number of its convolutions of stride 2 (``n_layers_D`` of the reference implementation): 3 make
    the 70x70 PatchGAN, 1 and 2 those of 16x16 and 34x34. At 256x256x3 and width 64 the 70x70 PatchGAN has a 30x30x1
    output and 2,765,569 parameters. That is the form of TensorFlow's CycleGAN tutorial: norms learn scale and shift,
    and only the last convolution has a bias. With ``reference`` it is the form of the reference implementation: norms
    learn nothing and all convolutions have biases, 2,764,737 parameters.
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
        """Classify patches of float [N, C, H, W] in [-1, 1]: logits [N, 1, H / 2^layers - 2, W / 2^layers - 2]."""
        logits: Tensor = self.layers(images)
        return logits


class PixelGAN(nn.Module):
    """The PixelGAN discriminator (1x1), in the form of the reference implementation: a logit for each pixel's colour.

    At 3 channels and width 64 it has 8,705 parameters. Its norm, which learns nothing, is over the whole image.
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
        """Classify the pixels of float [N, C, H, W] in [-1, 1]: logits [N, 1, H, W]."""
        logits: Tensor = self.layers(images)
        return logits


class ImageGAN(nn.Module):
    """The ImageGAN discriminator: one logit for the whole image, which depends on every pixel.

    4x4 convolutions of stride 2 until the shorter side is 4 to 7, their channels doubling up to eight times the width,
    then a convolution over all of the remaining pixels; norms and biases as in a :class:`PatchGAN` without
    ``reference``. At 256x256x3 and width 64 these are the layers of the paper's ImageGAN, C64-C128-C256-C512-C512-C512,
    with 11,156,225 parameters. In the paper's code the sixth has stride 1, which gives 6x6 logits of 286x286 patches,
    where here there is one logit.
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
        """Classify float [N, C, H, W] in [-1, 1], of the image shape: logits [N, 1, 1, 1]."""
        logits: Tensor = self.layers(images)
        return logits
