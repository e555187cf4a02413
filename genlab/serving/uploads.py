"""Pictures that clients send: found in the body of a request, and checked against limits before any is decoded.

A picture is the whole body, a file of a form (``multipart/form-data``), or base64 in a JSON object; forms and objects
may hold other parameters beside it. Nothing of a request is written to a file.
"""

import asyncio
import binascii
import contextlib
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, cast

from python_multipart.multipart import parse_options_header

from genlab.imaging.headers import Header, TooManyPixelsError, UnknownFormatError, read_header
from genlab.imaging.images import Channels, Pixels, prepare
from genlab.imaging.value_range import ValueRange
from genlab.serving.limits import Limits
from genlab.serving.problems import Problem

MOST_FIELDS = 64
"""Largest number of parameters of a form beside the pictures."""
MOST_FIELD_BYTES = 2**16
"""Longest parameter of a form, in bytes."""
MOST_HEAD_BYTES = 4096
"""Longest header Content-Type, and longest head of a part of a form, in bytes."""
MOST_JSON_PARTS = 100_000
"""Largest number of values, objects and lists in a JSON body."""

_FORMATS_TEXT = "BMP, GIF, JPEG, PNG, TIFF or WebP"


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """A picture that a client sent, whose header was checked."""

    data: bytes = dataclasses.field(repr=False)
    """The bytes of its file."""
    header: Header
    """Its format and size, before it is turned upright by its EXIF data."""

    @classmethod
    def of(cls, data: bytes) -> "Upload":
        """Read the header of a picture.

        Raises:
            Problem: 413 too many pixels; 415 no picture, or of an unknown format.
            ImageError: the header is damaged, or decoding it would cost beyond its pixels.
        """
        if not data:
            raise Problem(415, "unsupported-media-type", "not a picture: it is empty")
        try:
            return cls(data, read_header(data))
        except UnknownFormatError:
            raise Problem(415, "unsupported-media-type", f"not a picture that can be read ({_FORMATS_TEXT})") from None
        except TooManyPixelsError as error:
            raise Problem(413, "too-many-pixels", f"the picture is {error}") from None

    def decode(self, channels: Channels, value_range: ValueRange | None = None) -> Pixels:
        """Decode it as ingest does: upright, uint8 [height, width, channels]. This takes time; see :func:`decode_all`.

        Args:
            channels: 1 (grey) or 3 (RGB).
            value_range: the values that become 0 and 255 in a picture of more than 8 bits.

        Raises:
            ImageError: it is damaged, or of a kind that ingest refuses.
        """
        return cast("Pixels", prepare(self.data, channels=channels, value_range=value_range).image)


async def decode_all(
    uploads: Sequence[Upload],
    channels: Channels,
    value_range: ValueRange | None = None,
    executor: Executor | None = None,
) -> list[Pixels]:
    """Decode pictures in threads; see :meth:`Upload.decode`.

    Args:
        uploads: the pictures.
        channels: 1 (grey) or 3 (RGB).
        value_range: the values that become 0 and 255 in a picture of more than 8 bits.
        executor: whose threads; by default those of the event loop.

    Raises:
        ImageError: one of them cannot be decoded.
    """
    loop = asyncio.get_running_loop()
    decoding = (loop.run_in_executor(executor, upload.decode, channels, value_range) for upload in uploads)
    return await asyncio.gather(*decoding)


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """What the body of a request holds."""

    pictures: tuple[Upload, ...]
    """In their order."""
    fields: Mapping[str, Any]
    """The other parameters by name: texts of a form, JSON values of an object; empty where the body is a picture."""


def read_pictures(
    content_type: str | None,
    body: bytes,
    limits: Limits,
    *,
    least: int = 1,
    most: int = 1,
    names: tuple[str, ...] = (),
) -> Received:
    """Find the pictures in the body of a request, and check their headers. Nothing is decoded.

    Args:
        content_type: the header of this name. Of any other type than a form or JSON, the whole body is one picture,
            whose format is known by its content.
        body: the body, which must not be longer than ``limits.body_bytes``.
        limits: of bytes, sides, pixels and pictures.
        least: smallest number of pictures.
        most: largest number of pictures.
        names: fields that hold a picture each, such as ``begin`` and ``end``, all of them or none; in place of them
            the field ``image`` may be given several times, or be a list.

    Raises:
        Problem: 400 the body cannot be read; 413 too many bytes or pixels; 415 no picture, or of an unknown format;
            422 a picture is missing, or there are too many.
        ImageError: a picture's header is damaged, or decoding it would cost beyond its pixels.
    """
    if len(body) > limits.body_bytes:
        raise Problem(413, "too-large", f"the body has more than {limits.body_bytes:,} bytes")
    if len(content_type or "") > MOST_HEAD_BYTES:
        raise Problem(400, "bad-request", f"Content-Type has more than {MOST_HEAD_BYTES:,} bytes")
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        files, fields = _read_form(options.get(b"boundary", b""), body, most + MOST_FIELDS, ("image", *names))
    elif kind == b"application/json" or kind.endswith(b"+json"):
        files, fields = _read_object(body, ("image", *names))
    else:
        files, fields = {"image": [body]}, {}
    found = _in_order(files, names, least, most)
    if len(found) > limits.images:
        raise Problem(422, "too-many-pictures", f"{len(found)} pictures were sent; at most {limits.images} are allowed")
    pictures = tuple(map(Upload.of, found))
    check_sizes(((upload.header.height, upload.header.width) for upload in pictures), limits)
    return Received(pictures, fields)


def describe_body(limits: Limits, *, least: int = 1, most: int = 1, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Describe for OpenAPI (``openapi_extra`` of a route) the body that :func:`read_pictures` reads.

    Args:
        limits: of bytes, sides and pixels.
        least: smallest number of pictures.
        most: largest number of pictures.
        names: fields that hold a picture each, in place of ``image``.
    """

    def fields(picture: dict[str, str]) -> dict[str, Any]:
        several = {"type": "array", "items": picture, "minItems": least, "maxItems": most}
        properties = {"image": several if most > 1 else picture, **dict.fromkeys(names, picture)}
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if least and names:
            schema["oneOf"] = [{"required": ["image"]}, {"required": [*names]}]
        elif least:
            schema["required"] = ["image"]
        return schema

    binary = {"type": "string", "format": "binary"}
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": fields(binary)},
        "application/json": {"schema": fields({"type": "string", "contentEncoding": "base64"})},
    }
    places = f"fields image, or {' and '.join(names)}" if names else "field image"
    description = (
        f"{_FORMATS_TEXT}, known by its content: the {places} of a form or, in base64, of a JSON object"
        f"{'' if names else '; or the body itself'}. At most {limits.body_bytes:,} bytes, {limits.side:,} pixels a "
        f"side and {limits.pixels:,} pixels in all."
    )
    if not names:
        content = {"image/*": {"schema": binary}, **content}
    return {"requestBody": {"required": True, "description": description, "content": content}}


def check_sizes(sizes: Iterable[tuple[int, int]], limits: Limits) -> None:
    """Refuse pictures of too long sides, or of too many pixels together.

    Args:
        sizes: height and width of each.
        limits: of sides and pixels.

    Raises:
        Problem: 413.
    """
    pixels = 0
    for height, width in sizes:
        if max(height, width) > limits.side:
            raise Problem(
                413,
                "too-long-side",
                f"the picture has {width}x{height} pixels; at most {limits.side:,} a side are allowed",
            )
        pixels += height * width
    if pixels > limits.pixels:
        raise Problem(413, "too-many-pixels", f"{pixels:,} pixels were sent; at most {limits.pixels:,} are allowed")


def parse_json(body: bytes) -> dict[str, Any]:
    """Parse a JSON object, of bounded size and depth, whose numbers are all finite.

    Raises:
        Problem: 400.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MOST_JSON_PARTS:
        raise Problem(400, "bad-request", f"the JSON has more than {MOST_JSON_PARTS:,} values")
    try:
        value = json.loads(body, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise Problem(400, "bad-request", "the JSON is nested too deeply") from None
    except ValueError as error:
        raise Problem(400, "bad-request", f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Problem(400, "bad-request", "the JSON is not an object")
    return value


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is not a finite number")
    return value


def _read_object(body: bytes, names: Sequence[str]) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
    """Return the pictures of the fields ``names`` of a JSON object, and its other fields."""
    fields = parse_json(body)
    files = {}
    for name in names:
        if name in fields:
            value = fields.pop(name)
            files[name] = [_from_base64(name, text) for text in (value if isinstance(value, list) else [value])]
    return files, fields


def _from_base64(name: str, text: Any) -> bytes:
    """Decode base64, also with line breaks, without padding, or in a ``data:`` URL."""
    if isinstance(text, str):
        if text[:5].lower() == "data:":
            head, _, text = text.partition(",")
            text = text if head.lower().endswith(";base64") else "?"
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            bare = "".join(text.split()).rstrip("=")
        with contextlib.suppress(ValueError):
            return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    raise Problem(422, "invalid", f"{name}: should be a picture's file in base64")


def _read_form(
    boundary: bytes, body: bytes, most: int, names: Sequence[str]
) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
    """Return the pictures of the fields ``names`` of a form (RFC 7578), and its other fields.

    It is split as a whole: a parser that goes from part to part can be kept busy for seconds by what looks like parts.
    """
    if not 1 <= len(boundary) <= 70:
        raise _bad_form("its Content-Type names no boundary of 1 to 70 bytes")
    delimiter = b"\r\n--" + boundary
    if body.count(delimiter) > most + 1:
        raise _bad_form(f"it has more than {most} parts")
    _, *parts = (b"\r\n" + body).split(delimiter)
    if not parts or not parts[-1].startswith(b"--"):
        raise _bad_form("it does not end with its boundary" if parts else "its boundary does not occur in it")
    files: dict[str, list[bytes]] = {}
    fields: dict[str, Any] = {}
    for part in parts[:-1]:
        name, content, is_file = _read_part(part)
        if name in names:
            files.setdefault(name, []).append(content)
        elif name in fields:
            raise Problem(422, "invalid", f"{name}: is given twice")
        elif is_file:
            raise Problem(422, "wrong-pictures", f"{name}: is a file; pictures are those of {' or '.join(names)}")
        elif len(content) > MOST_FIELD_BYTES:
            raise Problem(422, "invalid", f"{name}: has more than {MOST_FIELD_BYTES:,} bytes")
        else:
            try:
                fields[name] = content.decode()
            except UnicodeDecodeError:
                raise Problem(422, "invalid", f"{name}: is not a text in UTF-8") from None
    return files, fields


def _read_part(part: bytes) -> tuple[str, bytes, bool]:
    """Return the name and the content of a part of a form, and whether it is a file; it follows its delimiter."""
    head, end, content = part.partition(b"\r\n\r\n")
    padding, *headers = head.split(b"\r\n", 16)
    if not end or padding.strip(b" \t") or len(head) > MOST_HEAD_BYTES:
        raise _bad_form("a part of it has no proper head")
    for header in headers:
        key, _, value = header.partition(b":")
        if key.strip().lower() == b"content-disposition":
            _, options = parse_options_header(value.decode("latin-1"))
            if b"name" in options:
                return options[b"name"].decode(errors="replace"), content, b"filename" in options
    raise _bad_form("a part of it has no name")


def _bad_form(reason: str) -> Problem:
    return Problem(400, "bad-request", f"the form cannot be read: {reason}")


def _in_order(files: Mapping[str, list[bytes]], names: Sequence[str], least: int, most: int) -> list[bytes]:
    """Return the pictures of the fields ``names``, or of ``image``, if there are as many as wanted."""
    if any(name in files for name in names):
        found = [file for name in names for file in files.get(name, ())]
        complete = "image" not in files and all(len(files.get(name, ())) == 1 for name in names)
    else:
        found = files.get("image", [])
        complete = True
    if complete and least <= len(found) <= most:
        return found
    wanted = (
        f"{least} to {most} pictures are" if least < most else f"{most} pictures are" if most > 1 else "a picture is"
    )
    places = "the field image" + (f", or the fields {' and '.join(names)}" if names else "")
    raise Problem(
        422,
        "wrong-pictures",
        f"{wanted} wanted, in {places}; there are {sum(map(len, files.values()))} in {_listed(files)}",
    )


def _listed(files: Mapping[str, list[bytes]]) -> str:
    return ", ".join(files) or "no field of these"
