"""Planes against a general minimiser, and separability of points whose entropies are known."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from genlab.metrics.separability import fit_plane, separability


def points(count: int, size: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_plane_is_the_minimum_of_its_loss(penalty: float, noise: float) -> None:
    x = points(200) + 0.3
    positive = x[:, 0] - x[:, 1] + noise * points(200, 1, seed=1)[:, 0] > 0.2

    def loss(plane: Tensor) -> Tensor:
        y = torch.where(positive, 1.0, -1.0).double()
        hinge = (1 - y * (x @ plane[:-1] + plane[-1])).clamp(min=0)
        return plane.square().sum() / 2 + penalty * hinge.square().sum()

    weights, bias = fit_plane(x, positive, penalty)
    found = loss(torch.cat([weights, weights.new_tensor([bias])]))
    best = minimize(lambda plane: float(loss(torch.from_numpy(plane))), np.zeros(6), tol=1e-10)
    assert float(found) <= best.fun * (1 + 1e-9)


def test_attributes_that_a_plane_tells_leave_nothing_unknown() -> None:
    x = points(4000)
    attributes = torch.stack([x[:, 0] > 0, x[:, 1] + x[:, 2] > 1], 1)
    assert separability(100 * x, attributes).value == pytest.approx(1, abs=0.1)


def test_attributes_that_points_do_not_show_keep_their_entropy() -> None:
    """Even where a plane could tell them apart, there being as many dimensions as points."""
    generator = torch.Generator().manual_seed(5)
    attributes = torch.rand(200, 3, generator=generator) < 0.5
    assert separability(points(200, 300), attributes).value == pytest.approx(8, rel=0.05)
    ring = points(2000, 2)
    assert separability(ring, ring.norm(dim=1, keepdim=True) > 1.1774).value == pytest.approx(2, rel=0.02)


def test_the_entropy_is_that_of_the_shares_on_each_side() -> None:
    """A fifth of each side is of the other kind: H is that of one in five."""
    x = 50 * points(4000, 1).sign()
    flipped = torch.arange(4000) % 5 == 0
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    found = separability(x, ((x[:, 0] > 0) ^ flipped)[:, None])
    assert found.value == pytest.approx(math.exp(entropy), rel=1e-3)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_an_attribute_that_all_points_have_is_known() -> None:
    assert separability(points(30), torch.ones(30, 1, dtype=torch.bool)).value == 1
    assert separability(points(24), torch.ones(24, 1, dtype=torch.bool)).interval is None
