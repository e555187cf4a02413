"""Progressive growing as a function of the images seen."""

import math

import pytest

from genlab.recipes.growth import Growth

GROWTH = Growth(first=8, stable_images=100, fade_images=50)


@pytest.mark.parametrize(
    ("images", "level"),
    [
        (0, 3),
        (100, 3),
        (101, 3.02),
        (125, 3.5),
        (149, 3.98),
        (150, 4),
        (250, 4),
        (275, 4.5),
        (300, 5),
        (401, 5),
        (10**9, 5),
    ],
)
def test_a_resolution_is_trained_and_then_the_next_fades_in(images: int, level: float) -> None:
    assert GROWTH.level(images, 32) == pytest.approx(level)


def test_it_never_shrinks_and_ends_with_the_last_resolution() -> None:
    levels = [GROWTH.level(images, 16) for images in range(500)]
    assert levels == sorted(levels)
    assert (levels[0], levels[-1]) == (3, 4)
    assert GROWTH.level(0, 8) == GROWTH.level(10**6, 8) == 3, "images that are as small as the first resolution"
    assert Growth(first=64).level(0, 16) == 4


@pytest.mark.parametrize("batch", [1, 7, 30, 32, 50, 149])
def test_each_resolution_begins_in_one_step(batch: int) -> None:
    steps = [images for images in range(0, 1000, batch) if GROWTH.begins_resolution(images, batch, 32)]
    assert len(steps) == 2
    for begin, level in zip(steps, (3, 4), strict=True):
        assert math.ceil(GROWTH.level(begin, 32)) == level + 1, "the first step that has the new layers"
        assert GROWTH.level(begin - batch, 32) <= level, "and the one before had not"
