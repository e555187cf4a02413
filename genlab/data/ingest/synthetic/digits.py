"""Handwritten digits drawn from a seed, in the format of MNIST."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from genlab.data.ingest.synthetic.random import Purpose, generator

Reals = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

# Each digit in several handwritings: tuples of strokes. A stroke is the points (x, y) on its curve, y downwards.
HANDS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        ("50,0 20,15 8,50 20,85 50,100 80,85 92,50 80,15 50,0",),
        ("62,3 35,6 12,38 14,78 40,100 68,88 82,48 74,12 50,2 40,8",),
    ),
    (
        ("50,0 50,50 50,100",),
        ("28,22 42,12 52,0", "52,0 51,50 50,100"),
        ("28,20 42,12 52,0", "52,0 51,50 50,100", "24,100 50,99 78,100"),
    ),
    (
        ("12,26 24,6 52,0 80,12 80,36 54,64 12,100", "12,100 48,98 90,100"),
        ("14,22 34,3 66,4 78,26 62,58 34,88 14,94 16,78 36,80 60,96 90,94",),
    ),
    (
        ("14,12 40,0 74,10 74,34 42,46", "42,46 80,56 86,80 56,100 12,90"),
        ("14,2 46,3 82,2", "82,2 66,22 44,42", "44,42 78,50 84,78 54,100 14,90"),
    ),
    (
        ("30,0 22,30 12,56", "12,56 50,58 92,54", "72,14 70,60 66,100"),
        ("66,0 36,34 8,68", "8,68 50,68 94,66", "66,0 66,50 66,100"),
        ("18,4 16,30 24,48 50,52 76,42", "80,0 77,50 70,100"),
    ),
    (
        ("22,2 50,3 84,0", "22,2 20,22 18,44", "18,44 46,36 80,50 82,80 50,100 12,90"),
        ("82,2 54,2 30,4", "30,4 24,24 20,42", "20,42 54,38 78,60 66,92 36,100 12,92"),
    ),
    (
        ("74,2 42,16 18,52 20,86 48,100 78,86 78,62 52,50 22,66",),
        ("52,0 28,34 18,72 34,98 64,98 78,78 66,58 42,58 22,78",),
    ),
    (
        ("12,3 46,4 86,0", "86,0 60,46 42,100"),
        ("12,4 46,4 86,0", "86,0 62,46 44,100", "32,50 54,48 78,50"),
        ("10,20 14,4 46,6 86,2", "86,2 64,40 56,100"),
    ),
    (
        ("50,48 22,32 24,8 50,0 76,8 78,32 50,48 18,68 18,92 50,100 82,92 82,68 50,48",),
        ("76,12 50,0 26,12 34,36 66,60 76,84 50,100 24,86 34,60 64,38 78,14",),
    ),
    (
        ("78,34 52,52 24,42 22,14 50,0 76,12 78,34", "78,34 76,66 68,100"),
        ("78,30 54,50 26,40 26,12 54,0 76,12 78,30", "78,30 80,70 60,96 28,98"),
    ),
)
CURVE_POINTS = 9
"""Points drawn from one given point of a stroke to the next."""
DIGIT_SIZE = 28
PEN_SUPERSAMPLING = 4


def _curve(stroke: str) -> Reals:
    """Return a Catmull-Rom spline through the points of a stroke, [n, 2] in units of the digit's height."""
    points = np.array([point.split(",") for point in stroke.split()], float) / 100
    before, after = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    p = np.concatenate([before, points, after])[:, None]
    t = np.linspace(0, 1, CURVE_POINTS, endpoint=False)[:, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = b + t * ((c - a) / 2 + t * (a - 2.5 * b + 2 * c - d / 2 + t * (1.5 * (b - c) + (d - a) / 2)))
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])


CURVES = tuple(tuple(tuple(_curve(stroke) for stroke in hand) for hand in hands) for hands in HANDS)


def draw_digit(index: int, *, seed: int = 0) -> tuple[Bytes, int]:
    """Draw one handwritten digit as in MNIST: fitted into 20x20 pixels and centred by its mass in 28x28.

    The result is a pure function of the arguments (on one version of NumPy and Pillow). Among the indices 10 n to
    10 n + 9 each label occurs once.

    Args:
        index: number of the digit, from 0 on.
        seed: number of the collection of digits, from 0 on.

    Returns:
        uint8 [28, 28, 1], white on black, and the label, 0 to 9.
    """
    block, place = divmod(index, 10)
    label = int(generator(Purpose.LABEL, seed, block).permutation(10)[place])
    rng = generator(Purpose.DIGIT, seed, index)
    hands = CURVES[label]
    strokes = _write(hands[rng.integers(len(hands))], rng)
    return _centre(_trace(strokes, width=rng.uniform(1.8, 3.4))), label


def _write(strokes: Sequence[Reals], rng: np.random.Generator) -> list[Reals]:
    """Vary the strokes as handwriting does: bend them by a smooth field, slant, turn, and narrow or widen them."""
    waves, phases = rng.uniform(1.5, 4.5, (2, 2)), rng.uniform(0, 2 * np.pi, 2)
    bend = rng.normal(0, 0.045, 2)
    turn, slant, width = rng.normal(0, 0.1), rng.normal(0.12, 0.18), rng.uniform(0.55, 0.9)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    affine = np.array([[width, 0], [-slant, 1]]) @ rotation
    return [(points + bend * np.sin(points @ waves + phases)) @ affine for points in strokes]


def _trace(strokes: list[Reals], width: float) -> Bytes:
    """Draw strokes ``width`` pixels wide with a round pen, supersampled, so that they fill a box of 20x20 pixels."""
    low = np.min([points.min(axis=0) for points in strokes], axis=0)
    extent = np.max([points.max(axis=0) for points in strokes], axis=0) - low
    radius = width * PEN_SUPERSAMPLING / 2
    box = 20 * PEN_SUPERSAMPLING
    scale = (box - 2 * radius - 1) / extent.max()
    picture = Image.new("L", (box, box))
    draw = ImageDraw.Draw(picture)
    for points in strokes:
        dots = ((points - low) * scale + radius).tolist()
        draw.line([(x, y) for x, y in dots], 255, round(2 * radius))
        for x, y in dots:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
    return np.asarray(picture)


def _centre(ink: Bytes) -> Bytes:
    """Put the centre of mass into the centre of the image, and average the supersampled pixels."""
    middle = DIGIT_SIZE * PEN_SUPERSAMPLING / 2
    places = np.arange(len(ink)) + 0.5
    mass = ink.sum(dtype=np.int64)
    top, left = (round(middle - float(ink.sum(axis=axis, dtype=np.int64) @ places / mass)) for axis in (1, 0))
    picture = Image.new("L", (DIGIT_SIZE * PEN_SUPERSAMPLING, DIGIT_SIZE * PEN_SUPERSAMPLING))
    picture.paste(Image.fromarray(ink), (left, top))
    return np.array(picture.reduce(PEN_SUPERSAMPLING))[..., None]
