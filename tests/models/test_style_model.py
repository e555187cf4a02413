"""Ways along great circles."""

import math

import torch

from genlab.models.style_model import spherical_interpolation


def test_the_way_turns_evenly_and_its_length_changes_evenly() -> None:
    begin, end = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 4.0]])
    share = torch.linspace(0, 1, 4)[:, None]
    way = spherical_interpolation(begin, end, share)
    angle, length = share[:, 0] * math.pi / 2, 2 + 2 * share[:, 0]
    expected = torch.stack([length * angle.cos(), torch.zeros(4), length * angle.sin()], 1)
    torch.testing.assert_close(way, expected, atol=1e-6, rtol=1e-5)


def test_of_equal_vectors_all_the_way_is_one_point() -> None:
    points = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(spherical_interpolation(points, points, torch.rand(5, 1).double()), points)
