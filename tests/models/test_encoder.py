"""The encoder of a StyleGAN."""

import pytest
import torch

from genlab.models.encoder import Encoder, EncoderArchitecture, EncoderNetworks
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture

WEIGHTS = "ab" * 32
SMALL = EncoderNetworks(channel_base=32, channel_max=8, features=12)


def generator(side: int = 8, channels: int = 3, classes: int = 0) -> StyleGAN:
    torch.manual_seed(0)
    architecture = StyleGANArchitecture(channel_base=32, channel_max=8, latent_dim=6, mapping_layers=2, classes=classes)
    return StyleGAN((side, side, channels), architecture).eval().requires_grad_(False)


def pixels(count: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (8, 3), (32, 3)])
def test_it_gives_a_style_for_each_place(side: int, channels: int) -> None:
    made = generator(side, channels)
    encoder = Encoder.of(made, WEIGHTS, SMALL).eval()
    styles = encoder.styles(pixels(3, side, side, channels))
    assert styles.shape == (3, made.synthesis.styles, 6)
    assert styles.dtype == torch.float32
    assert made.synthesise(styles, None).shape == (3, channels, side, side)


@pytest.mark.parametrize("shape", [(20, 20, 3), (16, 32, 3), (4, 4, 3)])
def test_pictures_that_no_stylegan_draws_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="StyleGAN"):
        Encoder(shape, EncoderArchitecture(32, 8, places=4, style_dim=6))


def test_at_64x64_it_has_the_parameters_it_says() -> None:
    """Of 128 channels at most, for a generator of faces-64."""
    encoder = Encoder((64, 64, 3), EncoderArchitecture(1024, 128, places=10, style_dim=128))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 2_477_728


def test_styles_are_counted_in_deviations_of_those_of_the_generator() -> None:
    made = generator(classes=3)
    encoder = Encoder.of(made, WEIGHTS, SMALL)
    label = torch.arange(3000) % 3
    w = made.map_latents(torch.randn(3000, 6, generator=torch.Generator().manual_seed(2)), label)
    deviation, mean = torch.std_mean(encoder.normalised(w), 0)
    torch.testing.assert_close(mean, torch.zeros(6), atol=0.1, rtol=0)
    torch.testing.assert_close(deviation, torch.ones(6), atol=0.1, rtol=0)


def test_it_knows_its_generator_after_saving() -> None:
    made = generator()
    encoder = Encoder.of(made, WEIGHTS, SMALL)
    again = Encoder(encoder.image_shape, encoder.architecture)
    again.load_state_dict(encoder.state_dict())
    assert again.generator_weights == encoder.generator_weights == WEIGHTS
