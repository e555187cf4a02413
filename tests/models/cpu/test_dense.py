"""Dense layers on a CPU: PyTorch's up to rounding, and the same bits for a row in every batch in inference mode."""

import pytest
import torch
import torch.nn.functional as F

from genlab.models.cpu import Linear, kernels
from genlab.models.equalized import EqualizedLinear


@pytest.mark.parametrize("layer", [Linear(300, 40), Linear(300, 40, bias=False), EqualizedLinear(300, 40, rate=0.01)])
def test_a_row_is_the_same_bits_in_every_batch(layer: Linear | EqualizedLinear) -> None:
    input = torch.randn(64, 300)
    with torch.inference_mode():
        alone = torch.cat([layer(row[None]) for row in input])
        for size in (2, 3, 4, 7, 16, 64):
            assert torch.equal(layer(input[:size]), alone[:size])


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_pytorchs_up_to_rounding(bias: bool) -> None:
    layer, input = Linear(300, 40, bias=bias), torch.randn(7, 300)
    expected = F.linear(input, layer.weight, layer.bias)
    assert torch.equal(layer(input), expected), "training is PyTorch's"
    with torch.inference_mode():
        torch.testing.assert_close(layer(input), expected)
        with kernels(False):
            assert torch.equal(layer(input), F.linear(input, layer.weight, layer.bias))
