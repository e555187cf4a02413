import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from genlab.models.warping import warp
from genlab.recipes.augmentation import (
    UNIFORMS,
    AdaptiveProbability,
    Augmentation,
    Transformations,
    augment,
    draw_transformations,
    transform,
)

ALL = Augmentation()
BLITTING = Augmentation(geometry=False, colour=False)
GEOMETRY = Augmentation(blitting=False, colour=False)
COLOUR = Augmentation(blitting=False, geometry=False)
GROUPS = {"all": ALL, "blitting": BLITTING, "geometry": GEOMETRY, "colour": COLOUR}
ROWS = 6


def images(rows: int = ROWS, channels: int = 3, side: int = 16, seed: int = 1) -> Tensor:
    return 2 * torch.rand(rows, channels, side, side, generator=torch.Generator().manual_seed(seed)) - 1


def uniform(rows: int = ROWS, seed: int = 2) -> Tensor:
    return torch.rand(rows, UNIFORMS, generator=torch.Generator().manual_seed(seed))


def only(rows: int = ROWS, **changed: Tensor) -> Transformations:
    """These transformations and no other."""
    return dataclasses.replace(draw_transformations(torch.tensor(0.0), uniform(rows)), **changed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", GROUPS)
def test_of_probability_zero_images_stay_bit_for_bit(kind: str, channels: int) -> None:
    image = images(channels=channels)
    for drawn in (uniform(), torch.zeros(ROWS, UNIFORMS)):
        assert torch.equal(augment(image, torch.tensor(0.0), drawn, GROUPS[kind]), image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", GROUPS)
def test_of_probability_one_all_images_change_to_finite_ones(kind: str, channels: int) -> None:
    image = images(channels=channels)
    greatest = torch.full((ROWS, UNIFORMS), 1 - 2.0**-24)
    for drawn in (torch.zeros(ROWS, UNIFORMS), greatest, uniform(seed=3)):
        found = augment(image, torch.tensor(1.0), drawn, GROUPS[kind])
        assert found.isfinite().all()
        assert found.shape == image.shape
        assert (found != image).flatten(1).any(1).all()


def test_a_row_depends_on_its_own_numbers_alone() -> None:
    whole = augment(images(), torch.tensor(0.7), uniform(), ALL)
    for rows in (slice(0, 2), slice(2, 6)):
        part = augment(images()[rows], torch.tensor(0.7), uniform()[rows], ALL)
        torch.testing.assert_close(part, whole[rows], rtol=1e-5, atol=1e-5)
    other = uniform(seed=9)
    other[3] = uniform()[3]
    torch.testing.assert_close(augment(images(), torch.tensor(0.7), other, ALL)[3], whole[3], rtol=1e-5, atol=1e-5)


def test_flips_and_quarter_turns_are_exact() -> None:
    flip, turns = torch.tensor([0, 1, 0, 1, 0, 1.0]), torch.tensor([0, 0, 1, 1, 2, 3.0])
    found = transform(images(), only(flip=flip, quarter_turns=turns), BLITTING)
    for row, image in enumerate(images()):
        flipped = image.flip(2) if flip[row] else image
        assert torch.equal(found[row], torch.rot90(flipped, int(turns[row]), (1, 2)))


def test_shifts_are_of_whole_pixels_and_show_a_reflection() -> None:
    shift = torch.tensor([[0.125, 0], [-0.125, 0], [0, 0.09], [0, -0.06], [0.1, 0.1], [0.03, 0.02]])
    found = transform(images(), only(shift=shift), BLITTING)
    for row, (right, down) in enumerate([(2, 0), (-2, 0), (0, 1), (0, -1), (2, 2), (0, 0)]):
        padded = F.pad(images()[[row]], (2, 2, 2, 2), mode="reflect")
        assert torch.equal(found[row], padded[0, :, 2 - down : 18 - down, 2 - right : 18 - right])


@pytest.mark.parametrize("turn", ["turn", "second_turn"])
def test_a_right_angle_is_a_quarter_turn_up_to_the_filter(turn: str) -> None:
    x = torch.linspace(0, math.pi, 16)
    image = (torch.sin(x + 1) * torch.cos(2 * x)[:, None])[None, None]
    found = transform(image, only(1, **{turn: torch.full((1,), math.pi / 2)}), GEOMETRY)
    torch.testing.assert_close(found, torch.rot90(image, 1, (2, 3)), rtol=0, atol=0.02)


def test_scale_stretch_and_offset_go_where_they_say() -> None:
    """A bump of known place and width."""

    def bump(x: float, y: float, wide: float, high: float) -> Tensor:
        place = torch.arange(32.0) - 15.5
        return torch.exp(-(((place - x) / wide) ** 2) - ((place - y)[:, None] / high) ** 2)[None, None]

    cases = [
        ({"scale": torch.tensor([1.5])}, bump(3, -1.5, 6, 4.5)),
        ({"stretch": torch.tensor([1.5])}, bump(3, -1 / 1.5, 6, 2)),
        ({"offset": torch.tensor([[0.1, -0.2]])}, bump(2 + 3.2, -1 - 6.4, 4, 3)),
    ]
    for changed, expected in cases:
        found = transform(bump(2, -1, 4, 3), only(1, **changed), GEOMETRY)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.03)


def test_the_order_of_the_geometry_is_the_papers() -> None:
    """Against the product of the paper's matrices, of which each comes in from the left."""
    drawn = draw_transformations(torch.tensor(1.0), uniform())
    inverses = []
    for row in range(ROWS):
        one = {field.name: getattr(drawn, field.name)[row].double() for field in dataclasses.fields(drawn)}

        def scale(x: Tensor, y: Tensor) -> Tensor:
            return torch.diag(torch.stack([x, y, torch.ones_like(x)]))

        def turn(angle: Tensor) -> Tensor:
            matrix = torch.eye(3, dtype=torch.float64)
            matrix[0, 0] = matrix[1, 1] = angle.cos()
            matrix[0, 1], matrix[1, 0] = angle.sin(), -angle.sin()  # counterclockwise, where y is down
            return matrix

        def move(distance: Tensor) -> Tensor:
            matrix = torch.eye(3, dtype=torch.float64)
            matrix[:2, 2] = distance
            return matrix

        steps = [
            scale(1 - 2 * one["flip"], torch.ones_like(one["flip"])),
            turn(one["quarter_turns"] * math.pi / 2),
            move((16 * one["shift"]).round()),
            scale(one["scale"], one["scale"]),
            turn(one["turn"]),
            scale(one["stretch"], 1 / one["stretch"]),
            turn(one["second_turn"]),
            move(16 * one["offset"]),
        ]
        whole = torch.eye(3, dtype=torch.float64)
        for step in steps:
            whole = step @ whole
        inverses.append(torch.linalg.inv(whole))
    expected = warp(images().double(), torch.stack(inverses)).float()
    found = transform(images(), drawn, dataclasses.replace(ALL, colour=False))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


V = torch.full((3,), 1 / math.sqrt(3), dtype=torch.float64)
LUMA = torch.outer(V, V)


def hue(angle: float) -> Tensor:
    """A turn around the grey axis, by Rodrigues' formula."""
    cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    matrix = torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return matrix.double()


COLOURS: dict[str, tuple[float, Callable[[float], tuple[Tensor, Tensor]]]] = {
    "brightness": (0.3, lambda value: (torch.eye(3), value * torch.ones(3))),
    "contrast": (1.7, lambda value: (value * torch.eye(3), torch.zeros(3))),
    "luma_flip": (1.0, lambda value: (torch.eye(3) - 2 * value * LUMA, torch.zeros(3))),
    "hue": (2.1, lambda value: (hue(value), torch.zeros(3))),
    "saturation": (0.4, lambda value: (LUMA + value * (torch.eye(3) - LUMA), torch.zeros(3))),
}


def coloured(image: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """A matrix and an offset applied to the channels of an image [3, H, W]."""
    return (torch.einsum("ij,jhw->ihw", matrix.double(), image.double()) + offset[:, None, None]).float()


@pytest.mark.parametrize("name", COLOURS)
def test_each_change_of_colours_is_its_matrix(name: str) -> None:
    value, matrix = COLOURS[name]
    found = transform(images(1), only(1, **{name: torch.tensor([value])}), COLOUR)
    torch.testing.assert_close(found[0], coloured(images(1)[0], *matrix(value)))


def test_the_colours_change_in_the_order_of_the_paper() -> None:
    drawn = draw_transformations(torch.tensor(1.0), uniform())
    found = transform(images(), drawn, COLOUR)
    for row, image in enumerate(images()):
        expected = image
        for name, (_, matrix) in COLOURS.items():
            expected = coloured(expected, *matrix(float(getattr(drawn, name)[row])))
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-5)


def test_a_hue_turned_all_around_is_the_same() -> None:
    found = transform(images(1), only(1, hue=torch.tensor([2 * math.pi])), COLOUR)
    torch.testing.assert_close(found, images(1), rtol=0, atol=1e-6)


def test_grey_images_change_as_grey_rgb_images_do() -> None:
    drawn = draw_transformations(torch.tensor(1.0), uniform())
    grey = images(channels=1)
    expected = transform(grey.expand(-1, 3, -1, -1), drawn, COLOUR)
    torch.testing.assert_close(transform(grey, drawn, COLOUR).expand(-1, 3, -1, -1), expected, rtol=1e-5, atol=1e-5)


def test_colours_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        augment(images(channels=2), torch.tensor(0.5), uniform(), COLOUR)


def fields(drawn: Transformations) -> dict[str, Tensor]:
    return {field.name: getattr(drawn, field.name).double() for field in dataclasses.fields(drawn)}


def test_transformations_come_with_their_probability_each_on_its_own() -> None:
    rows, p = 20_000, 0.3
    drawn = fields(draw_transformations(torch.tensor(p), uniform(rows)))
    unchanged = {"scale": 1, "stretch": 1, "contrast": 1, "saturation": 1}
    expected = dict.fromkeys(drawn, p) | {"flip": p / 2, "luma_flip": p / 2, "quarter_turns": p * 3 / 4}
    expected |= {"turn": 1 - math.sqrt(1 - p), "second_turn": 1 - math.sqrt(1 - p)}
    changed = {}
    for name, value in drawn.items():
        changed[name] = value != unchanged.get(name, 0)
        if changed[name].dim() == 2:
            assert torch.equal(changed[name][:, 0], changed[name][:, 1]), "both directions, or none"
            changed[name] = changed[name][:, 0]
        assert float(changed[name].double().mean()) == pytest.approx(expected[name], abs=0.015), name
    either = (changed["turn"] | changed["second_turn"]).double().mean()
    assert float(either) == pytest.approx(p, abs=0.015)
    together = torch.corrcoef(torch.stack(list(changed.values())).double()) - torch.eye(len(changed))
    assert together.abs().max() < 0.04


NORMAL = {"offset": 0.125, "brightness": 0.2}
LOG_NORMAL = {"scale": 0.2, "stretch": 0.2, "contrast": 0.5, "saturation": 1.0}
EVEN = {"turn": math.pi, "second_turn": math.pi, "hue": math.pi, "shift": 0.125}
CHOICES = {"flip": 2, "quarter_turns": 4, "luma_flip": 2}


def test_the_values_have_the_distributions_of_the_paper() -> None:
    drawn = fields(draw_transformations(torch.tensor(1.0), uniform(20_000)))
    assert set(NORMAL) | set(LOG_NORMAL) | set(EVEN) | set(CHOICES) == set(drawn)
    for name, value in drawn.items():
        for numbers in value.unbind(1) if value.dim() == 2 else [value]:
            if name in CHOICES:
                counts = torch.bincount(numbers.long(), minlength=CHOICES[name])
                assert stats.chisquare(counts.numpy()).pvalue > 1e-3, name
                continue
            if name in NORMAL:
                expected = stats.norm(scale=NORMAL[name])
            elif name in LOG_NORMAL:
                expected = stats.lognorm(s=LOG_NORMAL[name] * math.log(2))
            else:
                expected = stats.uniform(-EVEN[name], 2 * EVEN[name])
            assert stats.kstest(numbers.numpy(), expected.cdf).pvalue > 1e-3, name
    for value in (drawn["shift"], drawn["offset"]):
        assert abs(float(torch.corrcoef(value.T)[0, 1])) < 0.03


def derivatives(image: Tensor) -> list[Tensor]:
    """An augmentation, a gradient through it, and the gradient of an R1 penalty of that gradient."""
    image = image.detach().requires_grad_()
    found = augment(image, torch.tensor(0.8), uniform(len(image)), ALL)
    (gradient,) = torch.autograd.grad(found.pow(3).sum(), image, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), image)
    return [found.detach(), gradient.detach(), second]


def test_a_gradient_penalty_goes_through_it_and_autocast_changes_no_bit() -> None:
    expected = derivatives(images())
    assert all(each.abs().sum() > 0 for each in expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(derivatives(images()), expected, rtol=0, atol=0)


def test_derivatives_are_right() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        image = images(2, 3, 4).double().requires_grad_()

        def augmented(image: Tensor) -> Tensor:
            return augment(image, torch.tensor(1.0), uniform(2), ALL)

        assert torch.autograd.gradcheck(augmented, image, fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda image: augmented(image).pow(3), image, fast_mode=True)
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradients_are_those_of_images_whether_resampled_or_not() -> None:
    """Gradients of each row are what it has alone."""
    image, towards = images().requires_grad_(), images(seed=5)
    numbers = uniform()
    numbers[:3] = 0.99  # above the probability: these rows stay as they are
    augment(image, torch.tensor(0.8), numbers, GEOMETRY).backward(towards)
    assert image.grad is not None
    assert torch.equal(image.grad[:3], towards[:3])
    for row in range(3, ROWS):
        alone = images()[[row]].requires_grad_()
        augment(alone, torch.tensor(0.8), numbers[[row]], GEOMETRY).backward(towards[[row]])
        assert alone.grad is not None
        torch.testing.assert_close(image.grad[[row]], alone.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_does_the_same() -> None:
    found = augment(images().cuda(), torch.tensor(0.8).cuda(), uniform().cuda(), ALL)
    expected = augment(images(), torch.tensor(0.8), uniform(), ALL)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-4)


BATCH = 10


def adaptive(target: float = 0.6) -> AdaptiveProbability:
    return AdaptiveProbability(Augmentation(target=target, adjustment_images=400), BATCH)


def logits(positive: int) -> Tensor:
    """Outputs for a batch of real images, so many of them positive."""
    return torch.cat([torch.full((positive,), 0.1), torch.full((BATCH - positive,), -7.0)])


def test_the_probability_rises_while_the_discriminator_overfits_and_falls_while_not() -> None:
    controller = adaptive()
    seen = []
    for positive in [9] * 12 + [7] * 8:
        controller.observe(logits(positive))
        seen.append(round(float(controller.probability), 6))
    rising = [0] * 3 + [0.1] * 4 + [0.2] * 4 + [0.3] * 4
    assert seen == [*rising, 0.2, 0.2, 0.2, 0.2, 0.1]


def test_what_counts_is_the_mean_of_the_signs_since_the_last_adjustment() -> None:
    controller = adaptive()
    for positive in (10, 10, 10, 0):  # a mean sign of 0.5
        controller.observe(logits(positive))
    assert float(controller.probability) == 0
    controller = adaptive(target=0.4)
    for positive in (10, 10, 10, 0):
        controller.observe(logits(positive))
    assert float(controller.probability) == pytest.approx(0.1)


def test_the_probability_stays_between_zero_and_one() -> None:
    controller = adaptive()
    for _ in range(60):
        controller.observe(logits(10))
    assert float(controller.probability) == 1
    for _ in range(60):
        controller.observe(logits(0))
    assert float(controller.probability) == 0


def test_it_rises_from_zero_to_one_over_the_adjustment_images() -> None:
    controller = adaptive()
    for _ in range(400 // BATCH):
        assert controller.probability < 0.99
        controller.observe(logits(10))
    assert float(controller.probability) == pytest.approx(1)


def test_parts_of_a_batch_in_any_order_give_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    whole, parts = adaptive(target=0.0), adaptive(target=0.0)
    for _ in range(50):
        values = torch.randn(BATCH, 1, generator=generator)
        whole.observe(values)
        for part in values[torch.randperm(BATCH, generator=generator)].split([3, 6, 1]):
            parts.observe(part)
        assert torch.equal(whole.probability, parts.probability)


def test_it_goes_on_where_it_was_saved() -> None:
    whole, first, second = adaptive(), adaptive(), adaptive()
    for step in range(30):
        whole.observe(logits(10))
        (first if step < 13 else second).observe(logits(10))
        if step == 12:
            second.load_state_dict(first.state_dict())
    assert whole.probability > 0
    assert second.state_dict() == whole.state_dict()
