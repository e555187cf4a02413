"""Projection of pictures into the styles of a StyleGAN."""

import pytest
import torch

from genlab.core.errors import RunError
from genlab.editing.projection import ProjectionOptions, noise_correlation, project, require_encoder_of
from genlab.models.encoder import Encoder
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.stylegan import StyleGAN
from tests.models.test_encoder import SMALL, WEIGHTS, generator, pixels

PIXELS_ALONE = {"pixels": 10.0, "perceptual": 0.0, "prior": 0.0}


def own_pictures(made: StyleGAN, count: int) -> torch.Tensor:
    noise = Noise(5, range(count))
    return from_signed(made.synthesise(made.map_latents(noise.normal("z", made.latent_dim), None), None))


def test_pictures_that_the_generator_draws_are_found_again() -> None:
    made = generator()
    given = own_pictures(made, 2)
    before, after = (project(made, given, ProjectionOptions(steps=steps, **PIXELS_ALONE)) for steps in (1, 100))
    assert (after.similarity.psnr > before.similarity.psnr + 4).all()
    assert after.styles.shape == (2, made.synthesis.styles, made.style_dim)
    assert after.styles.dtype == torch.float32
    assert after.encoded is None
    assert after.similarity.ssim is None, "8x8 pixels are less than its window"
    drawn = from_signed(made.synthesise(after.styles, after.noise))
    assert torch.equal(drawn, after.images), "styles and noise are all that the picture is made of"


def test_an_encoder_alone_and_as_the_beginning() -> None:
    made = generator(16)
    encoder, given = Encoder.of(made, WEIGHTS, SMALL).eval().requires_grad_(False), pixels(2, 16, 16, 3)
    alone = project(made, given, ProjectionOptions(steps=0), encoder)
    torch.testing.assert_close(alone.styles, encoder.styles(given))
    assert alone.noise == ()
    assert alone.encoded is not None
    assert torch.equal(alone.similarity.psnr, alone.encoded.psnr)
    more = project(made, given, ProjectionOptions(steps=10, **PIXELS_ALONE), encoder)
    assert more.encoded is not None
    assert torch.equal(more.encoded.psnr, alone.encoded.psnr)
    assert (more.similarity.psnr > alone.similarity.psnr).all()
    assert more.similarity.ssim is not None


def test_a_projection_does_not_depend_on_its_company() -> None:
    made, given = generator(), pixels(3, 8, 8, 3)
    together = project(made, given, ProjectionOptions(steps=3))
    alone = project(made, given[1:2], ProjectionOptions(steps=3))
    torch.testing.assert_close(together.styles[1:2], alone.styles, atol=5e-3, rtol=5e-3)


def test_noise_stays_noise() -> None:
    found = project(generator(16), pixels(2, 16, 16, 3), ProjectionOptions(steps=5))
    for layer in found.noise:
        torch.testing.assert_close(layer.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.square().mean((1, 2, 3)), torch.ones(2), atol=1e-4, rtol=0)


def test_the_correlation_of_noise() -> None:
    """Against its formula at one scale; a chessboard is all correlation, a coarse one only from afar."""
    drawn = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    right, below = ((drawn * drawn.roll(1, side)).mean((1, 2, 3)) for side in (3, 2))
    torch.testing.assert_close(noise_correlation([drawn]), right**2 + below**2)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    assert noise_correlation([board[None, None]]).item() == pytest.approx(2)
    coarse = board[:8, :8].repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
    assert noise_correlation([coarse]).item() == pytest.approx(2 * 4**2)


def test_an_encoder_of_another_generator_is_refused() -> None:
    encoder = Encoder.of(generator(), WEIGHTS, SMALL)
    require_encoder_of(encoder, WEIGHTS, "RUN")
    with pytest.raises(RunError, match="RUN: an encoder of another generator"):
        require_encoder_of(encoder, "cd" * 32, "RUN")
