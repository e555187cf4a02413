"""The methods, on tensors whose directions are known."""

import pytest
import torch

from genlab.editing.latent_fits import (
    Whitening,
    channel_relevance,
    fit_linear,
    fitted_without,
    project_out,
    sefa_directions,
    undisturbing,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_whitened_samples_have_unit_covariance() -> None:
    w = normal(500, 4) @ normal(4, 4, seed=1) + 3
    whitening = Whitening.of(w)
    torch.testing.assert_close(whitening.whiten(w).T.cov(), torch.eye(4, dtype=torch.float64))
    apart = w[:3] - w[3:6]
    mahalanobis = (apart @ torch.linalg.inv(w.T.cov()) * apart).sum(1).sqrt()
    torch.testing.assert_close(whitening.length(apart), mahalanobis)


def test_a_linear_function_is_found_and_told_of_samples_that_it_was_not_fitted_on() -> None:
    x, coefficients = normal(2000, 5), normal(5, 2, seed=1)
    values = x @ coefficients + torch.tensor([30.0, -2.0])
    found, offset = fit_linear(x, values)
    torch.testing.assert_close(found, coefficients, atol=1e-3, rtol=0)
    torch.testing.assert_close(offset, torch.tensor([30.0, -2.0], dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(fitted_without(x, values), values, atol=1e-2, rtol=0)


def test_noise_in_many_dimensions_is_not_told() -> None:
    x, values = normal(300, 100), normal(300, 1, seed=1)
    told = fitted_without(x, values)
    assert (values - told).square().mean() > values.square().mean()


def test_others_stay_the_same_along_what_is_left() -> None:
    normals = normal(6, 3)
    left = project_out(normals[:, 0], normals[:, 1:])
    assert left is not None
    torch.testing.assert_close(left @ normals[:, 1:], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(left.norm(), torch.tensor(1.0, dtype=torch.float64))
    assert left @ normals[:, 0] > 0
    assert project_out(normals[:, 1], normals[:, 1:]) is None
    torch.testing.assert_close(project_out(normals[:, 0], normals[:, :0]), normals[:, 0] / normals[:, 0].norm())


def test_sefa_is_what_changes_styles_most() -> None:
    weights = normal(5, 40)
    found = sefa_directions(weights, 8)
    assert found.shape == (5, 5)
    torch.testing.assert_close(found @ found.T, torch.eye(5, dtype=torch.float64))
    scaled = weights / weights.norm(dim=0)
    changes = (found @ scaled).norm(dim=1)
    assert changes.tolist() == sorted(changes.tolist(), reverse=True)
    others = torch.nn.functional.normalize(normal(200, 5, seed=1))
    assert (others @ scaled).norm(dim=1).max() <= changes[0]


def test_the_channel_of_an_attribute_is_the_most_relevant() -> None:
    styles = normal(1000, 6) * torch.tensor([1.0, 5, 0.1, 1, 1, 0]) + 2
    exemplars = styles[:, 2].argsort(descending=True)[:50]
    relevance = channel_relevance(styles, exemplars)
    assert relevance.argmax() == 2
    assert relevance[5] == 0
    shown = (styles[exemplars, 2] - styles[:, 2].mean()) / styles[:, 2].std()
    torch.testing.assert_close(relevance[2], shown.mean().abs() / shown.std())


def test_what_changes_another_function_to_this_side_or_that_is_avoided() -> None:
    """The other changes along the first axis, up in one half of the samples and down in the other: 0 on average."""
    gradients = torch.tensor([[1.0, 1, 0]] * 10, dtype=torch.float64)
    others = torch.zeros(10, 1, 3, dtype=torch.float64)
    others[:5, 0, 0], others[5:, 0, 0] = 1.0, -1.0
    direction = undisturbing(gradients, others)
    assert direction is not None
    assert float(direction.norm()) == pytest.approx(1)
    assert float(direction[1]) > 0.9
    assert 0 < float(direction[0]) < 0.15
    alone = undisturbing(gradients, others[:, :0])
    assert alone is not None
    torch.testing.assert_close(alone, gradients[0] / 2**0.5)
    assert undisturbing(gradients * 0, others) is None
