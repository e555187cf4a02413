"""What a dataclass of options declares, as text for people and as pydantic models and JSON schemas for programs."""

import dataclasses
import functools
import threading
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import annotated_types
import docstring_parser
from pydantic import BaseModel, Field, create_model

_parsing = threading.Lock()
"""Python 3.11's parser counts its recursion for all threads together, and fails if two parse at once."""

Request = TypeVar("Request", bound=BaseModel)


def field_texts(config: type) -> dict[str, str]:
    """Return the docstring of each field, those of the classes that it inherits from included."""
    texts: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= _own_texts(base)
    return texts


@functools.cache
def _own_texts(config: type) -> Mapping[str, str]:
    """Return the docstrings of the fields that a class itself declares; they are parsed from its source text."""
    with _parsing:
        parameters = docstring_parser.parse_from_object(config).params
    return {parameter.arg_name: joined(parameter.description) for parameter in parameters if parameter.description}


def joined(docstring: str | None) -> str:
    """Return a docstring with its lines joined; paragraphs stay."""
    paragraphs = (docstring or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip()


def values_text(hint: Any) -> str:
    """Describe the values that a type allows: ``number ≥ 0, ≤ 1``."""
    base = base_type(hint)
    origin = get_origin(base)
    if origin is Literal:
        return ", ".join(str(value) for value in get_args(base))
    if origin is tuple:
        parts = [part for part in get_args(base) if part is not Ellipsis]
        several = "one or more of" if annotated_types.MinLen(1) in marks(hint) else "any number of"
        return f"{several if Ellipsis in get_args(base) else len(parts)} {values_text(parts[0])}"
    if origin in (Union, types.UnionType):
        return " or ".join(values_text(part) for part in get_args(base) if part is not type(None))
    kind = {int: "whole number", float: "number", str: "text"}.get(base, getattr(base, "__name__", str(base)))
    return " ".join([kind, _range(marks(hint))]).strip()


def marks(hint: Any) -> tuple[Any, ...]:
    """Return everything that annotates a type, also inside a union with None."""
    if get_origin(hint) is Annotated:
        inner, *found = get_args(hint)
        return (*found, *marks(inner))
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(mark for part in get_args(hint) for mark in marks(part))
    return ()


def base_type(hint: Any) -> Any:
    """Return a type without what annotates it, and without None."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        return base_type(parts[0]) if len(parts) == 1 else hint
    return hint


def with_options(name: str, base: type[Request], options: type) -> type[Request]:
    """Make a pydantic model of the fields of ``base`` and those of a dataclass, with their ranges and docstrings.

    Args:
        name: name of the new class.
        base: a pydantic model.
        options: a dataclass whose fields have defaults.
    """
    hints, texts = get_type_hints(options, include_extras=True), field_texts(options)
    fields: dict[str, Any] = {
        field.name: (Annotated[hints[field.name], Field(description=texts.get(field.name))], field.default)
        for field in dataclasses.fields(cast("Any", options))
    }
    return create_model(name, __base__=base, **fields)


def options_schema(options: type) -> dict[str, Any]:
    """Return the JSON schema of each field of a dataclass, by name: type, range, default and docstring."""
    fields: dict[str, Any] = with_options("Options", BaseModel, options).model_json_schema().get("properties", {})
    return fields


def _range(found: Sequence[Any]) -> str:
    bounds = []
    for mark in found:
        for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le")):
            bound = getattr(mark, name, None)
            if bound is not None:
                bounds.append(f"{sign} {_number(bound)}")
    return ", ".join(bounds)


def _number(value: float) -> str:
    exponent = value.bit_length() - 1 if isinstance(value, int) else 0
    return f"2^{exponent}" if exponent > 30 and value == 2**exponent else f"{value:,}"
