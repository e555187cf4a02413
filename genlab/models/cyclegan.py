"""CycleGAN (Zhu et al. 2017, arXiv:1703.10593): two generators, each a U-Net or the paper's ResNet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast

import torch
from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import Field
from torch import Tensor, nn

from genlab.models.graph import Graph, TensorSpec
from genlab.models.model import NoOptions, Shape, Translator
from genlab.models.padding import reflection_indices
from genlab.models.pixels import from_signed, to_signed
from genlab.models.resnet import ResNet
from genlab.models.tiles import translate_in_tiles
from genlab.models.unet import UNet, max_levels

GeneratorKind = Literal["unet", "resnet-6", "resnet-9"]
Generator = UNet | ResNet
BLOCKS: Mapping[GeneratorKind, int] = {"resnet-6": 6, "resnet-9": 9}
"""Number of residual blocks of each ResNet."""


@dataclass(frozen=True)
class GeneratorArchitecture:
    """Architecture of each generator of a CycleGAN."""

    generator: GeneratorKind = "unet"
    """unet: pix2pix's U-Net. resnet-6, resnet-9: the paper's ResNet with 6 or 9 residual blocks; the paper takes 6
    for 128x128 images and 9 for larger ones."""
    width: Annotated[int, Gt(0)] = 64
    """Channels of the generator's first layer; they double each time the image is halved, in the U-Net up to eight
    times this."""
    levels: Annotated[int, Ge(2)] | None = None
    """Times the U-Net halves the image. By default as often as it can, at most 8: 256x256 goes down to 1x1. Not for a
    ResNet, which halves it twice."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Probability of dropping a feature in the U-Net's first three ups, while training. A ResNet has no dropout,
    whatever this is."""


Direction = Literal["a_to_b", "b_to_a"]
DIRECTIONS: tuple[Direction, ...] = ("a_to_b", "b_to_a")
"""The directions of a trained CycleGAN; a model of imported weights may have one of them alone."""


@dataclass(frozen=True)
class CycleGANArchitecture(GeneratorArchitecture):
    """Architecture of the generators, and the directions in which the model translates."""

    # Not written where it is the default, so that the description of a model of both is what it was before.
    directions: Annotated[tuple[Direction, ...], MinLen(1), Field(exclude_if=lambda value: value == DIRECTIONS)] = (
        DIRECTIONS
    )
    """Directions in which the model translates, the default first; it has a generator for each."""


def _generator(image_shape: Shape, architecture: GeneratorArchitecture) -> Generator:
    height, width, channels = image_shape
    if architecture.generator == "unet":
        most = max_levels(image_shape)
        levels = architecture.levels or most
        if not 2 <= levels <= most:
            raise ValueError(
                f"{height}x{width} images can be halved {most} times, and the U-Net (model.levels) needs "
                f"{max(2, levels)}; ingest them at another --size, such as a power of two"
            )
        return UNet(channels, architecture.width, levels, architecture.dropout)
    if architecture.levels is not None:
        raise ValueError(f"model.levels is the U-Net's, and model.generator is {architecture.generator}; leave it out")
    if height % ResNet.size_multiple or width % ResNet.size_multiple or min(height, width) < ResNet.smallest_size:
        raise ValueError(
            f"{height}x{width} images do not suit the ResNet (model.generator), which takes multiples of "
            f"{ResNet.size_multiple} from {ResNet.smallest_size} on; ingest them at another --size"
        )
    return ResNet(channels, architecture.width, BLOCKS[architecture.generator])


class CycleGAN(Translator):
    """The generators of a trained CycleGAN, ``a_to_b`` and ``b_to_a``, or one of them.

    Raises:
        ValueError: when the images do not suit the generator, or ``architecture.levels`` is set for a ResNet.
    """

    family = "cyclegan"
    Architecture = CycleGANArchitecture
    operations: ClassVar[Mapping[str, type]] = {"translate": NoOptions}
    architecture: CycleGANArchitecture
    a_to_b: Generator
    b_to_a: Generator

    def __init__(self, image_shape: Shape, architecture: CycleGANArchitecture) -> None:
        super().__init__(image_shape, architecture)
        for direction in self.directions:
            self.add_module(direction, _generator(image_shape, architecture))
        first = self.generator(self.directions[0])
        self._size_multiple, self._smallest_size = first.size_multiple, first.smallest_size

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions of its generators, the default first."""
        return self.architecture.directions

    def generator(self, direction: str) -> Generator:
        """Return the generator of one of its :attr:`directions`."""
        return self.a_to_b if direction == "a_to_b" else self.b_to_a

    @property
    def size_multiple(self) -> int:
        """Return the number of which heights and widths within the generators are multiples."""
        return self._size_multiple

    @torch.inference_mode()
    def translate(self, pixels: Tensor, direction: str = "a_to_b", options: NoOptions | None = None) -> Tensor:
        """Translate uint8 [N, H, W, C] into the other domain, the same shape.

        Height and width may be any: images are padded by reflection to the next size that the generator takes
        (multiples of 2^levels for a U-Net; of 4, and at least 8, for a ResNet), and the result is cropped. Those with a
        side of more than 1,024 pixels are translated in tiles (:func:`genlab.models.tiles.translate_in_tiles`).

        Raises:
            ValueError: for a direction that it has no generator for, or images with another number of channels.
        """
        if direction not in self.directions:
            raise ValueError(f"direction {direction!r}: choose from {', '.join(self.directions)}")
        if pixels.shape[3] != self.image_shape[2]:
            raise ValueError(f"images of {pixels.shape[3]} channels; the model takes {self.image_shape[2]}")
        generator = self.generator(direction)
        return translate_in_tiles(
            lambda tile: self.translate_whole(generator, tile), pixels.to(self.device), self.size_multiple
        )

    def translate_signed(self, images: Tensor, direction: str) -> Tensor:
        """Translate float [N, C, H, W] in [-1, 1] of the sizes that the generator takes: the same shape and range."""
        translated: Tensor = self.generator(direction)(images)
        return translated

    def translate_whole(self, generator: Generator, pixels: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, C] of any height and width by one generator, without tiles: the same shape."""
        height, width = pixels.shape[1:3]
        for axis in (1, 2):
            side = pixels.shape[axis]
            # In an exported graph a side is symbolic, and Python's max would make it a constant.
            padded = cast("int", torch.sym_max(side + -side % self._size_multiple, self._smallest_size))
            pixels = pixels.index_select(axis, reflection_indices(side, padded, pixels.device))
        return from_signed(generator(to_signed(pixels))[:, :, :height, :width])

    def graphs(self) -> dict[str, Graph]:
        """Return a graph for each direction, for any height and width."""
        height, width, channels = self.image_shape
        pixels = TensorSpec(torch.uint8, ("N", "H", "W", channels))
        # A pixel more than the model's size, so that it is padded and no level is 1x1.
        sizes = {"N": (2, 1), "H": (height + 1, height), "W": (width + 2, width)}
        return {
            name: Graph(_Direction(self, self.generator(name)), {"pixels": pixels}, {"translated": pixels}, sizes)
            for name in self.directions
        }

    def networks(self) -> dict[str, Graph]:
        """Return the generators, for the heights and widths that they take."""
        images = TensorSpec(torch.float32, ("N", self.image_shape[2], "H", "W"))
        multiples = {"H": self._size_multiple, "W": self._size_multiple}
        least = self._smallest_size
        sizes = {"N": (2, 1), "H": (2 * least, least), "W": (3 * least, least)}
        return {
            name: Graph(self.generator(name), {"images": images}, {"translated": images}, sizes, multiples)
            for name in self.directions
        }


class _Direction(nn.Module):
    """A generator with only its own weights, for export: translates uint8 [N, H, W, C] into the same shape."""

    def __init__(self, model: CycleGAN, generator: Generator) -> None:
        super().__init__()
        self.generator = generator
        self._translate = model.translate_whole

    def forward(self, pixels: Tensor) -> Tensor:
        return self._translate(self.generator, pixels)


MODEL = CycleGAN
