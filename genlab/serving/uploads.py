"""Pictures that clients send: how they are read, and checked against limits before they are decoded."""

import io
from typing import Any

from fastapi import HTTPException, Request
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genlab.imaging.images import SUFFIXES

MAX_BODY_BYTES = 10 * 2**20
"""Largest size of a request's body, in bytes."""
MAX_PIXELS = 4 * 2**20
"""Largest number of pixels of a picture: that of 2048x2048."""

_FORMATS = tuple({Image.registered_extensions()[suffix] for suffix in SUFFIXES})

UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"The picture: BMP, GIF, JPEG, PNG, TIFF or WebP, at most {MAX_BODY_BYTES >> 20} MiB and "
        f"{MAX_PIXELS:,} pixels. Its type is recognised by its content.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "string", "format": "binary"}},
                    "required": ["image"],
                }
            },
        },
    }
}
"""Description for OpenAPI of the body that :func:`read_upload` reads."""


class BodyLimit:
    """ASGI middleware that ends a request with status 413 once its body is longer than :data:`MAX_BODY_BYTES`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
            return message

        await self._app(scope, limited, send)


async def read_upload(request: Request) -> bytes:
    """Read the picture of a request: its whole body, or the file ``image`` of a form.

    Raises:
        HTTPException: 413 too large, 415 not an image, 422 a form without the file.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=1) as form:
            file = form.get("image")
            if not isinstance(file, UploadFile):
                raise HTTPException(422, "the form has no file field named image")
            picture = await file.read()
    else:
        picture = await request.body()
    _check_header(picture)
    return picture


def _check_header(picture: bytes) -> None:
    """Refuse a body that is no picture, or a picture of too many pixels, without decoding it."""
    too_large = f"the picture has more than {MAX_PIXELS:,} pixels"
    try:
        with Image.open(io.BytesIO(picture), formats=_FORMATS) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError:
        raise HTTPException(413, too_large) from None
    except (UnidentifiedImageError, OSError, ValueError):
        raise HTTPException(415, "not a picture that can be read (BMP, GIF, JPEG, PNG, TIFF or WebP)") from None
    if pixels > MAX_PIXELS:
        raise HTTPException(413, f"{too_large} ({image.width}x{image.height})")
