"""Image files of more than 8 bits that PIL cannot write."""

import struct
import zlib

import numpy as np


def deep_png(colours: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which PIL cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = colours.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in colours)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, photometric: int | None = None, compressed: bool = False) -> bytes:
    """A TIFF of the very numbers, kind and byte order of ``values``; PIL writes few kinds."""
    order = ">" if values.dtype.byteorder == ">" else "<"
    height, width, channels = (*values.shape, 1)[:3]
    content = values.tobytes()
    content = zlib.compress(content) if compressed else content
    short, long = "H", "I"
    tags: list[tuple[int, str, list[int]]] = [
        (256, long, [width]),
        (257, long, [height]),
        (258, short, [8 * values.itemsize] * channels),
        (259, short, [8 if compressed else 1]),
        (262, short, [photometric if photometric is not None else 1 if channels == 1 else 2]),
        (273, long, [0]),  # where the content begins
        (277, short, [channels]),
        (278, long, [height]),
        (279, long, [len(content)]),
        (339, short, [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels),
    ]
    aside = 8 + 2 + 12 * len(tags) + 4
    longer = b"".join(struct.pack(f"{order}{len(v)}{kind}", *v) for _, kind, v in tags if len(v) > 2)
    entries, place = b"", aside
    for tag, kind, numbers in tags:
        numbers = [aside + len(longer)] if tag == 273 else numbers
        packed = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(packed) > 4:
            place, packed = place + len(packed), struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, 3 if kind == short else 4, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + longer + content
