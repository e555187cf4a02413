"""What a client gets: pictures in the form that its Accept header asks for.

=====================  ================================================================================
``image/png``          the default: the picture, or a sheet of several; frames of a film in one row
``image/jpeg``         the same, of quality 90
``image/webp``         the same, of quality 90; a film as an animation
``image/gif``          a film as an animation
``application/zip``    PNG files ``000.png``, ``001.png``, ...
``multipart/mixed``    PNG files, one a part
``application/json``   ``{"type": "image/png", "width": 28, "height": 28, "pictures": ["base64", ...]}``; of pictures
                       that were encoded ``{"latents": [[0.5, -1.25]]}``
=====================  ================================================================================

What is sent is a function of the pictures alone: it holds neither time nor chance.
"""

import binascii
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genlab.imaging.codecs import encode_jpeg, encode_png_fast, encode_webp, encode_webp_film
from genlab.imaging.images import ImageError, Pixels, encode_film
from genlab.imaging.sheets import sheet
from genlab.inference.latent_files import latent_lists
from genlab.serving.problems import Problem

PNG, JPEG, WEBP, GIF = "image/png", "image/jpeg", "image/webp", "image/gif"
ZIP, MULTIPART, JSON = "application/zip", "multipart/mixed", "application/json"

PICTURE = (PNG, JPEG, WEBP, JSON)
"""What there is for the answer of one picture; the first is the default, also in the tuples below."""
PICTURES = (PNG, JPEG, WEBP, ZIP, MULTIPART, JSON)
"""What there is for several pictures."""
FILM = (PNG, JPEG, WEBP, GIF, ZIP, MULTIPART, JSON)
"""What there is for pictures that follow one another, as in an interpolation."""
LATENTS = (JSON,)
"""What there is for latent vectors."""
MOST_FRAMES_A_SECOND = 50
"""Fastest film; browsers show a GIF's frames for at least 20 ms."""

_LONGEST_CACHED = 512  # characters of an Accept header


def choose(accept: str | None, offers: tuple[str, ...]) -> str:
    """Return the media type of ``offers`` that a client prefers, by RFC 9110, section 12.5.1.

    Of types that it likes as much it gets the first. Parameters other than ``q`` say nothing here.

    Args:
        accept: the Accept header; of several, joined by commas.
        offers: media types in lower case, the server's favourite first.

    Raises:
        Problem: 406, none of them is acceptable.
    """
    if accept is None or accept == "*/*":
        return offers[0]
    chosen = (_preferred if len(accept) <= _LONGEST_CACHED else _preferred.__wrapped__)(accept, offers)
    if chosen is None:
        raise Problem(406, "not-acceptable", f"Accept: choose from {', '.join(offers)}")
    return chosen


def encode(
    pictures: Pixels,
    media_type: str,
    *,
    columns: int | None = None,
    frames_per_second: float | None = None,
    note: Mapping[str, Any] | None = None,
) -> tuple[bytes, str]:
    """Encode pictures for an answer.

    Args:
        pictures: uint8 [N, H, W, 1 or 3], N >= 1.
        media_type: a result of :func:`choose`.
        columns: number of pictures in a row of a sheet; by default as many as rows, and all of a film.
        frames_per_second: set for a film, up to :data:`MOST_FRAMES_A_SECOND`.
        note: what each file of a picture says of its origin, see :func:`genlab.imaging.images.read_note`; of what is
            no film, zip or multipart.

    Returns:
        The body, and its Content-Type.

    Raises:
        Problem: 406, the format cannot hold so large a picture.
    """
    film = frames_per_second is not None
    if media_type == ZIP:
        return _zip(pictures), ZIP
    if media_type == MULTIPART:
        return _multipart(pictures)
    if media_type == JSON:
        return _json(pictures, note), JSON
    try:
        if frames_per_second is not None and media_type in (GIF, WEBP):
            milliseconds = round(1000 / min(frames_per_second, MOST_FRAMES_A_SECOND))
            if media_type == GIF:
                return encode_film(pictures, milliseconds, "GIF"), GIF
            return encode_webp_film(pictures, milliseconds), WEBP
        picture = pictures[0]
        if len(pictures) > 1:
            square = len(pictures) if film else math.ceil(math.sqrt(len(pictures)))
            picture = sheet(pictures, columns or square)
        return _ENCODERS[media_type](picture, note), media_type
    except ImageError as error:
        raise Problem(406, "not-acceptable", f"the picture {error}") from None


def encode_latents(latents: NDArray[np.float32]) -> tuple[bytes, str]:
    """Encode latent vectors, float32 [N, D], for an answer: the body, and its Content-Type."""
    return json.dumps({"latents": latent_lists(latents)}).encode(), JSON


def zip_entry(number: int, count: int) -> zipfile.ZipInfo:
    """Return the head of a PNG file in a zip of ``count`` pictures, whose name says its number."""
    entry = zipfile.ZipInfo(f"{number:0{max(3, len(str(count - 1)))}}.png")  # of the year 1980
    entry.external_attr = 0o644 << 16
    return entry


def describe_answers(offers: tuple[str, ...]) -> dict[str, Any]:
    """Describe for OpenAPI (``content`` of a response) the answers of which a client may choose."""
    if offers == LATENTS:
        vectors = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
        return {JSON: {"schema": {"type": "object", "properties": {"latents": vectors}, "required": ["latents"]}}}
    binary = {"type": "string", "format": "binary"}
    texts = {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}}
    side = {"type": "integer", "minimum": 1}
    properties = {"type": {"const": PNG}, "width": side, "height": side, "pictures": texts}
    document = {"type": "object", "properties": properties, "required": list(properties)}
    return {offer: {"schema": document if offer == JSON else binary} for offer in offers}


@lru_cache(maxsize=1024)
def _preferred(accept: str, offers: tuple[str, ...]) -> str | None:
    """Return the offer of the highest quality, ``None`` if all are of quality 0."""
    ranges: dict[str, float] = {}
    for item in accept.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = _quality(value.strip())
        if name:
            ranges[name] = max(quality, ranges.get(name, 0.0))
    if not ranges:
        return offers[0]

    def quality_of(offer: str) -> float:
        for name in (offer, offer.partition("/")[0] + "/*", "*/*"):
            if name in ranges:
                return ranges[name]
        return 0.0

    best = max(offers, key=quality_of)
    return best if quality_of(best) > 0 else None


def _quality(text: str) -> float:
    """Return the number of ``q=``, from 0 to 1; what is no such number is 0."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0


def _zip(pictures: Pixels) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, picture in enumerate(pictures):
            archive.writestr(zip_entry(number, len(pictures)), encode_png_fast(picture))
    return file.getvalue()


def _multipart(pictures: Pixels) -> tuple[bytes, str]:
    files = [encode_png_fast(picture) for picture in pictures]
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(file)
    boundary = digest.hexdigest()
    parts = [
        b"--%b\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%b\r\n" % (boundary.encode(), len(file), file)
        for file in files
    ]
    return b"".join((*parts, b"--%b--\r\n" % boundary.encode())), f"{MULTIPART}; boundary={boundary}"


def _json(pictures: Pixels, note: Mapping[str, Any] | None) -> bytes:
    _, height, width, _ = pictures.shape
    texts = (binascii.b2a_base64(encode_png_fast(picture, note), newline=False) for picture in pictures)
    head = b'{"type": "image/png", "width": %d, "height": %d, "pictures": ["' % (width, height)
    return b"".join((head, b'", "'.join(texts), b'"]}'))


_ENCODERS = {PNG: encode_png_fast, JPEG: encode_jpeg, WEBP: encode_webp}
