"""StyleGAN (Karras et al. 2019, CVPR, arXiv:1812.04948) and StyleGAN2 (2020, CVPR, arXiv:1912.04958): the generator.

At 1024x1024x3, with at most 512 channels, StyleGAN's generator has 26,219,627 parameters (``styles`` adain, ``form``
progressive, ``channel_base`` 8,192), 2,101,248 of them in the mapping network, and StyleGAN2's config-f 30,370,060
(demodulate, skip, 16,384). The discriminator is in :mod:`genlab.models.stylegan_discriminator`.
"""

import math
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from genlab.core.errors import ConfigError
from genlab.models.equalized import ROOT_2, EqualizedConv2d, EqualizedLinear, Resampling, upsample
from genlab.models.model import InterpolationOptions, Shape, images_per_pass
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.precision import autocast_dtype
from genlab.models.style_model import StyleModel, spherical_interpolation
from genlab.models.stylegan_layers import DemodulatedLayer, Embedding, Finish, FinishedLayer, Mapping, Styles, ToColours

Form = Literal["skip", "residual", "progressive"]
"""How an image is put together from the resolutions. ``skip``: the sum of an image of each, doubled in size again and
again. ``residual``: the features of a resolution are added to those before it, doubled in size (both StyleGAN2).
``progressive``: the image of the highest alone; training begins at a low resolution and fades in the next ones (Karras
et al. 2018, ICLR, arXiv:1710.10196)."""
STATISTICS_DRAWS = 4096
"""Latent vectors that the statistics of w are taken of."""
SMALLEST = 8
"""The smallest height and width of images."""


@dataclass(frozen=True)
class Channels:
    """How many channels the layers of a resolution have."""

    channel_base: Annotated[int, Ge(1)] = 8192
    """Channels of the layers of R x R pixels are 2 · base / R, but at most channel-max. StyleGAN has 8,192, StyleGAN2's
    config-f 16,384; 512 and 1,024, with at most 128 channels, suit 32x32 and 64x64 images on a CPU."""
    channel_max: Annotated[int, Ge(1)] = 512
    """The most channels that a layer has."""

    def at(self, resolution: int) -> int:
        """Return the number of channels of the layers of ``resolution`` x ``resolution`` pixels."""
        return max(1, min(2 * self.channel_base // resolution, self.channel_max))


@dataclass(frozen=True)
class StyleGANNetworks(Channels):
    """Architecture of the generator, but for the number of classes."""

    latent_dim: Annotated[int, Gt(0)] = 512
    """Size of the latent vectors z and w."""
    mapping_layers: Annotated[int, Ge(0)] = 8
    """Dense layers of the mapping network from z to w; 0 makes w the normalised z."""
    styles: Styles = "demodulate"
    """How w steers the layers. demodulate: StyleGAN2. adain: StyleGAN. none: it does not, and pixel norm takes the
    place of styles."""
    constant: bool = True
    """Begin with a learned constant of 4x4 pixels; without, with a dense layer of w, as traditional generators do."""
    noise: bool = True
    """Add noise to the outputs of convolutions."""
    form: Form = "skip"
    """How the image is put together. skip, residual: as in StyleGAN2. progressive: training grows the networks."""
    resampling: Resampling = "bilinear"
    """How images and features change size. nearest: nearest neighbour up and average down."""
    clamp: Annotated[float, Gt(0)] | None = None
    """Largest absolute value of what convolutions give, for styles demodulate; by default any. 256 in StyleGAN2-ADA."""
    embedding: Embedding = "joint"
    """How a class comes beside z. joint: a learned vector, normalised together with z (StyleGAN2). separate: a dense
    layer with biases, normalised by itself (StyleGAN2-ADA)."""


@dataclass(frozen=True)
class StyleGANArchitecture(StyleGANNetworks):
    """Architecture of the generator."""

    classes: Annotated[int, Ge(0)] = 0
    """Number of classes that it is told; 0 for none."""


NoiseMode = Literal["random", "fixed", "none"]


@dataclass(frozen=True)
class StyleGANOptions:
    """Options of everything that draws with a StyleGAN."""

    truncation: Annotated[float, Interval(ge=-2, le=2)] = 1.0
    """Truncation ψ: w is moved to mean + ψ (w − mean). Less than 1 draws more typical and less varied pictures; 0 draws
    the average picture, below 0 opposites."""
    noise: NoiseMode = "random"
    """Noise of the layers. random: each picture has its own. fixed: all pictures have the same. none: without."""


@dataclass(frozen=True)
class SamplingOptions(StyleGANOptions):
    """Options of sampling."""

    latents: Annotated[int, Interval(ge=1, le=8)] = 1
    """Latent vectors of each picture, each of which styles the layers between two places drawn at random: style mixing
    as in table 2 of the paper. A model has two places for each resolution from 4x4 on, and as many latents at most."""


@dataclass(frozen=True)
class LatentInterpolationOptions(InterpolationOptions, StyleGANOptions):
    """Options of an interpolation between two draws."""

    space: Literal["w", "z"] = "w"
    """w: a straight line between styles. z: an arc of a great circle between latent vectors."""


Group = Literal["coarse", "middle", "fine"]


@dataclass(frozen=True)
class MixingOptions(StyleGANOptions):
    """Options of style mixing."""

    styles: Group = "coarse"
    """Which styles are the column's, two for each resolution. From 128x128 pixels on as in the paper: coarse, those of
    4x4 and 8x8 pixels; middle, of 16x16 and 32x32; fine, all others. In smaller images each is about a third of the
    styles."""
    noise: NoiseMode = "fixed"
    """Noise of the layers. fixed: all pictures have the same, so that they differ by their styles alone. random: each
    row has that of its own picture. none: without."""


def style_groups(places: int, styles: Styles) -> dict[Group, range]:
    """Return which of the places where styles come in are coarse, middle and fine.

    In the paper's figure 3 they are those of 4² and 8², of 16² and 32², and all others: 4, 4 and 10 of 18 places at
    1024x1024. Networks that are demodulated have one place at 4² and one more at the end, so theirs are 3, 4 and 11.
    Fewer than 12 places, of images below 128x128, are divided into thirds.
    """
    early = styles == "demodulate"
    middle, fine = min(4 - early, round(places / 3)), min(8 - early, round(2 * places / 3))
    return {"coarse": range(middle), "middle": range(middle, fine), "fine": range(fine, places)}


def resolutions(size: int) -> list[int]:
    """Return the resolutions from 4 to ``size``."""
    return [2**level for level in range(2, size.bit_length())]


def stage_of(level: float, device: torch.device) -> tuple[int, Tensor | None]:
    """Return the resolution of networks that have grown to a level, and how far its layers are faded in.

    Args:
        level: log2 of the resolution; between whole numbers the layers of the next one are faded in.
        device: where the share of these layers, a float in (0, 1), is put; it is ``None`` at whole levels.
    """
    whole = math.ceil(level)
    return 2**whole, None if whole == level else torch.full((), level - (whole - 1), device=device)


def noise_maps(drawn: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Divide random numbers, float [N, sum of S²], into the noise of layers: float [N, 1, S, S] for each S of sizes."""
    parts = drawn.split([size**2 for size in sizes], dim=1)
    return [part.reshape(-1, 1, size, size) for part, size in zip(parts, sizes, strict=True)]


def require_square_power_of_two(shape: Shape) -> None:
    """Check the shape of a StyleGAN's images.

    Raises:
        ValueError: they are not square, or their side is no power of two from 8 on.
    """
    height, width, _ = shape
    if height != width:
        side = min(height, width)
        raise ValueError(f"{height}x{width} images: StyleGAN draws square ones; ingest with --size {side}")
    if height < SMALLEST or height & (height - 1):
        nearest = max(SMALLEST, 2 ** round(math.log2(height)))
        raise ValueError(
            f"{height}x{width} images: StyleGAN draws images whose side is a power of two from {SMALLEST} on; ingest "
            f"with --size {nearest}"
        )


class Input(nn.Module):
    """The first features, 4x4: a learned constant, or with ``style_dim`` a dense layer of w."""

    def __init__(self, channels: int, style_dim: int | None, zeros: bool) -> None:
        super().__init__()
        self.channels = channels
        self.dense = None
        if style_dim is None:
            first = torch.ones if zeros else torch.randn
            self.constant = nn.Parameter(first(1, channels, 4, 4).to(memory_format=torch.channels_last))
        else:
            self.dense = EqualizedLinear(style_dim, channels * 16, gain=ROOT_2 / 4, bias=None)

    def forward(self, w: Tensor) -> Tensor:
        """Return float [N, channels, 4, 4] for w, float [N, style_dim]."""
        if self.dense is None:
            return self.constant.expand(len(w), -1, -1, -1)
        features: Tensor = self.dense(w).view(len(w), 4, 4, self.channels)
        return features.permute(0, 3, 1, 2)


class Synthesis(nn.Module):
    """The synthesis network, from styles and noise to images.

    Args:
        image_shape: (height, width, channels).
        architecture: the architecture.
        style_dim: size of w.
    """

    def __init__(self, image_shape: Shape, architecture: StyleGANNetworks, style_dim: int) -> None:
        super().__init__()
        self.resolutions = resolutions(image_shape[0])
        self.form, self.resampling = architecture.form, architecture.resampling
        self.demodulates = architecture.styles == "demodulate"
        layer_styles = style_dim if architecture.styles != "none" else None
        colours = image_shape[2]
        channels = architecture.at(4)
        self.input = Input(channels, None if architecture.constant else style_dim, zeros=not self.demodulates)
        self.input_finish = None if self.demodulates else Finish(channels, layer_styles, architecture.noise)
        self.layers = nn.ModuleList()
        self.to_colours = nn.ModuleDict()
        self.shortcuts = nn.ModuleDict()

        limit = {"clamp": architecture.clamp} if self.demodulates else {}

        def layer(inputs: int, outputs: int, up: bool = False) -> nn.Module:
            kind: Any = DemodulatedLayer if self.demodulates else FinishedLayer
            made: nn.Module = kind(
                inputs,
                outputs,
                layer_styles,
                noise=architecture.noise,
                up=up,
                resampling=architecture.resampling,
                **limit,
            )
            return made

        for resolution in self.resolutions:
            before, channels = channels, architecture.at(resolution)
            if resolution > 4:
                self.layers.append(layer(before, channels, up=True))
                if self.form == "residual":
                    self.shortcuts[str(resolution)] = EqualizedConv2d(
                        before, channels, 1, resize="up", resampling=architecture.resampling, bias=False
                    )
            self.layers.append(layer(channels, channels))
            if self.form != "residual" or resolution == self.resolutions[-1]:
                self.to_colours[str(resolution)] = ToColours(
                    channels, colours, style_dim if self.demodulates else None, **limit
                )

    @property
    def styles(self) -> int:
        """Number of places where styles come in: two for each resolution."""
        return 2 * len(self.resolutions)

    @property
    def noise_sizes(self) -> list[int]:
        """Sides, in pixels, of the noise of each layer."""
        each = [size for size in self.resolutions for _ in range(2)]
        return each[1:] if self.demodulates else each

    def forward(
        self,
        w: Tensor,
        noise: Sequence[Tensor] | None,
        resolution: int | None = None,
        fade: Tensor | None = None,
    ) -> Tensor:
        """Draw images.

        Args:
            w: a style for each place, float [N, styles, style_dim].
            noise: of each layer, float [N, 1, S, S] with S out of :attr:`noise_sizes`; ``None`` for none. The noise of
                layers beyond ``resolution`` may be left out.
            resolution: side of the images, for a progressive network; by default the largest.
            fade: a scalar, 0..1: share of the layers of this resolution, the others' being that of the image of the
                last one, doubled in size; by default 1.

        Returns:
            float [N, C, resolution, resolution], in [-1, 1] where training went well.
        """
        resolution = resolution or self.resolutions[-1]
        noises = iter([None] * len(self.noise_sizes) if noise is None else noise)
        features = self.input(w[:, 0])
        if self.input_finish is not None:
            # In full precision: at first the constant hardly varies, and the norm enlarges what it does.
            features = self.input_finish(features, w[:, 0], next(noises))
        features = features.to(autocast_dtype(features))
        layers, place = iter(self.layers), 0 if self.demodulates else 1
        image, before = None, None
        for size in self.resolutions:
            if size > resolution:
                break
            start = features
            for _ in range(1 if size == 4 else 2):
                features = next(layers)(features, w[:, place], next(noises))
                place += 1
            name = str(size)
            if name in self.shortcuts:
                features = (features + self.shortcuts[name](start)) / ROOT_2
            if name not in self.to_colours or (self.form == "progressive" and 2 * size < resolution):
                continue
            colours = self.to_colours[name](features, w[:, min(place, self.styles - 1)])
            if self.form == "skip" and image is not None:
                colours = colours + upsample(image, self.resampling)
            before, image = image, colours
        assert image is not None
        if fade is not None and before is not None:
            image = torch.lerp(upsample(before, "nearest"), image, fade)
        return image


class StyleGAN(StyleModel):
    """A StyleGAN's generator.

    Attributes:
        mean_style: mean of w over the latents of training, a running one: float [style_dim].
        growth: how far a progressive network has grown: the exponent of two of its resolution, whose layers are faded
            in by what it has beyond the whole number before it: 3.25 is 8x8 and a quarter of 16x16.

    Raises:
        ValueError: images that are not square, or whose side is no power of two from 8 on.
    """

    family = "stylegan"
    conditional = True
    Architecture = StyleGANArchitecture
    operations: ClassVar[MappingType[str, type]] = {
        "sample": SamplingOptions,
        "interpolate_draws": LatentInterpolationOptions,
        "mix_styles": MixingOptions,
    }
    architecture: StyleGANArchitecture
    mean_style: Tensor
    growth: Tensor

    def __init__(self, image_shape: Shape, architecture: StyleGANArchitecture) -> None:
        super().__init__(image_shape, architecture)
        require_square_power_of_two(image_shape)
        self.mapping = Mapping(
            architecture.latent_dim, architecture.mapping_layers, architecture.classes, architecture.embedding
        )
        self.synthesis = Synthesis(image_shape, architecture, self.style_dim)
        self.register_buffer("mean_style", torch.zeros(self.style_dim))
        if architecture.form == "progressive":
            self.register_buffer("growth", torch.tensor(math.log2(image_shape[0])))

    @property
    def latent_dim(self) -> int:
        """Size of z."""
        return self.architecture.latent_dim

    @property
    def style_dim(self) -> int:
        """Size of w."""
        return self.mapping.outputs

    def stage(self) -> tuple[int, Tensor | None]:
        """Return the resolution that the network has grown to, and how far its layers are faded in."""
        if self.architecture.form != "progressive" or self.growth.is_meta:
            return self.image_shape[0], None
        return stage_of(float(self.growth), self.device)

    def map_latents(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """Map z, float [N, latent_dim], and classes, int64 [N] or ``None``, to w: float [N, style_dim]."""
        w: Tensor = self.mapping(latents, label)
        return w

    def synthesise(self, w: Tensor, noise: Noise | Sequence[Tensor] | None) -> Tensor:
        """Draw images of styles.

        Args:
            w: float [N, style_dim], or a style for each place, [N, styles, style_dim].
            noise: random numbers of the layers' noise, of N pictures, or the noise of each layer, float [N, 1, S, S];
                ``None`` for no noise.

        Returns:
            float [N, C, H, W], about [-1, 1], not clipped.
        """
        layers = (self.draw_noise(noise) or None) if isinstance(noise, Noise) else noise
        return self._synthesise(w, layers)

    @torch.no_grad()
    def style_statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of w, float [style_dim] each, over latents that are always the same.

        A number that hardly varies has a hundredth of the others' mean deviation, so that one may divide by it.
        """
        draws = Noise(0, range(STATISTICS_DRAWS), self.device)
        label = torch.arange(STATISTICS_DRAWS, device=self.device) % self.classes if self.classes else None
        deviation, mean = torch.std_mean(self.map_latents(self._latents(draws), label), 0)
        return mean, deviation.maximum(deviation.mean() / 100)

    def style_layers(self) -> MappingType[str, nn.Module]:
        """Return the affine layers of styles by their names in the synthesis network; none without styles."""
        return {name: one for name, one in self.synthesis.named_modules() if name.rpartition(".")[2] == "style"}

    def draw_noise(self, noise: Noise) -> list[Tensor]:
        """Draw the noise of each layer: float [len(noise), 1, S, S] each."""
        sizes = self.synthesis.noise_sizes if self.architecture.noise else []
        return [noise.normal(f"layer {number}", 1, size, size) for number, size in enumerate(sizes)]

    def truncate(self, w: Tensor, truncation: float) -> Tensor:
        """Move w, float [..., style_dim], towards the mean style: mean + ψ (w − mean)."""
        return w if truncation == 1 else torch.lerp(self.mean_style, w, truncation)

    def draw(self, noise: Noise, label: Tensor | None, options: SamplingOptions) -> Tensor:
        """Draw an image for each picture of ``noise``, see :meth:`Sampler.draw`."""
        w = self.map_latents(self._latents(noise), label)
        if options.latents > 1:
            w = self._mixed(noise, w, label, options.latents)
        images = self._synthesise(self.truncate(w, options.truncation), self._layer_noise(noise, options.noise))
        return from_signed(images)

    @torch.inference_mode()
    def interpolate_draws(
        self, seeds: tuple[int, int], label: Tensor | None = None, options: LatentInterpolationOptions | None = None
    ) -> Tensor:
        """Draw the way between the first pictures of two seeds.

        The layers' noise goes from that of one picture to that of the other too, and keeps its variance.

        Args:
            seeds: seeds of the two ends, which are the images that ``sample(1, seed)`` gives.
            label: classes, int64 [2], for a model with classes; the way has the first.
            options: number of images, both ends included, and the space in which the way lies.

        Returns:
            uint8 [steps, H, W, C].
        """
        options = options or LatentInterpolationOptions()
        share = torch.linspace(0, 1, options.steps, device=self.device)[:, None]
        ends = [Noise(seed, range(1), self.device) for seed in seeds]
        z = [self._latents(end) for end in ends]
        if self.classes:
            assert label is not None
            label = label[:1].to(self.device)
        if options.space == "z":
            between = spherical_interpolation(z[0], z[1], share)
            w = self.map_latents(between, None if label is None else label.expand(options.steps))
        else:
            begin, end = (self.map_latents(one, label) for one in z)
            w = torch.lerp(begin, end, share)
        layers = None
        if first := self._layer_noise(ends[0], options.noise):
            second = self._layer_noise(ends[1], options.noise)
            assert second is not None
            angle = share[:, :, None, None] * (math.pi / 2)
            layers = first if options.noise == "fixed" else []
            if options.noise == "random":
                layers = [angle.cos() * one + angle.sin() * two for one, two in zip(first, second, strict=True)]
            layers = [one.expand(options.steps, -1, -1, -1) for one in layers]
        images, each = [], images_per_pass(self.image_shape)
        for start in range(0, options.steps, each):
            steps = slice(start, start + each)
            noise = layers and [one[steps] for one in layers]
            images.append(from_signed(self._synthesise(self.truncate(w[steps], options.truncation), noise)))
        return torch.cat(images)

    @property
    def _grown_places(self) -> int:
        """Number of places where styles come in, as far as the network has grown."""
        return 2 * len(resolutions(self.stage()[0]))

    @property
    def style_groups(self) -> dict[Group, range]:
        """The places of coarse, middle and fine styles, as far as the network has grown; see :func:`style_groups`."""
        return style_groups(self._grown_places, self.architecture.styles)

    @torch.inference_mode()
    def mix_styles(
        self,
        rows: Sequence[int],
        columns: Sequence[int],
        label: Tensor | None = None,
        options: MixingOptions | None = None,
    ) -> Tensor:
        """Give the first pictures of some seeds a part of the styles of others, as in figure 3 of StyleGAN's paper.

        Args:
            rows: seeds of the pictures that are changed.
            columns: seeds of the pictures whose styles they get.
            label: classes of both, int64 [len(rows) + len(columns)], for a model with classes.
            options: the styles that the rows get, their truncation, and the noise of the layers.

        Returns:
            uint8 [len(rows) + 1, len(columns) + 1, H, W, C]. In the first column and the first row are the pictures
            themselves, between them, at [0, 0], a white one. Each picture is a pure function of the weights, its seeds,
            their classes and the options, up to the rounding of the networks.

        Raises:
            ConfigError: the model was built without styles.
        """
        options = options or MixingOptions()
        if self.architecture.styles == "none":
            raise ConfigError("this model was trained with --model.styles none: it has no styles to mix")
        draws = [Noise(seed, range(1), self.device) for seed in (*rows, *columns)]
        label = None if label is None else label.to(self.device)
        w = self.map_latents(torch.cat([self._latents(draw) for draw in draws]), label)
        w = self.truncate(w, options.truncation)[:, None].repeat(1, self.synthesis.styles, 1)
        places = self.style_groups[options.styles]
        noise = [self._layer_noise(draw, options.noise) for draw in draws]
        first, second = range(len(rows)), range(len(rows), len(w))
        own = [(column, column) for column in second]
        mixed = [(row, other) for row in first for other in (row, *second)]
        pairs = torch.tensor(own + mixed)
        images = [torch.full((1, *self.image_shape), 255, dtype=torch.uint8, device=self.device)]
        for part in pairs.split(images_per_pass(self.image_shape)):
            base, other = part.unbind(1)
            styles = w[base]
            styles[:, places.start : places.stop] = w[other, places.start : places.stop]
            of_each = [layers for one in base if (layers := noise[one]) is not None]
            layers = [torch.cat(layer) for layer in zip(*of_each, strict=True)] if of_each else None
            images.append(from_signed(self._synthesise(styles, layers)))
        return torch.cat(images).view(len(rows) + 1, len(columns) + 1, *self.image_shape)

    def _latents(self, noise: Noise) -> Tensor:
        return noise.normal("z", self.architecture.latent_dim)

    def _layer_noise(self, noise: Noise, mode: NoiseMode) -> list[Tensor] | None:
        if mode == "none" or not self.architecture.noise:
            return None
        if mode == "random":
            return self.draw_noise(noise)
        return [one.expand(len(noise), -1, -1, -1) for one in self.draw_noise(Noise(0, range(1), self.device))]

    def _mixed(self, noise: Noise, w: Tensor, label: Tensor | None, latents: int) -> Tensor:
        """Give each picture the styles of several latents, which change at places drawn at random."""
        places, count = self.synthesis.styles, len(noise)
        styles = [w] + [
            self.map_latents(noise.normal(f"z {number}", self.architecture.latent_dim), label)
            for number in range(2, latents + 1)
        ]
        # The places at which the latent changes: the order of random numbers is a random order of places.
        draws = noise.normal("places", self._grown_places - 1).argsort(1)[:, : latents - 1] + 1
        starts = torch.zeros(count, places, dtype=torch.int64, device=w.device)
        starts.scatter_(1, draws, 1)
        chosen = starts.cumsum(1)
        return torch.stack(styles, 1).gather(1, chosen[:, :, None].expand(-1, -1, w.shape[1]))

    def _synthesise(self, w: Tensor, layers: Sequence[Tensor] | None) -> Tensor:
        if w.dim() == 2:
            w = w[:, None].expand(-1, self.synthesis.styles, -1)
        resolution, fade = self.stage()
        images: Tensor = self.synthesis(w, layers, resolution, fade)
        while images.shape[2] < self.image_shape[0]:
            images = upsample(images, "nearest")
        return images


MODEL = StyleGAN
