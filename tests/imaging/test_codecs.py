"""Fast encoders: what other programs read from their files."""

import io

import numpy as np
import pytest
from PIL import Image

from genlab.imaging.codecs import encode_jpeg, encode_png_fast, encode_webp, encode_webp_film
from genlab.imaging.images import ImageError, Pixels, encode_film, encode_png


def noise(height: int, width: int, channels: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def smooth(height: int, width: int, channels: int) -> Pixels:
    y, x = np.mgrid[:height, :width]
    return np.stack([(x + y) // 2, y, 255 - x, x][:channels], axis=-1).astype(np.uint8)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (28, 28), (7, 300), (300, 1)])
def test_png_loses_nothing(height: int, width: int, channels: int) -> None:
    for pixels in (
        noise(height, width, channels),
        noise(2 * height, width, channels)[::2],
        smooth(height, width, channels),
    ):
        image = opened(encode_png_fast(pixels))
        assert image.format == "PNG"
        assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_png_is_whole_and_not_much_larger_than_a_slow_one() -> None:
    digit = np.clip(noise(28, 28, 1).astype(int) - 200, 0, 255).astype(np.uint8)
    for pixels in (digit, noise(256, 256, 3) // 16 + smooth(256, 256, 3) // 2):
        data = encode_png_fast(pixels)
        Image.open(io.BytesIO(data)).verify()  # all checksums
        assert len(data) < 1.3 * len(encode_png(pixels)) + 200


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("encode", "kind"), [(encode_jpeg, "JPEG"), (encode_webp, "WEBP")])
def test_lossy_pictures_are_close(encode: object, kind: str, channels: int) -> None:
    pixels = smooth(40, 60, channels)
    image = opened(encode(pixels[:, ::-1]))  # type: ignore[operator]
    assert image.format == kind
    found = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(40, 60, channels)
    assert np.abs(found[:, ::-1].astype(int) - pixels).mean() < 4


def test_jpeg_keeps_all_colour_samples() -> None:
    assert opened(encode_jpeg(noise(16, 16, 3))).layer[0][1:3] == (1, 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("encode", "side"), [(encode_jpeg, 65_501), (encode_webp, 16_384)])
def test_a_side_that_the_format_cannot_hold_is_refused(encode: object, side: int) -> None:
    with pytest.raises(ImageError, match=f"is {side}x1 pixels, and image/.* ask for image/png"):
        encode(np.zeros((1, side, 1), np.uint8))  # type: ignore[operator]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_a_film_has_its_frames_and_their_time_and_goes_round(kind: str, channels: int) -> None:
    frames = np.stack([np.full((12, 20, channels), value, np.uint8) for value in (0, 90, 200)])
    film = encode_webp_film(frames, 50) if kind == "WEBP" else encode_film(frames, 50, kind)  # type: ignore[arg-type]
    image = Image.open(io.BytesIO(film))
    assert (image.format, image.n_frames, image.info["loop"]) == (kind, 3, 0)  # type: ignore[attr-defined]
    for number, value in enumerate((0, 90, 200)):
        image.seek(number)
        image.load()
        assert image.info["duration"] == 50
        np.testing.assert_allclose(np.asarray(image.convert("L")), value, atol=2)


def test_a_gif_keeps_all_shades_of_grey() -> None:
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    frames = np.concatenate([frames, 255 - frames])
    image = Image.open(io.BytesIO(encode_film(frames, 100, "GIF")))
    for number, frame in enumerate(frames):
        image.seek(number)
        np.testing.assert_array_equal(np.asarray(image.convert("L")), frame[:, :, 0])
