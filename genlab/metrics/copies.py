"""A test of whether generated images are copies of training images (Meehan et al. 2020, AISTATS, arXiv:2004.05675)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.metrics.intervals import FEWEST, Interval, proportion_interval


@dataclass(frozen=True)
class NearerShare:
    """How often a generated image is nearer to the training images than a held-out one."""

    value: float
    """Share of pairs, in [0, 1]."""
    interval: Interval | None
    """Confidence interval of 95%, over draws of both sets; ``None`` where they are too small."""


def nearer_share(generated: Tensor, held_out: Tensor) -> NearerShare:
    """Return the share of pairs in which the generated image is nearer to its nearest training image.

    It is Mann & Whitney's statistic (1947), by which Meehan et al. test for copies: one half where generated images
    are as near to training images as new images of the same distribution are, near 1 where they are copies, below one
    half where they are unlike real images. Equal distances count one half.

    Its variance is that of DeLong et al. 1988; if it is that of a proportion of n trials, the interval is Wilson's.

    Args:
        generated: distance of each generated image to the nearest training image, [N].
        held_out: the same of each held-out image, [M].
    """
    of_generated, of_held_out = _share_above(held_out, generated), 1 - _share_above(generated, held_out)
    value, counts = float(of_generated.mean()), (len(generated), len(held_out))
    if min(counts) < FEWEST:
        return NearerShare(value, None)
    variance = float(of_generated.var() / counts[0] + of_held_out.var() / counts[1])
    # It is 0 at either end, where all that is known is that no image of the smaller set was otherwise.
    trials = value * (1 - value) / variance if variance > 0 else min(counts)
    return NearerShare(value, proportion_interval(value * trials, trials))


def _share_above(values: Tensor, points: Tensor) -> Tensor:
    """Return the share of ``values``, [M], above each of ``points``, equal ones counting half: float64 [N]."""
    ordered, points = values.double().sort().values, points.double()
    below, up_to = (torch.searchsorted(ordered, points, right=right) for right in (False, True))
    return 1 - (below + up_to).double() / (2 * len(ordered))
