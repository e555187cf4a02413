"""Parts of StyleGAN's generator: the mapping network, and layers that are steered by styles.

Karras et al. 2019 (CVPR, arXiv:1812.04948), here "StyleGAN", and 2020 (CVPR, arXiv:1912.04958), "StyleGAN2".
"""

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.equalized import ROOT_2, SLOPE, EqualizedConv2d, EqualizedLinear, Resampling, clamped, convolve
from genlab.models.precision import without_autocast

Styles = Literal["demodulate", "adain", "none"]
"""How styles act on a layer. ``demodulate``: they scale the channels that come in, and the layer's weights are scaled
so that its outputs keep their expected variance (StyleGAN2). ``adain``: adaptive instance normalisation of its outputs
(StyleGAN). ``none``: not at all, each pixel's vector of channels is normalised (Karras et al. 2018)."""

Embedding = Literal["joint", "separate"]
"""How a class enters the mapping network. ``joint``: a learned vector of it beside z, both normalised as one
(StyleGAN2). ``separate``: a dense layer with biases, and its outputs and z normalised each by itself (StyleGAN2-ADA,
Karras et al. 2020, NeurIPS, arXiv:2006.06676)."""

MAPPING_RATE = 0.01
"""Factor of the mapping network's learning rate."""
EPSILON = 1e-8
"""Number that is added to a mean square before its root is taken."""


def normalise_pixels(features: Tensor) -> Tensor:
    """Scale float [N, C, ...] so that the mean square over the channels is 1."""
    scale = (features.float().square().mean(1, keepdim=True) + EPSILON).rsqrt()
    return features * scale.to(features.dtype)


class Mapping(nn.Module):
    """The mapping network from z, and a class, to w: dense layers with leaky ReLUs.

    z is first normalised to a mean square of 1. A class is a learned vector beside z. Without layers w is what would go
    into them.

    Args:
        latent_dim: size of z and, with layers, of w.
        layers: number of dense layers.
        classes: number of classes; 0 for none.
        embedding: how a class comes beside z.
    """

    def __init__(self, latent_dim: int, layers: int, classes: int, embedding: Embedding = "joint") -> None:
        super().__init__()
        self.classes = classes
        self.separate = embedding == "separate"
        self.embedding = None
        if classes:
            self.embedding = (
                EqualizedLinear(classes, latent_dim)
                if self.separate
                else EqualizedLinear(classes, latent_dim, gain=classes**0.5, bias=None)
            )
        inputs = [latent_dim * (2 if classes else 1), *[latent_dim] * layers]
        self.layers = nn.ModuleList(
            EqualizedLinear(before, after, gain=ROOT_2, rate=MAPPING_RATE)
            for before, after in itertools.pairwise(inputs)
        )
        self.outputs = inputs[-1]

    def forward(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """Map z, float [N, latent_dim], and classes, int64 [N] or ``None``, to w: float [N, outputs]."""
        # In full precision: it is small, and all styles depend on it.
        with without_autocast(latents.device):
            features = latents
            if self.embedding is not None:
                assert label is not None
                embedded = self.embedding(F.one_hot(label, self.classes).to(latents.dtype))
                parts = [latents, embedded]
                if self.separate:
                    parts = [normalise_pixels(part) for part in parts]
                features = torch.cat(parts, dim=1)
            if self.embedding is None or not self.separate:
                features = normalise_pixels(features)
            for layer in self.layers:
                features = F.leaky_relu(layer(features), SLOPE)
            return features


class NoiseInput(nn.Module):
    """Noise of a learned strength, the same for all channels but for its strength.

    Args:
        channels: number of strengths: one for each channel, or 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels))

    def forward(self, noise: Tensor) -> Tensor:
        """Scale float [N, 1, H, W]: [N, channels, H, W]."""
        return noise * self.strength[:, None, None]


class DemodulatedLayer(nn.Module):
    """A convolution whose inputs are scaled by a style and its outputs demodulated; then noise, bias, leaky ReLU.

    Scaling a channel that comes in is scaling the weights that meet it, so one convolution serves all images of a
    batch, and demodulation is a factor of each image's outputs (StyleGAN2, section 2.2).

    Args:
        inputs: number of channels that come in.
        outputs: number of channels that go out.
        style_dim: size of w.
        noise: whether noise is added.
        up: whether height and width double.
        resampling: the filter of the doubling.
        clamp: largest absolute value of the outputs; ``None`` for any.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style_dim: int,
        *,
        noise: bool,
        up: bool = False,
        resampling: Resampling,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.style = EqualizedLinear(style_dim, inputs, bias=1.0)
        self.convolution = EqualizedConv2d(
            inputs, outputs, 3, resize="up" if up else None, resampling=resampling, bias=False
        )
        self.noise = NoiseInput(1) if noise else None
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Compute float [N, outputs, H', W'].

        Args:
            features: float [N, inputs, H, W].
            w: float [N, style_dim].
            noise: float [N, 1, H', W'], or ``None`` for none.
        """
        with without_autocast(w.device):
            style = self.style(w)
            weight = self.convolution.weight * self.convolution.scale
            scale = (style.square() @ weight.square().sum((2, 3)).t() + EPSILON).rsqrt()
        layer, kind = self.convolution, features.dtype
        outputs = convolve(features * style.to(kind)[:, :, None, None], weight, None, layer.resize, layer.resampling)
        kind = outputs.dtype
        # The gain √2 of the leaky ReLU is taken before it, where the factors are small tensors.
        shift = self.bias * ROOT_2
        outputs = torch.addcmul(shift.to(kind)[:, None, None], outputs, (scale * ROOT_2).to(kind)[:, :, None, None])
        if self.noise is not None and noise is not None:
            outputs = outputs + (noise * (self.noise.strength * ROOT_2)).to(kind)
        return clamped(F.leaky_relu(outputs, SLOPE), self.clamp)


class Finish(nn.Module):
    """What follows a convolution in StyleGAN and in its traditional form: noise, bias, leaky ReLU, a norm, a style.

    With styles the norm is an instance norm, which the style scales and shifts: AdaIN, ``x (1 + s) + b``, where x has
    mean 0 and variance 1 in each channel of each image. Without, it is :func:`normalise_pixels`.

    Args:
        channels: number of channels.
        style_dim: size of w; ``None`` without styles.
        noise: whether noise is added.
    """

    def __init__(self, channels: int, style_dim: int | None, noise: bool) -> None:
        super().__init__()
        self.noise = NoiseInput(channels) if noise else None
        self.bias = nn.Parameter(torch.zeros(channels))
        self.style = EqualizedLinear(style_dim, 2 * channels) if style_dim else None

    def forward(self, features: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Compute float [N, channels, H, W] of the same; ``w`` and ``noise`` as for :class:`DemodulatedLayer`."""
        kind = features.dtype
        features = features + self.bias.to(kind)[:, None, None]
        if self.noise is not None and noise is not None:
            features = features + self.noise(noise).to(kind)
        features = F.leaky_relu(features, SLOPE)
        if self.style is None:
            return normalise_pixels(features)
        with without_autocast(w.device):
            factor, shift = self.style(w).chunk(2, dim=1)
            # In full precision: of a channel that hardly varies, a mean rounded to bf16 hides what is left without it.
            features = features.to(w.dtype)
            variance, mean = torch.var_mean(features, (2, 3), correction=0)
            factor = (factor + 1) * (variance + EPSILON).rsqrt()
            shift = shift - mean * factor
            outputs = torch.addcmul(shift[:, :, None, None], features, factor[:, :, None, None])
        return outputs.to(kind)


class FinishedLayer(nn.Module):
    """A convolution with its :class:`Finish`; the arguments are those of :class:`DemodulatedLayer`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style_dim: int | None,
        *,
        noise: bool,
        up: bool = False,
        resampling: Resampling,
    ) -> None:
        super().__init__()
        self.convolution = EqualizedConv2d(
            inputs, outputs, 3, resize="up" if up else None, resampling=resampling, gain=ROOT_2, bias=False
        )
        self.finish = Finish(outputs, style_dim, noise)

    def forward(self, features: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Compute float [N, outputs, H', W'], see :meth:`DemodulatedLayer.forward`."""
        outputs: Tensor = self.finish(self.convolution(features), w, noise)
        return outputs


class ToColours(nn.Module):
    """A 1x1 convolution from features to the channels of an image; with ``style_dim`` its inputs are scaled by a style.

    Args:
        inputs: number of channels that come in.
        colours: channels of the image.
        style_dim: size of w; ``None`` for a layer without style.
        clamp: largest absolute value of the outputs; ``None`` for any.
    """

    def __init__(self, inputs: int, colours: int, style_dim: int | None, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.style = EqualizedLinear(style_dim, inputs, bias=1.0) if style_dim else None
        self.convolution = EqualizedConv2d(inputs, colours, 1)

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        """Map float [N, inputs, H, W] to [N, colours, H, W], of the dtype of ``w``."""
        if self.style is not None:
            with without_autocast(w.device):
                style = self.style(w)
            features = features * style.to(features.dtype)[:, :, None, None]
        image: Tensor = clamped(self.convolution(features), self.clamp)
        return image.to(w.dtype)
