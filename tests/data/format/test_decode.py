import io

import numpy as np
import pytest
from PIL import Image

from genlab.core.errors import DataError
from genlab.data.format.decode import decode_into

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


def file_of(pixels: np.ndarray, kind: str, **options: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def test_png_is_exact_and_jpeg_is_what_pillow_decodes() -> None:
    out = np.empty_like(PIXELS)
    decode_into(file_of(PIXELS, "PNG"), out)
    np.testing.assert_array_equal(out, PIXELS)
    jpeg = file_of(PIXELS, "JPEG", quality=90)
    decode_into(jpeg, out)
    expected = np.asarray(Image.open(io.BytesIO(jpeg.tobytes())))
    assert np.abs(out.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_grey_files_fill_one_channel(kind: str) -> None:
    out = np.empty((40, 56, 1), np.uint8)
    decode_into(file_of(PIXELS[..., 0], kind), out)
    assert np.abs(out[..., 0].astype(int) - PIXELS[..., 0]).mean() < 12


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("shape", [(40, 57, 3), (39, 56, 3), (56, 40, 3)])
def test_another_size_is_refused(kind: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match="is 56x40 pixels"):
        decode_into(file_of(PIXELS, kind), np.empty(shape, np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_cut_file_is_refused(kind: str) -> None:
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_into(file_of(PIXELS, kind)[:-200], np.empty_like(PIXELS))


def test_bytes_between_the_markers_of_a_jpeg_do_no_harm() -> None:
    # Cameras write them; libjpeg warns, Pillow (and so ingest) takes the file.
    jpeg = file_of(PIXELS, "JPEG", quality=90)
    padded = np.concatenate([jpeg[:-2], np.zeros(6, np.uint8), jpeg[-2:]])
    out, plain = np.empty_like(PIXELS), np.empty_like(PIXELS)
    decode_into(jpeg, plain)
    decode_into(padded, out)
    assert np.abs(out.astype(int) - plain).max() <= 2
