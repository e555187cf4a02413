"""The range of values, LO to HI, that becomes 0 to 255 in pictures of more than 8 bits.

Such pictures are grey: 16-bit or 32-bit integers, or 32-bit floats. Their files do not say which values are black and
white: a camera of 12 bits, say, writes 0 to 4095 into 16-bit files.
"""

import math

import numpy as np
from numpy.typing import NDArray

from genlab.core.errors import ConfigError

ValueRange = tuple[float, float]
"""(LO, HI): the value that becomes 0, and the greater one that becomes 255."""


def parse_range(text: str) -> ValueRange:
    """Read a range from a text ``LO:HI``, such as ``0:4095`` or ``-1.5:1.5``.

    Raises:
        ConfigError: it is no such text, or LO is not below HI.
    """
    low, colon, high = text.partition(":")
    try:
        least, greatest = float(low), float(high)
    except ValueError:
        least = greatest = math.nan
    if not (colon and least < greatest and math.isfinite(greatest - least)):
        raise ConfigError(f"range = {text!r}: should be LO:HI with LO less than HI, as in 0:4095, or auto")
    return least, greatest


def range_text(value_range: ValueRange) -> str:
    """Write a range as the text ``LO:HI`` that :func:`parse_range` reads."""
    return ":".join(str(int(value)) if value.is_integer() else repr(value) for value in map(float, value_range))


def to_8_bits(values: np.ndarray, value_range: ValueRange) -> NDArray[np.uint8]:
    """Map LO to 0, HI to 255, and what lies between linearly to the nearest integer; what lies beyond is clipped.

    Args:
        values: finite numbers, of any shape.
        value_range: LO and HI.

    Returns:
        uint8 of the same shape.
    """
    low, high = value_range
    scaled = np.clip(values.astype(np.float64), low, high)
    scaled -= low
    scaled *= 255 / (high - low)
    return np.rint(scaled).astype(np.uint8)
