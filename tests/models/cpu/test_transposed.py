from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.models.cpu import ConvTranspose2d
from genlab.models.cpu.transposed import FEW_CHANNELS, FEW_PIXELS, suits_inference


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [FEW_CHANNELS, FEW_CHANNELS + 1])
@pytest.mark.parametrize("size", [(2, 3), (10, 7)])
@pytest.mark.parametrize("shape", [{"stride": 1}, {"stride": 2, "output_padding": (0, 1)}, {"dilation": 2}])
def test_output_and_gradients_are_those_of_pytorchs_layer(
    layout: torch.memory_format, precision: str, bias: bool, channels: int, size: tuple[int, int], shape: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    pixels = size[0] * size[1]
    theirs = nn.ConvTranspose2d(6, channels, (3, 4), padding=(1, 2), bias=bias, **shape)
    ours = ConvTranspose2d(6, channels, (3, 4), padding=(1, 2), bias=bias, **shape)
    ours.load_state_dict(theirs.state_dict())

    def results(layer: nn.ConvTranspose2d) -> list[Tensor | None]:
        layer.to(memory_format=layout)
        image = torch.linspace(-1, 1, 12 * pixels).reshape(2, 6, *size).to(memory_format=layout).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = layer(image)
        output.float().square().mean().backward()
        return [output, image.grad, *(parameter.grad for parameter in layer.parameters())]

    expected, found = results(theirs), results(ours)
    rtol, atol = (1e-5, 1e-6) if precision == "fp32" else (1e-2, 1e-4)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    if channels > FEW_CHANNELS and 2 * pixels > FEW_PIXELS:  # oneDNN's own but for the bias
        torch.testing.assert_close(found[:3], expected[:3], rtol=0, atol=0)


def test_a_frozen_layer_passes_gradients_on_and_keeps_none() -> None:
    layer = ConvTranspose2d(3, 2, 4, stride=2, padding=1).requires_grad_(False)
    image = torch.ones(1, 3, 4, 4, requires_grad=True)
    layer(image).sum().backward()
    assert image.grad is not None
    assert all(parameter.grad is None for parameter in layer.parameters())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("channels", "side"), [(FEW_CHANNELS, 40), (16, 4)])
@pytest.mark.parametrize("shape", [{"stride": 1}, {"stride": 2, "output_padding": (0, 1)}, {"dilation": 2}])
def test_in_inference_an_image_gives_what_pytorchs_layer_does_and_the_same_bits_in_any_batch(
    layout: torch.memory_format, bias: bool, channels: int, side: int, shape: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    layer = ConvTranspose2d(32, channels, (3, 4), padding=(1, 2), bias=bias, **shape).to(memory_format=layout)
    images = torch.randn(5, 32, side, side).to(memory_format=layout)
    with torch.no_grad():
        expected = nn.ConvTranspose2d.forward(layer, images)
    with torch.inference_mode():
        together = layer(images)
        alone = torch.cat([layer(image[None]) for image in images])
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


def test_a_last_layer_of_an_image_is_not_left_to_onednn_in_inference() -> None:
    layer = ConvTranspose2d(16, 1, 5, stride=2)
    with torch.inference_mode():
        assert suits_inference(layer, torch.zeros(1, 16, 11, 11))
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.zeros(1, 16, 11, 11)).dtype == torch.bfloat16
