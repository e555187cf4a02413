"""CycleGAN (Zhu et al. 2017, arXiv:1703.10593) with the U-Net of the course report and the TensorFlow tutorial.

Where the report kept Keras's defaults and they are odd (LeakyReLU slope 0.3, instance-norm scale of mean zero), the
paper's and the tutorial's hold: slope 0.2, scale N(1, 0.02), epsilon 1e-5, weights N(0, 0.02).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from genlab.models.graph import Graph, TensorSpec
from genlab.models.model import Shape, Translator
from genlab.models.pixels import from_signed, to_signed
from genlab.models.transposed import ConvTranspose2d

MAX_LEVELS = 8
DROPPED_UPS = 3


@dataclass(frozen=True)
class CycleGANArchitecture:
    """Shape of the two U-Net generators."""

    width: Annotated[int, Gt(0)] = 64
    """Channels of the U-Net's first level; they double at each level up to eight times this."""
    levels: Annotated[int, Ge(2)] | None = None
    """Times the U-Net halves the image. By default as often as it can, at most 8: 256x256 goes down to 1x1."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Probability of dropping a feature in the first three ups, while training."""


def most_levels(image_shape: Shape) -> int:
    """How often, up to 8 times, an image's height and width can both be halved."""
    height, width, _ = image_shape
    return next(level for level in range(MAX_LEVELS, -1, -1) if not (height % 2**level or width % 2**level))


def instance_norm(channels: int) -> nn.Module:
    """Instance normalisation with a learned scale and shift, epsilon 1e-5 (Ulyanov et al. 2016)."""
    return nn.InstanceNorm2d(channels, eps=1e-5, affine=True)


def initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and norm scales from N(1, 0.02); biases are zero, as in the paper."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.InstanceNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class UNet(nn.Module):
    """The U-Net generator: ``levels`` downs, ``levels - 1`` ups with skips, then an up to the image and tanh.

    All convolutions are 4x4 with stride 2. At 256x256, width 64 and 8 levels it has 54,413,955 parameters: the
    tutorial's 54,414,979 less the 1,024 of the instance norm over the innermost level. There the image is 1x1, where
    that norm outputs its bias whatever comes in (and PyTorch refuses it), so it is left out.
    """

    def __init__(self, channels: int, width: int, levels: int, dropout: float) -> None:
        super().__init__()
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
            if index < DROPPED_UPS:
                layers.append(nn.Dropout(dropout))
            self.ups.append(nn.Sequential(*layers, nn.ReLU()))
            before = 2 * after
        self.last = ConvTranspose2d(before, channels, 4, stride=2, padding=1)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Float [N, C, H, W] in [-1, 1] → the same shape and range; H and W multiples of 2^levels."""
        skips: list[Tensor] = []
        features = images
        for down in self.downs:
            features = down(features)
            skips.append(features)
        for up, skip in zip(self.ups, reversed(skips[:-1]), strict=True):
            features = torch.cat([up(features), skip], dim=1)
        return torch.tanh(self.last(features))


class PatchGAN(nn.Module):
    """The 70x70 PatchGAN discriminator (Isola et al. 2017): a logit for each overlapping patch.

    At 256x256x3 and width 64 it has 2,765,569 parameters and a 30x30x1 output.
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        super().__init__()

        def block(before: int, after: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False)
            return [convolution, instance_norm(after), nn.LeakyReLU(0.2)]

        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            *block(width, 2 * width, stride=2),
            *block(2 * width, 4 * width, stride=2),
            *block(4 * width, 8 * width, stride=1),
            nn.Conv2d(8 * width, 1, 4, padding=1),
        )
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Float [N, C, H, W] in [-1, 1] → logits [N, 1, H/8 - 2, W/8 - 2]; positive means real."""
        logits: Tensor = self.layers(images)
        return logits


class CycleGAN(Translator):
    """The two generators of a trained CycleGAN.

    Raises:
        ValueError: when the images cannot be halved ``architecture.levels`` times, or not even twice.
    """

    family = "cyclegan"
    Architecture = CycleGANArchitecture
    operations = ("translate",)
    directions = ("a_to_b", "b_to_a")
    architecture: CycleGANArchitecture

    def __init__(self, image_shape: Shape, architecture: CycleGANArchitecture) -> None:
        super().__init__(image_shape, architecture)
        height, width, channels = image_shape
        most = most_levels(image_shape)
        self.levels = architecture.levels or most
        if not 2 <= self.levels <= most:
            raise ValueError(
                f"{height}x{width} images can be halved {most} times, and the U-Net (model.levels) needs "
                f"{max(2, self.levels)}; ingest them at another --size, such as a power of two"
            )
        self.a_to_b = UNet(channels, architecture.width, self.levels, architecture.dropout)
        self.b_to_a = UNet(channels, architecture.width, self.levels, architecture.dropout)

    @torch.inference_mode()
    def translate(self, pixels: Tensor, direction: str = "a_to_b") -> Tensor:
        """Translate uint8 [N, H, W, C] into the other domain, the same shape.

        Any height and width will do: images are padded by edge pixels to the next multiple of 2^levels and cropped.

        Raises:
            ValueError: for an unknown direction, or images with another number of channels.
        """
        if direction not in self.directions:
            raise ValueError(f"direction {direction!r}: choose from {', '.join(self.directions)}")
        if pixels.shape[3] != self.image_shape[2]:
            raise ValueError(f"images of {pixels.shape[3]} channels; the model takes {self.image_shape[2]}")
        return self.through(self.a_to_b if direction == "a_to_b" else self.b_to_a, pixels.to(self.device))

    def through(self, generator: nn.Module, pixels: Tensor) -> Tensor:
        """uint8 [N, H, W, C] of any height and width through one of the generators: the same shape."""
        height, width = pixels.shape[1:3]
        multiple = 2**self.levels
        padded = F.pad(to_signed(pixels), (0, -width % multiple, 0, -height % multiple), mode="replicate")
        return from_signed(generator(padded)[:, :, :height, :width])

    def graphs(self) -> dict[str, Graph]:
        """Both directions, for any height and width."""
        height, width, channels = self.image_shape
        pixels = TensorSpec(torch.uint8, ("N", "H", "W", channels))
        # Padded to twice its size, or the innermost level could be 1x1.
        sizes = {"N": (2, 1), "H": (height + 1, height), "W": (width + 2, width)}
        return {
            name: Graph(_Direction(self, generator), {"pixels": pixels}, {"translated": pixels}, sizes)
            for name, generator in (("a_to_b", self.a_to_b), ("b_to_a", self.b_to_a))
        }


class _Direction(nn.Module):
    """uint8 [N, H, W, C] → the same shape, of one generator's weights alone."""

    def __init__(self, model: CycleGAN, generator: UNet) -> None:
        super().__init__()
        self.generator = generator
        self._through = model.through

    def forward(self, pixels: Tensor) -> Tensor:
        return self._through(self.generator, pixels)


MODEL = CycleGAN
