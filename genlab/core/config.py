"""Configs: frozen dataclasses whose dotted names the command line, sweeps and saved files all use.

A field's range is declared once, in its type (``Annotated[float, Ge(0)]``), and checked by :func:`validate`
wherever the values come from. A field marked :data:`OPERATIONAL` may change when a run goes on.
"""

import dataclasses
import difflib
import inspect
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, get_type_hints

import tyro
from pydantic import TypeAdapter, ValidationError

from genlab.core.errors import ConfigError

Config = TypeVar("Config")

OPERATIONAL = "operational"
"""Marks a field that does not change the mathematics of a run: ``Annotated[int, OPERATIONAL]``."""


_adapters: dict[type, TypeAdapter[Any]] = {}


def parse(
    config: type[Config],
    arguments: Sequence[str] | None = None,
    *,
    default: Config | None = None,
    prog: str | None = None,
    note: str = "",
) -> Config:
    """Read a config from the command line (``--section.field value``); ``--help`` explains every field.

    Args:
        config: the dataclass.
        arguments: the words of the command line; those of this process by default.
        default: values of the options that are not given; the dataclass's defaults by default.
        prog: the command's name in help.
        note: what help says after the description of the config.

    Raises:
        ConfigError: when a value is out of its range. An unknown option ends the process with status 2 and
            the nearest names.
    """
    more: dict[str, Any] = {"description": f"{inspect.getdoc(config)}\n\n{note}"} if note else {}
    if default is not None:
        more["default"] = default
    return validate(tyro.cli(config, args=arguments, prog=prog, **more))


def validate(config: Config) -> Config:
    """Check every field's type and range.

    Raises:
        ConfigError: with one line for each fault, which gives the dotted name, the value and what is allowed.
    """
    return from_dict(type(config), to_dict(config))


def _adapter(config: type[Any]) -> TypeAdapter[Any]:
    """Return pydantic's validator of a config; to make one takes a millisecond."""
    found = _adapters.get(config)
    if found is None:
        found = _adapters[config] = TypeAdapter(config)
    return found


def to_dict(config: object) -> dict[str, Any]:
    """Return the config as nested plain dictionaries, ready for JSON."""
    return cast("dict[str, Any]", _adapter(type(config)).dump_python(config, mode="json", warnings=False))


def from_dict(config: type[Config], values: Mapping[str, Any]) -> Config:
    """Build a config from nested dictionaries.

    Raises:
        ConfigError: for an unknown name, a wrong type or a value out of range.
    """
    try:
        built = _adapter(config).validate_python(values, extra="forbid")
    except ValidationError as error:
        lines = [_explain(config, fault) for fault in error.errors(include_url=False)]
        raise ConfigError("\n       ".join(dict.fromkeys(lines))) from None
    for name, value in flatten(to_dict(built)).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} = {value!r}: should be a finite number")
    return built


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one level of dotted names: ``{"model": {"width": 8}}`` → ``{"model.width": 8}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return the config with the values of some dotted names changed: ``override(c, {"model.latent_dim": 4})``.

    Raises:
        ConfigError: for an unknown name (the nearest one is suggested) or a value out of range.
    """
    values = to_dict(config)
    known = flatten(values)
    for name, value in changes.items():
        if name not in known:
            raise ConfigError(_unknown(name, known))
        section = values
        *path, last = name.split(".")
        for part in path:
            section = section[part]
        section[last] = value
    return from_dict(type(config), values)


def as_arguments(config: object) -> str:
    """Return the command line that :func:`parse` reads ``config`` from: the options that differ from the defaults."""
    defaults = flatten(to_dict(type(config)()))
    words: list[str] = []
    for name, value in flatten(to_dict(config)).items():
        if value == defaults[name]:
            continue
        section, _, field = name.rpartition(".")
        match value:
            case False:
                words.append(f"--{section}.no-{field}".replace("_", "-"))
            case True:
                words.append(f"--{name}".replace("_", "-"))
            case list():
                words += [f"--{name}".replace("_", "-"), *map(str, value)]
            case _:
                words += [f"--{name}".replace("_", "-"), str(value)]
    return shlex.join(words)


def differences(old: object, new: object) -> dict[str, tuple[Any, Any]]:
    """Return the dotted names whose values differ in two configs of one type: name → (old value, new value).

    Fields marked :data:`OPERATIONAL` are left out.
    """
    free = operational_names(type(new))
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if name not in free and before.get(name) != after.get(name)
    }


def describe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the names whose values differ, with both values: ``rows 10 then, 20 now; seed 0 then, 1 now``."""
    names = [*new, *(old.keys() - new.keys())]
    return "; ".join(
        f"{name} {old.get(name)!r} then, {new.get(name)!r} now" for name in names if old.get(name) != new.get(name)
    )


def operational_names(config: type, prefix: str = "") -> frozenset[str]:
    """Return the dotted names of the fields marked :data:`OPERATIONAL`."""
    names: set[str] = set()
    hints = get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            names |= operational_names(cast("type", hint), f"{prefix}{field.name}.")
        elif OPERATIONAL in getattr(hint, "__metadata__", ()):
            names.add(prefix + field.name)
    return frozenset(names)


def _explain(config: type, fault: Mapping[str, Any]) -> str:
    """Return the message for one of pydantic's errors."""
    name = ".".join(str(part) for part in fault["loc"] if isinstance(part, str))
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown(name, _field_names(config))
    message = str(fault["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    return f"{name} = {fault['input']!r}: {message}"


def _field_names(config: type, prefix: str = "") -> list[str]:
    """Return the dotted names of all fields."""
    hints = get_type_hints(config)
    names: list[str] = []
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(hints[field.name]):
            names += _field_names(cast("type", hints[field.name]), f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def _unknown(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """Return the message for a dotted name that no field has, with the nearest names."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known) or 'none'}"
    return f"{name}: no such option; {hint}"
