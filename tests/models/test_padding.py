import pytest
import torch
from torch import nn

from genlab.models.padding import Reflection, ReflectionPad2d, reflection_indices


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("pad", "height", "width"), [(1, 2, 7), (3, 4, 5), (3, 9, 16)])
def test_values_and_gradients_are_those_of_pytorchs_layer(
    layout: torch.memory_format, pad: int, height: int, width: int
) -> None:
    """Also where the borders mirror the same rows."""
    torch.manual_seed(0)
    values = torch.randn(2, 3, height, width, dtype=torch.float64).to(memory_format=layout)
    towards = torch.randn(2, 3, height + 2 * pad, width + 2 * pad, dtype=torch.float64).to(memory_format=layout)
    results = []
    for padded in (nn.ReflectionPad2d(pad), ReflectionPad2d(pad), lambda image: Reflection.apply(image, pad)):
        image = values.clone().requires_grad_()
        output = padded(image)
        output.backward(towards)
        results.append((output, image.grad))
    for found in results[1:]:
        torch.testing.assert_close(found, results[0])


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("pad", "height", "width"), [(1, 2, 4), (3, 4, 5)])
def test_second_derivatives_are_right(layout: torch.memory_format, pad: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 2, height, width, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(lambda image: Reflection.apply(image, pad), image, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda image: Reflection.apply(image, pad).square(), image, fast_mode=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_gradient_is_deterministic() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        image = torch.randn(2, 3, 16, 16, device="cuda", requires_grad=True)
        ReflectionPad2d(3)(image).square().sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert image.grad is not None
    theirs = image.detach().cpu().requires_grad_()
    nn.ReflectionPad2d(3)(theirs).square().sum().backward()
    torch.testing.assert_close(image.grad.cpu(), theirs.grad)


def test_a_reflection_goes_on_as_far_as_needed() -> None:
    cpu = torch.device("cpu")
    assert reflection_indices(4, 11, cpu).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2]
    assert reflection_indices(2, 5, cpu).tolist() == [0, 1, 0, 1, 0]
    assert reflection_indices(1, 3, cpu).tolist() == [0, 0, 0]
    assert reflection_indices(5, 5, cpu).tolist() == [0, 1, 2, 3, 4]
