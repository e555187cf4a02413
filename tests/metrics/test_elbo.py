"""The KL term in closed form, against the integral it stands for."""

import pytest
import torch

from genlab.metrics.elbo import gaussian_kl


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
