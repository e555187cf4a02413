"""The discriminator of StyleGAN and StyleGAN2.

At 1024x1024x3, with at most 512 channels, it has 23,087,249 parameters in StyleGAN's form (progressive,
``channel_base`` 8,192) and 29,012,513 in that of StyleGAN2's config-f (residual, 16,384).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.equalized import ROOT_2, SLOPE, EqualizedConv2d, EqualizedLinear, Resampling, clamped, downsample
from genlab.models.model import Shape
from genlab.models.precision import without_autocast
from genlab.models.stylegan import Channels, Form, resolutions


class Discriminator(nn.Module):
    """A network that tells real images from generated ones.

    Args:
        image_shape: (height, width, channels).
        channels: channels of the layers.
        form: ``residual`` or ``skip`` (StyleGAN2), or ``progressive`` (StyleGAN).
        resampling: how images and features are halved.
        group: number of neighbouring rows whose standard deviation is one more feature; 1 for no such feature.
        classes: number of classes; 0 for none.
        clamp: largest absolute value of what convolutions give; ``None`` for any.
    """

    def __init__(
        self,
        image_shape: Shape,
        channels: Channels,
        form: Form,
        resampling: Resampling,
        group: int,
        classes: int,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.form, self.resampling, self.classes, self.clamp = form, resampling, classes, clamp
        self.resolutions = resolutions(image_shape[0])
        self.from_colours = nn.ModuleDict()
        self.blocks = nn.ModuleDict()
        for resolution in reversed(self.resolutions):
            width = channels.at(resolution)
            if form != "residual" or resolution == self.resolutions[-1]:
                self.from_colours[str(resolution)] = EqualizedConv2d(image_shape[2], width, 1, gain=ROOT_2)
            if resolution > 4:
                self.blocks[str(resolution)] = Block(
                    width, channels.at(resolution // 2), form == "residual", resampling, clamp
                )
        self.head = Head(channels.at(4), group, classes, clamp)

    def forward(
        self, images: Tensor, label: Tensor | None, resolution: int | None = None, fade: Tensor | None = None
    ) -> Tensor:
        """Compute a logit for each image, positive for real: [N], in full precision.

        Args:
            images: float [N, C, resolution, resolution] in [-1, 1].
            label: classes, int64 [N]; ``None`` without.
            resolution: side of the images, for a progressive network; by default the largest.
            fade: a scalar, 0..1: share of the layers of this resolution, the others' being the features of the image
                at half the size; by default 1.
        """
        resolution = resolution or self.resolutions[-1]
        kind = images.dtype
        features, small = None, images
        for size in reversed(self.resolutions):
            if size > resolution:
                continue
            if features is None:
                features = self._read(size, images)
            elif self.form == "skip":
                small = downsample(small, self.resampling)
                features = features + self._read(size, small)
            if size > 4:
                features = self.blocks[str(size)](features)
                if fade is not None and size == resolution:
                    before = self._read(size // 2, downsample(images, "nearest"))
                    features = torch.lerp(before, features, fade.to(features.dtype))
        assert features is not None
        with without_autocast(images.device):
            logits: Tensor = self.head(features.to(kind), label)
        return logits

    def _read(self, resolution: int, images: Tensor) -> Tensor:
        return clamped(F.leaky_relu(self.from_colours[str(resolution)](images), SLOPE), self.clamp)


class Block(nn.Module):
    """Two convolutions, the second of which halves the image; with a shortcut around both if it is residual."""

    def __init__(
        self, inputs: int, outputs: int, residual: bool, resampling: Resampling, clamp: float | None = None
    ) -> None:
        super().__init__()
        # A limit comes after the gain, and so after the division by √2.
        self.limits = (clamp, None if clamp is None else clamp / ROOT_2 if residual else clamp)
        self.first = EqualizedConv2d(inputs, inputs, 3, gain=ROOT_2)
        # A sum of two terms of the same variance is divided by √2, which the gains already hold.
        gain = 1.0 if residual else ROOT_2
        self.second = EqualizedConv2d(inputs, outputs, 3, resize="down", resampling=resampling, gain=gain)
        self.shortcut = (
            EqualizedConv2d(inputs, outputs, 1, resize="down", resampling=resampling, gain=1 / ROOT_2, bias=False)
            if residual
            else None
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map float [N, inputs, H, W] to [N, outputs, H / 2, W / 2]."""
        outputs = clamped(F.leaky_relu(self.first(features), SLOPE), self.limits[0])
        outputs = clamped(F.leaky_relu(self.second(outputs), SLOPE), self.limits[1])
        return outputs if self.shortcut is None else outputs + self.shortcut(features)


class Head(nn.Module):
    """The last layers, from 4x4 features to a logit for each class, of which that of the image's class is taken."""

    def __init__(self, channels: int, group: int, classes: int, clamp: float | None = None) -> None:
        super().__init__()
        self.group, self.clamp = group, clamp
        self.convolution = EqualizedConv2d(channels + (group > 1), channels, 3, gain=ROOT_2)
        self.dense = EqualizedLinear(channels * 16, channels, gain=ROOT_2)
        self.logits = EqualizedLinear(channels, max(1, classes))

    def forward(self, features: Tensor, label: Tensor | None) -> Tensor:
        """Map float [N, channels, 4, 4] and classes, int64 [N] or ``None``, to logits [N]."""
        if self.group > 1:
            features = torch.cat([features, group_deviation(features, self.group)], dim=1)
        features = clamped(F.leaky_relu(self.convolution(features), SLOPE), self.clamp)
        features = F.leaky_relu(self.dense(features.flatten(1)), SLOPE)
        logits: Tensor = self.logits(features)
        return logits[:, 0] if label is None else logits.gather(1, label[:, None])[:, 0]


def group_deviation(features: Tensor, group: int) -> Tensor:
    """Return a feature that says how much the images of a group differ (Karras et al. 2018, section 3).

    It is the standard deviation over the group of each feature, averaged over all features.

    Args:
        features: float [N, C, H, W].
        group: number of neighbouring rows that make a group; N is a multiple of it.

    Returns:
        float [N, 1, H, W], the same number for all pixels of all rows of a group.
    """
    grouped = features.unflatten(0, (-1, group))
    variance = (grouped - grouped.mean(1, keepdim=True)).square().mean(1)
    deviation = (variance + 1e-8).sqrt().mean((1, 2, 3))
    rows = deviation.repeat_interleave(group)[:, None, None, None]
    return rows.expand(-1, 1, *features.shape[2:])
