"""One image on its way into a data set: decoded, made 8-bit grey or RGB, fitted, and stored as pixels or as a file.

Pixels are uint8 in 0..255, [height, width, channels]. Colour profiles are ignored, as training pipelines do.
"""

import dataclasses
import io
import warnings
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from genlab.core.errors import DataError

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # of half of what :func:`prepare` refuses

Pixels = NDArray[np.uint8]
Channels = Literal[1, 3]
Encoding = Literal["raw", "encoded"]
"""``raw``: pixels. ``encoded``: the bytes of a JPEG or PNG file."""
Fit = Literal["keep", "resize", "crop"]
"""``keep``: its own size. ``resize``: squeezed into a square. ``crop``: its short side scaled, the middle cut out."""

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What a file of an image is called, in lower case."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_STORED_UNTOUCHED = ("JPEG", "MPO", "PNG")  # MPO: a JPEG with more pictures behind the first, as telephones write


_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_JPEG_SEGMENTS = frozenset((*range(0xE0, 0xF0), 0xDB, 0xC4, 0xDD, 0xFE))


class ImageError(DataError):
    """Why one image cannot be used; who knows its file puts the name before it."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An image ready for a shard."""

    image: Pixels | bytes
    """uint8 [height, width, channels], or the bytes of a JPEG or PNG file."""
    shape: tuple[int, int, int]
    """(height, width, channels), in both encodings."""
    changes: tuple[str, ...]
    """What it was that its pixels or file had to change, fitting aside: ``alpha`` (composited on white), ``cmyk``,
    ``colour`` (made grey), ``depth`` (not 8-bit), ``exif`` (turned upright), ``format`` (neither JPEG nor PNG, stored
    as PNG), ``frames`` (only the first kept), ``grey`` (made RGB), ``palette``, ..."""


def prepare(
    source: Pixels | bytes,
    *,
    channels: Channels,
    size: int | None = None,
    fit: Fit = "keep",
    encoding: Encoding = "raw",
    validate: bool = True,
) -> Prepared:
    """Decode, convert, fit and encode one image.

    An encoded file that needs no change keeps its bytes; one that does becomes PNG, which loses nothing more.

    Args:
        source: uint8 [height, width, 1 or 3], or the bytes of an image file.
        channels: 1 (grey) or 3 (RGB).
        size: side of the square to fit into, in pixels; needed unless ``fit`` is ``keep``.
        fit: how. Lanczos resampling with support scaled to the reduction, hence antialiased.
        encoding: what to make: pixels or file bytes.
        validate: decode even where the header alone would do (it never does for PNG, whose EXIF may come last).

    Raises:
        ImageError: it cannot be decoded whole, or has pixels without an agreed meaning (32-bit, say).
    """
    try:
        if encoding == "encoded" and fit == "keep" and isinstance(source, bytes):
            shape = _plain_jpeg(source)
            if shape is not None and shape[2] == channels:
                if validate:
                    _check_jpeg(source, shape)
                return Prepared(source, shape, ())
        image = Image.open(io.BytesIO(source), formats=_FORMATS) if isinstance(source, bytes) else _from_pixels(source)
        deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))  # decoding clears the tiles
        if validate:
            image.load()
        converted, changes = _convert(image, channels, deep)
        fitted = _fit(converted, size, fit)
        if encoding == "encoded" and isinstance(source, bytes) and image.format not in _STORED_UNTOUCHED:
            changes.append("format")
        shape = (fitted.height, fitted.width, int(channels))
        if encoding == "encoded" and isinstance(source, bytes) and fitted is image and not changes:
            return Prepared(source, shape, ())
        pixels = to_pixels(fitted)
        return Prepared(pixels if encoding == "raw" else encode_png(pixels), shape, tuple(changes))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not an image (no BMP, GIF, JPEG, PNG, TIFF or WebP)") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageError(f"too large: more than {most:,} pixels; scale it down or cut it up") from None
    except Exception as error:  # on a damaged file PIL's decoders raise whatever they run into
        raise ImageError(f"cannot be decoded ({error})") from error


def to_pixels(image: Image.Image) -> Pixels:
    """A grey or RGB image as uint8 [height, width, 1 or 3]."""
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def encode_png(pixels: Pixels) -> bytes:
    """The PNG file of uint8 [height, width, 1 or 3]."""
    file = io.BytesIO()
    _from_pixels(pixels).save(file, "PNG")
    return file.getvalue()


def _from_pixels(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _plain_jpeg(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, channels) of a grey or colour JPEG that needs no turning, ``None`` of any other file.

    A look at the heads of its segments: ten times as fast as PIL, and almost all files in large sets are such.
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


def _convert(image: Image.Image, channels: Channels, deep: bool) -> tuple[Image.Image, list[str]]:
    """The image, upright and in mode L or RGB: the very same object where nothing changes."""
    changes = ["depth"] if deep else []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        changes.append("frames")
    if image.getexif().get(0x0112, 1) in range(2, 9):  # Orientation; 1 is upright
        changes.append("exif")
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ImageError("its pixels are 32-bit numbers of no agreed range; save it with 8 bits a channel")
    if image.mode.startswith("I;16"):  # PIL's own conversion clips at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
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
    return image, changes


def _fit(image: Image.Image, size: int | None, fit: Fit) -> Image.Image:
    if fit == "keep" or image.size == (size, size):
        return image
    square = (cast("int", size), cast("int", size))
    if fit == "resize":
        return image.resize(square, Image.Resampling.LANCZOS)
    return ImageOps.fit(image, square, Image.Resampling.LANCZOS)
