"""One image of any kind: decoded, made 8-bit grey or RGB, fitted, and returned as pixels or as a file.

Pixels are uint8 in 0..255, [height, width, channels]. Colour profiles are ignored, as training pipelines do.

Pictures of more than 8 bits: grey ones (16-bit PNG and TIFF, signed 16-bit, 32-bit integer and 32-bit float TIFF) are
read with all their bits, and become 8-bit by a range of values; without one the upper 8 of 16 bits are kept, and what
is signed, 32-bit or float is refused. Of 16-bit colour Pillow reads the upper 8 bits only: it is refused with a range.
"""

import contextlib
import dataclasses
import io
import json
import zlib
from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from genlab.core.errors import DataError
from genlab.imaging.value_range import ValueRange, to_8_bits

Pixels = NDArray[np.uint8]
Channels = Literal[1, 3]
Encoding = Literal["raw", "encoded"]
"""``raw``: pixels. ``encoded``: the bytes of a JPEG, PNG or WebP file."""
Lossy = Literal["jpeg", "webp"]
"""A format of files that loses details, the fewer the higher its quality."""
Fit = Literal["keep", "resize", "crop"]
"""``keep``: its own size. ``resize``: squeezed into a square. ``crop``: its short side scaled, the middle cut out."""

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes of image files, in lower case."""

NOTE = "genlab"
"""Name of the text in a PNG file that says where the picture is from."""
_DESCRIPTION = 0x010E
"""The EXIF tag ImageDescription, which holds it in a WebP file."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_JPEG = ("JPEG", "MPO")  # MPO: a JPEG with more pictures behind the first, as telephones write


_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # + is BigTIFF
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # TIFF tags
# Libtiff hands out the machine's byte order, but Pillow 13 swaps these as if it were the file's.
_DECODED_BY_LIBTIFF = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}

_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_JPEG_SEGMENTS = frozenset((*range(0xE0, 0xF0), 0xDB, 0xC4, 0xDD, 0xFE))


class ImageError(DataError):
    """An image cannot be used. The message has no file name; the caller adds it in front."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An image that was converted, and what was changed."""

    image: Pixels | bytes
    """uint8 [height, width, channels], or the bytes of a JPEG, PNG or WebP file."""
    shape: tuple[int, int, int]
    """(height, width, channels), in both encodings."""
    changes: tuple[str, ...]
    """The conversions that were applied, apart from fitting: ``alpha`` (composited on white), ``cmyk``, ``colour``
    (made grey), ``depth`` (not 8-bit), ``exif`` (turned upright), ``format`` (neither JPEG nor PNG, encoded as PNG),
    ``frames`` (only the first kept), ``grey`` (made RGB), ``palette``, ..."""
    greatest: tuple[Literal["grey", "colour"], int] | None = None
    """Set only for a 16-bit picture that was reduced to 8 bits without a range: (kind, largest 16-bit value, 0..65535).
    For colour it is an upper bound, because Pillow reads the upper 8 bits only."""


def prepare(
    source: Pixels | bytes,
    *,
    channels: Channels,
    size: int | None = None,
    fit: Fit = "keep",
    encoding: Encoding = "raw",
    validate: bool = True,
    value_range: ValueRange | None = None,
    lossy: tuple[Lossy, int] | None = None,
) -> Prepared:
    """Decode, convert, fit and encode one image.

    An encoded file that needs no change keeps its bytes; one that does becomes PNG, which loses nothing more, unless
    ``lossy`` names another format.

    Args:
        source: uint8 [height, width, 1 or 3], or the bytes of an image file.
        channels: 1 (grey) or 3 (RGB).
        size: side of the square to fit into, in pixels; needed unless ``fit`` is ``keep``.
        fit: how. Lanczos resampling with support scaled to the reduction, hence antialiased.
        encoding: what to make: pixels or file bytes.
        validate: decode even where the header alone would do (it never does for PNG, whose EXIF may come last).
        value_range: the values that become 0 and 255 in a picture of more than 8 bits; 8-bit pictures stay as they are.
        lossy: format and quality, 1 to 100, of every encoded file; a JPEG that needs no change stays one.

    Raises:
        ImageError: it cannot be decoded whole; its pixels are signed, 32-bit or float, and there is no range for them;
            they are not finite; or it is of 16-bit colour, and there is a range.
    """
    try:
        if encoding == "encoded" and fit == "keep" and isinstance(source, bytes):
            shape = _plain_jpeg(source)
            if shape is not None and shape[2] == channels:
                if validate:
                    _check_jpeg(source, shape)
                return Prepared(source, shape, ())
        image = _open(source) if isinstance(source, bytes) else from_pixels(source)
        deep = _has_16_bits(image)  # before the decoding, which clears the tiles
        if validate:
            image.load()
        converted, changes, greatest = _convert(image, channels, deep, value_range)
        fitted = _fit(converted, size, fit)
        kept = image.format in ((*_JPEG, "PNG") if lossy is None else _JPEG if lossy[0] == "jpeg" else ())
        if encoding == "encoded" and isinstance(source, bytes) and not kept and lossy is None:
            changes.append("format")
        shape = (fitted.height, fitted.width, int(channels))
        if encoding == "encoded" and isinstance(source, bytes) and kept and fitted is image and not changes:
            return Prepared(source, shape, ())
        pixels = to_pixels(fitted)
        stored = pixels if encoding == "raw" else encode_png(pixels) if lossy is None else encode_lossy(pixels, *lossy)
        return Prepared(stored, shape, tuple(changes), greatest)
    except ImageError:
        raise
    except Exception as error:  # on a damaged file PIL's decoders raise whatever they run into
        raise explained(error, source) from error


def extremes(source: Pixels | bytes) -> ValueRange | None:
    """Find the least and the greatest value in the file of a picture of more than 8 bits.

    Args:
        source: see :func:`prepare`.

    Returns:
        Both values, or ``None`` for a picture of 8 bits, which is not decoded.

    Raises:
        ImageError: the picture could not be prepared with a range either.
    """
    if not isinstance(source, bytes) or source.startswith(b"\xff\xd8"):
        return None
    try:
        image = _open(source)
        if not _is_deep_grey(image):
            if _has_16_bits(image) and _is_deep_colour(image):
                raise _refused_colour()
            return None
        values = _values(image, _tags(image))
        return float(values.min()), float(values.max())
    except ImageError:
        raise
    except Exception as error:  # on a damaged file PIL's decoders raise whatever they run into
        raise explained(error, source) from error


def explained(error: Exception, source: Pixels | bytes) -> ImageError:
    """Say in an :class:`ImageError` what a decoder raised."""
    if isinstance(error, UnidentifiedImageError):
        if isinstance(source, bytes) and source.startswith(_TIFF_HEADS):
            return ImageError(
                "is a TIFF that is damaged or of a kind that cannot be read (of more than 8 bits: only grey of 16-bit "
                "or 32-bit integers or 32-bit floats, and 16-bit colour); save it as another kind"
            )
        return ImageError("not an image (no BMP, GIF, JPEG, PNG, TIFF or WebP)")
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return ImageError(f"too large: more than {most:,} pixels; scale it down or cut it up")
    return ImageError(f"cannot be decoded ({str(error) or type(error).__name__})")


def to_pixels(image: Image.Image) -> Pixels:
    """Return the pixels of a grey or RGB image, uint8 [height, width, 1 or 3]."""
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def encode_png(pixels: Pixels, note: Mapping[str, Any] | None = None) -> bytes:
    """Encode pixels as a PNG file.

    Args:
        pixels: uint8 [height, width, 1 or 3].
        note: what the file says of the picture's origin, in plain values: a text named ``genlab``, as JSON.
    """
    file = io.BytesIO()
    # Run lengths take two to six times less time than zlib's search for repetitions, and pictures about 2% more room.
    from_pixels(pixels).save(file, "PNG", compress_type=zlib.Z_RLE, **note_options("PNG", note))
    return file.getvalue()


def encode_lossy(pixels: Pixels, kind: Lossy, quality: int) -> bytes:
    """Encode pixels as a JPEG (with half the resolution in colour, as is usual) or a WebP file.

    Args:
        pixels: uint8 [height, width, 1 or 3].
        kind: the format.
        quality: 1 to 100.
    """
    image, file = from_pixels(pixels), io.BytesIO()
    if kind == "jpeg":
        with contextlib.suppress(OSError):  # Of very busy pixels, for which Pillow's buffer is too small.
            image.save(file, "JPEG", quality=quality, optimize=True)
            return file.getvalue()
        file = io.BytesIO()
    image.save(file, kind.upper(), quality=quality)
    return file.getvalue()


def note_text(note: Mapping[str, Any]) -> str:
    """Return a note as files hold it: as JSON, in ASCII."""
    return json.dumps(note)


def note_options(kind: Literal["PNG", "GIF", "WEBP"], note: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what Pillow's ``save`` takes to write a note into a file of a format: none for ``None``."""
    if note is None:
        return {}
    if kind == "PNG":
        text = PngInfo()
        text.add_itxt(NOTE, note_text(note))
        return {"pnginfo": text}
    if kind == "GIF":
        return {"comment": note_text(note).encode()}
    exif = Image.Exif()
    exif[_DESCRIPTION] = note_text(note)
    return {"exif": exif}


def read_note(data: bytes) -> dict[str, Any] | None:
    """Return the note in the file of a picture or a film; ``None`` for a file without.

    It is a text named ``genlab`` in a PNG file, the comment of a GIF or a JPEG, the EXIF ImageDescription of a WebP.
    """
    with Image.open(io.BytesIO(data), formats=("PNG", "GIF", "JPEG", "WEBP")) as image:
        found: Any = image.info.get("comment")
        if image.format == "PNG":
            found = getattr(image, "text", {}).get(NOTE)  # decodes the whole file: texts may come last
        elif image.format == "WEBP":
            found = image.getexif().get(_DESCRIPTION)
    try:
        return None if found is None else dict(json.loads(found))
    except (ValueError, TypeError):
        return None  # a comment of somebody else's


def encode_film(
    frames: Pixels,
    milliseconds: int,
    kind: Literal["PNG", "GIF", "WEBP"] = "PNG",
    note: Mapping[str, Any] | None = None,
    **options: int,
) -> bytes:
    """Encode pictures as an animation that shows them one after the other, over and over.

    Args:
        frames: uint8 [N, height, width, channels].
        milliseconds: how long each is shown; GIF holds hundredths of a second.
        kind: the format. GIF reduces the colours of each frame to 256, by an octree, and keeps all shades of grey.
        note: what the file says of the pictures' origin, see :func:`read_note`.
        options: Pillow's, of that format.
    """
    images = [from_pixels(frame) for frame in frames]
    if kind == "GIF" and frames.shape[3] > 1:  # Pillow's own way, the median cut, takes fifty times as long
        images = [image.quantize(256, Image.Quantize.FASTOCTREE) for image in images]
    first, *others = images
    file = io.BytesIO()
    more = {**options, **note_options(kind, note)}
    first.save(file, kind, save_all=True, append_images=others, duration=milliseconds, loop=0, **more)
    return file.getvalue()


def from_pixels(pixels: Pixels) -> Image.Image:
    """Return the image whose pixels are given, uint8 [height, width, 1 to 4]."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    tiles = getattr(image, "tile", ())
    if tiles and tiles[0].codec_name == "libtiff" and tiles[0].args[0] in _DECODED_BY_LIBTIFF:
        image.tile = [tile._replace(args=(_DECODED_BY_LIBTIFF[tile.args[0]], *tile.args[1:])) for tile in tiles]
    return image


def _has_16_bits(image: Image.Image) -> bool:
    """Tell whether an image that was opened, but not decoded yet, has 16 bits a channel (in some BMPs a pixel)."""
    return any(";16" in str(tile) for tile in getattr(image, "tile", ()))


def _is_deep_grey(image: Image.Image) -> bool:
    """Tell whether an image is grey with more than 8 bits, all of which are read."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _is_deep_colour(image: Image.Image) -> bool:
    """Tell whether an image of 16 bits has several such channels; a BMP has 16 bits for all three channels together."""
    return image.format in ("PNG", "TIFF") and not _is_deep_grey(image)


def _refused_colour() -> ImageError:
    return ImageError(
        "has several channels of 16 bits, of which only the upper 8 can be read, too few for a range of values; save "
        "it in grey, or with 8 bits a channel"
    )


def _tags(image: Image.Image) -> Any:
    """Return the tags of a TIFF, an empty mapping for other files."""
    return getattr(image, "tag_v2", {})


def _values(image: Image.Image, tags: Any) -> np.ndarray:
    """Return the numbers in a grey image of more than 8 bits: uint16, int32, uint32 or float32 [height, width].

    Raises:
        ImageError: some are not finite.
    """
    values = np.asarray(image)
    if image.mode == "I" and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):  # unsigned, which PIL has no mode for
        return values.view(np.uint32)
    if not np.isfinite(values).all():
        raise ImageError("has values that are not finite (NaN or infinity); put numbers in their place")
    return values


def _plain_jpeg(data: bytes) -> tuple[int, int, int] | None:
    """Return (height, width, channels) of a grey or colour JPEG that needs no turning, ``None`` for any other file.

    Only the heads of the file's segments are read: ten times as fast as PIL, and almost all files of large sets are
    such JPEGs.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    position, end = 2, len(data) - 10
    while position < end and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _JPEG_FRAMES:
            if data[position + 4] != 8:
                return None
            height, width = data[position + 5] << 8 | data[position + 6], data[position + 7] << 8 | data[position + 8]
            components = data[position + 9]
            plain = components in (1, 3) and 0 < height * width <= (Image.MAX_IMAGE_PIXELS or 0)
            return (height, width, components) if plain else None
        # Only application data, tables and comments may come before; EXIF may say to turn the image.
        if marker not in _JPEG_SEGMENTS or (marker == 0xE1 and data.startswith(b"Exif", position + 4)):
            return None
        position += 2 + (data[position + 2] << 8 | data[position + 3])
    return None


def _check_jpeg(data: bytes, shape: tuple[int, int, int]) -> None:
    """Decode a JPEG at an eighth of its size: every coefficient is read, which finds what a full decoding finds, but
    few pixels are made, which takes half the time."""
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.draft(None, (max(1, shape[1] // 8), max(1, shape[0] // 8)))
    image.load()


def _convert(
    image: Image.Image, channels: Channels, deep: bool, value_range: ValueRange | None
) -> tuple[Image.Image, list[str], tuple[Literal["grey", "colour"], int] | None]:
    """Turn an image upright and convert it to mode L or RGB.

    Returns:
        The image, the very same object where nothing changes; :attr:`Prepared.changes`; and :attr:`Prepared.greatest`.
    """
    changes = ["depth"] if deep else []
    greatest: tuple[Literal["grey", "colour"], int] | None = None
    tags, coloured = _tags(image), deep and _is_deep_colour(image)  # lost when it is turned
    if getattr(image, "is_animated", False) and image.format != "MPO":
        changes.append("frames")
    if image.getexif().get(0x0112, 1) in range(2, 9):  # Orientation; 1 is upright
        changes.append("exif")
        image = ImageOps.exif_transpose(image)
    if _is_deep_grey(image):
        if value_range is not None:
            pixels = to_8_bits(_values(image, tags), value_range)
            changes += [] if deep else ["depth"]
        elif image.mode in ("I", "F"):
            raise ImageError(
                "has signed, 32-bit or float values and no range of them: ingest with --range LO:HI or --range auto, "
                "or save it with 8 bits a channel"
            )
        else:  # PIL's own conversion clips at 255
            values = np.asarray(image)
            greatest = "grey", int(values.max())
            pixels = (values >> 8).astype(np.uint8)
        image = Image.fromarray(255 - pixels if tags.get(_PHOTOMETRIC) == 0 else pixels)  # 0: white is zero
    elif coloured:
        if value_range is not None:
            raise _refused_colour()
        if image.mode != "CMYK":  # its zero is white
            highest = max(band[1] for band in cast("list[tuple[int, int]]", image.convert("RGB").getextrema()))
            greatest = "colour", highest << 8 | 255
    elif image.mode == "1":
        changes.append("depth")
        image = image.convert("L")
    if image.has_transparency_data:
        changes.append("alpha")
        grey = image.mode in ("L", "LA", "La")
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("L" if grey else "RGB")
    elif image.mode not in ("L", "RGB"):
        changes.append("palette" if image.mode == "P" else image.mode.lower())
        image = image.convert("RGB")
    wanted = "L" if channels == 1 else "RGB"
    if image.mode != wanted:
        changes.append("grey" if image.mode == "L" else "colour")
        image = image.convert(wanted)
    return image, changes, greatest


def _fit(image: Image.Image, size: int | None, fit: Fit) -> Image.Image:
    if fit == "keep" or image.size == (size, size):
        return image
    square = (cast("int", size), cast("int", size))
    if fit == "resize":
        return image.resize(square, Image.Resampling.LANCZOS)
    return ImageOps.fit(image, square, Image.Resampling.LANCZOS)
