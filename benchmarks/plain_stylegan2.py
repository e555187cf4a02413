"""StyleGAN2 as one writes it in plain PyTorch from the paper (Karras et al. 2020, arXiv:1912.04958), and its training.

``stylegan_step.py`` compares genlab's step with this one. Styles scale each image's own copy of a layer's weights, and
one grouped convolution takes all images of a batch; the filter [1, 3, 3, 1] is padding and a depthwise convolution.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT_2 = math.sqrt(2)


def activate(x: Tensor, bias: Tensor) -> Tensor:
    """Add a bias to [N, C, ...], leaky ReLU with a gain of √2."""
    return F.leaky_relu(x + bias.view(-1, *[1] * (x.dim() - 2)), 0.2) * ROOT_2


class Filter(nn.Module):
    """The filter [1, 3, 3, 1] on each channel, after zeros around the image."""

    def __init__(self, before: int, after: int, gain: float = 1.0) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(line, line)[None, None] * (gain / 64))
        self.pad = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Filter float [N, C, H, W]."""
        channels = x.shape[1]
        return F.conv2d(F.pad(x, self.pad), self.kernel.expand(channels, -1, -1, -1), groups=channels)


class Upsample(nn.Module):
    """Bilinear upsampling: zeros between the pixels, then the filter."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = Filter(2, 1, gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        """Double float [N, C, H, W]."""
        n, c, h, w = x.shape
        wide = x.new_zeros(n, c, h, 2, w, 2)
        wide[:, :, :, 0, :, 0] = x
        return self.filter(wide.view(n, c, 2 * h, 2 * w))


class Dense(nn.Module):
    """A dense layer with an equalised learning rate."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0, active: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate, self.active = rate / math.sqrt(inputs), rate, active

    def forward(self, x: Tensor) -> Tensor:
        """Map float [N, inputs] to [N, outputs]."""
        if self.active:
            return activate(F.linear(x, self.weight * self.scale), self.bias * self.rate)
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Conv(nn.Module):
    """A convolution with an equalised learning rate, which may halve the image; then an activation, or none."""

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, active: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if active else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.filter = Filter(kernel // 2 + 1, kernel // 2 + 1) if down else None
        self.padding = 0 if down else kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map float [N, inputs, H, W] to [N, outputs, H', W']."""
        if self.filter is not None:
            x = self.filter(x)
        x = F.conv2d(x, self.weight * self.scale, stride=2 if self.filter else 1, padding=self.padding)
        return x if self.bias is None else activate(x, self.bias)


class ModulatedConv(nn.Module):
    """A convolution whose weights are modulated and demodulated for each image."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style: int, up: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.style = Dense(style, inputs, bias=1.0)
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.filter = Filter(1, 1, gain=4.0) if up else None
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map float [N, inputs, H, W] and w, [N, style], to [N, outputs, H', W']."""
        n, inputs, height, width = x.shape
        _, outputs, _, kernel, _ = self.weight.shape
        weight = self.weight * self.scale * self.style(w)[:, None, :, None, None]
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        x = x.reshape(1, n * inputs, height, width)
        if self.filter is None:
            weight = weight.view(n * outputs, inputs, kernel, kernel)
            return F.conv2d(x, weight, padding=kernel // 2, groups=n).view(n, outputs, height, width)
        weight = weight.transpose(1, 2).reshape(n * inputs, outputs, kernel, kernel)
        x = F.conv_transpose2d(x, weight, stride=2, groups=n)
        return self.filter(x.view(n, outputs, *x.shape[2:]))


class StyledConv(nn.Module):
    """A modulated convolution, noise, activation."""

    def __init__(self, inputs: int, outputs: int, style: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style, up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map float [N, inputs, H, W] and w, [N, style], to [N, outputs, H', W']."""
        x = self.conv(x, w)
        return activate(x + self.strength * torch.randn_like(x[:, :1]), self.bias)


class ToColours(nn.Module):
    """From features to colours, added to the image of the resolution before."""

    def __init__(self, inputs: int, style: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3, 1, 1))
        self.upsample = Upsample()

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
        """Map float [N, inputs, H, W], w and an image of half the size to an image, [N, 3, H, W]."""
        colours = self.conv(x, w) + self.bias
        return colours if image is None else colours + self.upsample(image)


class Generator(nn.Module):
    """The generator with skips.

    Args:
        channels: of the layers of each resolution, from 4 on.
        latent: size of z and w.
        depth: layers of the mapping network.
    """

    def __init__(self, channels: Mapping[int, int], latent: int, depth: int) -> None:
        super().__init__()
        self.latent, self.places = latent, 2 * len(channels)
        self.mapping = nn.Sequential(*[Dense(latent, latent, rate=0.01, active=True) for _ in range(depth)])
        self.constant = nn.Parameter(torch.randn(1, channels[4], 4, 4))
        self.first = StyledConv(channels[4], channels[4], latent)
        widths = list(channels.values())
        self.ups = nn.ModuleList(StyledConv(before, after, latent, up=True) for before, after in pairwise(widths))
        self.convs = nn.ModuleList(StyledConv(width, width, latent) for width in widths[1:])
        self.colours = nn.ModuleList(ToColours(width, latent) for width in widths)

    def map(self, count: int, mixing: float) -> Tensor:
        """Draw a style for each place, [count, places, latent], mixed from two latents with a probability."""
        z = torch.randn(2 * count, self.latent)
        w = self.mapping(z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8))
        first, second = w[:, None].expand(-1, self.places, -1).chunk(2)
        crossover = torch.randint(1, self.places, (count, 1))
        crossover = torch.where(torch.rand(count, 1) < mixing, crossover, self.places)
        return torch.where((torch.arange(self.places) < crossover)[:, :, None], first, second)

    def forward(self, styles: Tensor) -> Tensor:
        """Map styles, [N, places, latent], to images, float [N, 3, H, W]."""
        w = styles.unbind(1)
        x = self.first(self.constant.expand(len(styles), -1, -1, -1), w[0])
        image = self.colours[0](x, w[1], None)
        for number, (up, conv, colours) in enumerate(zip(self.ups, self.convs, self.colours[1:], strict=True)):
            x = conv(up(x, w[2 * number + 1]), w[2 * number + 2])
            image = colours(x, w[2 * number + 3], image)
        return image


class Block(nn.Module):
    """A residual block of the discriminator."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Conv(inputs, inputs, 3)
        self.second = Conv(inputs, outputs, 3, down=True)
        self.shortcut = Conv(inputs, outputs, 1, down=True, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [N, inputs, H, W] to [N, outputs, H / 2, W / 2]."""
        return (self.second(self.first(x)) + self.shortcut(x)) / ROOT_2


class Discriminator(nn.Module):
    """The residual discriminator, with the standard deviation of groups of four."""

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        widths = list(channels.values())[::-1]
        self.blocks = nn.Sequential(Conv(3, widths[0], 1), *[Block(*widths) for widths in pairwise(widths)])
        self.conv = Conv(widths[-1] + 1, widths[-1], 3)
        self.dense = Dense(widths[-1] * 16, widths[-1], active=True)
        self.logit = Dense(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images, float [N, 3, H, W], to logits, [N, 1]."""
        x = self.blocks(images)
        variance = x.view(-1, 4, *x.shape[1:]).var(1, correction=0)
        deviation = torch.sqrt(variance + 1e-8).mean((1, 2, 3)).repeat_interleave(4)
        x = torch.cat([x, deviation[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)
        return self.logit(self.dense(self.conv(x).flatten(1)))


def train(
    batches: Iterator[Tensor],
    channels: Mapping[int, int],
    *,
    latent: int,
    depth: int,
    mixing: float,
    r1: float,
    r1_every: int,
    rate: float,
    ema_images: float,
) -> None:
    """Train as long as there are batches of real images, float [N, 3, H, W] in [-1, 1]."""
    generator, discriminator = Generator(channels, latent, depth), Discriminator(channels)
    average = copy.deepcopy(generator).requires_grad_(False)
    lazy = r1_every / (r1_every + 1)
    generator_adam = torch.optim.Adam(generator.parameters(), rate, (0.0, 0.99), fused=True)
    discriminator_adam = torch.optim.Adam(discriminator.parameters(), rate * lazy, (0.0, 0.99**lazy), fused=True)
    for step, real in enumerate(batches):
        count = len(real)
        discriminator.requires_grad_(False)
        loss = F.softplus(-discriminator(generator(generator.map(count, mixing)))).mean()
        generator_adam.zero_grad()
        loss.backward()
        generator_adam.step()
        discriminator.requires_grad_(True)

        with torch.no_grad():
            fake = generator(generator.map(count, mixing))
        for_real, for_fake = discriminator(torch.cat([real, fake])).chunk(2)
        loss = F.softplus(-for_real).mean() + F.softplus(for_fake).mean()
        discriminator_adam.zero_grad()
        loss.backward()
        discriminator_adam.step()

        if step % r1_every == 0:
            real.requires_grad_(True)
            (slopes,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
            penalty = slopes.square().sum((1, 2, 3)).mean() * (r1 / 2 * r1_every)
            discriminator_adam.zero_grad()
            penalty.backward()
            discriminator_adam.step()

        with torch.no_grad():
            for mean, value in zip(average.parameters(), generator.parameters(), strict=True):
                mean.lerp_(value, 1 - 0.5 ** (count / ema_images))
