import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.imaging.images import ImageError, Pixels, encode_png, extremes, prepare
from genlab.imaging.sheets import sheet
from tests.imaging.support import deep_png, tiff

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=-1)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(data: Pixels | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))) if isinstance(data, bytes) else data


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


@pytest.mark.parametrize("kind", ["<f4", "<i4", "<i2", "<u4"])
def test_numbers_without_a_range_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match=r"32-bit or float.*--range LO:HI or --range auto"):
        prepare(tiff(RAMP.astype(kind)), channels=3)


KINDS = ["<u2", ">u2", "<i2", ">i2", "<i4", ">i4", "<u4", "<f4", ">f4"]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflated"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_range_maps_values_linearly_to_8_bits(kind: str, compressed: bool) -> None:
    values = (np.arange(256).reshape(16, 16) * 16 + 3).astype(kind)
    data = tiff(values, compressed=compressed)
    prepared = prepare(data, channels=1, value_range=(100, 3100))
    expected = [round(min(max(value - 100, 0), 3000) * 255 / 3000) for value in values.ravel().tolist()]
    assert pixels_of(prepared.image).ravel().tolist() == expected
    assert prepared.changes == ("depth",)
    assert prepared.greatest is None
    assert extremes(data) == (3, 255 * 16 + 3)


def test_a_range_may_begin_below_zero() -> None:
    values = np.array([[-2000, -1000, 0, 1000, 2000]])
    for kind in ("<i2", "<f4"):
        data = tiff(values.astype(kind))
        prepared = prepare(data, channels=1, value_range=(-1000, 1000))
        assert pixels_of(prepared.image).ravel().tolist() == [0, 0, 128, 255, 255]
        assert extremes(data) == (-2000, 2000)


def test_unsigned_32_bit_values_do_not_turn_negative() -> None:
    data = tiff(np.array([[0, 3_000_000_000]], "<u4"))
    assert extremes(data) == (0, 3_000_000_000)
    assert pixels_of(prepare(data, channels=1, value_range=(0, 3e9)).image).ravel().tolist() == [0, 255]


def test_a_range_reads_all_bits_of_a_grey_png_and_stores_it_with_8() -> None:
    data = file_of(Image.fromarray(RAMP * np.uint16(16)))  # 12 bits, as cameras write
    prepared = prepare(data, channels=3, encoding="encoded", value_range=(0, 255 * 16))
    assert isinstance(prepared.image, bytes)
    np.testing.assert_array_equal(pixels_of(prepared.image)[:, :, 0], RAMP)
    assert prepared.changes == ("depth", "grey")


def test_with_a_range_a_tiff_whose_zero_is_white_is_turned_round() -> None:
    for kind in ("<u2", ">f4"):
        data = tiff(np.array([[0, 1000]], kind), photometric=0)
        assert pixels_of(prepare(data, channels=1, value_range=(0, 1000)).image).ravel().tolist() == [255, 0]


def test_without_a_range_so_is_one_of_16_bits() -> None:
    data = tiff(np.array([[0, 65535]], "<u2"), photometric=0)
    assert pixels_of(prepare(data, channels=1).image).ravel().tolist() == [255, 0]


def test_with_a_range_an_exif_turn_is_carried_out() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(Image.fromarray(RAMP[:8].astype(np.float32)), "TIFF", exif=exif)
    prepared = prepare(data, channels=1, value_range=(0, 255))
    np.testing.assert_array_equal(pixels_of(prepared.image)[:, :, 0], np.rot90(RAMP[:8], -1))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_with_a_range_what_is_not_finite_is_refused(number: float) -> None:
    data = tiff(np.array([[0, number]], "<f4"))
    with pytest.raises(ImageError, match="not finite"):
        prepare(data, channels=1, value_range=(0, 1))
    with pytest.raises(ImageError, match="not finite"):
        extremes(data)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_range_leaves_8_bit_pictures_as_they_are(mode: str) -> None:
    for kind in ("PNG", "TIFF"):
        data = file_of(Image.fromarray(COLOURS).convert(mode), kind)
        assert extremes(data) is None
        for encoding in ("raw", "encoded"):
            with_range = prepare(data, channels=3, encoding=encoding, value_range=(0, 9))
            without = prepare(data, channels=3, encoding=encoding)
            np.testing.assert_array_equal(pixels_of(with_range.image), pixels_of(without.image))
            assert with_range.changes == without.changes


def test_16_bit_colour_has_no_range() -> None:
    """PIL reads the upper 8 bits of each channel: of 12 bits, 16 steps of grey."""
    for data in (deep_png(COLOURS * np.uint16(16)), tiff(COLOURS.astype("<u2") * 16)):
        with pytest.raises(ImageError, match="only the upper 8"):
            prepare(data, channels=3, value_range=(0, 4095))
        with pytest.raises(ImageError, match="only the upper 8"):
            extremes(data)


def test_a_bmp_of_16_bits_a_pixel_is_an_8_bit_picture() -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + head + struct.pack("<HH", 0x7FFF, 0)
    prepared = prepare(data, channels=3, value_range=(0, 9))
    assert pixels_of(prepared.image)[0, :, 0].tolist() == [255, 0]
    assert prepared.greatest is None
    assert extremes(data) is None


def test_16_bit_pictures_without_a_range_tell_their_greatest_value() -> None:
    assert prepare(file_of(Image.fromarray(RAMP * np.uint16(16))), channels=3).greatest == ("grey", 255 * 16)
    assert prepare(deep_png(COLOURS * np.uint16(16)), channels=3).greatest == ("colour", 4095)
    assert prepare(file_of(Image.fromarray(RAMP)), channels=3).greatest is None


def test_of_a_deep_tiff_of_many_pages_the_first_is_kept() -> None:
    first, second = (Image.fromarray(np.full((2, 2), value, np.uint16)) for value in (100, 900))
    data = file_of(first, "TIFF", save_all=True, append_images=[second])
    prepared = prepare(data, channels=1, value_range=(0, 1000))
    assert np.unique(prepared.image).tolist() == [26]
    assert prepared.changes == ("depth", "frames")
    assert extremes(data) == (100, 100)


@pytest.mark.parametrize("values", [RAMP.astype("<f8"), COLOURS.astype("<f4"), RAMP.astype(">u4")])
def test_a_tiff_that_pil_does_not_know_is_not_called_no_image(values: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"a TIFF .* of a kind that cannot be read .*; save it as another kind"):
        prepare(tiff(values), channels=3, value_range=(0, 1))


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
