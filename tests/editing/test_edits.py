"""Edits of pictures of seeds and of projected pictures."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.core.errors import ConfigError, DataError, GenlabError
from genlab.core.storage import json_bytes, locate
from genlab.editing.edits import Start, amount_to_class, edit, start_of_projection, start_of_seed
from genlab.imaging.images import encode_png
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture
from genlab.store.directions import Axis, Change, Direction, Effect
from genlab.store.tensor_file import tensor_file

WEIGHTS = "a" * 64


def age(size: int = 8) -> Direction:
    vector = tuple(torch.linspace(-1, 1, size).tolist())
    steps, amounts = (-2.0, 0.0, 2.0), (-30.0, 0.0, 20.0)
    return Direction(Axis("age", "age"), "linear", vector, "", 0, 0.0, steps, amounts, 0.5, ())


def gender() -> Direction:
    axis = Axis("gender", "gender", "woman", "man")
    changes = {"gender": Change(8.0, 8.0, 0.1)}
    effects = (Effect(8.0, 100, changes), Effect(-8.0, 100, changes))
    return Direction(axis, "linear", (0.0,) * 8, "", 0, 0.0, (-4.0, 0.0, 4.0), (-10.0, 0.0, 10.0), 0.9, effects)


@pytest.fixture(scope="module")
def generator() -> StyleGAN:
    torch.manual_seed(0)
    small = StyleGANArchitecture(channel_base=32, channel_max=8, latent_dim=8, mapping_layers=2)
    model = StyleGAN((8, 8, 1), small)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(3) if "strength" not in name else parameter.fill_(0.1)
    return model.eval().requires_grad_(False)


def projected(folder: Path, generator: StyleGAN, model: str = WEIGHTS) -> Path:
    """What ``genlab project`` writes."""
    w = torch.randn(generator.synthesis.styles, 8, generator=torch.Generator().manual_seed(1))
    tensors = {"w": w} | {
        f"noise.{layer}": torch.full((1, size, size), 0.5) for layer, size in enumerate(generator.synthesis.noise_sizes)
    }
    (folder / "me.safetensors").write_bytes(tensor_file(tensors))
    (folder / "me.json").write_bytes(json_bytes({"model": model, "sha256": "b" * 64}))
    (folder / "me-original.png").write_bytes(encode_png(np.full((8, 8, 1), 7, np.uint8)))
    return folder / "me.safetensors"


def test_no_change_is_the_picture_of_the_seed(generator: StyleGAN) -> None:
    start = start_of_seed(generator, 5, None)
    [same, younger, older] = edit(generator, start, age(), [0.0, -15.0, 20.0])
    assert torch.equal(same, generator.sample(1, 5)[0])
    vector = torch.tensor(age().vector)
    for picture, steps in ((younger, -1.0), (older, 2.0)):
        expected = from_signed(generator.synthesise(start.w + steps * vector, start.noise))[0]
        assert (picture.int() - expected.int()).abs().max() <= 1
        assert not torch.equal(picture, same)


def test_a_projected_picture_keeps_its_styles_and_its_noise(generator: StyleGAN, tmp_path: Path) -> None:
    start = start_of_projection(generator, WEIGHTS, locate(projected(tmp_path, generator)))
    assert start.original is not None
    assert start.original.shape == (8, 8, 1)
    assert start.origin == {"source": "b" * 64}
    [same, older] = edit(generator, start, age(), [0.0, 10.0])
    expected = from_signed(generator.synthesise(start.w, start.noise))[0]
    assert (same.int() - expected.int()).abs().max() <= 1
    assert not torch.equal(same, older)


def test_styles_of_the_encoder_alone_have_no_noise(generator: StyleGAN) -> None:
    w = torch.randn(1, generator.synthesis.styles, 8, generator=torch.Generator().manual_seed(1))
    [same] = edit(generator, Start(w, (), {}), age(), [0.0])
    assert torch.equal(same, from_signed(generator.synthesise(w, None))[0])


def test_a_projection_that_cannot_be_edited_is_said(generator: StyleGAN, tmp_path: Path) -> None:
    file = locate(projected(tmp_path, generator, model="c" * 64))
    with pytest.raises(ConfigError, match=r"me\.safetensors: projected by another generator"):
        start_of_projection(generator, WEIGHTS, file)
    projected(tmp_path, generator)
    (tmp_path / "me.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="not a projection that genlab project wrote"):
        start_of_projection(generator, WEIGHTS, file)
    with pytest.raises(GenlabError, match=r"you\.json: no such file"):
        start_of_projection(generator, WEIGHTS, locate(tmp_path / "you.safetensors"))


def test_a_class_is_left_for_the_other_one_almost_as_clearly_as_samples_are_of_it() -> None:
    assert amount_to_class(gender(), 1.0, None) == pytest.approx(-4.6)  # to log-odds of -3.6; samples have 4
    assert amount_to_class(gender(), -1.0, None) == pytest.approx(4.6)
    assert amount_to_class(gender(), -1.0, "woman") == pytest.approx(4.6)
    assert amount_to_class(gender(), -1.0, "man") == pytest.approx(-2.6)
    assert amount_to_class(gender(), 20.0, None) == pytest.approx(-23.6)
    assert amount_to_class(gender(), -20.0, "man") == 0, "it is one already"
    with pytest.raises(ConfigError, match="no such class; there are: man, woman"):
        amount_to_class(gender(), 1.0, "child")
    with pytest.raises(ConfigError, match="age: not one of two classes"):
        amount_to_class(age(), 1.0, None)
    of_three = dataclasses.replace(gender(), axis=Axis("season=autumn", "season", "autumn"))
    with pytest.raises(ConfigError, match="give --direction season=autumn and --amount"):
        amount_to_class(of_three, 1.0, None)


def test_a_generator_without_noise_is_edited_like_any_other() -> None:
    small = StyleGANArchitecture(channel_base=32, channel_max=8, latent_dim=8, mapping_layers=2, noise=False)
    model = StyleGAN((8, 8, 1), small)
    start = start_of_seed(model, 5, None)
    [same] = edit(model, start, age(), [0.0])
    assert torch.equal(same, model.sample(1, 5)[0])
    with torch.inference_mode():
        assert torch.equal(model.synthesise(start.w, Noise(5, range(1))), model.synthesise(start.w, None))
