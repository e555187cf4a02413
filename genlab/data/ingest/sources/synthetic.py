"""``synthetic:scenes-a``, ``synthetic:scenes-b``, ``synthetic:digits``: pictures drawn from a seed, no download."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import numpy as np

from genlab.core.errors import DataError
from genlab.data.format.manifest import Attribute, Manifest
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.sources.base import Entry, Load, Sample, Source
from genlab.data.ingest.synthetic import SEASON_NAMES, draw_digit, draw_scene, scene_attributes
from genlab.imaging.images import Pixels

DRAWINGS = {"scenes-a": 1024, "scenes-b": 1024, "digits": 10_000}
"""Name of each kind of picture → how many are drawn by default."""

MOST = 1_000_000
"""Most pictures of a data set: with more, scenes of the two domains would be counterparts of each other."""

SCENE_COLUMNS = (
    Attribute("season", "category", SEASON_NAMES),
    Attribute("horizon", "float"),
    Attribute("sun_x", "float"),
    Attribute("lake", "int"),
    Attribute("houses", "int"),
)
"""The columns of :class:`genlab.data.ingest.synthetic.SceneAttributes`."""

SCENE_SIZE = 64
"""Default side of a scene, in pixels."""


@dataclasses.dataclass(frozen=True)
class Synthetic(Source):
    """Pictures drawn from a seed.

    Scenes of domain a have the indices 0, 1, ..., those of b 1,000,000, 1,000,001, ...: so the domains are unpaired,
    while each scene's key (``scene-00000042``) tells its true counterpart in the other domain. Their attributes are
    columns, see :class:`genlab.data.ingest.synthetic.SceneAttributes`. Digits have keys like ``digit-00000007`` and
    labels 0 to 9. There are no published splits.
    """

    kind = "synthetic"
    encoded = False

    count: int
    seed: int = 0
    side: int = SCENE_SIZE
    """Side of scenes in pixels, which are drawn at any size; digits are always 28x28."""

    def __post_init__(self) -> None:
        if self.path not in DRAWINGS:
            raise DataError(f"synthetic:{self.path}: no such drawing; there are: {', '.join(DRAWINGS)}")

    @property
    def channels(self) -> int:
        """1 (grey) for digits, 3 (RGB) for scenes."""
        return 1 if self.path == "digits" else 3

    def entries(self) -> Iterator[Entry]:
        """See :meth:`Source.entries`."""
        if self.path == "digits":
            yield from (Entry(f"digit-{index:08d}", index=index) for index in range(self.count))
            return
        first = MOST if self.path == "scenes-b" else 0
        for index in range(first, first + self.count):
            yield Entry(f"scene-{index:08d}", index=index, values=scene_attributes(index, seed=self.seed)._asdict())

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`."""

        def load(entry: Entry) -> Sample:
            if self.path == "digits":
                return Sample(*draw_digit(entry.index, seed=self.seed))
            domain = cast("Literal['a', 'b']", self.path[-1])
            return Sample(draw_scene(entry.index, domain, seed=self.seed, size=self.side))

        yield load

    def label_names(self) -> tuple[str, ...]:
        """Return the ten digits; no names for scenes."""
        return tuple("0123456789") if self.path == "digits" else ()

    def declared(self) -> tuple[Attribute, ...]:
        """Return the attributes of scenes; none for digits."""
        return () if self.path == "digits" else SCENE_COLUMNS

    def describe(self, entry: Entry) -> str:
        """See :meth:`Source.describe`."""
        return f"synthetic:{self.path}, {entry.key}"


def has_counterparts(manifest: Manifest) -> bool:
    """Return whether :func:`counterparts` can draw the counterparts of a data set's rows."""
    origin = manifest.origin
    return origin.kind == "synthetic" and origin.path.startswith("scenes-") and manifest.channels == 3


def counterparts(shards: ShardSet, rows: np.ndarray) -> Pixels | None:
    """Draw the true counterparts, in the other domain, of rows of a data set of scenes.

    Args:
        shards: the data set.
        rows: int64 [n], numbers of rows.

    Returns:
        uint8 [n, height, width, 3], or ``None`` if ``shards`` are not scenes in colour at the size they were drawn.
    """
    manifest = shards.manifest
    if not has_counterparts(manifest):
        return None
    options = manifest.origin.options
    domain: Literal["a", "b"] = "b" if manifest.origin.path == "scenes-a" else "a"
    size = options["size"] or SCENE_SIZE
    indices = [int(key.removeprefix("scene-")) for key in shards.keys(rows)]
    return np.stack([draw_scene(index, domain, seed=options["seed"] or 0, size=size) for index in indices])
