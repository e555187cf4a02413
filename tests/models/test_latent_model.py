"""Models with a latent vector: the published networks, and what every one of them keeps to."""

import math

import pytest
import torch
from torch import Tensor, nn

from genlab.models.cvae import CVAE, CVAEArchitecture
from genlab.models.latent_model import LatentModel, Likelihood
from genlab.models.model import InterpolationOptions, images_per_pass
from genlab.models.noise import Noise
from genlab.models.vae import VAE, VAEArchitecture


def make(family: str, shape: tuple[int, int, int] = (28, 28, 1), likelihood: Likelihood = "bernoulli") -> LatentModel:
    torch.manual_seed(0)
    if family == "cvae":
        return CVAE(shape, CVAEArchitecture(classes=10, likelihood=likelihood)).eval()
    return VAE(shape, VAEArchitecture(likelihood=likelihood)).eval()


def pixels(count: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def label_of(model: LatentModel, count: int) -> Tensor | None:
    return torch.arange(count) % model.classes if model.classes else None


def test_the_reports_conditional_vae_has_its_parameters_and_sizes() -> None:
    model = make("cvae")
    assert sum(parameter.numel() for parameter in model.parameters()) == 339_998
    sizes: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    model.reconstruct(pixels(1, 28, 28, 1), torch.zeros(1, dtype=torch.int64))
    assert sizes == [(16, 12, 12), (32, 4, 4), (16, 11, 11), (1, 25, 25), (1, 28, 28)]


@pytest.mark.parametrize("shape", [(13, 13, 1), (29, 31, 3), (32, 28, 1), (64, 48, 3)])
def test_a_conditional_vae_takes_images_of_any_shape(shape: tuple[int, int, int]) -> None:
    model = CVAE(shape, CVAEArchitecture(classes=3, latent_dim=5)).eval()
    images, label = pixels(4, *shape), torch.tensor([0, 1, 2, 0])
    assert model.reconstruct(images, label).shape == images.shape
    assert model.encode(images, label)[0].shape == (4, 5)
    with pytest.raises(ValueError, match="12x28 images are too small for 2 unpadded convolutions"):
        CVAE((12, 28, 1), CVAEArchitecture(classes=3))


def test_both_networks_of_a_conditional_vae_hear_the_label() -> None:
    model, image = make("cvae"), pixels(1, 28, 28, 1).expand(2, -1, -1, -1)
    means = model.encode(image, torch.tensor([0, 9]))[0]
    assert not torch.equal(means[0], means[1])
    decoded = model.generate(torch.zeros(2, 2), torch.tensor([0, 9]))
    assert not torch.equal(decoded[0], decoded[1])
    with pytest.raises(ValueError, match="needs the class"):
        model.encode(image)


def test_large_images_go_through_a_few_at_a_time() -> None:
    assert images_per_pass((28, 28, 1)) == 500
    assert images_per_pass((256, 256, 3)) == 32
    assert images_per_pass((4096, 4096, 3)) == 1


def test_samples_of_a_conditional_vae_are_of_the_classes_asked_for_or_all_in_turn() -> None:
    model = make("cvae")
    assert isinstance(model, CVAE)
    turns = model.sample(12, seed=3)
    assert torch.equal(turns, model.sample(12, seed=3, label=torch.arange(12) % 10))
    assert not torch.equal(turns, model.sample(12, seed=3, label=torch.zeros(12, dtype=torch.int64)))


@pytest.mark.parametrize("family", ["vae", "cvae"])
def test_many_samples_are_decoded_a_part_at_a_time(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(family)
    label = label_of(model, 10)
    whole = model.decode(model.draw_latents(Noise(3, range(10))), label)
    monkeypatch.setattr("genlab.models.model.MOST_IMAGES", 4)
    parts = list(model.sample_in_parts(10, seed=3, label=label))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert (torch.cat(parts).int() - whole.int()).abs().max() <= 1, "a batch of another size may round otherwise"
    assert torch.equal(torch.cat(parts), model.sample(10, seed=3)), "classes come in turn"


@pytest.mark.parametrize("family", ["vae", "cvae"])
def test_a_picture_of_a_seed_is_the_same_however_many_are_drawn(family: str) -> None:
    model = make(family)
    many = model.sample(64, seed=3)
    for count in (1, 11):
        few = model.sample(count, seed=3)
        assert (few.int() - many[:count].int()).abs().max() <= 1, "a batch of another size may round otherwise"
    assert not torch.equal(many[10], many[20]), "of one class"
    assert not torch.equal(many, model.sample(64, seed=4))


@pytest.mark.parametrize("family", ["vae", "cvae"])
def test_interpolation_runs_from_one_reconstruction_to_the_other(family: str) -> None:
    model = make(family)
    ends = pixels(2, 28, 28, 1)
    label = None if not model.classes else torch.tensor([4, 4])
    line = model.interpolate(ends, label, InterpolationOptions(steps=5))
    assert line.shape == (5, 28, 28, 1)
    difference = (line[[0, -1]].int() - model.reconstruct(ends, label).int()).abs().max()
    assert difference <= 1, "a batch of another size may round otherwise"
    middle = torch.stack(list(model.encode(ends, label)[0])).mean(0, keepdim=True)
    assert (line[2].int() - model.decode(middle, None if label is None else label[:1])[0].int()).abs().max() <= 1


@pytest.mark.parametrize("family", ["vae", "cvae"])
def test_black_and_white_pixels_are_drawn_by_their_grey_level(family: str) -> None:
    model = make(family, likelihood="binary")
    images = torch.tensor([0, 51, 128, 255], dtype=torch.uint8).repeat(1000)[:, None, None, None]
    uniform = torch.rand(4000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    drawn = model.observe(images, uniform)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    frequency = drawn.reshape(1000, 4).mean(0)
    assert frequency[[0, 3]].tolist() == [0, 1]
    assert frequency[1].item() == pytest.approx(0.2, abs=0.05)
    assert model.observe(images).reshape(1000, 4)[0].tolist() == [0, 0, 1, 1], "without a draw, cut at one half"
    assert torch.equal(make(family).observe(images, uniform), images.permute(0, 3, 1, 2) / 255)


def test_residual_blocks_begin_as_the_identity_and_keep_the_sizes() -> None:
    architecture = VAEArchitecture(latent_dim=8, channels=(6, 8), hidden=20, blocks=2)
    model = VAE((28, 20, 3), architecture).eval()
    images = pixels(3, 28, 20, 3)
    assert model.reconstruct(images).shape == images.shape
    before = model.encode(images)[0]
    for name, parameter in model.named_parameters():
        if ".first." in name:
            nn.init.constant_(parameter, 3.0)
    assert torch.equal(model.encode(images)[0], before)


def test_only_a_gaussian_likelihood_has_a_sigma() -> None:
    sigma = make("vae", likelihood="gaussian").log_sigma
    assert sigma is not None
    assert sigma.item() == pytest.approx(math.log(0.1))
    assert make("vae").log_sigma is None
