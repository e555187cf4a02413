"""The paper's generator against its published layer plan."""

import pytest
import torch
from torch import Tensor, nn

from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.pixels import from_signed, to_signed
from genlab.models.resnet import ResNet
from tests.models.published import published_resnet


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("blocks", "parameters"), [(6, 7_837_699), (9, 11_378_179)])
def test_the_resnet_has_the_published_names_shapes_and_parameters(blocks: int, parameters: int) -> None:
    with torch.device("meta"):
        network = ResNet(3, 64, blocks)
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
        assert list(shapes(network).items()) == list(shapes(published_resnet(3, 64, blocks)).items())
        assert network(torch.empty(1, 3, 128, 256)).shape == (1, 3, 128, 256)


def with_contrast(network: nn.Module) -> dict[str, Tensor]:
    """Its weights, drawn so that biases and every layer matter."""
    return {name: torch.randn_like(tensor) / 4 for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("channels", [1, 4])
def test_outputs_and_gradients_are_the_published_layers(channels: int) -> None:
    torch.manual_seed(0)
    ours, theirs = ResNet(channels, 4, 6).double(), published_resnet(channels, 4, 6).double()
    weights = with_contrast(theirs)
    images = torch.rand(2, channels, 12, 8, dtype=torch.float64) * 2 - 1
    results = []
    for network in (ours, theirs):
        network.load_state_dict(weights)
        image = images.clone().requires_grad_()
        output = network(image)
        output.square().sum().backward()
        # Those of biases before a norm are zero but for rounding.
        results.append([output, image.grad, *(parameter.grad for parameter in network.parameters())])
    assert results[0][0].std() > 0.1
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-8)


def test_it_is_initialised_as_published() -> None:
    torch.manual_seed(0)
    network = ResNet(3, 16, 6)
    weights = torch.cat([value.flatten() for name, value in network.named_parameters() if name.endswith("weight")])
    assert weights.mean().abs() < 1e-4
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert not any(value.any() for name, value in network.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 30), (8, 12), (45, 33)])
def test_a_model_of_resnets_translates_pictures_of_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = CycleGAN((32, 32, 3), CycleGANArchitecture("resnet-6", width=4)).eval()
    pixels = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    translated = model.translate(pixels)
    assert translated.shape == pixels.shape
    if size == (8, 12):
        assert torch.equal(translated, from_signed(model.a_to_b(to_signed(pixels)))), "a size that fits is not padded"


def test_what_does_not_suit_the_resnet_is_refused() -> None:
    for shape in ((30, 32, 3), (4, 4, 3)):
        with pytest.raises(ValueError, match=rf"{shape[0]}x{shape[1]} images do not suit the ResNet.*multiples of 4"):
            CycleGAN(shape, CycleGANArchitecture("resnet-9", width=4))
    with pytest.raises(ValueError, match=r"model\.levels is the U-Net's, and model\.generator is resnet-6"):
        CycleGAN((32, 32, 3), CycleGANArchitecture("resnet-6", levels=2))
