import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.models.cpu import Conv2d, winograd


def pair(channels: int = 64, out: int = 64, bias: bool = True) -> tuple[nn.Conv2d, Conv2d]:
    torch.manual_seed(0)
    theirs, ours = nn.Conv2d(channels, out, 3, bias=bias), Conv2d(channels, out, 3, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def results(layer: nn.Conv2d, images: Tensor) -> list[Tensor | None]:
    images = images.clone().requires_grad_()
    output = layer(images)
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return [output, images.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("shape", [(1, 64, 18, 18), (3, 64, 6, 10), (2, 64, 9, 16), (1, 64, 3, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("form", [winograd.F4, winograd.F2])
def test_output_and_gradients_are_those_of_a_convolution(
    shape: tuple[int, ...], layout: torch.memory_format, form: winograd.Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(winograd.FORMS, torch.float64, dataclasses.replace(form, fewest_channels=64))
    theirs, ours = (layer.double() for layer in pair(out=80))
    images = torch.randn(shape, dtype=torch.float64).to(memory_format=layout)
    torch.testing.assert_close(results(ours, images), results(theirs, images), rtol=1e-11, atol=1e-11)


def test_without_a_bias_it_is_the_same_convolution() -> None:
    theirs, ours = pair(bias=False)
    images = torch.randn(2, 64, 9, 16)
    torch.testing.assert_close(results(ours, images), results(theirs, images), rtol=1e-4, atol=1e-4)
    assert not torch.equal(ours(images), theirs(images)), "it is another sum"


@pytest.mark.parametrize("geometry", [{"padding": 1}, {"stride": 2}, {"dilation": 2}, {"groups": 2}])
def test_other_geometries_are_left_to_pytorch(geometry: dict[str, Any]) -> None:
    theirs, ours = nn.Conv2d(128, 128, 3, **geometry), Conv2d(128, 128, 3, **geometry)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 128, 9, 9)
    torch.testing.assert_close(results(ours, images), results(theirs, images), rtol=0, atol=0)


def test_pieces_are_as_good_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair()
    ours.double()
    images = torch.randn(3, 64, 18, 10, dtype=torch.float64)
    whole = results(ours, images)
    ours.zero_grad()
    row = winograd.F4.products * 2 * 64 * 8
    for size in (row, 3 * row, 9 * row):
        monkeypatch.setattr(winograd, "CHUNK_BYTES", size)
        ours.zero_grad()
        torch.testing.assert_close(results(ours, images), whole, rtol=1e-12, atol=1e-12)


def test_in_fp32_its_error_is_millionths() -> None:
    theirs, ours = pair(128, 128)
    images = torch.randn(1, 128, 34, 34)
    expected = results(theirs.double(), images.double())
    for found, right in zip(results(ours, images), expected, strict=True):
        assert found is not None
        assert right is not None
        assert (found - right).norm() / right.norm() < 1e-5


def test_in_bf16_its_error_is_about_that_of_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair(256, 256)
    images = torch.randn(2, 256, 33, 18)
    monkeypatch.setattr(winograd, "CHUNK_BYTES", winograd.F2.products * 8 * 256 * 2)  # a row of tiles: 32 sums of sums
    with torch.autocast("cpu", torch.bfloat16):
        direct, found = results(theirs, images), results(ours, images)
    assert not torch.equal(*(each[0] for each in (direct, found) if each[0] is not None)), "it is another sum"
    theirs.zero_grad()
    expected = results(theirs.double(), images.double())
    for one, other, right in zip(direct, found, expected, strict=True):
        assert one is not None
        assert other is not None
        assert right is not None
        assert other.dtype == one.dtype
        assert (other - right).norm() < 2.5 * (one - right).norm()


def test_what_is_frozen_gets_no_gradient() -> None:
    _, ours = pair()
    ours.requires_grad_(False)
    images = torch.randn(1, 64, 6, 6, requires_grad=True)
    ours(images).sum().backward()
    assert images.grad is not None
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_what_it_cannot_take_is_left_to_pytorch() -> None:
    _, ours = pair()
    assert ours(torch.rand(64, 5, 5)).shape == (64, 3, 3)
    with pytest.raises(RuntimeError):
        ours(torch.rand(1, 64, 2, 5))
    with pytest.raises(RuntimeError):
        ours(torch.rand(1, 64, 5, 5).bfloat16())
