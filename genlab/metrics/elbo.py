"""The parts of the evidence lower bound."""

from torch import Tensor


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, I)) in nats: [N, D] and [N, D] → [N] (Kingma & Welling 2013, app. B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
