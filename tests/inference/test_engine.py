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
from genlab.models.model import InterpolationOptions
from genlab.models.stylegan import MixingOptions
from genlab.store import model_directory
from tests.imaging.support import tiff
from tests.inference.support import with_ranges


def model_of(run: Path) -> Any:
    return model_directory.load(run / "model")


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def file_of(pixels: Pixels, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, kind)
    return file.getvalue()


@pytest.mark.usefixtures("tf32_allowed")
def test_a_model_computes_in_fp32_on_a_gpu_too(model_runs: Path) -> None:
    Engine(model_runs / "digits" / "model")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


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
    four = InterpolationOptions(steps=4)
    pixels = np.stack([noise(8, 12, 1, seed=seed) for seed in range(2)])
    files = [file_of(picture) for picture in pixels]
    expected = model.reconstruct(torch.from_numpy(pixels))
    np.testing.assert_array_equal(engine.reconstruct(list(pixels)), expected)
    np.testing.assert_array_equal(engine.reconstruct(files), expected)
    np.testing.assert_array_equal(
        engine.interpolate(files[0], pixels[1], steps=4), model.interpolate(torch.from_numpy(pixels), options=four)
    )
    np.testing.assert_array_equal(
        engine.interpolate_draws((3, 4), steps=4), model.interpolate_draws((3, 4), options=four)
    )


def test_pictures_are_encoded_and_latent_vectors_decoded(model_runs: Path) -> None:
    engine, model = Engine(model_runs / "classes" / "model"), model_of(model_runs / "classes")
    pixels = np.stack([noise(*engine.info.image_shape, seed=seed) for seed in range(5)])
    labels = torch.full((5,), 1)
    means = model.encode(torch.from_numpy(pixels), labels)[0].numpy()
    found = engine.encode(list(pixels), 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, means, rtol=1e-4, atol=1e-6)
    pictures = engine.decode(found.tolist(), 1)
    np.testing.assert_array_equal(pictures, engine.reconstruct(list(pixels), 1))
    assert engine.info.latent_dim == means.shape[1]
    with pytest.raises(ConfigError, match=f"the model takes {means.shape[1]} numbers each, not 7"):
        engine.decode([[0.0] * 7], 1)


def test_styles_are_mixed_by_seeds_and_options(model_runs: Path) -> None:
    grid = Engine(model_runs / "faces" / "model").mix_styles((1, 2), (3,), styles="middle", truncation=0.5)
    expected = model_of(model_runs / "faces").mix_styles((1, 2), (3,), None, MixingOptions(0.5, styles="middle"))
    np.testing.assert_array_equal(grid, expected)


def test_what_a_model_cannot_do_is_refused(model_runs: Path) -> None:
    digits, classes, monet = (Engine(model_runs / name / "model") for name in ("digits", "classes", "monet"))
    with pytest.raises(RunError, match="this vae model does not translate; its operations are: sample, reconstruct"):
        digits.translate(noise(8, 12, 1))
    with pytest.raises(RunError, match="this cyclegan model does not interpolate draws"):
        monet.interpolate_draws((0, 1))
    with pytest.raises(RunError, match="this vae model does not mix styles"):
        digits.mix_styles((1,), (2,))
    with pytest.raises(ConfigError, match="direction = 'sideways': choose from a_to_b, b_to_a"):
        monet.translate(noise(8, 12, 3), "sideways")
    with pytest.raises(ConfigError, match="label: no class 'bird'; choose from cat, 2, a dog/puppy"):
        classes.sample(1, 0, "bird")
    with pytest.raises(ConfigError, match="steps = 1: should be greater than or equal to 2"):
        digits.interpolate_draws((0, 1), steps=1)
    with pytest.raises(ConfigError, match="truncation: no such option; there are: none"):
        digits.sample(1, 0, truncation=0.5)
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


def test_deep_pictures_are_read_by_the_range_of_the_domain_that_they_are_of(model_runs: Path, tmp_path: Path) -> None:
    run = with_ranges(model_runs / "monet", tmp_path / "monet", a=(0, 4095), b=(-1, 1))
    engine, pixels = Engine(run / "model"), noise(8, 12, 1)
    twelve_bits = tiff((pixels[:, :, 0] / 255 * 4095).round().astype("<u2"))
    floats = tiff((pixels[:, :, 0] / 127.5 - 1).astype("<f4"))
    for picture, direction in ((twelve_bits, "a_to_b"), (floats, "b_to_a")):
        np.testing.assert_array_equal(engine.translate(picture, direction), engine.translate(pixels, direction))
    colour = noise(8, 12, 3)
    expected = model_of(model_runs / "monet").translate(torch.from_numpy(colour)[None], "a_to_b")[0]
    np.testing.assert_array_equal(engine.translate(file_of(colour), "a_to_b"), expected)


def test_a_model_of_one_data_set_reads_by_its_range(model_runs: Path, tmp_path: Path) -> None:
    engine = Engine(with_ranges(model_runs / "digits", tmp_path / "digits", images=(-1000, 1550)) / "model")
    pixels = noise(8, 12, 1)
    deep = tiff(pixels[:, :, 0].astype("<i2") * 10 - 1000)
    np.testing.assert_array_equal(engine.reconstruct([deep]), engine.reconstruct([pixels]))
    np.testing.assert_array_equal(engine.interpolate(deep, pixels), engine.interpolate(pixels, pixels))


def test_without_a_range_16_bits_keep_their_upper_8_and_floats_are_refused(model_runs: Path) -> None:
    engine, pixels = Engine(model_runs / "monet" / "model"), noise(8, 12, 1)
    deep = tiff(pixels[:, :, 0].astype("<u2") << 8)
    np.testing.assert_array_equal(engine.translate(deep), engine.translate(pixels))
    with pytest.raises(ImageError, match=r"no range of them: ingest with --range LO:HI or --range auto"):
        engine.translate(tiff(pixels[:, :, 0].astype("<f4")))


@pytest.mark.parametrize("run", ["digits", "classes", "monet", "faces"])
def test_an_engine_that_is_warm_gives_the_same_pictures(run: str, model_runs: Path) -> None:
    warm, cold = (Engine(model_runs / run / "model") for _ in range(2))
    warm.warm_up()
    if "sample" in warm.info.operations:
        np.testing.assert_array_equal(warm.sample(3, 1), cold.sample(3, 1))
    else:
        picture = noise(*warm.info.image_shape)
        np.testing.assert_array_equal(warm.translate(picture), cold.translate(picture))
