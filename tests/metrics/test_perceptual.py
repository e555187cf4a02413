"""Perceptual distances that a gradient goes through."""

import pytest
import torch

from genlab.evaluation.extractors import EfficientNetLite
from genlab.metrics.image import perceptual_distance
from genlab.metrics.perceptual import PerceptualDistance, training_side


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_it_is_the_distance_that_evaluations_measure(images: torch.Tensor) -> None:
    extractor = EfficientNetLite("cpu")
    expected = perceptual_distance(*(extractor.layers_of_floats(one) for one in images))
    torch.testing.assert_close(PerceptualDistance()(*images), expected)


def test_equal_images_have_none_and_grey_ones_count_as_colour(images: torch.Tensor) -> None:
    distance = PerceptualDistance(64)
    assert distance(images[0], images[0]).tolist() == [0, 0]
    grey = images[:, :, :1]
    torch.testing.assert_close(distance(*grey), distance(*grey.expand(-1, -1, 3, -1, -1)))


def test_a_gradient_leads_to_the_reference(images: torch.Tensor) -> None:
    distance, moved = PerceptualDistance(64), images[0].clone().requires_grad_()
    before = distance(moved, images[1]).sum()
    (gradient,) = torch.autograd.grad(before, moved)
    step = 1e-3 * gradient / gradient.norm()
    assert distance(moved.detach() - step, images[1]).sum() < before


@pytest.mark.parametrize(("side", "expected"), [(8, 64), (100, 100), (1024, 224)])
def test_training_compares_images_at_a_side_that_suits_the_network(side: int, expected: int) -> None:
    assert training_side(side) == expected
