"""Signs that adversarial training goes wrong: each function returns a sentence with numbers, or ``None``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from genlab.metrics.adversarial import AdversarialLoss
from genlab.metrics.image import mean_pairwise_distance

NEARLY_SURE_LOSS: Mapping[AdversarialLoss, float] = {"lsgan": 0.1**2, "bce": -math.log(0.9)}
"""A discriminator's loss when it outputs 0.9 for every real image and 0.1 for every generated one. Losses are positive,
so a mean below it leaves no room for doubt: outputs of 1/2 for one image in 25 alone would reach it (lsgan; bce: one
in 7)."""
UNDECIDED_LOSS: Mapping[AdversarialLoss, float] = {"lsgan": 0.5**2, "bce": math.log(2)}
"""A discriminator's loss when it outputs probability 1/2 for every image."""
FEWEST_LINES = 5
"""Fewest lines of metrics in each of two quarters that are compared: with fewer, the standard error is a guess."""
LEAST_RISE, LEAST_STANDARD_ERRORS = 1.1, 3.0
"""A loss rises if it is higher by a tenth, since less matters little, and by three standard errors of the difference,
which chance alone brings about once in 700 times."""
COLLAPSE_RATIO = 0.5
"""A generator has collapsed if its translations differ from each other less than this times as much as inputs or real
images do: three quarters of the squared differences between images are gone then."""


def always_wins(train: Sequence[Mapping[str, Any]], metric: str, domain: str, kind: AdversarialLoss) -> str | None:
    """Tell whether the discriminator of ``domain`` was nearly sure of all that it saw in the last quarter of a run.

    Args:
        train: lines of ``metrics.jsonl``.
        metric: the name of its loss in them.
        domain: the domain whose images it knows.
        kind: the kind of the loss.
    """
    _, last = _last_quarters(train, metric)
    if len(last) < FEWEST_LINES or not last.mean() < NEARLY_SURE_LOSS[kind]:
        return None
    return (
        f"The discriminator of domain {domain} always wins, so the generator learns little from it: its loss averaged "
        f"{last.mean():.2g} over the last quarter of the run (below {NEARLY_SURE_LOSS[kind]:.2g} it is nearly sure of "
        f"every image; at {UNDECIDED_LOSS[kind]:.2g} it cannot tell)."
    )


def rises(train: Sequence[Mapping[str, Any]], metric: str, name: str) -> str | None:
    """Tell whether a loss was higher in the last quarter of a run than in the one before, beyond its noise.

    Args:
        train: lines of ``metrics.jsonl``.
        metric: the name of the loss in them.
        name: the name of the loss in the sentence.
    """
    before, last = _last_quarters(train, metric)
    if min(len(before), len(last)) < FEWEST_LINES:
        return None
    error = math.sqrt(before.var(ddof=1) / len(before) + last.var(ddof=1) / len(last))
    least = max(LEAST_RISE * before.mean(), before.mean() + LEAST_STANDARD_ERRORS * error)
    if last.mean() <= least:
        return None
    return (
        f"The {name} rises: it averaged {last.mean():.3g} over the last quarter of the run, and {before.mean():.3g} "
        "over the quarter before."
    )


def mode_collapse(inputs: Tensor, translated: Tensor, real: Tensor, direction: str) -> str | None:
    """Tell whether translations are more alike than their inputs are, and than real images of the domain.

    They are compared with both, since the images of a domain may differ little: nights, being dark, differ less than
    days.

    Args:
        inputs: uint8 [N, H, W, C].
        translated: what became of them, uint8 [N, H, W, C].
        real: images of the domain they were translated into, uint8 [M, H, W, C].
        direction: such as ``a_to_b``.
    """
    source, _, target = direction.partition("_to_")
    if min(len(inputs), len(real)) < 2:
        return None
    made, before, target_distance = (mean_pairwise_distance(images) for images in (translated, inputs, real))
    if made >= COLLAPSE_RATIO * min(before, target_distance):
        return None
    return (
        f"Translations {source} → {target} are alike (mode collapse): two of them differ by {made:.1f} levels on "
        f"average (root mean square), two of their inputs by {before:.1f}, and two real images of {target} by "
        f"{target_distance:.1f}."
    )


def _last_quarters(train: Sequence[Mapping[str, Any]], metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values of ``metric`` in the third quarter of the images seen, and in the last: [N], [M]."""
    seen = train[-1]["images"]
    points = [(line["images"] / seen, line[metric]) for line in train if metric in line]
    share, values = np.array(points, float).reshape(-1, 2).T
    finite = np.isfinite(values)  # a run that diverged has others
    return values[finite & (share > 0.5) & (share <= 0.75)], values[finite & (share > 0.75)]
