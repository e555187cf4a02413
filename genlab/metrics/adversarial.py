"""AdversarialLoss losses on a discriminator's logits."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.models.precision import full_precision

AdversarialLoss = Literal["lsgan", "bce"]
"""``lsgan``: least squares (Mao et al. 2017), as in the CycleGAN paper. ``bce``: cross-entropy (Goodfellow
et al. 2014)."""


def adversarial_loss(kind: AdversarialLoss, logits: Tensor, real: bool) -> Tensor:
    """Mean loss of calling ``logits`` (any shape) real or fake: a scalar in full precision."""
    logits = full_precision(logits)
    target = torch.full_like(logits, float(real))
    if kind == "lsgan":
        return F.mse_loss(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target)
