"""Aliases of models: names such as ``prod`` that stand for a version, may be moved, and know where they were before.

They lie in ``aliases.json`` of a folder of models (:mod:`genlab.store.model_store`). An alias has a history of changes,
to which each promotion and each way back adds one.
"""

import dataclasses
import getpass
import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Self

from upath import UPath

from genlab.core.config import from_dict, to_dict
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import json_bytes, read_bytes
from genlab.core.updates import update

FILE_NAME = "aliases.json"
FORMAT = "genlab-aliases"
FORMAT_VERSION = 1
VERSION_DIGITS = 12
"""Length of a version: hexadecimal digits."""
FEWEST_DIGITS = 6
"""The least digits that a version may be cut to."""


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of an alias."""

    version: str
    """The version that it stands for from then on."""
    previous: int | None
    """Position in the history of the change to which :func:`roll_back` returns; ``None`` if there is none."""
    by: str
    """User and machine."""
    at: str
    """Time, ISO 8601 in UTC."""


@dataclasses.dataclass(frozen=True)
class Aliases:
    """The aliases of all models of a folder."""

    models: Mapping[str, Mapping[str, tuple[Change, ...]]] = dataclasses.field(default_factory=dict)
    """For each model by name, the history of each alias, oldest change first."""
    format: str = FORMAT
    version: int = FORMAT_VERSION

    @classmethod
    def read(cls, root: UPath) -> Self:
        """Read the aliases of a folder of models; none where there is no file.

        Raises:
            RunError: the file is damaged, or of a newer format.
            StorageError: the storage cannot be reached.
        """
        try:
            return cls.parse(root / FILE_NAME, read_bytes(root / FILE_NAME))
        except FileNotFoundError:
            return cls()

    @classmethod
    def parse(cls, file: UPath, content: bytes) -> Self:
        """Read the aliases in the content of ``file``; raises as :meth:`read`."""
        try:
            values = json.loads(content)
            if isinstance(values, dict) and values.get("version", FORMAT_VERSION) != FORMAT_VERSION:
                raise RunError(f"{file}: format {values['version']!r}; this genlab reads format {FORMAT_VERSION}")
            return from_dict(cls, values)
        except (ValueError, ConfigError) as error:
            raise RunError(f"{file}: damaged ({error}); put it right by hand, or delete it and promote again") from None

    def of(self, name: str) -> dict[str, str]:
        """Return the version that each alias of a model stands for, by alias in alphabetical order."""
        return {alias: history[-1].version for alias, history in sorted(self.models.get(name, {}).items())}

    def _with(self, name: str, alias: str, history: tuple[Change, ...]) -> Self:
        model = {**self.models.get(name, {}), alias: history}
        return dataclasses.replace(self, models={**self.models, name: dict(sorted(model.items()))})


def require_alias(alias: str) -> None:
    """Refuse a name that no alias may have.

    Raises:
        ConfigError: it has other characters than letters, digits, ``.``, ``_`` and ``-``, or looks like a version.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", alias):
        raise ConfigError(f"as = {alias!r}: an alias is of letters, digits, '.', '_' and '-', such as prod")
    if re.fullmatch(rf"[0-9a-f]{{{FEWEST_DIGITS},{VERSION_DIGITS}}}", alias):
        raise ConfigError(f"as = {alias!r}: looks like the digits of a version; choose another alias")


def set_alias(root: UPath, name: str, alias: str, version: str) -> str | None:
    """Have an alias stand for a version.

    Of several calls at once, each adds its change to the history.

    Returns:
        The version that it stood for before; ``None`` if the alias is new.

    Raises:
        ConfigError: no alias may have this name.
        RunError: the file of aliases is damaged.
    """
    require_alias(alias)
    before: list[str | None] = []

    def change(history: tuple[Change, ...]) -> tuple[Change, ...]:
        before.append(history[-1].version if history else None)
        if before[-1] == version:
            return history
        return (*history, Change(version, len(history) - 1 if history else None, _user(), _now()))

    _update(root, name, alias, change)
    return before[-1]


def roll_back(
    root: UPath, name: str, alias: str, check: Callable[[str], None] = lambda version: None
) -> tuple[str, str]:
    """Have an alias stand for the version that it stood for before its last promotion; again, for the one before that.

    Args:
        root: the folder of models.
        name: the model.
        alias: the alias.
        check: is told the version that the alias will stand for, and raises what keeps it from doing so.

    Returns:
        The version that it stood for, and the one that it stands for now.

    Raises:
        RunError: there is no such alias, or none before; or somebody moved it at the same time; or the file of aliases
            is damaged.
        Exception: what ``check`` raises; the alias then stays as it is.
    """
    done: list[tuple[str, str]] = []

    def change(history: tuple[Change, ...]) -> tuple[Change, ...]:
        if not history:
            raise RunError(f"{root / FILE_NAME}: there is no alias {name}@{alias}")
        last = history[-1]
        if last.previous is None:
            raise RunError(f"{name}@{alias}: is version {last.version}, and was no other before")
        target = history[last.previous]
        done.append((last.version, target.version))
        return (*history, Change(target.version, target.previous, _user(), _now()))

    # What cannot be done leaves no folder behind, and no others wait while the version is checked.
    history = Aliases.read(root).models.get(name, {}).get(alias, ())
    change(history)
    check(done[-1][1])

    def change_checked(now: tuple[Change, ...]) -> tuple[Change, ...]:
        if now != history:
            raise RunError(f"{name}@{alias}: was moved by another process at the same time; try again")
        return change(now)

    _update(root, name, alias, change_checked)
    return done[-1]


def _update(root: UPath, name: str, alias: str, change: Callable[[tuple[Change, ...]], tuple[Change, ...]]) -> None:
    """Replace the history of an alias by a function of it."""
    file = root / FILE_NAME

    def changed(content: bytes | None) -> bytes | None:
        aliases = Aliases() if content is None else Aliases.parse(file, content)
        before = aliases.models.get(name, {}).get(alias, ())
        after = change(before)
        return None if after == before else json_bytes(to_dict(aliases._with(name, alias, after)))

    update(file, "promotion", changed)


def _user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # in a container, a user without a name
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
