"""The published networks, to the parameter, and what models do with pixels."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genlab.core.families import families
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.discriminators import PatchGAN
from genlab.models.model import model_type
from genlab.models.pixels import from_signed, from_unit, to_signed, to_unit
from genlab.models.unet import UNet, max_levels
from genlab.models.vae import VAE, VAEArchitecture
from tests.models.published import PublishedUNet


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_reports_vae_has_its_parameter_counts() -> None:
    vae = VAE((28, 28, 1), VAEArchitecture())
    assert parameters(vae.encoder) == 69_076
    assert parameters(vae.decoder) == 65_089


def test_the_u_net_has_the_tutorials_parameters_less_the_degenerate_norm() -> None:
    with torch.device("meta"):
        unet = UNet(channels=3, width=64, levels=8, dropout=0.5)
        assert parameters(unet) == 54_414_979 - 2 * 512 == 54_413_955
        assert unet(torch.empty(1, 3, 256, 256)).shape == (1, 3, 256, 256)
        assert sum(isinstance(module, nn.Dropout) for module in unet.modules()) == 3


def test_the_u_nets_layers_outputs_and_gradients_are_the_published_ones() -> None:
    torch.manual_seed(0)
    ours, theirs = UNet(3, 2, 8, dropout=0.5).double().eval(), PublishedUNet(2, dropout=0.5).double().eval()
    pairs = [*zip(ours.parameters(), theirs.parameters(), strict=True)]
    assert [one.shape for one, _ in pairs] == [other.shape for _, other in pairs]
    with torch.no_grad():
        for one, other in pairs:
            one.copy_(other.normal_(std=0.25))
    images = torch.rand(2, 3, 256, 256, dtype=torch.float64) * 2 - 1
    results = []
    for network in (ours, theirs):
        output = network(images)
        output.square().sum().backward()
        results.append([output, *(parameter.grad for parameter in network.parameters())])
    assert results[0][0].std() > 0.1
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-8)
    dropped = [isinstance(module, nn.Dropout) for module in ours.modules()]
    assert dropped.count(True) == [isinstance(module, nn.Dropout) for module in theirs.modules()].count(True)


def test_the_u_net_of_64x64_images_has_six_levels() -> None:
    with torch.device("meta"):
        model = CycleGAN((64, 64, 3), CycleGANArchitecture())
        assert model.a_to_b.size_multiple == 2**6
        assert parameters(model.a_to_b) == 29_244_035
        assert model.a_to_b(torch.empty(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_the_70x70_patch_gan_has_its_parameters_output_and_receptive_field() -> None:
    with torch.device("meta"):
        discriminator = PatchGAN()
        assert parameters(discriminator) == 2_765_569
        assert discriminator(torch.empty(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    field = 1
    for layer in reversed([m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]):
        field = (field - 1) * layer.stride[0] + layer.kernel_size[0]
    assert field == 70


@pytest.mark.parametrize(("size", "levels"), [(256, 8), (512, 8), (128, 7), (64, 6), (96, 5), (28, 2), (1, 0)])
def test_smaller_images_get_fewer_levels(size: int, levels: int) -> None:
    assert max_levels((size, size, 3)) == levels


def test_the_vae_is_initialised_as_keras_does() -> None:
    vae = VAE((28, 28, 1), VAEArchitecture())
    convolution = vae.encoder.features[2]
    assert isinstance(convolution, nn.Conv2d)
    limit = math.sqrt(6 / (9 * 32 + 9 * 64))
    assert convolution.bias is not None
    assert convolution.weight.abs().max() <= limit
    assert convolution.weight.abs().max() > 0.99 * limit
    biases = [value for name, value in vae.named_parameters() if name.endswith("bias")]
    assert len(biases) == 9
    assert not any(bias.any() for bias in biases)


@pytest.mark.parametrize("network_type", [PatchGAN, lambda: UNet(3, 32, 8, dropout=0.5)], ids=["PatchGAN", "U-Net"])
def test_the_gans_are_initialised_as_published(network_type: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = network_type()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    weights = torch.cat([m.weight.flatten() for m in convolutions]).detach()
    scales = torch.cat([m.weight for m in network.modules() if isinstance(m, nn.InstanceNorm2d)]).detach()
    assert weights.mean().abs() < 1e-4
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert scales.mean().item() == pytest.approx(1, abs=0.005)
    assert scales.std().item() == pytest.approx(0.02, rel=0.2)


def test_pixels_survive_the_way_to_floats_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    assert torch.equal(from_unit(to_unit(pixels)), pixels)
    assert torch.equal(from_signed(to_signed(pixels)), pixels)
    assert to_signed(pixels).min() == -1
    assert to_signed(pixels).max() == 1


def test_translate_takes_any_size_and_keeps_it() -> None:
    model = CycleGAN((32, 32, 3), CycleGANArchitecture(width=4)).eval()
    pixels = torch.randint(0, 256, (2, 45, 33, 3), dtype=torch.uint8)
    for direction in model.directions:
        assert model.translate(pixels, direction).shape == pixels.shape
    whole = torch.randint(0, 256, (1, 64, 32, 3), dtype=torch.uint8)
    expected = from_signed(model.a_to_b(to_signed(whole)))
    assert torch.equal(model.translate(whole, "a_to_b"), expected), "sizes that fit are not padded"
    whole_again = F.pad(pixels.permute(0, 3, 1, 2).float(), (0, 31, 0, 19), mode="reflect").permute(0, 2, 3, 1)
    expected = model.translate(whole_again.to(torch.uint8))[:, :45, :33]
    assert torch.equal(model.translate(pixels), expected), "others are reflected at their right and bottom edges"
    dot = torch.full((1, 1, 1, 3), 77, dtype=torch.uint8)
    assert torch.equal(model.translate(dot), model.translate(dot.expand(1, 32, 32, 3))[:, :1, :1])
    with pytest.raises(ValueError, match="sideways"):
        model.translate(pixels, "sideways")
    with pytest.raises(ValueError, match="1 channels"):
        model.translate(pixels[..., :1], "a_to_b")


def test_sampling_is_a_function_of_the_seed() -> None:
    vae = VAE((28, 28, 1), VAEArchitecture()).eval()
    assert torch.equal(vae.sample(4, seed=1), vae.sample(4, seed=1))
    assert not torch.equal(vae.sample(4, seed=1), vae.sample(4, seed=2))
    assert vae.sample(4, seed=1).shape == (4, 28, 28, 1)


def test_images_that_cannot_be_halved_enough_are_refused() -> None:
    with pytest.raises(ValueError, match="1x1 images can be halved 0 times"):
        CycleGAN((1, 1, 3), CycleGANArchitecture())
    with pytest.raises(ValueError, match="30x28 images cannot be halved 2 times"):
        VAE((30, 28, 1), VAEArchitecture())


def test_families_are_found_by_name_and_nothing_else_is_imported() -> None:
    assert {"vae", "cyclegan"} <= set(families("genlab.models", "MODEL"))
    assert model_type("vae") is VAE
    with pytest.raises(Exception, match="no model family 'os'"):
        model_type("os")
