"""Decode the image files of a data set into a batch: JPEG by libjpeg-turbo, PNG and WebP by Pillow, without the GIL."""

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from genlab.core.errors import DataError

_JPEG = b"\xff\xd8"


def decode_into(blob: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Decode a JPEG, PNG or WebP file.

    Args:
        blob: uint8 [n], the file's bytes.
        out: uint8 [height, width, 1 or 3], C-contiguous, to decode into: grey or RGB.

    Raises:
        DataError: when the file is damaged, or the image is not of the size of ``out``.
    """
    if blob[:2].tobytes() == _JPEG:
        try:
            # By default libjpeg's warnings are errors here. Such a file is left to Pillow, which accepted it at ingest.
            found = simplejpeg.decode_jpeg(blob, "GRAY" if out.shape[2] == 1 else "RGB", buffer=out)
        except ValueError:
            pass
        else:
            if found.shape != out.shape:
                raise _other_size(found.shape, out)
            return
    try:
        with Image.open(io.BytesIO(blob.tobytes()), formats=("JPEG", "PNG", "WEBP")) as image:
            pixels = np.asarray(image.convert("L" if out.shape[2] == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise DataError(f"cannot be decoded ({error})") from None
    if pixels.shape[:2] != out.shape[:2]:
        raise _other_size(pixels.shape, out)
    out[:] = pixels.reshape(out.shape)


def _other_size(shape: tuple[int, ...], out: NDArray[np.uint8]) -> DataError:
    return DataError(f"is {shape[1]}x{shape[0]} pixels, not {out.shape[1]}x{out.shape[0]}")
