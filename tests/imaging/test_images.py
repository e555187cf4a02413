import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.imaging.images import ImageError, Pixels, encode_png, prepare
from genlab.imaging.sheets import sheet

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=-1)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(data: Pixels | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))) if isinstance(data, bytes) else data


def deep_png(colours: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which PIL cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = colours.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in colours)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_that_needs_no_change_keeps_its_bytes(kind: str) -> None:
    data = file_of(Image.fromarray(COLOURS), kind)
    prepared = prepare(data, channels=3, encoding="encoded")
    assert prepared.image == data
    assert (prepared.shape, prepared.changes) == ((16, 16, 3), ())
    assert prepare(data, channels=3, encoding="encoded", size=16, fit="crop").image == data


def test_grey_becomes_rgb_of_equal_channels() -> None:
    prepared = prepare(file_of(Image.fromarray(RAMP)), channels=3)
    np.testing.assert_array_equal(prepared.image, np.repeat(RAMP[:, :, None], 3, axis=2))
    assert prepared.changes == ("grey",)


def test_colour_becomes_grey_when_asked() -> None:
    prepared = prepare(file_of(Image.new("RGB", (3, 2), (255, 0, 0))), channels=1)
    assert prepared.shape == (2, 3, 1)
    assert np.unique(pixels_of(prepared.image)) == [76]  # Rec. 601: 0.299 of 255
    assert prepared.changes == ("colour",)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 2, 4))
    prepared = prepare(file_of(image.convert(mode)), channels=3)
    assert isinstance(prepared.image, np.ndarray)
    assert prepared.image[:, :2].min() == 255
    assert prepared.image[:, 2:].max() == 0
    assert "alpha" in prepared.changes


def test_half_transparent_is_half_way_to_white() -> None:
    prepared = prepare(file_of(Image.new("RGBA", (2, 2), (255, 0, 0, 51))), channels=3)
    np.testing.assert_array_equal(pixels_of(prepared.image)[0, 0], [255, 204, 204])


def test_palette_colours_are_looked_up() -> None:
    image = Image.fromarray((RAMP // 64).astype(np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    prepared = prepare(file_of(image), channels=3)
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]])
    np.testing.assert_array_equal(prepared.image, palette[RAMP // 64])
    assert prepared.changes == ("palette",)


def test_cmyk_becomes_rgb() -> None:
    data = file_of(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)  # full magenta and yellow: red
    prepared = prepare(data, channels=3, encoding="encoded")
    np.testing.assert_allclose(pixels_of(prepared.image)[0, 0].astype(int), [255, 0, 0], atol=4)
    assert prepared.changes == ("cmyk",)


@pytest.mark.parametrize(
    "data", [file_of(Image.fromarray(RAMP * np.uint16(257))), deep_png(COLOURS * np.uint16(257))], ids=["grey", "rgb"]
)
def test_sixteen_bits_become_eight(data: bytes) -> None:
    prepared = prepare(data, channels=3)
    assert isinstance(prepared.image, np.ndarray)
    np.testing.assert_array_equal(prepared.image[:, :, 0], RAMP)
    assert "depth" in prepared.changes


def test_an_exif_turn_is_carried_out_and_leaves_no_tag() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    data = file_of(Image.fromarray(COLOURS[:8]), "PNG", exif=exif)
    prepared = prepare(data, channels=3, encoding="encoded")
    assert isinstance(prepared.image, bytes)
    assert prepared.shape == (16, 8, 3)
    assert prepared.changes == ("exif",)
    np.testing.assert_array_equal(pixels_of(prepared.image), np.rot90(COLOURS[:8], -1))
    assert not Image.open(io.BytesIO(prepared.image)).getexif()


def test_other_formats_are_stored_as_png_without_loss() -> None:
    prepared = prepare(file_of(Image.fromarray(COLOURS), "BMP"), channels=3, encoding="encoded")
    assert isinstance(prepared.image, bytes)
    assert prepared.image.startswith(b"\x89PNG")
    np.testing.assert_array_equal(pixels_of(prepared.image), COLOURS)
    assert prepared.changes == ("format",)


def test_of_an_animation_the_first_frame_is_kept() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    prepared = prepare(file_of(frames[0], "PNG", save_all=True, append_images=frames[1:]), channels=3)
    np.testing.assert_array_equal(pixels_of(prepared.image)[0, 0], [255, 0, 0])
    assert "frames" in prepared.changes


def test_crop_keeps_the_middle_and_resize_keeps_everything() -> None:
    thirds = np.zeros((30, 90, 3), np.uint8)
    thirds[:, 30:60] = 255
    assert pixels_of(prepare(thirds, channels=3, size=10, fit="crop").image)[:, 1:-1].min() >= 250
    squeezed = pixels_of(prepare(thirds, channels=3, size=30, fit="resize").image)
    assert squeezed.shape == (30, 30, 3)
    np.testing.assert_array_equal(squeezed[15, [2, 15, 27], 0], [0, 255, 0])


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    reduced = pixels_of(prepare(stripes, channels=1, size=8, fit="resize").image).astype(int)
    np.testing.assert_allclose(reduced, 127.5, atol=8)


def test_encoded_and_raw_hold_the_same_pixels() -> None:
    data = file_of(Image.fromarray(COLOURS), "JPEG")
    raw = prepare(data, channels=3, size=7, fit="crop")
    encoded = prepare(data, channels=3, size=7, fit="crop", encoding="encoded")
    np.testing.assert_array_equal(pixels_of(encoded.image), raw.image)


def test_one_pixel_is_an_image() -> None:
    assert prepare(file_of(Image.new("RGB", (1, 1))), channels=3).shape == (1, 1, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(kind: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = file_of(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match=r"not an image|cannot be decoded"):
        prepare(data[: int(len(data) * kept)], channels=3, encoding="encoded")


def test_text_is_not_an_image() -> None:
    with pytest.raises(ImageError, match="not an image"):
        prepare(b"no picture at all\n" * 100, channels=3)


def test_numbers_without_a_range_are_refused() -> None:
    with pytest.raises(ImageError, match="32-bit"):
        prepare(file_of(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), channels=3)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(Image.fromarray(COLOURS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="more than 200 pixels"):
        prepare(data, channels=3)


def test_png_is_lossless_for_grey_and_rgb() -> None:
    np.testing.assert_array_equal(pixels_of(encode_png(RAMP[:, :, None])), RAMP)
    np.testing.assert_array_equal(pixels_of(encode_png(COLOURS)), COLOURS)


def test_a_sheet_lays_images_out_by_rows() -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 4, 5, 3), np.uint8)
    page = sheet(images, columns=2, pad=1)
    assert page.shape == (2 * 5 + 1, 2 * 6 + 1, 3)
    for number, (top, left) in enumerate([(1, 1), (1, 7), (6, 1)]):
        assert np.unique(page[top : top + 4, left : left + 5]) == [number]
    assert np.unique(page[6:, 7:]) == [255]
    assert np.unique(page[0]) == [255]


def test_a_quick_look_at_a_jpeg_finds_what_a_full_decoding_finds() -> None:
    """JPEGs that need no change are judged without PIL's full decoding: the verdict is the same, damage or none."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((80, 60))
    verdicts = set()
    for options in ({"quality": 90}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}):
        for picture in (smooth, smooth.convert("L")):
            whole = file_of(picture, "JPEG", **options)
            flipped = (
                whole[:position] + bytes([rng.integers(256)]) + whole[position + 1 :]
                for position in rng.integers(2, len(whole), 40).tolist()
            )
            for data in (whole, whole[:-100], whole[:-2], *flipped):
                verdict = decodes(fully, data)
                assert decodes(quickly, data) == verdict
                verdicts.add(verdict)
    assert verdicts == {True, False}


def fully(data: bytes) -> None:
    Image.open(io.BytesIO(data)).load()


def quickly(data: bytes) -> None:
    prepare(data, channels=1 if b"\x08\x00\x3c\x00\x50\x01" in data else 3, encoding="encoded")


def decodes(decode: Callable[[bytes], None], data: bytes) -> bool:
    try:
        decode(data)
    except Exception:
        return False
    return True
