"""Adversarial losses, computed from a discriminator's logits."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.models.precision import full_precision

AdversarialLoss = Literal["lsgan", "bce"]
"""``lsgan``: least squares (Mao et al. 2017, ICCV), as in the CycleGAN paper. ``bce``: binary cross-entropy (Goodfellow
et al. 2014, NeurIPS)."""


def adversarial_loss(kind: AdversarialLoss, logits: Tensor, real: bool) -> Tensor:
    """Return the mean loss of classifying images with ``logits``, of any shape, as real or fake: a scalar.

    Args:
        kind: which loss.
        logits: output of a discriminator; positive means real.
        real: the class that the images are to have: real, or generated.

    Returns:
        In full precision, see :func:`genlab.models.precision.full_precision`.
    """
    logits = full_precision(logits)
    target = torch.full_like(logits, float(real))
    if kind == "lsgan":
        return F.mse_loss(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target)
