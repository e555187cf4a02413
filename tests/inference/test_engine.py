"""The engine: its pictures are the model's, bit for bit, and what a model cannot do is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.core.errors import ConfigError, RunError
from genlab.imaging.images import ImageError, Pixels
from genlab.inference.engine import Engine
from genlab.inference.operations import ModelInfo
from genlab.store import model_directory


def model_of(run: Path) -> Any:
    return model_directory.load(run / "model")


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def file_of(pixels: Pixels, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("label", [None, 1, "2", "cat"])
def test_a_sample_is_what_the_model_draws(model_runs: Path, label: str | int | None) -> None:
    number = {None: None, 1: 1, "2": 1, "cat": 0}[label]
    labels = None if number is None else torch.full((5,), number)
    expected = model_of(model_runs / "classes").sample(5, 3, labels)
    np.testing.assert_array_equal(Engine(model_runs / "classes" / "model").sample(5, 3, label), expected)


def test_a_picture_of_any_size_is_translated_from_a_file_or_pixels(model_runs: Path) -> None:
    engine, model, pixels = Engine(model_runs / "monet" / "model"), model_of(model_runs / "monet"), noise(10, 21, 3)
    for direction in ("a_to_b", "b_to_a"):
        expected = model.translate(torch.from_numpy(pixels)[None], direction)[0]
        for picture in (pixels, file_of(pixels)):
            np.testing.assert_array_equal(engine.translate(picture, direction), expected)
    np.testing.assert_array_equal(engine.translate(pixels), engine.translate(pixels, "a_to_b"))
    grey = engine.translate(noise(8, 12, 1))
    assert grey.shape == (8, 12, 3), "a grey picture is taken in the model's channels"


def test_pictures_are_reconstructed_and_interpolated_between(model_runs: Path) -> None:
    engine, model = Engine(model_runs / "digits" / "model"), model_of(model_runs / "digits")
    pixels = np.stack([noise(8, 12, 1, seed=seed) for seed in range(2)])
    files = [file_of(picture) for picture in pixels]
    expected = model.reconstruct(torch.from_numpy(pixels))
    np.testing.assert_array_equal(engine.reconstruct(list(pixels)), expected)
    np.testing.assert_array_equal(engine.reconstruct(files), expected)
    np.testing.assert_array_equal(
        engine.interpolate(files[0], pixels[1], 4), model.interpolate(torch.from_numpy(pixels), 4)
    )
    np.testing.assert_array_equal(engine.interpolate_draws((3, 4), 5), model.interpolate_draws((3, 4), 5))


def test_what_a_model_cannot_do_is_refused(model_runs: Path) -> None:
    digits, classes, monet = (Engine(model_runs / name / "model") for name in ("digits", "classes", "monet"))
    with pytest.raises(RunError, match="this vae model does not translate; its operations are: sample, reconstruct"):
        digits.translate(noise(8, 12, 1))
    with pytest.raises(RunError, match="this cyclegan model does not interpolate draws"):
        monet.interpolate_draws((0, 1), 3)
    with pytest.raises(ConfigError, match="direction = 'sideways': choose from a_to_b, b_to_a"):
        monet.translate(noise(8, 12, 3), "sideways")
    with pytest.raises(ConfigError, match="label: no class 'bird'; choose from cat, 2, a dog/puppy"):
        classes.sample(1, 0, "bird")
    with pytest.raises(ConfigError, match="must be told the class"):
        classes.reconstruct([noise(8, 8, 3)])
    with pytest.raises(ImageError, match="is 12x9 pixels; the model takes 12x8"):
        digits.reconstruct([noise(9, 12, 1)])
    with pytest.raises(ImageError, match="not an image"):
        monet.translate(b"hello")


def test_a_damaged_description_is_named(model_runs: Path, tmp_path: Path) -> None:
    (tmp_path / "genlab.json").write_text('{"format": "genlab-model", "version": 1, "family": "vae"}')
    with pytest.raises(RunError, match=r"genlab.json: damaged \('provenance'\); export the model again"):
        ModelInfo.read(tmp_path)
