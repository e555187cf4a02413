"""The evidence lower bound (ELBO; Kingma & Welling 2014, ICLR), its parts and tighter bounds, in nats an image."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.models.latent_model import Likelihood

GREY_LEVEL = 1 / 255
"""Distance between neighbouring levels of 8-bit pixels on the scale [0, 1]."""


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) ‖ N(0, I)) in nats, [N], of [N, D] each (Kingma & Welling 2014, app. B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def negative_log_likelihood(
    likelihood: Likelihood, logits: Tensor, images: Tensor, log_sigma: Tensor | None = None
) -> Tensor:
    """Return −log p(x|z) of each image in nats, the sum over its pixels and channels.

    Args:
        likelihood: see :data:`genlab.models.latent_model.Likelihood`.
        logits: [N, C, H, W]; their sigmoid is the mean of x.
        images: [N, C, H, W] in [0, 1]; 0 or 1 for ``binary``.
        log_sigma: log σ, a scalar, for ``gaussian``. The probability of a grey level is the density times the width of
            a level. The variance is σ² plus that width squared, so that this holds however small σ becomes: under a
            narrower density the levels would have a total probability above 1.

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
    """Return log p(x|z) p(z) / q(z|x) of each draw of z; its mean over draws is the ELBO.

    Args:
        error: −log p(x|z), [N].
        latents: z drawn from q(z|x), [N, D].
        mean: mean of q(z|x), [N, D].
        log_variance: log-variance of q(z|x), [N, D].

    Returns:
        [N].
    """
    # The normalising constants of the two normal densities cancel.
    noise = (latents - mean).square() * torch.exp(-log_variance)
    return 0.5 * (noise + log_variance - latents.square()).sum(1) - error


def importance_weighted_bounds(blocks: Iterable[Tensor], draws: Sequence[int]) -> Tensor:
    """Return K-sample bounds on log p(x): the log of the mean of K importance weights, for several K.

    These are the bounds of the importance weighted autoencoder (IWAE; Burda et al. 2016, ICLR, eq. 8). With K = 1 it is
    the ELBO with one draw; the bound rises towards log p(x) as K grows.

    Args:
        blocks: log weights, [k, N] each with any k, one block of draws after the other; one is in memory at a time.
        draws: the K, ascending; each bound takes the first K draws.

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
    """Count the active units: latent dimensions whose posterior mean varies over images by more than ``threshold``.

    Args:
        means: means of q(z|x), [N, D].
        threshold: least variance over the N images; 0.01 is that of Burda et al. 2016.
    """
    return int((means.var(0) > threshold).sum())
