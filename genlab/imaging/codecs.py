"""Encoders for pictures that are sent at once and kept by nobody: as fast as their formats allow.

What is stored is encoded by :func:`genlab.imaging.images.encode_png`, which takes ten times as long for files that are
a tenth smaller.
"""

import io
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import simplejpeg

from genlab.imaging.images import NOTE, ImageError, Pixels, encode_film, from_pixels, note_options, note_text

QUALITY = 90
"""Quality of JPEG and WebP, of 100."""
LARGEST_SIDE = {"image/jpeg": 65_500, "image/webp": 16_383}
"""Largest height and width that a format can hold, in pixels; JPEG's is libjpeg's."""

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of PNG, by the number of channels
_UNFILTERED, _SUB = 0, 1
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_png_fast(pixels: Pixels, note: Mapping[str, Any] | None = None) -> bytes:
    """Encode pixels, uint8 [height, width, 1 to 4], as PNG, with run-length and Huffman coding alone.

    Colour is filtered by the difference from the pixel on the left; grey is not, which is faster and here no larger.

    Args:
        pixels: the pixels.
        note: see :func:`genlab.imaging.images.read_note`.
    """
    height, width, channels = pixels.shape
    lines = np.empty((height, 1 + width * channels), np.uint8)
    flat = pixels.reshape(height, width * channels)
    if channels < 3:
        lines[:, 0] = _UNFILTERED
        lines[:, 1:] = flat
    else:
        lines[:, 0] = _SUB
        lines[:, 1 : 1 + channels] = flat[:, :channels]
        np.subtract(flat[:, channels:], flat[:, :-channels], out=lines[:, 1 + channels :])
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    data = b"".join((b"IDAT", deflate.compress(lines.data), deflate.flush()))
    length, checksum = struct.pack(">I", len(data) - 4), struct.pack(">I", zlib.crc32(data))
    text = b"" if note is None else _chunk(b"tEXt", f"{NOTE}\0{note_text(note)}".encode())
    return b"".join((_png_head(height, width, channels), text, length, data, checksum, _PNG_END))


def encode_jpeg(pixels: Pixels, note: Mapping[str, Any] | None = None) -> bytes:
    """Encode pixels, uint8 [height, width, 1 or 3], as JPEG of full colour resolution (4:4:4).

    Args:
        pixels: the pixels.
        note: see :func:`genlab.imaging.images.read_note`; of less than 64 KiB.

    Raises:
        ImageError: a side is longer than :data:`LARGEST_SIDE`.
    """
    _check_side(pixels, "image/jpeg")
    grey = pixels.shape[2] == 1
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels),
        quality=QUALITY,
        colorspace="GRAY" if grey else "RGB",
        colorsubsampling="Gray" if grey else "444",
    )
    if note is None:
        return encoded
    comment = note_text(note).encode()
    head = 4 + int.from_bytes(encoded[4:6])  # SOI and JFIF's segment, which comes first
    return encoded[:head] + struct.pack(">BBH", 0xFF, 0xFE, 2 + len(comment)) + comment + encoded[head:]


def encode_webp(pixels: Pixels, note: Mapping[str, Any] | None = None) -> bytes:
    """Encode pixels, uint8 [height, width, 1 or 3], as lossy WebP, with a note as :func:`encode_jpeg` takes it.

    Raises:
        ImageError: a side is longer than :data:`LARGEST_SIDE`.
    """
    _check_side(pixels, "image/webp")
    file = io.BytesIO()
    options = note_options("WEBP", note)
    from_pixels(pixels).save(file, "WEBP", quality=QUALITY, method=0, **options)  # the fastest method
    return file.getvalue()


def encode_webp_film(frames: Pixels, milliseconds: int) -> bytes:
    """Encode pictures as a lossy animated WebP that shows them one after the other, over and over.

    Args:
        frames: uint8 [N, height, width, 1 or 3].
        milliseconds: how long each is shown.

    Raises:
        ImageError: a side is longer than :data:`LARGEST_SIDE`.
    """
    _check_side(frames[0], "image/webp")
    return encode_film(frames, milliseconds, "WEBP", quality=QUALITY, method=0)


def _check_side(pixels: Pixels, media_type: str) -> None:
    height, width, _ = pixels.shape
    if max(height, width) > LARGEST_SIDE[media_type]:
        raise ImageError(
            f"is {width}x{height} pixels, and {media_type} holds at most {LARGEST_SIDE[media_type]:,} a side; ask for "
            "image/png"
        )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache(maxsize=256)
def _png_head(height: int, width: int, channels: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header)


_PNG_END = _chunk(b"IEND", b"")
