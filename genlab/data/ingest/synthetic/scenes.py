"""Landscapes drawn from a seed, by day and by night.

A scene is composed once, without colour, as planes of material, light and distance; a domain is a way to paint
them. So the daylight picture and its night counterpart agree pixel for pixel, and a translation can be scored.
Night is more than darkness: what happens to a pixel depends on what it shows. Windows light up, the sun becomes a
moon, birds become stars, clouds become bands of light, and every surface turns into brush strokes that follow it.
"""

import contextlib
import dataclasses
import enum
import functools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw

from genlab.core.errors import ConfigError
from genlab.data.ingest.synthetic.random import Purpose, generator

Domain = Literal["a", "b"]
Floats = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Point = tuple[float, float]
Points = list[Point]

MIN_SIZE, MAX_SIZE = 32, 256
SUPERSAMPLING = 2
STROKE_STEPS = 5
"""Steps of 1/64 of the picture that a brush stroke reaches to either side."""
NOISE_SIDE = 64
"""Side of the grid on which random fields are drawn before they are enlarged: a scene is the same at any size."""


class Material(enum.IntEnum):
    """The material that a pixel shows."""

    SKY = 0
    ROCK = 1
    SNOW = 2
    HILL = 3
    MEADOW = 4
    CROP = 5
    FIR = 6
    LEAF = 7
    TRUNK = 8
    PATH = 9
    WALL = 10
    ROOF = 11
    WINDOW = 12
    DOOR = 13
    FLOWER = 14
    BIRD = 15


class Air(NamedTuple):
    """The colours of sky and light; ``sun`` and ``shade`` multiply a material's own colour."""

    zenith: Floats
    horizon: Floats
    glow: Floats
    disc: Floats
    cloud: Floats
    cloud_shade: Floats
    haze: Floats
    sun: Floats
    shade: Floats


def _colours(names: str) -> Floats:
    """Return hexadecimal colours as a table [3, names] in [0, 1]; pictures, too, are planes [3, side, side]."""
    return np.array([ImageColor.getrgb(f"#{name}") for name in names.split()], np.float32).T / np.float32(255)


def _air(names: str) -> Air:
    colours = _colours(names)
    return Air(*np.split(colours[..., None], colours.shape[1], axis=1))


# Noon, morning, late afternoon, mist: each hour of the day has one hour of the night.
AIRS: dict[Domain, tuple[Air, ...]] = {
    "a": (
        _air("2f7fd6 d3eaf7 fff6d8 fffbe8 ffffff b4c6dc b5d3ea fffaf0 8090b0"),
        _air("7ea6da ffd8b6 ffc684 fff1cf fff0e2 d8a8aa eecdbd fff0d8 857f9e"),
        _air("559ad0 ffeaac ffd873 fff6c8 fff6da c9b59a ecdcae fff2c4 80808c"),
        _air("a5c0d2 f0f2ee ffffff ffffff f8fafa b8c6ce dfe8ea f0f4f0 a4b0b8"),
    ),
    "b": (
        _air("0b1d5e 4386cc ffe695 fff3b0 a6d2ee 204a98 2a56a4 e6f2ff 343e70"),
        _air("1c1050 a75caa ffcfa8 fff0d8 dca0cc 46297e 66408f fae6ff 3c3270"),
        _air("05253f 34a58e f2f4a0 fffbd0 96e6ba 11565f 1a6872 e6fff4 2c465e"),
        _air("182140 6c82ae e6ecff f5f7ff acb9da 3a4672 48598c f0f4ff 424a6e"),
    ),
}

# Each material's own colour, in the order of Material; SEASONS replaces those of the materials in SEASONAL.
SURFACES: dict[Domain, Floats] = {
    "a": _colours(
        "000000 9a9496 ffffff 76a052 93c04e d8d85c 2f6340 70b040 "
        "70503a e2cca2 fbf1e0 c4502f 40586c 74452a f8dc4c 39465a",
    ),
    "b": _colours(
        "000000 6274b4 d8e4ff 2c5c8c 347a94 5c8cba 123050 2c7484 "
        "221a3c b8b0dc b4c4f0 4c3674 ffc23c 2c2044 cabaff fff0a8",
    ),
}
GLOWING = (Material.WINDOW, Material.BIRD)
"""Materials that shine by themselves at night."""
SEASONAL = (Material.HILL, Material.MEADOW, Material.CROP, Material.LEAF, Material.FLOWER)
SEASON_NAMES = ("spring", "summer", "autumn")
# In the order of their names.
SEASONS: dict[Domain, tuple[Floats, ...]] = {
    "a": (
        _colours("7cab58 9ccb54 dfe070 f2b4c4 fdf6f0"),
        _colours("6f9a4e 9dbb4e eac65c 4f963c e23e2c"),
        _colours("ad8848 c0a450 b8823c de7a2a c88ad0"),
    ),
    "b": (
        _colours("2c6294 3c92a8 7cb4d4 8a8cdc e8f0ff"),
        _colours("265a94 3684a8 90a4dc 2c8094 d8a0f4"),
        _colours("4a4e9a 6068b4 8c74c0 a0508c b0b0f8"),
    ),
}


def _mix(first: Floats, second: Floats, share: Floats | float) -> Floats:
    return first + (second - first) * share


def _smooth(low: float, high: float, value: Floats) -> Floats:
    """Return a smooth step: 0 at ``low``, 1 at ``high``."""
    share = np.clip((value - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _grid(side: int) -> tuple[Floats, Floats]:
    """Return the places of the pixels' centres, y [side, 1] and x [side], in units of the side."""
    places = np.arange(0.5, side, dtype=np.float32) / np.float32(side)
    return places[:, None], places


def _noise(rng: np.random.Generator, side: int, *, slope: float, stretch: float = 1.0) -> Floats:
    """Draw a fractal field [side, side] of mean 0 and deviation 1, ``stretch`` times as long along x."""
    spectrum = _spectrum(slope, stretch)
    waves = rng.standard_normal((*spectrum.shape, 2), np.float32).view(np.complex64)[..., 0]
    grid = np.fft.irfft2(waves * spectrum)
    return _resize(grid / grid.std(), side)


@functools.lru_cache
def _spectrum(slope: float, stretch: float) -> Floats:
    """Return the amplitudes of a fractal field's waves, by their frequencies along y and x (as ``rfft2`` has them)."""
    y = np.fft.fftfreq(NOISE_SIDE, 1 / NOISE_SIDE)[:, None]
    x = np.fft.rfftfreq(NOISE_SIDE, 1 / NOISE_SIDE)
    frequency = np.hypot(x * stretch, y)
    frequency[0, 0] = np.inf
    return (frequency**-slope).astype(np.float32)


def _resize(field: Floats, side: int) -> Floats:
    return np.asarray(Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC))


# --- Composition: places and materials, without colour --------------------------------------------------------------


class Canvas:
    """Planes of material, light and distance [3, side, side]; places are in units of the side, y downwards.

    Light runs from 0 (in shade) to 1 (facing the sun), distance from 0 to 1 (lost in haze).
    """

    def __init__(self, side: int):
        self.side = side
        self.planes = np.zeros((3, side, side), np.uint8)
        self.y, self.x = _grid(side)

    def fill(self, mask: npt.NDArray[np.bool_], material: Material, light: Floats, distance: float) -> None:
        """Cover ``mask`` with a material; light varies over [side, side]."""
        np.copyto(self.planes[0], np.uint8(material), where=mask)
        np.copyto(self.planes[1], (np.clip(light, 0, 1) * 255).astype(np.uint8), where=mask)
        np.copyto(self.planes[2], np.uint8(distance * 255), where=mask)

    @contextlib.contextmanager
    def pen(self) -> Iterator["Pen"]:
        """Yield a pen; what it draws is on the canvas when the block ends."""
        picture = Image.fromarray(np.ascontiguousarray(self.planes.transpose(1, 2, 0)))
        yield Pen(ImageDraw.Draw(picture), self.side)
        self.planes = np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


@dataclasses.dataclass(frozen=True)
class Pen:
    """A pen that draws shapes on a :class:`Canvas`."""

    draw: ImageDraw.ImageDraw
    side: int

    def polygon(self, points: Points, material: Material, light: float, distance: float = 0.0) -> None:
        """Draw a filled polygon."""
        self.draw.polygon([(x * self.side, y * self.side) for x, y in points], _ink(material, light, distance))

    def ellipse(self, centre: Point, radii: Point, material: Material, light: float) -> None:
        """Draw a filled ellipse."""
        (x, y), (rx, ry) = centre, radii
        box = ((x - rx) * self.side, (y - ry) * self.side, (x + rx) * self.side, (y + ry) * self.side)
        self.draw.ellipse(box, _ink(material, light, 0.0))


def _ink(material: Material, light: float, distance: float) -> tuple[int, int, int]:
    return int(material), int(255 * light), int(255 * distance)


class Sun(NamedTuple):
    """The place of the sun, which at night is that of the moon."""

    x: float
    y: float
    radius: float

    def side_of(self, x: float) -> int:
        """Return whether the sun is to the left (-1) or to the right (1) of ``x``."""
        return 1 if self.x > x else -1


@dataclasses.dataclass(frozen=True)
class Scene:
    """A composed landscape."""

    background: Bytes
    """Planes of a :class:`Canvas` with the sky, the birds and everything beyond the lake."""
    foreground: Bytes
    """Planes of a :class:`Canvas` with everything this side of the lake; SKY elsewhere."""
    horizon: float
    has_lake: bool
    clouds: Floats
    """Share of the sky that clouds hide at each pixel, [side, side], 0 to 1."""
    cloud_light: Floats
    ripples: Floats
    """Fractal noise that is longer along x, [side, side]."""
    sun: Sun
    birds: list[Point]
    hours: tuple[int, int, float]
    """Numbers of two of the four hours in AIRS, and the share of the second."""
    season: int
    houses: int


def _compose(rng: np.random.Generator, side: int) -> Scene:
    """Lay out a scene on ``side`` x ``side`` pixels; the numbers drawn from ``rng`` do not depend on ``side``."""
    hours = int(rng.integers(4)), int(rng.integers(4)), rng.uniform(0, 0.3)
    season = int(rng.integers(3))
    horizon = rng.uniform(0.48, 0.64)
    sun = Sun(rng.uniform(0.12, 0.88), rng.uniform(0.1, horizon - 0.2), rng.uniform(0.05, 0.07))
    has_lake = rng.random() < 0.45
    clouds, cloud_light = _clouds(_noise(rng, side, slope=1.7, stretch=2.2), rng.uniform(-0.2, 1.3), sun)
    ripples = _noise(rng, side, slope=1.0, stretch=5.0)
    relief = _noise(rng, side, slope=1.5)
    birds = [(rng.uniform(0.06, 0.94), rng.uniform(0.06, horizon - 0.25)) for _ in range(rng.integers(3, 8))]

    background = Canvas(side)
    hills = _ranges(background, rng, relief, horizon, sun)
    with background.pen() as pen:
        _wood(pen, rng, hills, sun.side_of(0.5))
        for bird in birds:
            _bird(pen, bird, rng.uniform(0.016, 0.026))
    foreground = Canvas(side)
    ground = _fields(foreground, rng, relief, horizon, has_lake)
    with foreground.pen() as pen:
        if rng.random() < 0.6:
            _path(pen, rng, ground)
        _flowers(pen, rng)
        houses = _settle(pen, rng, ground, horizon, sun)
    land = background.planes, foreground.planes, horizon, has_lake
    return Scene(*land, clouds, cloud_light, ripples, sun, birds, hours, season, houses)


def _clouds(vapour: Floats, clear: float, sun: Sun) -> tuple[Floats, Floats]:
    """Return the density of the clouds, which are where the vapour is above ``clear``, and their light."""
    step = len(vapour) // 20
    towards_sun = np.roll(vapour, (step, -step * sun.side_of(0.5)), axis=(0, 1))
    return _smooth(clear, clear + 1.3, vapour), np.clip(0.65 + 0.5 * (vapour - towards_sun), 0, 1)


def _ridge(rng: np.random.Generator, side: int, *, jagged: bool) -> Floats:
    """Draw the outline of a chain of hills, [side] heights of about 0 to 1."""
    octaves = 2.0 ** np.arange(6)[:, None]
    x = (np.arange(side) + 0.5) / side
    phases = rng.uniform(0, 2 * np.pi, (6, 1))
    if jagged:
        heights = ((1 - 2 * np.abs(np.sin(1.3 * np.pi * octaves * x + phases))) / octaves**1.2).sum(axis=0)
    else:
        heights = (np.sin(1.3 * np.pi * octaves * x + phases) / octaves**1.6).sum(axis=0)
    return np.maximum(0.5 + 0.5 * heights, 0).astype(np.float32)


def _ranges(canvas: Canvas, rng: np.random.Generator, relief: Floats, horizon: float, sun: Sun) -> Floats:
    """Draw mountains and hills, from far to near, and return the outline [side] of the nearest."""
    mountains, hills = int(rng.integers(0, 3)), int(rng.integers(1, 3))
    snow = rng.uniform(0.4, 1.1)
    side = canvas.side
    slope = np.clip((relief - np.roll(relief, -sun.side_of(0.5) * (side // 24), axis=1)) * 0.9, -1, 1)
    for depth in range(mountains + hills):
        rocky = depth < mountains
        outline = _ridge(rng, side, jagged=rocky)
        nearness = depth / (mountains + hills)
        height = rng.uniform(0.2, 0.34) * (1 - 0.3 * nearness) if rocky else rng.uniform(0.07, 0.15)
        top = horizon - 0.02 - height * (outline if rocky else 0.4 + 0.6 * outline)
        mask = canvas.y > top
        light = 0.55 + (0.5 if rocky else 0.2) * np.roll(slope, depth * side // 5, axis=1)
        distance = 0.62 * (1 - nearness) ** 1.3
        canvas.fill(mask, Material.ROCK if rocky else Material.HILL, light, distance)
        if rocky:
            snowline = horizon - 0.02 - height * (snow + 0.12 * relief)
            canvas.fill(mask & (canvas.y < snowline), Material.SNOW, light + 0.2, distance * 0.8)
    return top


def _wood(pen: Pen, rng: np.random.Generator, hills: Floats, sunward: int) -> None:
    """Draw a strip of small firs along the nearest hill."""
    begin, length = rng.uniform(-0.2, 0.7), rng.uniform(0.2, 0.6)
    places, heights = begin + length * rng.random(32), rng.uniform(0.035, 0.07, 32)
    for x, height in zip(places.tolist(), heights.tolist(), strict=True):
        if 0 <= x < 1:
            foot = float(hills[int(x * pen.side)]) + 0.03
            _fir(pen, (x, foot), height, sunward, tiers=2, distance=0.22)


def _fields(canvas: Canvas, rng: np.random.Generator, relief: Floats, horizon: float, has_lake: bool) -> Floats:
    """Draw rolling meadows and crops down to the lower edge, and return the outline [side] of the land."""
    swells = 1 if has_lake else int(rng.integers(2, 4))
    first = int(rng.integers(2))
    land = np.ones(canvas.side, np.float32)
    for depth in range(swells):
        nearness = (depth + 1) / swells
        base = rng.uniform(0.76, 0.88) if has_lake else horizon + 0.01 + (0.8 - horizon) * depth / swells
        outline = _ridge(rng, canvas.side, jagged=False)
        top = base + (0.12 if has_lake else 0.09) * (0.5 - outline)
        furrows = _furrows(canvas, rng.uniform(-0.3, 1.3), base - 0.25)
        crop = (first + depth) % 2 == 1
        light = 0.72 + 0.07 * relief + (0.22 if crop else 0.05) * furrows - 0.25 * _smooth(0, 0.5, canvas.y - top)
        canvas.fill(canvas.y > top, Material.CROP if crop else Material.MEADOW, light, 0.25 * (1 - nearness))
        land = np.minimum(land, top)
    return land


def _furrows(canvas: Canvas, vanishing_x: float, vanishing_y: float) -> Floats:
    """Return plough lines that meet in a vanishing point, -1 to 1."""
    return np.sin(14 * (canvas.x - vanishing_x) / np.maximum(canvas.y - vanishing_y, 0.05) + 2.5)


def _path(pen: Pen, rng: np.random.Generator, ground: Floats) -> None:
    """Draw a path that winds from the lower edge over the rim of the land."""
    start, end = rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.75)
    bend, phase = rng.uniform(0.05, 0.14), rng.uniform(0, 2 * np.pi)
    rim = float(ground[int(end * pen.side)])
    share = np.linspace(0, 1, 28)
    near = (1 - share) ** 1.6
    x = end + (start - end) * near + bend * np.sin(7 * share + phase) * np.sqrt(near)
    y = rim + (1.03 - rim) * near
    pen.polygon(_ribbon(x, 0.012 + 0.085 * near, y), Material.PATH, 0.85)


def _flowers(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a drift of blossoms in the near meadow."""
    middle, spread = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.3)
    columns, depths, lights = rng.normal(middle, spread, 36), rng.random(36), rng.uniform(0.5, 1, 36)
    for x, depth, light in zip(columns.tolist(), depths.tolist(), lights.tolist(), strict=True):
        radius = 0.006 + 0.007 * depth
        pen.ellipse((x, 0.86 + 0.14 * depth), (radius, radius * 0.8), Material.FLOWER, light)


def _settle(pen: Pen, rng: np.random.Generator, ground: Floats, horizon: float, sun: Sun) -> int:
    """Draw houses and trees on the land, from far to near, each as large as its distance makes it.

    Returns:
        The number of houses.
    """
    houses = int(rng.choice([0, 1, 2], p=[0.3, 0.45, 0.25]))
    kinds = [_house] * houses + [(_fir, _broadleaf, _poplar)[rng.integers(3)] for _ in range(rng.integers(3, 8))]
    things = []
    for kind in kinds:
        x = rng.uniform(0.05, 0.95)
        rim = float(ground[int(x * pen.side)])
        y = rim + 0.02 + (0.9 - rim) * rng.random() ** 1.5 * 0.8
        reach = (y - horizon + 0.12) * rng.uniform(0.75, 1.0)
        things.append((kind, (x, y), reach * (0.62 if kind is _house else 0.8)))
    if rng.random() < 0.5:  # A tall tree at the edge frames the picture.
        x = float(rng.choice([rng.uniform(0.02, 0.14), rng.uniform(0.86, 0.98)]))
        things.append(((_fir, _poplar)[rng.integers(2)], (x, 0.99), rng.uniform(0.5, 0.75)))
    for kind, foot, height in sorted(things, key=lambda thing: thing[1][1]):
        kind(pen, foot, height, sun.side_of(foot[0]))
    return houses


def _bird(pen: Pen, centre: Point, span: float) -> None:
    x, y = centre
    wings = [(x - span, y - span * 0.7), (x, y), (x + span, y - span * 0.7), (x, y + span * 0.55)]
    pen.polygon(wings, Material.BIRD, 0.5)


def _fir(pen: Pen, foot: Point, height: float, sunward: int, *, tiers: int = 4, distance: float = 0.0) -> None:
    x, y = foot
    pen.polygon(_box(x, y, height * 0.035, height * 0.14), Material.TRUNK, 0.4, distance)
    for rise in np.arange(0, 1, 1 / tiers).tolist():
        low, half = y - height * (0.1 + 0.8 * rise), height * (0.25 - 0.2 * rise)
        top = (x, max(y - height * (0.46 + 0.72 * rise), y - height))
        pen.polygon([(x - half, low), top, (x + half, low)], Material.FIR, 0.25, distance)
        pen.polygon([(x, low - 0.03 * height), top, (x + sunward * half, low)], Material.FIR, 0.95, distance)


def _broadleaf(pen: Pen, foot: Point, height: float, sunward: int) -> None:
    x, y = foot
    pen.polygon(_box(x, y, height * 0.045, height * 0.5), Material.TRUNK, 0.5)
    crown = [(-0.2, 0.5), (0.2, 0.5), (0, 0.46), (-0.13, 0.7), (0.14, 0.72), (0.0, 0.82)]
    for light, shift, radius in ((0.15, 0.0, 0.2), (0.6, 0.05, 0.15), (1.0, 0.09, 0.085)):
        for dx, dy in crown:
            centre = (x + height * (dx + sunward * shift), y - height * (dy + shift * 0.6))
            pen.ellipse(centre, (height * radius, height * radius * 0.9), Material.LEAF, light)


def _poplar(pen: Pen, foot: Point, height: float, sunward: int) -> None:
    x, y = foot
    pen.polygon(_box(x, y, height * 0.03, height * 0.15), Material.TRUNK, 0.5)
    for light, shift, width in ((0.2, 0.0, 0.13), (0.6, 0.03, 0.085), (0.95, 0.055, 0.04)):
        rise = np.linspace(0, 1, 14)
        half = width * height * np.sin(np.pi * rise**0.75) ** 0.8
        centre = x + sunward * shift * height * (1 - rise) + 0.012 * height * np.sin(11 * rise)
        level = y - height * (0.08 + (0.92 - shift) * rise)
        pen.polygon(_ribbon(centre, half, level), Material.FIR, light)


def _house(pen: Pen, foot: Point, height: float, sunward: int) -> None:
    """Draw a cottage whose gable faces the sun and whose long wall is half in shade."""
    x, y = foot
    eaves, ridge, overhang = y - 0.5 * height, y - height, 0.06 * height
    wall, peak, gable = (x + sunward * width * height for width in (-0.75, 0.225, 0.45))
    chimney = _box(peak - sunward * 0.7 * height, y - 0.8 * height, 0.07 * height, 0.35 * height)
    roof = [
        (wall - sunward * overhang, eaves + overhang),
        (wall + peak - x, ridge),
        (peak, ridge),
        (x, eaves + overhang),
    ]
    pen.polygon(chimney, Material.ROOF, 0.3)
    pen.polygon([(wall, y), (wall, eaves), (x, eaves), (x, y)], Material.WALL, 0.35)
    pen.polygon([(x, y), (x, eaves), (peak, ridge), (gable, eaves), (gable, y)], Material.WALL, 1.0)
    pen.polygon(roof, Material.ROOF, 0.8)
    for share in (0.3, 0.7):
        window = _box(x + (wall - x) * share, y - 0.17 * height, 0.09 * height, 0.2 * height)
        pen.polygon(window, Material.WINDOW, 0.5)
    pen.polygon(_box(peak, y - 0.5 * height, 0.07 * height, 0.17 * height), Material.WINDOW, 0.5)
    pen.polygon(_box(peak, y, 0.09 * height, 0.34 * height), Material.DOOR, 0.7)


def _ribbon(centre: Reals, half: Reals, y: Reals) -> Points:
    """Return the outline of a shape that is symmetrical about ``centre`` at each height ``y``."""
    left, right = zip(centre - half, y, strict=True), zip(centre + half, y, strict=True)
    return [*left, *reversed(list(right))]


def _box(x: float, bottom: float, half: float, height: float) -> Points:
    return [(x - half, bottom), (x - half, bottom - height), (x + half, bottom - height), (x + half, bottom)]


# --- Painting: a scene by day or by night ---------------------------------------------------------------------------


def draw_scene(index: int, domain: Domain, *, seed: int = 0, size: int = 64) -> Bytes:
    """Draw one landscape: ``a`` in daylight, ``b`` the same one painted at night.

    The result is a pure function of the arguments (on one version of NumPy and Pillow). The two domains of one (seed,
    index) are each other's counterparts, and another size shows the same scene. Every index is a scene of its own.

    Args:
        index: number of the scene, from 0 on.
        domain: ``a`` or ``b``.
        seed: number of the collection of scenes, from 0 on.
        size: height and width in pixels, 32 to 256.

    Returns:
        uint8 [size, size, 3], RGB.

    Raises:
        ConfigError: the size is out of range.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ConfigError(f"size = {size}: scenes are drawn {MIN_SIZE} to {MAX_SIZE} pixels wide")
    scene = _compose(generator(Purpose.SCENE, seed, index), size * SUPERSAMPLING)
    first, second, share = scene.hours
    air = Air(*(_mix(x, y, share) for x, y in zip(AIRS[domain][first], AIRS[domain][second], strict=True)))
    picture = _reduce(_paint(scene, domain, air))
    if domain == "b":
        open_sky = np.isin(scene.background[0], (Material.SKY, Material.BIRD)) & (scene.foreground[0] == Material.SKY)
        sky = _reduce(open_sky[None].astype(np.float32))[0]
        picture = _brush(picture, sky, scene, air)
    return _to_bytes(picture)


class SceneAttributes(NamedTuple):
    """What is known of a scene, the same in both domains and at every size."""

    season: str
    """One of :data:`SEASON_NAMES`: the colours of meadows, crops, leaves and flowers."""
    horizon: float
    """Height of the horizon, from the upper edge in shares of the picture's height: 0.48 to 0.64."""
    sun_x: float
    """Place of the sun, or of the moon, from the left edge in shares of the width: 0.12 to 0.88."""
    lake: int
    """1 where there is a lake, which begins at the horizon; else 0."""
    houses: int
    """Number of houses, 0 to 2; trees may hide them."""


def scene_attributes(index: int, *, seed: int = 0) -> SceneAttributes:
    """Return the attributes of what :func:`draw_scene` draws by the same arguments."""
    scene = _compose(generator(Purpose.SCENE, seed, index), MIN_SIZE)
    return SceneAttributes(SEASON_NAMES[scene.season], scene.horizon, scene.sun.x, int(scene.has_lake), scene.houses)


def _to_bytes(picture: Floats) -> Bytes:
    """Convert planes [3, side, side] in [0, 1] to an image [side, side, 3]."""
    return np.ascontiguousarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def _reduce(planes: Floats) -> Floats:
    """Average the supersampled pixels."""
    count, side, _ = planes.shape
    size = side // SUPERSAMPLING
    return planes.reshape(count, size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(2, 4))


def _paint(scene: Scene, domain: Domain, air: Air) -> Floats:
    """Return the picture of a scene, [3, side, side]."""
    surfaces = SURFACES[domain].copy()
    surfaces[:, SEASONAL] = SEASONS[domain][scene.season]
    in_sun, in_shade = surfaces * air.sun[:, 0], surfaces * air.shade[:, 0]
    if domain == "b":
        in_sun[:, GLOWING] = in_shade[:, GLOWING] = surfaces[:, GLOWING]
    tables = in_shade, in_sun - in_shade

    side = len(scene.clouds)
    below = int(scene.horizon * side)
    near = scene.foreground[0] != Material.SKY
    far = scene.background[0] != Material.SKY
    if scene.has_lake:
        far[below:] = False
    else:
        far &= ~near
    picture = np.empty((3, side, side), np.float32)
    picture[:, :below] = _sky(scene, domain, air)
    picture[:, far] = _lit(scene.background[:, far], tables, air)
    if scene.has_lake:
        _flood(picture, scene, air)
    picture[:, near] = _lit(scene.foreground[:, near], tables, air)
    return picture


def _lit(planes: Bytes, tables: tuple[Floats, Floats], air: Air) -> Floats:
    """Return the colours [3, n] of materials in their light, behind their haze."""
    material, light, distance = planes
    in_shade, gain = tables
    colour = in_shade[:, material] + gain[:, material] * (light / np.float32(255))
    return _mix(colour, air.haze[:, 0], distance / np.float32(255))


def _sky(scene: Scene, domain: Domain, air: Air) -> Floats:
    """Paint a graded sky with clouds and a sun, or a crescent moon, down to the horizon."""
    y, x = _grid(len(scene.clouds))
    below = int(scene.horizon * len(x))
    y, clouds, cloud_light = y[:below], scene.clouds[:below], scene.cloud_light[:below]
    sun_x, sun_y, radius = scene.sun
    from_sun = np.hypot(x - sun_x, y - sun_y)
    disc = _smooth(radius + 0.006, radius - 0.006, from_sun)
    if domain == "b":
        disc *= _smooth(radius - 0.012, radius, np.hypot(x - sun_x - 0.45 * radius, y - sun_y + 0.3 * radius))
    glow = np.exp(-6 * from_sun)
    picture = _mix(_mix(air.zenith, air.horizon, (y / scene.horizon) ** 1.4), air.glow, 0.85 * glow)
    picture = _mix(picture, _mix(air.cloud_shade, air.cloud, cloud_light), clouds * (0.95 - 0.7 * glow))
    return _mix(picture, air.disc, disc)


def _flood(picture: Floats, scene: Scene, air: Air) -> None:
    """Turn the picture below the horizon into a lake that mirrors the picture above."""
    side = picture.shape[-1]
    shore = int(scene.horizon * side)
    rows, columns = np.arange(shore, side)[:, None], np.arange(side)
    depth = ((rows - shore) / side).astype(np.float32)
    waves = scene.ripples[shore:]
    shift = waves * (0.006 + 0.06 * depth) * side
    mirrored = np.clip(2 * shore - 1 - rows + shift, 0, shore - 1).astype(np.intp)
    sideways = np.clip(columns + 0.4 * shift, 0, side - 1).astype(np.intp)
    water = _mix(picture[:, mirrored, sideways], air.zenith, 0.18 + depth)
    beam = np.exp(-(((columns / np.float32(side) - scene.sun.x) / (scene.sun.radius + 0.35 * depth)) ** 2))
    picture[:, shore:] = _mix(water, air.disc, 0.85 * beam * _smooth(0.3, 1.4, waves))


def _brush(picture: Floats, sky: Floats, scene: Scene, air: Air) -> Floats:
    """Make an oil painting of a picture [3, size, size]: strokes along its shapes, in the sky around moon and stars.

    Strokes follow the level lines of a potential. Where ``sky`` [size, size] is 1 the potential makes swirls, elsewhere
    it is the picture's own brightness. Bright pixels stay sharp.
    """
    size = len(sky)
    y, x = _grid(size)
    stars = np.zeros_like(sky)
    for star_x, star_y in scene.birds:
        stars += np.exp(-((x - star_x) ** 2 + (y - star_y) ** 2) / np.float32(0.028**2))
    halo = np.exp(-((x - scene.sun.x) ** 2 + (y - scene.sun.y) ** 2) / np.float32(0.25**2))
    swirls = 0.2 * y + 0.4 * halo + 0.1 * stars + 0.04 * _resize(scene.ripples, size)
    brightness = picture.mean(axis=0)
    forms = _resize(_resize(brightness, 24), size) + 0.3 * y
    stroke, smeared = _strokes(picture, np.where(sky > 0.5, swirls, forms))

    picture = _mix(picture, smeared, _smooth(0.75, 0.55, brightness) * (0.3 + 0.4 * sky))
    picture = _mix(picture, air.disc, 0.8 * sky * stars)
    picture = _mix(picture, air.cloud, sky * np.clip(0.1 * stroke, 0, 0.25))
    return picture * (1 + (0.065 + 0.015 * sky) * stroke)


def _strokes(picture: Floats, potential: Floats) -> tuple[Floats, Floats]:
    """Average the bristles (to mean 0, deviation 1) and the picture along the level lines of ``potential``."""
    size = len(potential)
    layers = np.concatenate([_bristles(size)[None], picture]).reshape(4, -1)
    down, right = np.gradient(potential)
    stride = np.stack([right, -down]).reshape(2, -1)
    stride *= size / NOISE_SIDE / (np.hypot(*stride) + 1e-6)
    start = np.indices((size, size), np.float32).reshape(2, -1)
    total = layers.copy()
    for direction in (stride, -stride):
        place, pixel = start, np.arange(size * size)
        for _ in range(STROKE_STEPS):
            place = np.clip(place + direction.take(pixel, axis=1), 0, size - 1)
            row, column = np.rint(place).astype(np.intp)
            pixel = row * size + column
            total += layers.take(pixel, axis=1)
    stroke, *smeared = (total / np.float32(2 * STROKE_STEPS + 1)).reshape(4, size, size)
    return (stroke - stroke.mean()) / stroke.std(), np.stack(smeared)


@functools.lru_cache(maxsize=2)
def _bristles(size: int) -> Floats:
    """Return the noise of the brush, the same for all scenes, so that its marks can be learnt."""
    return _noise(generator(Purpose.BRISTLES, 0, 0), size, slope=0.0)
