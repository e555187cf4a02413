"""StyleGAN's discriminator: the statistic over groups, its forms, and how it grows."""

from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.models.equalized import downsample
from genlab.models.stylegan import Channels, Form
from genlab.models.stylegan_discriminator import Discriminator, group_deviation

CHANNELS = Channels(channel_base=32, channel_max=8)


def make(form: Any, side: int = 16, group: int = 2, classes: int = 0, resampling: Any = "bilinear") -> Any:
    torch.manual_seed(0)
    discriminator = Discriminator((side, side, 3), CHANNELS, form, resampling, group, classes)
    with torch.no_grad():
        for name, parameter in discriminator.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
    return discriminator


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def read(discriminator: Any, size: int, images: Tensor) -> Tensor:
    return F.leaky_relu(discriminator.from_colours[str(size)](images), 0.2)


@pytest.mark.parametrize("group", [2, 3, 6])
def test_the_deviation_of_a_group_is_one_number_for_all_its_pixels(group: int) -> None:
    features = random(6, 5, 4, 4)
    found = group_deviation(features, group)
    assert found.shape == (6, 1, 4, 4)
    for first in range(0, 6, group):
        rows = features[first : first + group]
        expected = rows.std(0, correction=0).mean()
        torch.testing.assert_close(found[first : first + group], expected.expand(group, 1, 4, 4))
    alike = group_deviation(features[:1].expand(6, -1, -1, -1), group)
    torch.testing.assert_close(alike, torch.full_like(alike, 1e-4)), "of images that are all alike"


@pytest.mark.parametrize("form", get_args(Form))
def test_images_are_judged_in_their_group_and_in_no_other(form: Any) -> None:
    discriminator, images = make(form), random(4, 3, 16, 16)
    logits = discriminator(images, None)
    assert logits.shape == (4,)
    other = images.clone()
    other[3] += 1
    changed = discriminator(other, None) != logits
    assert changed.tolist() == [False, False, True, True]
    alone = make(form, group=1)
    assert (alone(other, None) != alone(images, None)).tolist() == [False, False, False, True]


@pytest.mark.parametrize("resampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("form", get_args(Form))
def test_the_forms_are_the_papers(form: Any, resampling: Any) -> None:
    """Figure 7 of StyleGAN2: b, c and the progressive one; layer by layer."""
    discriminator, images = make(form, resampling=resampling), random(4, 3, 16, 16)
    features, small = read(discriminator, 16, images), images
    for size in (16, 8):
        if form == "skip" and size < 16:
            small = downsample(small, resampling)
            features = features + read(discriminator, size, small)
        block = discriminator.blocks[str(size)]
        convolved = F.leaky_relu(block.second(F.leaky_relu(block.first(features), 0.2)), 0.2)
        features = convolved + block.shortcut(features) if form == "residual" else convolved
    if form == "skip":
        features = features + read(discriminator, 4, downsample(small, resampling))
    torch.testing.assert_close(discriminator(images, None), discriminator.head(features, None))


def test_a_shortcut_and_what_it_goes_around_have_half_of_the_variance_each() -> None:
    torch.manual_seed(0)
    block: Any = Discriminator((16, 16, 3), Channels(2048, 64), "residual", "nearest", 1, 0).blocks["16"]
    features = F.leaky_relu(torch.randn(32, 64, 16, 16), 0.2) * 2**0.5
    shortcut = block.shortcut(features)
    convolved = block(features) - shortcut
    # The same convolution twice, of which the residual one has no gain of √2 for its leaky ReLU.
    plain = Discriminator((16, 16, 3), Channels(2048, 64), "skip", "nearest", 1, 0).blocks["16"]
    plain.load_state_dict({name: value for name, value in block.state_dict().items() if "shortcut" not in name})
    torch.testing.assert_close(convolved * 2**0.5, plain(features), atol=1e-4, rtol=1e-4)
    full = F.conv2d(downsample(features, "nearest"), block.shortcut.weight / 8)
    torch.testing.assert_close(shortcut * 2**0.5, full, atol=1e-4, rtol=1e-4)


def test_every_parameter_is_used() -> None:
    for form in get_args(Form):
        discriminator = make(form, classes=2)
        fade = torch.tensor(0.5) if form == "progressive" else None
        discriminator(random(2, 3, 16, 16), torch.tensor([0, 1]), 16, fade).sum().backward()
        unused = {n for n, p in discriminator.named_parameters() if p.grad is None or not p.grad.any()}
        assert unused - {"from_colours.4.weight", "from_colours.4.bias"} == set(), form
        assert not unused or form == "progressive"


@pytest.mark.parametrize(("resolution", "fade"), [(8, 1.0), (8, 0.5), (16, 0.25), (32, 0.875), (32, 1.0), (4, 1.0)])
def test_a_progressive_one_fades_in_its_resolutions(resolution: int, fade: float) -> None:
    discriminator, images = make("progressive", 32), random(2, 3, resolution, resolution)
    features = read(discriminator, resolution, images)
    for size in (32, 16, 8):
        if size <= resolution:
            features = discriminator.blocks[str(size)](features)
        if size == resolution and fade < 1:
            before = read(discriminator, size // 2, F.avg_pool2d(images, 2))
            features = fade * features + (1 - fade) * before
    share = None if fade == 1 else torch.tensor(fade)
    found = discriminator(images, None, resolution, share)
    torch.testing.assert_close(found, discriminator.head(features, None))
    if resolution == 32 and share is None:
        torch.testing.assert_close(discriminator(images, None), found), "by default it is grown"


def test_nothing_jumps_where_a_fade_begins_or_ends() -> None:
    discriminator, small = make("progressive", 32), random(2, 3, 16, 16)
    images = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    before = discriminator(small, None, 16)
    torch.testing.assert_close(discriminator(images, None, 32, torch.tensor(0.0)), before)
    assert not torch.allclose(discriminator(images, None, 32, torch.tensor(0.1)), before, atol=1e-3)
    torch.testing.assert_close(discriminator(images, None, 32, torch.tensor(1.0)), discriminator(images, None, 32))


def test_a_conditional_one_has_a_logit_for_each_class() -> None:
    discriminator, images = make("residual", classes=3), random(4, 3, 16, 16)
    of_classes = [discriminator(images, torch.full((4,), label)) for label in range(3)]
    label = torch.tensor([2, 0, 1, 1])
    expected = torch.stack([of_classes[each][row] for row, each in enumerate(label.tolist())])
    torch.testing.assert_close(discriminator(images, label), expected)
    assert not torch.allclose(of_classes[0], of_classes[1])
