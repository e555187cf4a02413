"""The published discriminators: parameters, outputs, and what a logit sees."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from genlab.models.discriminators import PATCH_GANS, DiscriminatorKind, ImageGAN, build_discriminator, smallest_side


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def sees(network: nn.Module, images: Tensor) -> Tensor:
    """Which pixels the middle logit depends on, bool [H, W], with the norms, which see everything, left out."""
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.forward = lambda input: input  # type: ignore[method-assign]
    images = images.requires_grad_()
    logits = network(images)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert images.grad is not None
    return images.grad[0].abs().sum(0) > 0


@pytest.mark.parametrize(
    ("kind", "count", "output"),
    [
        ("patch", 2_765_569, (30, 30)),
        ("patch-reference", 2_764_737, (30, 30)),
        ("pixel", 8_705, (256, 256)),
        ("image", 11_156_225, (1, 1)),
    ],
)
def test_parameters_and_outputs_at_256x256(kind: DiscriminatorKind, count: int, output: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = build_discriminator(kind, (256, 256, 3), 64)
        assert parameters(network) == count
        assert network(torch.empty(2, 3, 256, 256)).shape == (2, 1, *output)


def test_the_patch_gan_of_the_reference_is_its_layers() -> None:
    torch.manual_seed(0)
    ours = build_discriminator("patch-reference", (32, 48, 4), 8)

    def block(before: int, after: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 4, stride, 1), nn.InstanceNorm2d(after), nn.LeakyReLU(0.2)]

    theirs = nn.Sequential(
        *(nn.Conv2d(4, 8, 4, 2, 1), nn.LeakyReLU(0.2)),
        *(*block(8, 16, 2), *block(16, 32, 2), *block(32, 64, 1)),
        nn.Conv2d(64, 1, 4, 1, 1),
    )
    theirs.load_state_dict({key.removeprefix("layers."): value for key, value in ours.state_dict().items()})
    images = torch.rand(2, 4, 32, 48)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize(
    ("kind", "layers", "field"),
    [
        ("patch", 3, 70),
        ("patch-reference", 3, 70),
        ("patch", 1, 16),
        ("patch", 2, 34),
        ("patch", 4, 142),
        ("pixel", 3, 1),
    ],
)
def test_a_logit_sees_its_patch(kind: DiscriminatorKind, layers: int, field: int) -> None:
    seen = sees(build_discriminator(kind, (256, 256, 1), 2, layers), torch.rand(1, 1, 256, 256))
    assert seen.any(0).sum() == seen.any(1).sum() == field


def test_channels_double_up_to_eight_times_the_width() -> None:
    convolutions = [m for m in build_discriminator("patch", (256, 256, 3), 2, 5).modules() if isinstance(m, nn.Conv2d)]
    assert [convolution.out_channels for convolution in convolutions] == [2, 4, 8, 16, 16, 16, 1]
    assert [convolution.stride[0] for convolution in convolutions] == [2, 2, 2, 2, 2, 1, 1]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (45, 30), (64, 128), (96, 96)])
def test_the_image_gans_one_logit_sees_the_whole_image(height: int, width: int) -> None:
    torch.manual_seed(0)
    network = ImageGAN((height, width, 3), 4)
    images = torch.rand(2, 3, height, width)
    assert network(images).shape == (2, 1, 1, 1)
    assert sees(network, images).all()


@pytest.mark.parametrize(
    ("kind", "layers"), [*((kind, 3) for kind in get_args(DiscriminatorKind)), *((kind, 1) for kind in PATCH_GANS)]
)
def test_the_smallest_images_can_be_classified_and_learnt_from(kind: DiscriminatorKind, layers: int) -> None:
    side = max(4, smallest_side(kind, layers))  # no generator takes less
    network = build_discriminator(kind, (side, side, 1), 4, layers)
    network(torch.rand(1, 1, side, side)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
