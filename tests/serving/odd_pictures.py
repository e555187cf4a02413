"""Pictures that are damaged, hostile or merely rare, each with the status that a request with it gets."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.imaging.support import deep_png, tiff


class Odd(NamedTuple):
    """A picture, and what becomes of it."""

    data: bytes
    status: int
    shape: tuple[int, int] | None = None
    """Height and width of the decoded picture where the status is 200."""


NOISE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
PHOTO = Image.fromarray(NOISE)
GREY = NOISE[:, :, 0]
SHAPE = (16, 24)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
IEND = b"IEND"


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def ihdr(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0, lines: bytes | None = None) -> bytes:
    """A PNG with further chunks before its pixels, which are black unless ``lines`` has them, filtered."""
    row = 1 + (width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1) + 7) // 8
    lines = bytes(row * height) if lines is None else lines
    pixels = chunk(b"IDAT", zlib.compress(lines))
    return b"".join((SIGNATURE, ihdr(width, height, depth, colour), *chunks, pixels, chunk(IEND, b"")))


def claim_png(width: int, height: int) -> bytes:
    """A PNG that has no pixels, whatever its header says."""
    return SIGNATURE + ihdr(width, height) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(IEND, b"")


def inflating(size: int) -> bytes:
    """Zeros, compressed; none of more than a MiB is ever in memory."""
    deflate = zlib.compressobj(9)
    block = bytes(2**20)
    return b"".join([*(deflate.compress(block) for _ in range(size >> 20)), deflate.flush()])


def interlaced() -> bytes:
    """An Adam7 PNG, which Pillow cannot write."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    lines = b"".join(b"\0" + line.tobytes() for x, y, dx, dy in passes for line in GREY[y::dy, x::dx])
    head = SIGNATURE + ihdr(24, 16, interlace=1)
    return head + chunk(b"IDAT", zlib.compress(lines)) + chunk(IEND, b"")


def exif(*tags: tuple[int, int, int, int], magic: bytes = b"II*\0") -> bytes:
    """EXIF data with these (tag, kind, number of values, value or offset)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return magic + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def turned(orientation: int) -> bytes:
    return exif((0x0112, 3, 1, orientation))


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(*segments: bytes, jpeg: bytes | None = None) -> bytes:
    jpeg = jpeg or encoded(PHOTO, "JPEG")
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def resized(jpeg: bytes, width: int, height: int, marker: int = 0xC0, depth: int = 8) -> bytes:
    """A JPEG whose header lies."""
    place = jpeg.index(b"\xff\xc0")
    head = b"\xff" + bytes([marker]) + jpeg[place + 2 : place + 4] + struct.pack(">BHH", depth, height, width)
    return jpeg[:place] + head + jpeg[place + 9 :]


def many_scans(count: int, side: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    jpeg = encoded(Image.new("L", (side, side), 99), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * count + jpeg[-2:]


def gif(width: int, height: int, *blocks: bytes, frame: tuple[int, int] = (2, 2)) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    picture = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x03\x84\x51\x00\x00"
    return screen + b"".join(blocks) + picture + b";"


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def vp8x(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def webp_frame(side: int) -> tuple[bytes, bytes]:
    data = encoded(Image.new("RGB", (side, side), "red"), "WEBP", lossless=True)
    return data[12:16], data[20:]


def bmp(width: int, height: int, data: bytes, bits: int = 8, compression: int = 0, colours: int = 2) -> bytes:
    palette = b"\0\0\0\0\xff\x80\x40\0" * (colours // 2) if bits <= 8 else b""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    offset = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + head + palette + data


def tiff_of(*tags: tuple[int, int, int, int], rest: bytes = b"") -> bytes:
    return exif(*sorted(tags)) + rest


def grey_tags(width: int, height: int, *more: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """The tags of an uncompressed grey TIFF in one strip, those of ``more`` in place of them."""
    usual = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, width * height),
    ]
    return [tag for tag in usual if tag[0] not in {other[0] for other in more}] + list(more)


def film(kind: str) -> bytes:
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "blue", "green")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def _pngs() -> Iterator[tuple[str, Odd]]:
    yield "one row of 4,194,304", Odd(png(4_194_304, 1), 413)
    yield "65535 x 64", Odd(claim_png(65535, 64), 413)
    yield "a side of 8192", Odd(png(8192, 1), 200, (1, 8192))
    yield "a side of 8193", Odd(png(1, 8193), 413)
    yield "too many pixels", Odd(claim_png(4097, 4097), 413)
    yield "more pixels than Pillow takes", Odd(claim_png(2**31 - 1, 2**31 - 1), 413)
    yield "no columns", Odd(claim_png(0, 5), 422)
    yield "no pixels", Odd(claim_png(0, 0), 422)
    yield "a signature alone", Odd(SIGNATURE, 422)
    yield "a header alone", Odd(SIGNATURE + ihdr(4, 4), 422)
    yield "fewer pixels than claimed", Odd(claim_png(4000, 4000), 422)
    whole = encoded(PHOTO, "PNG")
    yield "cut off", Odd(whole[:-200], 422)
    yield "a wrong checksum of the header", Odd(whole[:29] + bytes([whole[29] ^ 1]) + whole[30:], 422)
    yield "damaged pixels", Odd(whole[:60] + bytes(40) + whole[100:], 422)
    yield "a chunk of 4 GiB", Odd(SIGNATURE + ihdr(4, 4) + b"\xff\xff\xff\xffIDAT", 422)
    yield "a chunk without a name", Odd(SIGNATURE + ihdr(4, 4) + bytes(100), 422)
    yield "no end", Odd(png(4, 4)[:-12], 200, (4, 4))
    yield "rubbish behind the end", Odd(whole + b"\xff" * 10_000, 200, SHAPE)
    yield "a colour type that there is not", Odd(png(4, 4, colour=5), 422)
    yield "a depth that there is not", Odd(png(4, 4, depth=3), 422)
    yield "a palette that is missing", Odd(png(4, 4, colour=3), 422)
    yield "two headers", Odd(png(4, 4, ihdr(5000, 5000)), 413)
    endless = chunk(b"IDAT", inflating(2**28))
    yield "pixels that inflate to 256 MiB", Odd(SIGNATURE + ihdr(64, 64) + endless + chunk(IEND, b""), 200, (64, 64))
    yield "a profile that inflates", Odd(png(4, 4, chunk(b"iCCP", b"icc\0\0" + inflating(2**26))), 422)
    yield "a text that inflates", Odd(png(4, 4, chunk(b"zTXt", b"text\0\0" + inflating(2**26))), 422)
    yield "a text in UTF-8 that inflates", Odd(png(4, 4, chunk(b"iTXt", b"t\0\1\0\0\0" + inflating(2**26))), 422)
    yield "texts that inflate together", Odd(png(4, 4, *[chunk(b"zTXt", b"t\0\0" + inflating(2**20))] * 60), 422)
    yield "a damaged text", Odd(png(4, 4, chunk(b"zTXt", b"text\0\0rubbish")), 200, (4, 4))
    yield "EXIF marks in a row", Odd(png(4, 4, chunk(b"eXIf", b"Exif\0\0" * 100_000)), 422)
    many = b"II*\0" + struct.pack("<IH", 8, 60_000) + struct.pack("<HHII", 1, 1, 60_000, 8) * 60_000
    yield "60,000 tags", Odd(png(4, 4, chunk(b"eXIf", many)), 422)
    hexed = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%d\n" % len(many) + many.hex().encode())
    yield "60,000 tags in digits", Odd(png(4, 4, chunk(b"zTXt", hexed)), 422)
    yield "EXIF data that is none", Odd(png(4, 4, chunk(b"eXIf", b"rubbish!" * 9)), 422)
    yield "30,000 chunks", Odd(png(4, 4, *[chunk(b"IDAT", b"")] * 30_000), 422)
    yield "turned", Odd(png(24, 16, chunk(b"eXIf", turned(6))), 200, (24, 16))
    yield "turned, said behind the pixels", Odd(png(24, 16)[:-12] + chunk(b"eXIf", turned(8)), 200, (24, 16))
    yield "an orientation that there is not", Odd(png(24, 16, chunk(b"eXIf", turned(99))), 200, SHAPE)
    yield "a film", Odd(film("PNG"), 200, SHAPE)
    frame = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(
        b"fcTL", struct.pack(">IIIIIHHBB", 0, 99, 99, 0, 0, 1, 1, 0, 0)
    )
    yield "a frame larger than the film", Odd(png(4, 4, frame), 422)
    yield "2^31 frames", Odd(png(4, 4, chunk(b"acTL", struct.pack(">II", 2**31, 0))), 200, (4, 4))
    yield "interlaced", Odd(interlaced(), 200, SHAPE)
    yield "a palette with transparency", Odd(encoded(PHOTO.quantize(8), "PNG", transparency=3), 200, SHAPE)
    yield "grey with alpha", Odd(encoded(PHOTO.convert("LA"), "PNG"), 200, SHAPE)
    yield "colour with alpha", Odd(encoded(PHOTO.convert("RGBA"), "PNG"), 200, SHAPE)
    yield "1 bit", Odd(encoded(PHOTO.convert("1"), "PNG"), 200, SHAPE)
    yield "16 bits, grey", Odd(encoded(Image.fromarray(GREY * np.uint16(257)), "PNG"), 200, SHAPE)
    yield "16 bits, colour", Odd(deep_png(NOISE * np.uint16(257)), 200, SHAPE)
    yield "one pixel", Odd(png(1, 1), 200, (1, 1))


def _jpegs() -> Iterator[tuple[str, Odd]]:
    whole = encoded(PHOTO, "JPEG")
    yield "a mark alone", Odd(b"\xff\xd8\xff", 422)
    yield "cut off", Odd(whole[:-100], 422)
    yield "cut off in its header", Odd(whole[:100], 422)
    yield "65535 x 64", Odd(resized(whole, 65535, 64), 413)
    yield "65535 x 65535", Odd(resized(whole, 65535, 65535), 413)
    yield "no rows", Odd(resized(whole, 24, 0), 422)
    yield "12 bits", Odd(resized(whole, 24, 16, depth=12), 422)
    yield "lossless", Odd(resized(whole, 24, 16, marker=0xC3), 422)
    yield "two headers", Odd(with_segments(whole[whole.index(b"\xff\xc0") :][:19], jpeg=whole), 422)
    yield "CMYK", Odd(encoded(PHOTO.convert("CMYK"), "JPEG"), 200, SHAPE)
    yield "grey", Odd(encoded(PHOTO.convert("L"), "JPEG"), 200, SHAPE)
    yield "progressive", Odd(encoded(PHOTO, "JPEG", progressive=True), 200, SHAPE)
    yield "20,000 scans", Odd(many_scans(20_000, 1024), 422)
    yield "twice as many scans as usual", Odd(many_scans(10, 64), 200, (64, 64))
    yield "a MiB of zeros between segments", Odd(with_segments(segment(0xFE, b""), bytes(2**20)), 422)
    yield "a MiB of marks between segments", Odd(with_segments(b"\xff" * 2**20), 422)
    yield "restarts between segments", Odd(with_segments(b"\xff\xd0" * 2**19), 422)
    yield "100,000 comments", Odd(with_segments(segment(0xFE, b"") * 100_000), 422)
    yield "turned", Odd(with_segments(segment(0xE1, b"Exif\0\0" + turned(6))), 200, (24, 16))
    yield "EXIF data that is none", Odd(with_segments(segment(0xE1, b"Exif\0\0rubbish!")), 200, SHAPE)
    yield "EXIF data in 200 segments", Odd(with_segments(segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 200), 422)
    overlapping = exif(*[(tag, 7, 60_000, 0) for tag in range(5000)])
    yield "tags that show the same bytes", Odd(with_segments(segment(0xE1, b"Exif\0\0" + overlapping)), 422)
    yield (
        "an index of further pictures that shows the same",
        Odd(with_segments(segment(0xE2, b"MPF\0" + overlapping)), 422),
    )
    yield "several pictures", Odd(encoded(PHOTO, "MPO", save_all=True, append_images=[PHOTO]), 200, SHAPE)
    yield "rubbish behind the end", Odd(whole + bytes(2**20), 200, SHAPE)


def _gifs() -> Iterator[tuple[str, Odd]]:
    yield "a film", Odd(film("GIF"), 200, SHAPE)
    yield "transparent", Odd(encoded(PHOTO.quantize(8), "GIF", transparency=2), 200, SHAPE)
    yield "a head alone", Odd(b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0), 422)
    yield "a mark alone", Odd(b"GIF87a", 422)
    yield "cut off", Odd(encoded(PHOTO, "GIF")[:-300], 422)
    yield "a screen of 65535 x 65535", Odd(gif(65535, 65535), 413)
    yield "a frame larger than the screen", Odd(gif(2, 2, frame=(65535, 65535)), 413)
    yield "a frame of too many pixels", Odd(gif(2, 2, frame=(5000, 5000)), 413)
    yield "no pixels", Odd(gif(0, 0, frame=(0, 0)), 422)
    yield "a comment in single bytes", Odd(gif(2, 2, b"!\xfe" + b"\x01x" * 2**20 + b"\0"), 422)
    yield "an extension in single bytes", Odd(gif(2, 2, b"!\xff" + b"\x01x" * 2**20 + b"\0"), 422)
    yield "a million extensions", Odd(gif(2, 2, b"!\x01\0\0" * 2**18), 422)
    yield "bytes between blocks", Odd(gif(2, 2, b"\x01" * 2**20), 422)
    yield "no picture", Odd(gif(2, 2)[:19] + b";", 422)


def _webps() -> Iterator[tuple[str, Odd]]:
    whole = encoded(PHOTO, "WEBP")
    yield "lossy", Odd(whole, 200, SHAPE)
    yield "lossless with alpha", Odd(encoded(PHOTO.convert("RGBA"), "WEBP", lossless=True), 200, SHAPE)
    yield "a film", Odd(film("WEBP"), 200, SHAPE)
    yield "cut off", Odd(whole[:-100], 422)
    yield "a head alone", Odd(b"RIFF\x04\0\0\0WEBP", 422)
    yield "16384 x 16384", Odd(riff(vp8x(16384, 16384), webp_frame(8)), 413)
    yield "2^24 x 2^24", Odd(riff(vp8x(2**24, 2**24), webp_frame(8)), 413)
    yield "a canvas larger than its picture", Odd(riff(vp8x(64, 64), webp_frame(8)), 422)
    yield "8192 x 2 in a frame of 8", Odd(riff(vp8x(8192, 2), webp_frame(8)), 422)
    yield "turned", Odd(encoded(PHOTO, "WEBP", exif=b"Exif\0\0" + turned(6)), 200, (24, 16))
    yield "EXIF marks in a row", Odd(riff(vp8x(8, 8, 8), webp_frame(8), (b"EXIF", b"Exif\0\0" * 100_000)), 422)
    yield "100,000 chunks", Odd(riff(vp8x(8, 8), *[(b"JUNK", b"")] * 100_000, webp_frame(8)), 422)


def _bmps() -> Iterator[tuple[str, Odd]]:
    yield "colour", Odd(encoded(PHOTO, "BMP"), 200, SHAPE)
    yield "a mark alone", Odd(b"BM", 422)
    yield "a text", Odd(b"BMW is a car, and this is a text of some length about it.", 422)
    yield "cut off", Odd(encoded(PHOTO, "BMP")[:-200], 422)
    yield "from the top", Odd(bmp(4, -4, bytes(16)), 200, (4, 4))
    yield "16 bits for three channels", Odd(bmp(4, 4, bytes(32), bits=16), 200, (4, 4))
    yield "7 bits", Odd(bmp(4, 4, bytes(16), bits=7), 422)
    yield "60000 x 60000", Odd(bmp(60000, 60000, b""), 413)
    yield "run-length encoded", Odd(bmp(4, 2, b"\x04\x01\0\0\x04\0\0\1", compression=1), 200, (2, 4))
    yield "run-length encoded, of 16 megapixels", Odd(bmp(4096, 4096, b"\0\0" * 5000, compression=1), 422)
    yield "run-length encoded, endless", Odd(bmp(4, 4, b"\0\0" * 2**20, compression=1), 422)


def _tiffs() -> Iterator[tuple[str, Odd]]:
    yield "CMYK", Odd(encoded(PHOTO.convert("CMYK"), "TIFF"), 200, SHAPE)
    yield "Lab", Odd(encoded(PHOTO.convert("RGB").convert("LAB"), "TIFF"), 200, SHAPE)
    yield "deflated", Odd(encoded(PHOTO, "TIFF", compression="tiff_adobe_deflate"), 200, SHAPE)
    yield "16 bits", Odd(tiff(GREY.astype("<u2") * 257), 200, SHAPE)
    yield "floats", Odd(tiff(GREY.astype("<f4")), 422)
    yield "several pages", Odd(encoded(PHOTO, "TIFF", save_all=True, append_images=[PHOTO]), 200, SHAPE)
    yield "a mark alone", Odd(b"II*\0", 422)
    yield "no tags", Odd(tiff_of(), 422)
    yield "a directory beyond the end", Odd(b"II*\0\xff\xff\xff\x7f", 422)
    yield "cut off", Odd(encoded(PHOTO, "TIFF", compression="tiff_adobe_deflate")[:400], 422)
    yield "plain", Odd(tiff_of(*grey_tags(4, 4)), 200, (4, 4))
    yield "pixels beyond the end", Odd(tiff_of(*grey_tags(4, 4, (273, 4, 1, 10**9))), 422)
    yield "65535 x 65535", Odd(tiff_of(*grey_tags(65535, 65535)), 413)
    yield "4097 x 4097", Odd(tiff_of(*grey_tags(4097, 4097)), 413)
    yield "a width of text", Odd(tiff_of(*grey_tags(4, 4, (256, 2, 4, 4))), 422)
    yield "65,535 channels", Odd(tiff_of(*grey_tags(4, 4, (277, 3, 1, 65535))), 422)
    yield (
        "a tile of a gigapixel",
        Odd(tiff_of(*grey_tags(4, 4, (322, 4, 1, 2**15), (323, 4, 1, 2**15), (324, 4, 1, 8), (259, 3, 1, 8))), 422),
    )
    yield "a million strips", Odd(tiff_of(*grey_tags(4, 4, (273, 4, 2**20, 0)), rest=bytes(2**22)), 422)
    yield "a million strips of a byte", Odd(tiff_of(*grey_tags(4, 4, (273, 1, 2**20, 0)), rest=bytes(2**20)), 422)
    same = [(tag, 7, 2**20, 0) for tag in range(1000, 2000)]
    yield "tags that show the same MiB", Odd(tiff_of(*grey_tags(4, 4), *same, rest=bytes(2**20)), 422)
    yield "20,000 tags", Odd(tiff_of(*grey_tags(4, 4), *[(tag, 3, 1, 1) for tag in range(1000, 21_000)]), 422)
    loop = bytearray(tiff_of(*grey_tags(4, 4)))
    loop[-4:] = struct.pack("<I", 8)
    yield "a directory that leads to itself", Odd(bytes(loop), 200, (4, 4))
    yield "EXIF data that leads to itself", Odd(tiff_of(*grey_tags(4, 4, (34665, 4, 1, 8))), 200, (4, 4))
    yield "64-bit offsets beyond the end", Odd(b"II+\0\x08\0\0\0" + b"\xff" * 7 + b"\x7f", 422)


def _others() -> Iterator[tuple[str, Odd]]:
    for name, data in {
        "nothing": b"",
        "a byte": b"\x89",
        "text": b"hello",
        "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(64),
        "HEIF": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        "JPEG XL": b"\xff\x0a" + bytes(32),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(32),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "PDF": b"%PDF-1.7\n",
        "PPM": b"P6 4 4 255\n" + bytes(48),
        "an icon": b"\0\0\1\0\1\0\x10\x10" + bytes(64),
        "Photoshop": b"8BPS\0\1" + bytes(64),
        "a zip": b"PK\3\4" + bytes(64),
        "HTML": b"<!doctype html><title>no picture</title>",
        "sound in RIFF": b"RIFF\x24\0\0\0WAVEfmt " + bytes(32),
    }.items():
        yield name, Odd(data, 415)


@cache
def odd_pictures() -> dict[str, Odd]:
    """Return all of them, by name."""
    kinds: dict[str, Callable[[], Iterator[tuple[str, Odd]]]] = {
        "PNG": _pngs,
        "JPEG": _jpegs,
        "GIF": _gifs,
        "WebP": _webps,
        "BMP": _bmps,
        "TIFF": _tiffs,
        "other": _others,
    }
    return {f"{kind}: {name}": odd for kind, pictures in kinds.items() for name, odd in pictures()}
