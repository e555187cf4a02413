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
"""A generator has collapsed if its images differ from each other less than this times as much as inputs or real images
do: three quarters of the squared differences between images are gone then."""
SURE_SIGN = 0.8
"""Mean sign of a discriminator's logits of training images above which it recognises nine of ten; Karras et al. 2020,
arXiv:2006.06676, hold it at 0.6."""
OVERFITTING_SHARE = 0.5
"""Share of the way from training images' logits to those of generated ones at which held-out images lie when a
discriminator overfits; at 1 it takes them for generated ones."""


def always_wins(
    train: Sequence[Mapping[str, Any]], metric: str, domain: str | None, kind: AdversarialLoss, terms: int = 1
) -> str | None:
    """Tell whether a discriminator was nearly sure of all that it saw in the last quarter of a run.

    Args:
        train: lines of ``metrics.jsonl``.
        metric: the name of its loss in them.
        domain: the domain whose images it knows, where there are several.
        kind: the kind of the loss.
        terms: 1 for a mean of the losses of real and generated images, 2 for their sum.
    """
    _, last = _last_quarters(train, metric)
    sure, undecided = terms * NEARLY_SURE_LOSS[kind], terms * UNDECIDED_LOSS[kind]
    if len(last) < FEWEST_LINES or not last.mean() < sure:
        return None
    of = f" of domain {domain}" if domain else ""
    return (
        f"The discriminator{of} always wins, so the generator learns little from it: its loss averaged "
        f"{last.mean():.2g} over the last quarter of the run (below {sure:.2g} it is nearly sure of "
        f"every image; at {undecided:.2g} it cannot tell)."
    )


def sure_of_training_images(train: Sequence[Mapping[str, Any]], metric: str) -> str | None:
    """Tell whether a discriminator recognised nine of ten training images in the last quarter of a run.

    It is the heuristic r_t of Karras et al. 2020 (arXiv:2006.06676, equation 1), by which they adapt augmentation.

    Args:
        train: lines of ``metrics.jsonl``.
        metric: the name of the mean sign of its logits of training images in them, -1..1.
    """
    _, last = _last_quarters(train, metric)
    if len(last) < FEWEST_LINES or not last.mean() > SURE_SIGN:
        return None
    return (
        f"The discriminator recognises {(1 + last.mean()) / 2:.0%} of the training images, so it wins or learns them "
        f"by heart: r_t, the mean sign of its logits, averaged {last.mean():.2f} over the last quarter of the run (0.6 "
        "is what adaptive augmentation aims at). Augmentation or a larger weight of R1 hold it back."
    )


def overfits(train: Sequence[Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]]) -> str | None:
    """Tell whether a discriminator judged held-out images like generated ones in the last quarter of a run.

    It is the heuristic r_v of Karras et al. 2020 (arXiv:2006.06676, equation 1): the share of the way from the mean
    logit of training images to that of generated ones at which the mean logit of held-out images lies.

    Args:
        train: lines of ``metrics.jsonl`` with ``real_logit`` and ``fake_logit``.
        held_out: those of held-out images, with ``real_logit``; none where no images are held out.
    """
    seen = train[-1]["images"]
    unseen = _of_last_quarter(held_out, "real_logit", seen)
    real, fake = (_of_last_quarter(train, name, seen) for name in ("real_logit", "fake_logit"))
    if min(len(real), len(fake), len(unseen)) < FEWEST_LINES:
        return None
    gap = real.mean() - fake.mean()
    error = unseen.std(ddof=1) / math.sqrt(len(unseen))
    if not unseen.mean() + LEAST_STANDARD_ERRORS * error < real.mean() - OVERFITTING_SHARE * gap < real.mean():
        return None
    share = (real.mean() - unseen.mean()) / gap
    return (
        f"The discriminator overfits: over the last quarter of the run its logits averaged {real.mean():.2f} for "
        f"training images, {unseen.mean():.2f} for held-out ones and {fake.mean():.2f} for generated ones, so that "
        f"held-out images lie {share:.0%} of the way to generated ones. More images or augmentation would help."
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


def samples_alike(samples: Tensor, real: Tensor) -> str | None:
    """Tell whether samples are more alike than real images are, pixel by pixel.

    Args:
        samples: uint8 [N, H, W, C].
        real: uint8 [M, H, W, C].
    """
    if min(len(samples), len(real)) < 2:
        return None
    made, target = mean_pairwise_distance(samples), mean_pairwise_distance(real)
    if made >= COLLAPSE_RATIO * target:
        return None
    return (
        f"Samples are alike (mode collapse): two of them differ by {made:.1f} levels on average (root mean square), "
        f"two real images by {target:.1f}."
    )


def _of_last_quarter(lines: Sequence[Mapping[str, Any]], metric: str, seen: int) -> NDArray[np.float64]:
    """Return the finite values of ``metric`` in the last quarter of ``seen`` images: [N]."""
    values = np.array([line[metric] for line in lines if metric in line and line["images"] > 0.75 * seen], float)
    return values[np.isfinite(values)]


def _last_quarters(train: Sequence[Mapping[str, Any]], metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values of ``metric`` in the third quarter of the images seen, and in the last: [N], [M]."""
    seen = train[-1]["images"]
    points = [(line["images"] / seen, line[metric]) for line in train if metric in line]
    share, values = np.array(points, float).reshape(-1, 2).T
    finite = np.isfinite(values)  # a run that diverged has others
    return values[finite & (share > 0.5) & (share <= 0.75)], values[finite & (share > 0.75)]
