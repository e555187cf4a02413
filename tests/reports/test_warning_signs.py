"""Signs that a GAN's training goes wrong: shown with their figures, and only where there are any."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.metrics.adversarial import AdversarialLoss, adversarial_loss
from genlab.metrics.image import mean_pairwise_distance
from genlab.reports.warning_signs import (
    always_wins,
    mode_collapse,
    overfits,
    rises,
    samples_alike,
    sure_of_training_images,
)


def lines(value: Callable[[float], float], count: int = 80, noise: float = 0.0) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl whose ``loss`` is a function of the share of the run that is done."""
    random = np.random.default_rng(0)
    shares = [(number + 1) / count for number in range(count)]
    return [{"images": 1000 * share, "loss": value(share) + noise * random.standard_normal()} for share in shares]


def colours(count: int, spread: float, seed: int = 0) -> Tensor:
    """Noise images around grey."""
    pixels = np.random.default_rng(seed).normal(128, spread, (count, 8, 8, 3))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("kind", ["lsgan", "bce"])
@pytest.mark.parametrize(("certainty", "wins"), [(0.95, True), (0.85, False), (0.5, False)])
def test_a_discriminator_that_is_sure_of_all_always_wins(kind: AdversarialLoss, certainty: float, wins: bool) -> None:
    """The loss of one that says ``certainty`` of real images, and as little of generated ones."""
    verdict = torch.tensor(certainty if kind == "lsgan" else math.log(certainty / (1 - certainty)))
    loss = adversarial_loss(kind, verdict, real=True).item()
    sign = always_wins(lines(lambda share: loss if share > 0.75 else 0.5), "loss", "b", kind)
    assert bool(sign) == wins
    if sign:
        assert sign.startswith("The discriminator of domain b always wins")
        assert f"its loss averaged {loss:.2g}" in sign


def test_a_discriminator_that_wins_at_first_or_for_a_while_does_not_always() -> None:
    assert always_wins(lines(lambda share: 0.001 if share <= 0.75 else 0.2), "loss", "a", "lsgan") is None
    assert always_wins(lines(lambda share: 0.001 if share < 0.95 else 0.2), "loss", "a", "lsgan") is None
    assert always_wins(lines(lambda share: 0.001, count=8), "loss", "a", "lsgan") is None, "too few to say always"


def test_a_loss_that_rises_says_from_what_to_what() -> None:
    sign = rises(lines(lambda share: 0.3 if share > 0.75 else 0.2), "loss", "cycle loss a → b → a")
    assert sign == (
        "The cycle loss a → b → a rises: "
        "it averaged 0.3 over the last quarter of the run, and 0.2 over the quarter before."
    )
    assert rises(lines(lambda share: 0.3 if share > 0.75 else 0.2, noise=0.05), "loss", "cycle loss")


@pytest.mark.parametrize(
    ("value", "noise", "count"),
    [
        (lambda share: 1 - 0.5 * share, 0.0, 80),  # falls
        (lambda share: 0.2, 0.05, 80),  # neither
        (lambda share: 0.21 if share > 0.75 else 0.2, 0.0, 80),  # by little
        (lambda share: 0.23 if share > 0.75 else 0.2, 0.15, 80),  # less than its noise
        (lambda share: 0.9 if share < 0.5 else 0.1, 0.0, 80),  # was high once
        (lambda share: share, 0.0, 12),  # too few lines to tell
    ],
)
def test_a_loss_that_does_not_rise_or_may_not_is_passed_over(
    value: Callable[[float], float], noise: float, count: int
) -> None:
    assert rises(lines(value, count, noise), "loss", "cycle loss") is None


def test_the_only_discriminator_of_a_run_is_not_named_by_a_domain_and_losses_may_be_sums() -> None:
    sign = always_wins(lines(lambda share: 0.2), "loss", None, "bce", terms=2)
    assert sign is not None
    assert sign.startswith("The discriminator always wins")
    assert "below 0.21" in sign
    assert always_wins(lines(lambda share: 0.22), "loss", None, "bce", terms=2) is None


def test_a_discriminator_that_recognises_training_images_for_long_is_sure_of_them() -> None:
    sign = sure_of_training_images(lines(lambda share: 0.9 if share > 0.7 else 0.3), "loss")
    assert sign is not None
    assert sign.startswith("The discriminator recognises 95% of the training images")
    for value in (lambda share: 0.9 if share < 0.5 else 0.6, lambda share: 0.75, lambda share: math.nan):
        assert sure_of_training_images(lines(value), "loss") is None
    assert sure_of_training_images(lines(lambda share: 0.9, count=8), "loss") is None, "too few to tell"


def logits(real: float, fake: float, held_out: float, noise: float = 0.0, count: int = 40) -> str | None:
    """What is said of a discriminator of these mean logits, those of held-out images in ``count`` noisy lines."""
    random = np.random.default_rng(0)
    train = [{"images": images, "real_logit": real, "fake_logit": fake} for images in range(10, 410, 10)]
    seen = np.linspace(0, 400, count + 1)[1:]
    return overfits(train, [{"images": x, "real_logit": held_out + noise * random.standard_normal()} for x in seen])


def test_a_discriminator_that_takes_held_out_images_for_generated_ones_overfits() -> None:
    sign = logits(1, -1, -0.8)
    assert sign is not None
    assert "1.00 for training images, -0.80 for held-out ones and -1.00 for generated ones" in sign
    assert "held-out images lie 90% of the way" in sign
    assert logits(1, -1, -0.8, noise=0.5)
    assert logits(1, -1, 0.2) is None
    assert logits(1, -1, -0.1, noise=1.0) is None, "within its noise"
    assert logits(-1, 1, 2) is None, "it has no idea"
    assert logits(1, -1, -0.8, count=4) is None, "too few to tell"
    assert logits(1, -1, math.nan) is None
    assert logits(1, -1, -0.8, count=0) is None, "no held-out images"


def test_samples_that_are_all_alike_are_a_sign() -> None:
    sign = samples_alike(colours(8, 10), colours(9, 50, seed=1))
    assert sign is not None
    assert sign.startswith("Samples are alike (mode collapse)")
    assert samples_alike(colours(8, 40), colours(9, 50, seed=1)) is None
    assert samples_alike(colours(1, 10), colours(9, 50)) is None, "one has nothing to differ from"


def test_losses_that_are_no_numbers_or_missing_bring_no_sign() -> None:
    broken = lines(lambda share: math.nan if share > 0.5 else 0.2)
    assert rises(broken, "loss", "cycle loss") is None
    assert always_wins(broken, "loss", "a", "lsgan") is None
    assert always_wins(broken, "other", "a", "lsgan") is None


def test_translations_that_lie_less_than_half_as_far_apart_are_alike() -> None:
    inputs, real = colours(10, 40), colours(12, 30, seed=1)
    sign = mode_collapse(inputs, colours(10, 10, seed=2), real, "a_to_b")
    assert sign is not None
    assert sign.startswith("Translations a → b are alike (mode collapse)")
    before, there = mean_pairwise_distance(inputs), mean_pairwise_distance(real)
    assert sign.endswith(f"two of their inputs by {before:.1f}, and two real images of b by {there:.1f}.")
    one = colours(1, 40).expand(10, -1, -1, -1)
    assert "differ by 0.0 levels" in (mode_collapse(inputs, one, real, "a_to_b") or "")


def test_translations_as_different_as_their_domain_have_not() -> None:
    inputs = colours(10, 40)
    assert mode_collapse(inputs, colours(10, 30, seed=2), colours(12, 40, seed=1), "a_to_b") is None
    assert mode_collapse(inputs, colours(10, 10, seed=2), colours(12, 10, seed=1), "a_to_b") is None, "nights are dark"
    assert mode_collapse(inputs[:1], inputs[:1], inputs, "a_to_b") is None, "one image is like no other"
