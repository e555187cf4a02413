"""Derivatives of the layers: the second too, which gradient penalties (R1) and path lengths need."""

import dataclasses
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from genlab.models.cpu import Conv2d, ConvTranspose2d, bilinear, transposed, winograd

Layer = nn.Conv2d | nn.ConvTranspose2d
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd's algorithm for any number of channels, in as many chunks as there are rows of tiles."""
    for dtype, form in winograd.FORMS.items():
        monkeypatch.setitem(winograd.FORMS, dtype, dataclasses.replace(form, fewest_channels=1))
    monkeypatch.setattr(winograd, "CHUNK_BYTES", 1)


def checked(layer: Layer, image: Tensor, layout: torch.memory_format) -> None:
    """Compare first and second derivatives by input, weight and bias with differences of values."""
    layer = layer.double().to(memory_format=layout)
    names = [name for name, _ in layer.named_parameters()]

    def output(image: Tensor, *parameters: Tensor) -> Any:
        return functional_call(layer, dict(zip(names, parameters, strict=True)), image)

    image = image.double().to(memory_format=layout).requires_grad_()
    inputs = (image, *(parameter.detach().requires_grad_() for parameter in layer.parameters()))
    with mock.patch.object(bilinear, "convolve", wraps=bilinear.convolve) as ours:
        assert torch.autograd.gradcheck(output, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(output, inputs, fast_mode=True)
    assert ours.called, "PyTorch's own convolution was checked"


@pytest.mark.usefixtures("few_channels")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 2, 6, 6), (1, 2, 4, 8), (1, 2, 3, 3)])
def test_winograds_derivatives_are_right(shape: tuple[int, ...], bias: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    checked(Conv2d(2, 3, 3, bias=bias), torch.randn(shape), layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "geometry",
    [{}, {"stride": 2, "padding": 1}, {"stride": 2, "output_padding": (0, 1)}, {"dilation": 2}, {"groups": 2}],
)
@pytest.mark.parametrize(("few_pixels", "few_outputs"), [(True, True), (False, True), (False, False)])
def test_the_derivatives_of_a_transposed_convolution_are_right(
    few_pixels: bool,
    few_outputs: bool,
    geometry: dict[str, Any],
    bias: bool,
    layout: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transposed, "FEW_PIXELS", 1000 if few_pixels else 0)
    monkeypatch.setattr(transposed, "FEW_CHANNELS", 4 if few_outputs else 0)
    torch.manual_seed(0)
    checked(ConvTranspose2d(2, 2, (3, 2), bias=bias, **geometry), torch.randn(2, 2, 3, 2), layout)


LAYERS: dict[str, Callable[[], Layer]] = {
    "winograd": lambda: Conv2d(256, 256, 3),
    "transposed, few pixels": lambda: ConvTranspose2d(256, 8, 4, stride=2, padding=1),
    "transposed, few channels": lambda: ConvTranspose2d(256, 3, 4, stride=2, padding=1),
}


def penalised(layer: Layer, image: Tensor, precision: str) -> list[Tensor]:
    """The gradients of an R1 penalty, taken within autocast as in a training step: of the input and of the weight."""
    image = image.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        (gradient,) = torch.autograd.grad(layer(image).square().sum(), image, create_graph=True)
        penalty = gradient.square().sum()
    return list(torch.autograd.grad(penalty, (image, layer.weight)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_gradient_penalty_is_as_exact_as_with_pytorchs_layer(kind: str, precision: str) -> None:
    torch.manual_seed(0)
    ours = LAYERS[kind]()
    theirs = type(ours).__bases__[0](
        ours.in_channels, ours.out_channels, ours.kernel_size, stride=ours.stride, padding=ours.padding
    )
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(2, 256, 6 if kind.endswith("pixels") else 10, 9)
    found, direct = penalised(ours, image, precision), penalised(theirs, image, precision)
    expected = penalised(theirs.double(), image.double(), "fp32")
    for one, other, right in zip(direct, found, expected, strict=True):
        assert other.dtype == one.dtype
        error = (other - right).norm() / right.norm()
        assert error < (1e-5 if precision == "fp32" else 3 * (one - right).norm() / right.norm())


@pytest.mark.usefixtures("few_channels")
@pytest.mark.parametrize("layer", [Conv2d(2, 2, 3), ConvTranspose2d(2, 2, 3)])
def test_third_derivatives_are_right_too(layer: Layer) -> None:
    torch.manual_seed(0)
    layer = layer.double()

    def gradient(image: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(layer(image).pow(3).sum(), image, create_graph=True)
        return found

    image = torch.randn(1, 2, 4, 4).double().requires_grad_()
    assert torch.autograd.gradgradcheck(gradient, image, fast_mode=True)


def test_a_frozen_weight_is_left_out_of_second_derivatives() -> None:
    layer = ConvTranspose2d(2, 3, 4).requires_grad_(False)
    image = torch.ones(1, 2, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(image).square().sum(), image, create_graph=True)
    gradient.square().sum().backward()
    assert image.grad is not None
    assert layer.weight.grad is None
