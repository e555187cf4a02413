"""The directions of a model along which attributes of its pictures change, kept in its directory in one JSON file.

:mod:`genlab.editing` finds and applies them. They are of the very weights whose SHA-256 the file names; they are no
part of the model, whose version stays what it was.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from upath import UPath

from genlab.core.config import from_dict, to_dict
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import exists, read_bytes, write_json

FORMAT = "genlab-directions"
VERSION = 1
FILE_NAME = "directions.json"

Method = Literal["linear", "channel", "sefa"]
"""How a direction was found. ``linear``: a linear fit in W, the other attributes projected out (Shen et al. 2020, CVPR,
arXiv:1907.10786). ``channel``: one channel of the styles (Wu et al. 2021, CVPR, arXiv:2011.12799). ``sefa``: an
eigenvector of the weights that make styles of w (Shen & Zhou 2021, CVPR, arXiv:2007.06600)."""


@dataclass(frozen=True)
class Axis:
    """What is read of pictures as one number: an attribute that is a number, or the log-odds of a class."""

    name: str
    """``age``; ``gender``, for one of two classes; ``season=autumn``, for one of more classes."""
    attribute: str
    """Name of the column that it is read of."""
    towards: str = ""
    """The class that more of it means; empty for a number."""
    away: str = ""
    """The other one of two classes; empty where there are more, and for a number."""

    @property
    def unit(self) -> str:
        """What amounts are counted in."""
        return "nats of log-odds" if self.towards else "the column's units"


@dataclass(frozen=True)
class Change:
    """What an edit did to one axis, over pictures that took no part in finding or calibrating the direction."""

    mean: float
    """Mean of the change of what is read, in the units of the axis."""
    size: float
    """Mean of its absolute value."""
    same_class: float | None = None
    """Of a class: share of the pictures on which the same class is read as before."""


@dataclass(frozen=True)
class Effect:
    """What one amount of a direction did."""

    amount: float
    """The amount asked for, in the units of the direction's axis."""
    pictures: int
    """The number of pictures it was tried on."""
    changes: Mapping[str, Change]
    """By the name of the axis."""


@dataclass(frozen=True)
class Direction:
    """A way to change pictures so that what is read on one axis changes, and how well that works."""

    axis: Axis
    method: Method
    vector: tuple[float, ...]
    """What one step adds to w; empty for a channel. Its Mahalanobis length among samples is 1."""
    layer: str
    """The layer of styles that the channel is of; empty otherwise."""
    channel: int
    """Number of the channel."""
    channel_step: float
    """What one step adds to the channel: one standard deviation of its."""
    steps: tuple[float, ...]
    """The calibration: ascending numbers of steps, 0 among them, ..."""
    amounts: tuple[float, ...]
    """... and the mean change that each makes in what is read of pictures with room for it, ascending too."""
    accuracy: float | None
    """How well a linear function of w tells what is read, on samples that it was not fitted on: of a number the share
    of its variance (R²), of a class the share of right ones. ``None`` for methods without such a function."""
    effects: tuple[Effect, ...]

    @property
    def reach(self) -> tuple[float, float]:
        """The smallest and the largest amount that it was calibrated for."""
        return self.amounts[0], self.amounts[-1]

    def steps_for(self, amount: float) -> float:
        """Return how many steps change what is read by ``amount`` on average.

        Raises:
            ConfigError: it is not finite, or beyond what the direction was calibrated for.
        """
        low, high = self.reach
        if not low <= amount <= high:  # nor NaN
            raise ConfigError(
                f"amount = {amount:g} of {self.axis.name}: this direction goes from {low:.3g} to {high:.3g} "
                f"({self.axis.unit})"
            )
        return float(np.interp(amount, self.amounts, self.steps))


@dataclass(frozen=True)
class Reader:
    """The classifier that read the attributes, and how far it can be trusted."""

    path: str
    weights: str
    """SHA-256 of its weights."""
    data: str
    """Checksum of the data set whose columns it reads."""
    split: str
    """The rows that its errors are of, which it was not trained on."""
    rows: int
    columns: Mapping[str, str]
    """The column of each attribute by its name; the label's is ``label``."""
    errors: Mapping[str, float]
    """By attribute: mean absolute error of a number, share of wrong ones of a class."""


@dataclass(frozen=True)
class Directions:
    """All directions that were found for a model."""

    weights: str
    """SHA-256 of the model's weights."""
    reader: Reader
    samples: int
    """The number of samples that directions were fitted on."""
    seed: int
    directions: tuple[Direction, ...]

    def find(self, name: str, method: Method = "linear") -> Direction:
        """Return the direction of the axis ``name`` that was found by a method.

        Raises:
            ConfigError: there is none.
        """
        for direction in self.directions:
            if direction.axis.name == name and direction.method == method:
                return direction
        there = list(dict.fromkeys(one.axis.name for one in self.directions if one.method == method))
        near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"no direction {name!r} by the method {method}; {meant}there are: {', '.join(there) or 'none'}"
        )

    def save(self, directory: UPath) -> UPath:
        """Write the file into a model directory, and return where it is."""
        file = directory / FILE_NAME
        write_json(file, {"format": FORMAT, "version": VERSION} | to_dict(self))
        return file


def load_directions(directory: UPath, description: Mapping[str, Any]) -> Directions:
    """Read the directions of a model.

    Args:
        directory: the model directory.
        description: its ``genlab.json``.

    Raises:
        RunError: there are none, they are of other weights, damaged or of a newer format.
    """
    file = directory / FILE_NAME
    found = find_directions(directory, description)
    if found is None:
        there = f"{file} is of other weights" if exists(file) else f"{file}: no such file"
        raise RunError(f"{directory}: no directions of these weights ({there}); find some with genlab directions")
    values = json.loads(found)
    try:
        return from_dict(Directions, {name: values[name] for name in values if name not in ("format", "version")})
    except ConfigError as error:
        raise RunError(f"{file}: damaged ({error}); find directions again with genlab directions") from None


def find_directions(directory: UPath, description: Mapping[str, Any]) -> bytes | None:
    """Return the content of the file; ``None`` where there is none, or one of other weights.

    Raises:
        RunError: it is something else, or of a newer format.
    """
    file = directory / FILE_NAME
    try:
        content = read_bytes(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        values = json.loads(content)
    except ValueError as error:
        raise RunError(f"{file}: not valid JSON ({error})") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise RunError(f"{file}: no file of directions; genlab directions writes them")
    if values.get("version") != VERSION:
        raise RunError(f"{file}: directions of format {values.get('version')!r}; this genlab reads format {VERSION}")
    return content if values.get("weights") == description["weights"]["sha256"] else None
