"""The ELBO and its parts, against the integrals they stand for."""

import pytest
import torch
from torch import Tensor

from genlab.metrics.elbo import (
    active_units,
    gaussian_kl,
    importance_weighted_bounds,
    log_importance_weight,
    negative_log_likelihood,
)


def log_weights(errors: Tensor, latents: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of K draws for each of N images, [K, N]."""
    spread = [one.expand_as(latents).flatten(0, 1) for one in (mean, log_variance)]
    return log_importance_weight(errors.flatten(), latents.flatten(0, 1), *spread).view_as(errors)


def test_the_prior_is_at_distance_zero_from_itself() -> None:
    assert torch.equal(gaussian_kl(torch.zeros(3, 5), torch.zeros(3, 5)), torch.zeros(3))


def test_values_worked_out_by_hand() -> None:
    mean = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    log_variance = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    # A shift by μ costs μ²/2; a variance v costs (v - 1 - ln v)/2.
    expected = [0.5 * (1 + 4), 0.5 * (torch.e - 2) + 0.5 * (1 / torch.e)]
    assert gaussian_kl(mean, log_variance).tolist() == pytest.approx(expected)


def test_the_closed_form_is_the_mean_log_ratio_of_the_densities() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    log_variance = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    draws = mean + (0.5 * log_variance).exp() * torch.randn(100_000, 4, 3, generator=generator, dtype=torch.float64)
    ratios = (posterior.log_prob(draws) - prior.log_prob(draws)).sum(2)
    error = ratios.std(0) / len(draws) ** 0.5
    assert ((gaussian_kl(mean, log_variance) - ratios.mean(0)).abs() < 4 * error).all()


def test_the_mean_log_importance_weight_is_the_elbo() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    draws = 20_000
    latents = mean + (0.5 * log_variance).exp() * torch.randn(draws, 3, 4, generator=generator, dtype=torch.float64)
    weights = log_weights(torch.ones(draws, 3), latents, mean, log_variance)
    error = weights.std(0) / draws**0.5
    assert ((weights.mean(0) - (-1 - gaussian_kl(mean, log_variance))).abs() < 4 * error).all()


def test_the_importance_weighted_bound_rises_to_the_evidence() -> None:
    """A linear model, whose evidence is known: z ~ N(0, 1), x|z ~ N(z, 1), so x ~ N(0, 2)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
    evidence = torch.distributions.Normal(0.0, 2**0.5).log_prob(x)
    mean, log_variance = 0.3 * x[:, None], torch.zeros(3, 1, dtype=torch.float64)  # not the true posterior

    def bound(draws: int) -> Tensor:
        latents = mean + torch.randn(draws, 3, 1, generator=generator, dtype=torch.float64)
        errors = -torch.distributions.Normal(latents[..., 0], 1.0).log_prob(x)
        return importance_weighted_bounds([log_weights(errors, latents, mean, log_variance)], [draws])[0]

    coarse = torch.stack([bound(1) for _ in range(400)]).mean(0)
    assert (coarse < evidence - 0.05).all()
    torch.testing.assert_close(bound(10_000), evidence, atol=0.05, rtol=0)


def test_bounds_of_blocks_are_those_of_all_draws_at_once() -> None:
    weights = 40 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack([weights[:count].exp().mean(0).log() for count in (1, 7, 8, 20)])
    for size in (1, 7, 20):
        torch.testing.assert_close(importance_weighted_bounds(weights.split(size), (1, 7, 8, 20)), expected)


def test_likelihoods_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, images = torch.randn(3, 2, 4, 5, generator=generator), torch.rand(3, 2, 4, 5, generator=generator)
    bernoulli = torch.distributions.Bernoulli(logits=logits, validate_args=False)
    for kind, pixels in (("bernoulli", images), ("binary", images.round())):
        expected = -bernoulli.log_prob(pixels).sum((1, 2, 3))
        torch.testing.assert_close(negative_log_likelihood(kind, logits, pixels), expected)  # type: ignore[arg-type]
    sigma = torch.tensor(0.2)
    total = (sigma.square() + 255**-2).sqrt()
    mass = torch.distributions.Normal(logits.sigmoid(), total).log_prob(images) - torch.tensor(255.0).log()
    error = negative_log_likelihood("gaussian", logits, images, sigma.log())
    torch.testing.assert_close(error, -mass.sum((1, 2, 3)))


def test_units_that_do_not_vary_are_not_active() -> None:
    means = torch.stack([torch.linspace(-1, 1, 50), torch.linspace(-0.1, 0.1, 50), torch.zeros(50)], dim=1)
    assert active_units(means) == 1


@pytest.mark.parametrize("sigma", [1e-6, 0.3 / 255, 1 / 255, 0.1])
def test_all_levels_of_a_pixel_together_are_as_likely_as_can_be_and_no_more(sigma: float) -> None:
    levels = torch.arange(256, dtype=torch.float64).reshape(256, 1, 1, 1) / 255
    for mean in (100.0, 100.5):
        logits = torch.tensor(mean / 255, dtype=torch.float64).logit().expand_as(levels)
        error = negative_log_likelihood("gaussian", logits, levels, torch.tensor(sigma).double().log())
        assert error.neg().exp().sum().item() == pytest.approx(1, abs=1e-3)
