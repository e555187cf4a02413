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
from genlab.core.storage import exists, read_bytes, write_atomic, write_json
from genlab.core.text import counted
from genlab.store.model_directory import CARD

FORMAT = "genlab-directions"
VERSION = 1
FILE_NAME = "directions.json"
TITLE = "## Edits"
"""Heading of the last section of a model's card, which says what its directions do."""

PERSONAL = frozenset({"age", "gender"})
"""Attributes of people, of which cards say what they are not."""

Method = Literal["gradient", "linear", "channel", "sefa"]
"""How a direction was found. ``gradient``: from gradients of what is read, so that other attributes change little in
each picture (:func:`genlab.editing.latent_fits.undisturbing`). ``linear``: a linear fit in W, the other attributes
projected out (Shen et al. 2020, CVPR, arXiv:1907.10786). ``channel``: one channel of the styles (Wu et al. 2021, CVPR,
arXiv:2011.12799). ``sefa``: an eigenvector of the weights that make styles of w (Shen & Zhou 2021, CVPR,
arXiv:2007.06600)."""


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
    identity: float | None = None
    """Mean identity distance of a picture and its edit, see :mod:`genlab.metrics.identity`, if it was measured."""


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
class IdentityScale:
    """Identity distances of real faces (:mod:`genlab.metrics.identity`), to compare those of edits with."""

    pictures: int
    """The number of faces."""
    mirrored: float
    """Median distance of a face from its own mirror image."""
    others: float
    """Median distance of a face from another one."""


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
    identity: IdentityScale | None = None
    """What identity distances of real faces are like, if they were measured."""

    def find(self, name: str, method: Method | None = None) -> Direction:
        """Return the direction of the axis ``name`` that was found by a method; by default the first of the file.

        Raises:
            ConfigError: there is none.
        """
        for direction in self.directions:
            if direction.axis.name == name and method in (None, direction.method):
                return direction
        there = list(dict.fromkeys(one.axis.name for one in self.directions if method in (None, one.method)))
        near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
        by = "" if method is None else f" by the method {method}"
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no direction {name!r}{by}; {meant}there are: {', '.join(there) or 'none'}")

    def save(self, directory: UPath) -> UPath:
        """Write the file into a model directory, and what it says into the model's card; return where it is."""
        file, card = directory / FILE_NAME, directory / CARD
        write_json(file, {"format": FORMAT, "version": VERSION} | to_dict(self))
        before = read_bytes(card).decode().partition(f"\n{TITLE}\n")[0] if exists(card) else ""
        write_atomic(card, f"{before}\n{TITLE}\n\n{_card(self)}".encode())
        return file


def cautions(found: Directions) -> tuple[str, ...]:
    """Return what pictures and edits of a model with these directions are not, in sentences for those who use it."""
    read = " and ".join(f"{name} {_error(found, name)}" for name in found.reader.errors)
    rows = counted(found.reader.rows, "held-out picture")
    scale = found.identity
    said = [
        f"What edits do is what a classifier reads, which errs: {read}, on {rows}. It also found the directions, so an "
        "edit may please it and not a person.",
        "An edit changes more than it is asked for: whatever goes with it in the training pictures, and who or what is "
        "shown.",
    ]
    if scale is not None:
        said.append(
            "How far an edit leads away from who is shown is the distance at which a face network puts picture and "
            f"edit. Of {counted(scale.pictures, 'held-out picture')} it puts the median face {scale.mirrored:.2f} from "
            f"its own mirror image, and {scale.others:.2f} from another face."
        )
    if PERSONAL & found.reader.errors.keys():
        said.append(
            "Faces that are drawn are made up, and may resemble people in the training pictures. Labels of faces say "
            "how somebody appeared to those who gave them, and an age may be an estimate (in UTKFace it is): neither "
            "is a fact about a person. An edit of a photo does not show how somebody was, will be or would be."
        )
    return tuple(said)


def _error(found: Directions, attribute: str) -> str:
    """Say how far the classifier errs on an attribute."""
    error = found.reader.errors[attribute]
    is_number = any(one.axis.attribute == attribute and not one.axis.towards for one in found.directions)
    return f"by {error:.3g} in the mean" if is_number else f"in {error:.1%}"


def _card(found: Directions) -> str:
    """Return the section of a model's card: what each direction did to pictures, and cautions."""
    heads = ["direction", "found by", "asked for", "it moved", "others moved"]
    heads += ["identity distance"] if found.identity else []
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for direction in found.directions:
        axis = direction.axis
        for effect in direction.effects:
            own, others = effect.changes[axis.name], list[str]()
            for name, change in effect.changes.items():
                if name != axis.name:
                    kept = "" if change.same_class is None else f", same class in {change.same_class:.0%}"
                    others.append(f"{name} {change.mean:+.3g} (size {change.size:.3g}{kept})")
            moved = f"{own.mean:+.3g}"
            if own.same_class is not None:
                moved += f", another class in {1 - own.same_class:.0%}"
            cells = [axis.name, direction.method, f"{effect.amount:+.3g} ({axis.unit})", moved, "; ".join(others)]
            cells += [] if effect.identity is None else [f"{effect.identity:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {one}" for one in cautions(found)), ""])


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
    return parse_directions(directory, found)


def parse_directions(directory: UPath, content: bytes) -> Directions:
    """Return the directions in what :func:`find_directions` found in a model directory.

    Raises:
        RunError: they are damaged.
    """
    values = json.loads(content)
    try:
        return from_dict(Directions, {name: values[name] for name in values if name not in ("format", "version")})
    except ConfigError as error:
        file = directory / FILE_NAME
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
