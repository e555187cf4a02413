"""Adversarial losses against values worked out by hand."""

import math

import pytest
import torch

from genlab.metrics.adversarial import AdversarialLoss, adversarial_loss

LOGITS = torch.tensor([[[[0.0, 2.0]], [[-1.0, 0.5]]]])


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


@pytest.mark.parametrize(
    ("kind", "real", "expected"),
    [
        ("lsgan", True, (1 + 1 + 4 + 0.25) / 4),
        ("lsgan", False, (0 + 4 + 1 + 0.25) / 4),
        ("bce", True, (softplus(0) + softplus(-2) + softplus(1) + softplus(-0.5)) / 4),
        ("bce", False, (softplus(0) + softplus(2) + softplus(-1) + softplus(0.5)) / 4),
    ],
)
def test_values_worked_out_by_hand(kind: AdversarialLoss, real: bool, expected: float) -> None:
    assert adversarial_loss(kind, LOGITS, real).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["lsgan", "bce"])
def test_the_loss_of_bf16_logits_is_taken_in_float32(kind: AdversarialLoss) -> None:
    logits = LOGITS.bfloat16()  # these values are exact in bf16
    loss = adversarial_loss(kind, logits, real=True)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, adversarial_loss(kind, LOGITS, real=True))
