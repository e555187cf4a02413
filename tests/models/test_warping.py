import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.models import warping
from genlab.models.warping import CENTRE, SYM6, warp, warp_nearest


def affine(angle: float = 0, scale: tuple[float, float] = (1, 1), shift: tuple[float, float] = (0, 0)) -> Tensor:
    """From a place in the result to a place in the image: shift, then turn, then scale; float64 [1, 3, 3]."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    move = torch.tensor([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]], dtype=torch.float64)
    return (torch.diag(torch.tensor([*scale, 1], dtype=torch.float64)) @ turn @ move)[None]


MAPS = {
    "turned, smaller and shifted": affine(0.4, (1.3, 1.2), (0.7, -1.1)),
    "turned, larger": affine(2.5, (0.6, 0.8)),
    "far outside": affine(-1, (3, 2), (40.3, -55.5)),
}


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(side: int) -> Tensor:
    x = torch.linspace(0, 2 * math.pi, side, dtype=torch.float64)
    return (torch.sin(x + 1) * torch.cos(2 * x)[:, None])[None, None]


def test_the_filter_is_the_symlet_of_six_vanishing_moments() -> None:
    filter, tap = torch.tensor(SYM6, dtype=torch.float64), torch.arange(12, dtype=torch.float64)
    for shift in range(6):
        assert float(filter[2 * shift :] @ filter[: 12 - 2 * shift]) == pytest.approx(float(shift == 0), abs=1e-11)
    for power in range(6):
        assert float((filter * tap**power)[::2].sum() - (filter * tap**power)[1::2].sum()) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 1, 5, 9), (1, 1, 1, 2), (1, 2, 1, 1)])
def test_the_identity_leaves_images_as_they_are(shape: tuple[int, ...]) -> None:
    torch.testing.assert_close(warp(images(*shape), affine().expand(shape[0], 3, 3)), images(*shape))


@pytest.mark.parametrize("shift", [(3, 0), (-2, 1), (0, 25)])
def test_shifts_by_whole_pixels_are_exact_and_bring_in_the_reflection(shift: tuple[int, int]) -> None:
    image, inverse = images(1, 2, 8, 6), affine(shift=shift)
    reflection = F.pad(image, (5, 5, 7, 7), mode="reflect")
    right, down = ((5 + shift[0]) % 10, (7 + shift[1]) % 14)  # a reflected side begins again after 2 side - 2 pixels
    whole = torch.cat([reflection[..., :14, :10]] * 3, 2)
    expected = torch.cat([whole] * 3, 3)[..., down : down + 8, right : right + 6]
    assert torch.equal(warp_nearest(image, inverse), expected)
    torch.testing.assert_close(warp(image, inverse), expected)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turn_by_a_right_angle_is_exact_by_pixels_and_close_when_resampled(turns: int) -> None:
    inverse = affine(turns * math.pi / 2)
    assert torch.equal(warp_nearest(images(1, 3, 7, 7), inverse), torch.rot90(images(1, 3, 7, 7), turns, (2, 3)))
    torch.testing.assert_close(warp(smooth(32), inverse), torch.rot90(smooth(32), turns, (2, 3)), rtol=0, atol=0.02)


def test_the_nearest_pixels_of_an_image_that_is_not_square_are_mirrored_too() -> None:
    image = images(1, 3, 5, 8)
    assert torch.equal(warp_nearest(image, affine(scale=(-1, 1))), image.flip(3))
    assert torch.equal(warp_nearest(image, affine(math.pi)), image.flip((2, 3)))


def test_an_affine_map_of_a_slope_is_exact() -> None:
    x = torch.arange(40, dtype=torch.float64) - 19.5
    slope = (0.3 * x + 0.7 * x[:, None])[None, None]
    inverse = affine(0.6, (0.8, 1.1), (0.3, 0.9))
    mapped_x, mapped_y = (
        inverse[0, row, 0] * x + inverse[0, row, 1] * x[:, None] + inverse[0, row, 2] for row in (0, 1)
    )
    inner = (..., slice(12, 28), slice(12, 28))
    expected = (0.3 * mapped_x + 0.7 * mapped_y)[None, None]
    torch.testing.assert_close(warp(slope, inverse)[inner], expected[inner], rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 2, 24, 24), (1, 1, 20, 31)])
def test_it_is_padding_upsampling_lookup_and_downsampling(shape: tuple[int, ...]) -> None:
    """Step by step with PyTorch's layers, where the padding that they can do is enough."""
    image, inverse, pad = images(*shape), affine(0.2, (1.05, 0.9), (0.4, -0.6)), 18
    height, width = shape[2:]
    filter = torch.tensor(SYM6, dtype=torch.float64)
    kernel = torch.outer(filter, filter).expand(shape[1], 1, 12, 12)
    padded = F.pad(image, (pad, pad, pad, pad), mode="reflect")
    fine = F.conv_transpose2d(padded, 2 * kernel, stride=2, groups=shape[1])
    y, x = torch.meshgrid(*(torch.arange(2 * side + 10).double() for side in (height, width)), indexing="ij")
    centre = torch.tensor([width - 1, height - 1]).double() / 2
    places = (torch.stack([x, y], -1) - CENTRE) / 2 - centre
    places = places @ inverse[0, :2, :2].T + inverse[0, :2, 2]
    points = 2 * (places + centre + pad) + CENTRE
    size = torch.tensor([fine.shape[3] - 1, fine.shape[2] - 1])
    fine = F.grid_sample(fine, (points / size * 2 - 1)[None], align_corners=True)
    expected = F.conv2d(fine, kernel / 2, stride=2, groups=shape[1])
    torch.testing.assert_close(warp(image, inverse), expected)


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 2, 1, 3)])
def test_derivatives_are_right(shape: tuple[int, ...], kind: str) -> None:
    inverse = torch.cat([MAPS[kind], affine(1, shift=(0.2, 0))])
    image = images(*shape).requires_grad_()
    for warped in (warp, warp_nearest):
        assert torch.autograd.gradcheck(lambda image, warped=warped: warped(image, inverse), image)
        assert torch.autograd.gradgradcheck(lambda image, warped=warped: warped(image, inverse).pow(3), image)


@pytest.mark.parametrize("kind", MAPS)
def test_the_deterministic_gradient_of_a_lookup_is_pytorchs(kind: str) -> None:
    points = warping._lookup(MAPS[kind], 6, 5)
    points[0, 0, :4, 0] = torch.tensor([-1, 1, -1, 1])  # the corners of the fine image
    points[0, 0, :4, 1] = torch.tensor([-1, -1, 1, 1])
    values = images(1, 3, *points.shape[1:3])
    expected = warping._spread(values, points, 21, 17)
    torch.testing.assert_close(warping._spread_in_order(values, points, 21, 17), expected)


def derivatives(image: Tensor, inverse: Tensor) -> list[Tensor]:
    """A warp, the gradient of a function of it, and the gradient of a penalty of that gradient."""
    image = image.detach().requires_grad_()
    warped = warp(image, inverse)
    (gradient,) = torch.autograd.grad(warped.pow(3).sum(), image, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), image)
    return [warped.detach(), gradient.detach(), second]


def test_autocast_changes_no_bit() -> None:
    image, inverse = images(2, 3, 12, 12).float(), affine(0.5).float().expand(2, 3, 3)
    expected = derivatives(image, inverse)
    with torch.autocast("cpu", torch.bfloat16):
        found = derivatives(image, inverse)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_an_image_is_warped_whatever_the_others_are() -> None:
    inverse = torch.cat(list(MAPS.values()))
    together = warp(images(3, 2, 9, 11), inverse)
    for row in range(3):
        torch.testing.assert_close(together[row : row + 1], warp(images(3, 2, 9, 11)[row : row + 1], inverse[[row]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_and_is_deterministic() -> None:
    image, inverse = images(3, 2, 16, 16), torch.cat(list(MAPS.values()))
    torch.use_deterministic_algorithms(True)
    try:
        found, again = (derivatives(image.cuda(), inverse.cuda()) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, again, rtol=0, atol=0)
    torch.testing.assert_close([each.cpu() for each in found], derivatives(image, inverse))
