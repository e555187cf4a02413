"""What may be asked of a trained model: its operations, directions and classes, from its ``genlab.json`` alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from upath import UPath

from genlab.core.config import from_dict
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate
from genlab.imaging.value_range import ValueRange
from genlab.models.model import Shape, Translator, model_type
from genlab.store import model_directory

SHOWN = 20
"""Classes named in a message, at most."""


@dataclass(frozen=True)
class ModelInfo:
    """A model in its directory, known without its weights, and the checks of what is asked of it."""

    directory: UPath
    family: str
    image_shape: Shape
    """(height, width, channels) of the images it was made for."""
    operations: Mapping[str, type]
    """The operations of :class:`genlab.models.model.Model` that it has, each with the dataclass of its options."""
    directions: tuple[str, ...]
    """Directions that it translates in, the default first; empty for a model that does not translate."""
    classes: tuple[str, ...]
    """Names of the classes that it is told, number 0 first; empty for a model that is told none. Numbers stand in for
    names that its data set did not give."""
    latent_dim: int
    """Length of the latent vectors that ``decode`` takes; 0 for a model that takes none."""
    weights: str
    """SHA-256 of its weights."""
    provenance: Mapping[str, Any]
    """The fields of :class:`genlab.store.model_directory.Provenance`."""
    value_ranges: Mapping[str, ValueRange]
    """The values that became 0 and 255 in images of more than 8 bits, by the domain of the data set that it was trained
    on (``images``, or one such as ``a``); data sets that were ingested without a range are not there."""

    @classmethod
    def read(cls, directory: model_directory.Location) -> Self:
        """Read the description of a model directory.

        Raises:
            RunError: it is not a model directory, or its description is damaged.
        """
        return cls.of(directory, model_directory.describe(directory))

    @classmethod
    def of(cls, directory: model_directory.Location, description: Mapping[str, Any]) -> Self:
        """Return what the ``genlab.json`` of a model directory says, which was read before.

        Raises:
            RunError: it is damaged.
        """
        try:
            kind, provenance = model_type(description["family"]), description["provenance"]
            image, names = description["image"], provenance["label_names"]
            architecture: Any = from_dict(kind.Architecture, description["architecture"])
            classes = range(architecture.classes) if kind.conditional else ()
            return cls(
                directory=locate(directory),
                family=description["family"],
                image_shape=(image["height"], image["width"], image["channels"]),
                # Operations come from the class and not from the file, because a newer genlab may support more.
                operations=kind.operations,
                directions=architecture.directions if issubclass(kind, Translator) else (),
                classes=tuple(names[number] if number < len(names) else str(number) for number in classes),
                latent_dim=architecture.latent_dim if "decode" in kind.operations else 0,
                weights=description["weights"]["sha256"],
                provenance=provenance,
                value_ranges={
                    name: (float(data["value_range"][0]), float(data["value_range"][1]))
                    for name, data in provenance["data"].items()
                    if "value_range" in data
                },
            )
        except (KeyError, IndexError, TypeError, ConfigError) as error:
            raise RunError(
                f"{directory}/{model_directory.DESCRIPTION}: damaged ({error}); export the model again"
            ) from None

    @classmethod
    def find(cls, url: str, operation: str) -> Self:
        """Read the description of the model in the directory or run ``url``, and check that it has ``operation``.

        Raises:
            RunError: there is none, or it does not have the operation.
        """
        info = cls.read(model_directory.find_one(url))
        info.require(operation)
        return info

    def require(self, operation: str) -> None:
        """Check that the model has an operation.

        Raises:
            RunError: it does not.
        """
        if operation not in self.operations:
            raise RunError(
                f"{self.directory}: this {self.family} model does not {operation.replace('_', ' ')}; "
                f"its operations are: {', '.join(self.operations) or 'none'}"
            )

    def options(self, operation: str, values: Mapping[str, Any]) -> Any:
        """Return the options of an operation: ``values`` by name, and defaults of the others.

        Raises:
            RunError: the model does not have the operation.
            ConfigError: the operation has no such option, or a value is out of range.
        """
        self.require(operation)
        return from_dict(self.operations[operation], values)

    def direction(self, wanted: str | None) -> str:
        """Return the direction ``wanted``, or the model's first for ``None``; see :func:`choose_direction`."""
        return choose_direction(self.directions, wanted)

    def value_range(self, direction: str | None = None) -> ValueRange | None:
        """Return the range by which training read images of more than 8 bits; ``None``: it read them without one.

        Args:
            direction: direction of a translation, such as ``a_to_b``, whose input is of the domain ``a``; without one,
                of a model that is trained on one data set.
        """
        return self.value_ranges.get("images" if direction is None else direction.partition("_to_")[0])

    def class_number(self, label: str | int | None, *, needed: bool = False) -> int | None:
        """Return the number of the class ``label``; see :func:`class_number`."""
        return class_number(self.classes, label, needed=needed)


def choose_direction(directions: Sequence[str], wanted: str | None) -> str:
    """Return the direction ``wanted``, or the first of a model's ``directions`` for ``None``.

    Raises:
        ConfigError: the model does not translate that way.
    """
    if wanted is None:
        return directions[0]
    if wanted not in directions:
        raise ConfigError(f"direction = {wanted!r}: choose from {', '.join(directions)}")
    return wanted


def class_number(classes: Sequence[str], label: str | int | None, *, needed: bool = False) -> int | None:
    """Return the number of the class ``label``; ``None`` for no class.

    Args:
        classes: names of the model's classes, see :class:`ModelInfo`.
        label: the class's number; or in text its name, else its number; or ``None`` for no class.
        needed: whether a model with classes must be given one.

    Raises:
        ConfigError: no such class, or one where there must be none, or none where there must be one.
    """
    known = ", ".join(classes[:SHOWN]) + (f", ... ({len(classes)} in all)" if len(classes) > SHOWN else "")
    if label is None:
        if classes and needed:
            raise ConfigError(f"label: this model must be told the class of a picture; choose from {known}")
        return None
    if not classes:
        raise ConfigError("label: this model knows no classes; leave it out")
    numbers = {str(number): number for number in range(len(classes))}
    if isinstance(label, str):
        numbers |= {name: number for number, name in enumerate(classes)}
    if str(label) not in numbers:
        raise ConfigError(f"label: no class {label!r}; choose from {known}")
    return numbers[str(label)]
