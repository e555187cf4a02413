"""The evidence lower bound and its parts, in nats an image."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.models.latent_model import Likelihood

GREY_LEVEL = 1 / 255
"""The distance of neighbouring levels of 8-bit pixels in [0, 1]."""


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, I)) in nats: [N, D] and [N, D] → [N] (Kingma & Welling 2013, app. B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def negative_log_likelihood(
    likelihood: Likelihood, logits: Tensor, images: Tensor, log_sigma: Tensor | None = None
) -> Tensor:
    """−log p(x|z) of each image in nats, summed over its pixels and channels.

    Args:
        likelihood: see :data:`genlab.models.latent_model.Likelihood`.
        logits: [N, C, H, W]; the sigmoid of them is the mean of x.
        images: [N, C, H, W] in [0, 1]; 0 or 1 for ``binary``.
        log_sigma: log σ, scalar, for ``gaussian``. The density times the width of a grey level stands for the
            probability of one. The variance is σ² plus that width squared, so that this holds however small σ becomes:
            a narrower density would promise more than all levels together can have.

    Returns:
        [N].
    """
    if likelihood == "gaussian":
        if log_sigma is None:
            raise ValueError("a Gaussian likelihood needs log_sigma")
        variance = torch.exp(2 * log_sigma) + GREY_LEVEL**2
        constant = math.log(2 * math.pi) - 2 * math.log(GREY_LEVEL)
        squared = (images - logits.sigmoid()).square()
        return 0.5 * (squared / variance + variance.log() + constant).flatten(1).sum(1)
    return F.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).sum(1)


def log_importance_weight(error: Tensor, latents: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log p(x|z) p(z) / q(z|x) of each draw, whose mean over draws of z is the ELBO.

    Args:
        error: −log p(x|z), [N].
        latents: z drawn from q, [N, D].
        mean: of q(z|x), [N, D].
        log_variance: of q(z|x), [N, D].

    Returns:
        [N].
    """
    # The normalising constants of the two normal densities cancel.
    noise = (latents - mean).square() * torch.exp(-log_variance)
    return 0.5 * (noise + log_variance - latents.square()).sum(1) - error


def importance_weighted_bounds(blocks: Iterable[Tensor], draws: Sequence[int]) -> Tensor:
    """The K-sample bounds on log p(x) (Burda et al. 2016, eq. 8): the log of the mean of K weights, for several K.

    At K = 1 it is the ELBO with one draw; it rises towards log p(x) as K grows.

    Args:
        blocks: log weights of further draws, [k, N] each with any k; never held together.
        draws: the K wanted, ascending; each bound is of the first K draws.

    Returns:
        float64 [len(draws), N].
    """
    bounds: list[Tensor] = []
    done, total = 0, torch.tensor(-math.inf, dtype=torch.float64)
    for block in blocks:
        running = torch.logaddexp(total.to(block.device), torch.logcumsumexp(block.double(), 0))
        wanted = [count for count in draws if done < count <= done + len(block)]
        bounds += [running[count - done - 1] - math.log(count) for count in wanted]
        done, total = done + len(block), running[-1]
    return torch.stack(bounds)


def active_units(means: Tensor, threshold: float = 0.01) -> int:
    """Latent dimensions in use: those whose posterior mean varies over images by more than ``threshold``.

    Args:
        means: of q(z|x), [N, D].
        threshold: on the variance over the N images; 0.01 is that of Burda et al. 2016, section 5.2.
    """
    return int((means.var(0) > threshold).sum())
