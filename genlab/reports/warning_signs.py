"""Signs that adversarial training goes wrong: each function returns a sentence with numbers, or ``None``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from genlab.metrics.adversarial import AdversarialLoss
from genlab.metrics.image import mean_pairwise_distance

SURE: Mapping[AdversarialLoss, float] = {"lsgan": 0.1**2, "bce": -math.log(0.9)}
"""A discriminator's loss when every verdict is a tenth short of certainty: 0.9 for real images, 0.1 for generated ones.
Losses are positive, so a mean below it leaves no room for doubts: one undecided verdict in 25 alone would reach it
(lsgan; bce: one in 7)."""
UNDECIDED: Mapping[AdversarialLoss, float] = {"lsgan": 0.5**2, "bce": math.log(2)}
"""Its loss when it cannot tell one from the other, and says one half to both."""
FEWEST_LINES = 5
"""Lines of metrics in each of two quarters that are compared: of fewer, the standard error is itself a guess."""
RISE, ERRORS = 1.1, 3.0
"""A loss rises if it is higher by a tenth, since less matters little, and by three standard errors of the difference,
which chance alone brings about once in 700 times."""
ALIKE = 0.5
"""Translations are alike if they lie less than half as far apart as others do: three quarters of the squared
differences between images are gone then. A generator that makes one image of all leaves none."""


def always_wins(train: Sequence[Mapping[str, Any]], metric: str, domain: str, kind: AdversarialLoss) -> str | None:
    """Tell whether the discriminator of ``domain`` was nearly sure of all that it saw in the last quarter of a run.

    Args:
        train: lines of ``metrics.jsonl``.
        metric: the name of its loss in them.
        domain: the domain whose images it knows.
        kind: the kind of the loss.
    """
    _, last = _last_quarters(train, metric)
    if len(last) < FEWEST_LINES or not last.mean() < SURE[kind]:
        return None
    return (
        f"The discriminator of domain {domain} always wins, so the generator learns little from it: its loss averaged "
        f"{last.mean():.2g} over the last quarter of the run (below {SURE[kind]:.2g} it is nearly sure of every image; "
        f"at {UNDECIDED[kind]:.2g} it cannot tell)."
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
    if last.mean() <= RISE * before.mean() or last.mean() <= before.mean() + ERRORS * error:
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
    made, before, there = (mean_pairwise_distance(images) for images in (translated, inputs, real))
    if made >= ALIKE * min(before, there):
        return None
    return (
        f"Translations {source} → {target} are alike (mode collapse): two of them differ by {made:.1f} levels on "
        f"average (root mean square), two of their inputs by {before:.1f}, and two real images of {target} by "
        f"{there:.1f}."
    )


def _last_quarters(train: Sequence[Mapping[str, Any]], metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values of ``metric`` in the third quarter of the images seen, and in the last: [N], [M]."""
    seen = train[-1]["images"]
    points = [(line["images"] / seen, line[metric]) for line in train if metric in line]
    share, values = np.array(points, float).reshape(-1, 2).T
    known = np.isfinite(values)  # a run that diverged has others
    return values[known & (share > 0.5) & (share <= 0.75)], values[known & (share > 0.75)]
