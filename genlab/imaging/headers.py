"""What a picture file claims to be, read without decoding it, and refused where decoding would cost beyond its pixels.

A file of a few kilobytes can keep a decoder busy for hours, or fill the memory, in other ways than by many pixels: a
JPEG by thousands of scans, a PNG by text and colour profiles that inflate, a TIFF by tags that all show the same bytes,
any file by millions of tiny blocks. :func:`read_header` bounds all of these, so that what is left to decide is whether
width times height is acceptable. It takes microseconds for usual files. That the header does not lie is for
:func:`genlab.imaging.images.prepare` to find.
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from genlab.imaging.images import ImageError, explained

_METADATA_BYTES = 4 * 2**20  # texts and colour profiles of a PNG, inflated; Pillow takes 1 MiB of each
_PNG_CHUNKS = 20_000  # encoders write image data in chunks of 8 KiB or more
_JPEG_SEGMENTS = 2_000
_JUNK_BYTES = 2**16  # between the segments of a JPEG, or the blocks of a GIF
_SCANS, _SCANNED_PIXELS = 24, 2**28  # a progressive JPEG has some ten scans, each of which costs up to all pixels
_GIF_BLOCKS = 2**17  # of up to 255 bytes
_TAGS, _TAG_VALUES, _TAG_BYTES = 4096, 2**15, 64 * 2**20
_RLE_PIXELS, _RLE_BYTES = 2**21, 2**20  # of a BMP; Pillow decodes them in Python
_WEBP_CHUNKS = 20_000

_TAG_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TAG_BYTE_KINDS = (1, 2, 6, 7)  # Pillow keeps these as they are; of all others it makes a number each
_FIRST_LONG_TAG, _DESCRIPTION = 700, 270  # XMP is the first that may hold many bytes, but for a description
_TAG_DIRECTORIES = (34665, 34853, 40965)  # Exif, GPS, Interoperability
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_LEAST_TILE = 2**20  # a tile of up to so many pixels may be larger than its picture

_JPEG_BARE = frozenset((0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))  # Pillow reads no length after these
_EXIF = b"Exif\0\0"


class UnknownFormatError(ImageError):
    """A file is no picture of a known format."""


class TooManyPixelsError(ImageError):
    """A picture has more pixels than Pillow ever decodes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What a picture file claims to be."""

    kind: str
    """``BMP``, ``GIF``, ``JPEG``, ``PNG``, ``TIFF`` or ``WEBP``, by its content."""
    width: int
    """Pixels, at least 1, before the picture is turned upright."""
    height: int
    """Pixels, at least 1, before the picture is turned upright."""


def read_header(data: bytes) -> Header:
    """Read the header of a picture file. Nothing is decoded, and only the first frame of an animation is looked at.

    Raises:
        UnknownFormatError: its content is of no known format.
        TooManyPixelsError: it claims more pixels than Pillow ever decodes (178,956,970).
        ImageError: its header is damaged, or something in it would cost beyond its pixels.
    """
    kind = _kind(data)
    if kind is None:
        raise UnknownFormatError("not an image (no BMP, GIF, JPEG, PNG, TIFF or WebP)")
    try:
        size = _GUARDS[kind](data)
        if size is None:
            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                size = image.size
        if kind == "JPEG":
            _guard_scans(data, size)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(str(explained(error, data))) from None
    except UnidentifiedImageError as error:
        raise explained(error, data) if kind == "TIFF" else _damaged(kind) from error
    except Exception as error:  # Pillow raises whatever it runs into
        raise explained(error, data) from error
    if min(size) < 1:
        raise ImageError(f"has no pixels ({size[0]}x{size[1]})")
    return Header(kind, *size)


def _damaged(kind: str) -> ImageError:
    return ImageError(f"cannot be decoded (its {kind} header is damaged)")


def _kind(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    return "BMP" if data.startswith(b"BM") else None


def _guard_png(data: bytes) -> None:
    position, left = 8, _METADATA_BYTES
    for _ in range(_PNG_CHUNKS):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        begin, end = position + 8, position + 8 + length
        if kind == b"IEND":
            return
        if kind == b"eXIf":
            _guard_exif(data[begin:end])
        elif kind in (b"iCCP", b"zTXt", b"iTXt", b"tEXt"):
            text = _inflated(kind, data[begin:end], left)
            left -= len(text)
            if left < 0:
                raise ImageError(f"has texts or colour profiles of more than {_METADATA_BYTES >> 20} MiB; remove them")
            if data.startswith(b"Raw profile type exif", begin):
                _guard_exif(_unhexed(text))
        position = end + 4
    raise ImageError(f"has more than {_PNG_CHUNKS:,} chunks; save it anew")


def _inflated(kind: bytes, chunk: bytes, left: int) -> bytes:
    """Return the text or profile of a PNG's chunk, cut off after ``left`` bytes and one more."""
    _, _, content = chunk.partition(b"\0")
    if kind == b"tEXt":
        return content
    if kind == b"iTXt":
        compressed, content = content[:1] != b"\0", content[2:].split(b"\0", 2)[-1]
        if not compressed:
            return content
    else:
        content = content[1:]  # the method
    try:
        return zlib.decompressobj().decompress(content, left + 1)
    except zlib.error:
        return b""


def _unhexed(profile: bytes) -> bytes:
    """Return the bytes that ImageMagick writes as lines of hexadecimal digits, after two lines of their own."""
    try:
        return bytes.fromhex("".join(profile.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return b""


def _guard_jpeg(data: bytes) -> None:
    """Go through the segments before the first scan as Pillow does: what it skips byte by byte is counted."""
    position, junk, exif = 2, 0, b""
    for _ in range(_JPEG_SEGMENTS):
        while True:
            begin = data.find(b"\xff", position)
            if begin < 0 or begin + 4 > len(data):
                return
            marker = data[begin + 1]
            junk += begin - position
            if junk > _JUNK_BYTES:
                raise ImageError("has too many bytes between its segments; save it anew")
            if 0 < marker < 0xC0:
                return
            if marker not in (0, 0xFF) and marker not in _JPEG_BARE:
                break
            position = begin + (1 if marker == 0xFF else 2)
            junk += position - begin
        if marker == 0xDA:
            break
        content = begin + 4
        position = max(content, begin + 2 + (data[begin + 2] << 8 | data[begin + 3]))
        if marker == 0xE1 and data.startswith(_EXIF, content):
            exif += data[content + len(_EXIF) : position]
            if len(exif) > _METADATA_BYTES:
                raise ImageError(f"has EXIF data of more than {_METADATA_BYTES >> 20} MiB; remove it")
        elif marker == 0xE2 and data.startswith(b"MPF\0", content):
            _guard_tags(data[content + 4 : position])
    else:
        raise ImageError(f"has more than {_JPEG_SEGMENTS:,} segments before its pixels; save it anew")
    _guard_exif(exif)


def _guard_scans(data: bytes, size: tuple[int, int]) -> None:
    """Count the scans of a JPEG, and of further pictures in the file: coefficients never look like a marker."""
    scans = data.count(b"\xff\xda")
    if scans > _SCANS and scans * size[0] * size[1] > _SCANNED_PIXELS:
        raise ImageError(f"has {scans:,} scans; save it anew")


def _guard_gif(data: bytes) -> None:
    """Go through the blocks up to the second picture as Pillow does, which looks whether there is one."""
    position, blocks, images = 13, 0, 0
    if len(data) > 10 and data[10] & 128:
        position += 3 << (data[10] & 7) + 1

    def block() -> int:
        """Pass a block and return its length."""
        nonlocal position, blocks
        length = data[position]
        position += 1 + length
        blocks += 1
        if blocks > _GIF_BLOCKS:
            raise ImageError(f"has more than {_GIF_BLOCKS:,} blocks; save it anew")
        return length

    try:
        while (mark := data[position]) != 0x3B:
            position += 1
            if mark == 0x21:
                position += 1
                label, begin = data[position - 1], position
                length = block()
                if label == 0xFE:
                    while length:
                        length = block()
                    continue
                if label == 0xFF and data.startswith(b"NETSCAPE2.0", begin + 1):
                    block()
                while block():
                    pass
            elif mark == 0x2C:
                images += 1
                if images == 2:
                    return
                flags = data[position + 8]
                position += 10 + (3 << (flags & 7) + 1 if flags & 128 else 0)
                while block():
                    pass
            else:
                blocks += 1
                if blocks > _GIF_BLOCKS:
                    raise ImageError("has too many bytes between its blocks; save it anew")
    except IndexError:  # the file ends
        return


def _guard_webp(data: bytes) -> tuple[int, int]:
    """Read the size, too: Pillow would take memory for all pixels to find it."""
    kind = data[12:16]
    if kind == b"VP8X":
        size = int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        size = width & 0x3FFF, height & 0x3FFF
    elif kind == b"VP8L" and data[20:21] == b"\x2f":
        (bits,) = struct.unpack_from("<I", data, 21)
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        raise _damaged("WebP")
    position = 12
    for _ in range(_WEBP_CHUNKS):
        if position + 8 > len(data):
            return size
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"EXIF":
            _guard_exif(data[position + 8 : position + 8 + length])
        position += 8 + length + (length & 1)
    raise ImageError(f"has more than {_WEBP_CHUNKS:,} chunks; save it anew")


def _guard_bmp(data: bytes) -> None:
    if len(data) < 34 or data[14] == 12:  # the oldest header, which knows no compression
        return
    width, height, compression = struct.unpack_from("<iixxxxI", data, 18)
    if compression in (1, 2) and (abs(width * height) > _RLE_PIXELS or len(data) > _RLE_BYTES):
        raise ImageError("is a run-length encoded BMP of more than 2 megapixels or 1 MiB; save it as PNG")


def _guard_tiff(data: bytes) -> None:
    tags = _guard_tags(data)
    tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0)
    width, height = tags.get(256, 0), tags.get(257, 0)
    if tile > max(_LEAST_TILE, 2 * width * height):
        raise ImageError("has tiles of more pixels than the picture; save it anew")


def _guard_exif(exif: bytes) -> None:
    for _ in range(2):  # some files have it twice; Pillow takes off any number, each by a copy of the rest
        exif = exif.removeprefix(_EXIF)
    if exif.startswith(_EXIF):
        raise ImageError("has damaged EXIF data; remove it")
    _guard_tags(exif)


def _guard_tags(data: bytes) -> dict[int, int]:
    """Refuse too many tags, values of tags, or bytes of tags in a TIFF or EXIF data, of the first directory and those
    that it points to.

    Returns:
        The tags of the first directory that have one whole number, the greatest where there are several of a kind.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return {}
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    number, entry, offset_kind, inline = (
        (struct.Struct(f"{order}Q"), struct.Struct(f"{order}HHQ8s"), f"{order}Q", 8)
        if big
        else (struct.Struct(f"{order}H"), struct.Struct(f"{order}HHI4s"), f"{order}I", 4)
    )
    found: dict[int, int] = {}
    count = weight = 0
    try:
        waiting = list(struct.unpack_from(offset_kind, data, 8 if big else 4))
    except struct.error:
        return {}
    seen: set[int] = set()
    while waiting:
        first = not seen
        position = waiting.pop()
        if position in seen or position + number.size > len(data):
            continue
        seen.add(position)
        (tags,) = number.unpack_from(data, position)
        position += number.size
        tags = min(tags, (len(data) - position) // entry.size)
        count += tags
        if count > _TAGS:
            raise ImageError(f"has more than {_TAGS:,} tags; save it anew")
        for tag, kind, values, content in entry.iter_unpack(data[position : position + tags * entry.size]):
            size = values * _TAG_SIZES.get(kind, 0)
            if size > inline:
                weight += min(size, len(data))
            is_long = kind in _TAG_BYTE_KINDS and (tag >= _FIRST_LONG_TAG or tag == _DESCRIPTION)
            if weight > _TAG_BYTES or (values > _TAG_VALUES and kind in _TAG_SIZES and not is_long):
                raise ImageError(f"has a tag ({tag}) of too many values, or too many bytes in all tags; save it anew")
            if values == 1 and kind in (3, 4, 13, 16):
                value = int.from_bytes(content[: _TAG_SIZES[kind]], "little" if order == "<" else "big")
                if tag in _TAG_DIRECTORIES:
                    waiting.append(value)
                elif first:
                    found[tag] = max(value, found.get(tag, 0))
    return found


_GUARDS: dict[str, Callable[[bytes], tuple[int, int] | None]] = {
    "BMP": _guard_bmp,
    "GIF": _guard_gif,
    "JPEG": _guard_jpeg,
    "PNG": _guard_png,
    "TIFF": _guard_tiff,
    "WEBP": _guard_webp,
}
