"""What a command asks of a trained model: the operation, and the class where it knows classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from upath import UPath

from genlab.core.errors import ConfigError, RunError
from genlab.models.model import model_type
from genlab.store import model_directory

SHOWN = 20
"""Classes named in a message, at most."""


def find(url: str, operation: str) -> tuple[UPath, Mapping[str, Any]]:
    """The directory and the description of a model or of a run's model, sure to have ``operation``.

    Raises:
        RunError: there is none, or it has other operations.
    """
    directory = model_directory.find_one(url)
    description = model_directory.describe(directory)
    # The class, not the file: this genlab may do more with an older model than the one that saved it.
    operations = model_type(description["family"]).operations
    if operation not in operations:
        raise RunError(
            f"{url}: this {description['family']} model does not {operation.replace('_', ' ')}; "
            f"its operations are: {', '.join(operations) or 'none'}"
        )
    return directory, description


def class_names(description: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes that a model is told, number 0 first; none for a model without.

    Numbers stand in for names that its data set did not give.

    Args:
        description: a model's ``genlab.json``.
    """
    if not model_type(description["family"]).conditional:
        return ()
    names, classes = description["provenance"]["label_names"], description["architecture"]["classes"]
    return tuple(names[number] if number < len(names) else str(number) for number in range(classes))


def class_number(names: Sequence[str], label: str | int | None, *, needed: bool = False) -> int | None:
    """The number of the class ``label``.

    Args:
        names: of the model's classes, see :func:`class_names`.
        label: its number; or in text its name, else its number; or ``None`` for no class.
        needed: whether a model with classes must be given one.

    Raises:
        ConfigError: no such class, or one where there must be none, or none where there must be one.
    """
    known = ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")
    if label is None:
        if names and needed:
            raise ConfigError(f"label: this model must be told the class of a picture; choose from {known}")
        return None
    if not names:
        raise ConfigError("label: this model knows no classes; leave it out")
    numbers = {str(number): number for number in range(len(names))}
    if isinstance(label, str):
        numbers |= {name: number for number, name in enumerate(names)}
    if str(label) not in numbers:
        raise ConfigError(f"label: no class {label!r}; choose from {known}")
    return numbers[str(label)]


def labels(label: int | None, count: int) -> Tensor | None:
    """What tells an operation that its ``count`` images are of the class ``label``: int64 [count], if there is one."""
    return None if label is None else torch.full((count,), label)
