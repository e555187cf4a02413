"""Tables with a column of images, such as Parquet files and Hugging Face data sets: which column holds what."""

import abc
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa

from genlab.core.errors import ConfigError, DataError
from genlab.data.format.manifest import Attribute
from genlab.data.ingest.sources.base import Entry, Source, Value
from genlab.imaging.images import ImageError


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of the columns of a table of images, by what they hold."""

    image: str
    key: str | None
    """The column of keys; ``None`` where the number of a row is its key."""
    scalars: tuple[str, ...]
    """The columns of numbers or texts: those that can become attributes, and the key."""
    declared: tuple[Attribute, ...]
    """The columns whose kind the schema states; columns of texts are not among them, for their names are not known."""

    @staticmethod
    def of(schema: pa.Schema, file: str, image: str | None, key: str | None) -> "Layout":
        """Find out what each column of a table holds.

        Args:
            schema: the columns, with the metadata that Hugging Face ``datasets`` writes, if it did.
            file: name of the table, for messages.
            image: the column of images that the user asked for.
            key: the column of keys that the user asked for.

        Raises:
            ConfigError: a column that was asked for is missing or not of the right kind.
            DataError: there is no column of images, or there are several and none was asked for.
        """
        features = _features(schema)
        there = ", ".join(schema.names)
        for option, name, fits in (("--image-column", image, _is_image), ("--key-column", key, _is_key)):
            if name is not None and (name not in schema.names or not fits(schema.field(name).type)):
                raise ConfigError(f"{option} {name}: no such column in {file}, or not of that kind; there are: {there}")
        if image is None:
            images = [field.name for field in schema if _is_image(field.type)]
            named = [name for name in images if features.get(name, {}).get("_type") == "Image"]
            images = named or images
            if not images:
                raise DataError(f"{file}: no column of images (binary, or a struct with bytes); there are: {there}")
            if len(images) > 1:
                raise DataError(f"{file}: several columns of images, choose by --image-column: {', '.join(images)}")
            image = images[0]
        scalars = [field for field in schema if field.name != image and _kind(field.type) is not None]
        return Layout(
            image,
            key,
            tuple(field.name for field in scalars),
            tuple(
                attribute
                for field in scalars
                if field.name != key and (attribute := _declared(field, features.get(field.name, {})))
            ),
        )

    def rows(self, batch: pa.RecordBatch | None, count: int) -> Iterator[tuple[str | None, dict[str, Value | None]]]:
        """Yield key and further columns of each row; the key is ``None`` where there is no column or no value of it.

        Args:
            batch: the columns ``scalars``; ``None`` if there are none.
            count: number of rows.
        """
        if batch is None or not self.scalars:
            yield from ((None, {}) for _ in range(count))
            return
        words = {attribute.name: attribute.names for attribute in self.declared if attribute.kind == "category"}
        columns = {name: _values(batch.column(name), words.get(name)) for name in self.scalars}
        keys = columns.pop(self.key) if self.key else [None] * count
        names = list(columns)
        for key, *values in zip(keys, *columns.values(), strict=True):
            yield None if key is None else str(key), dict(zip(names, values, strict=True))


@dataclasses.dataclass(frozen=True)
class Table(Source):
    """A source whose images lie in a column of a table."""

    image_column: str | None = None
    key_column: str | None = None

    @property
    def ordered(self) -> bool:
        """Always: rows are read one after another."""
        return True

    def entries(self) -> Iterator[Entry]:
        """See :meth:`Source.entries`; reads all columns except the images."""
        empty = True
        for entry, key in self._rows():
            yield entry if self.key_column is None else self._keyed(entry, key)
            empty = False
        if empty:
            raise DataError(f"{self.path}: no rows in it")

    @abc.abstractmethod
    def _rows(self) -> Iterator[tuple[Entry, str | None]]:
        """Yield each row as an entry whose key is its number, and the value of the column of keys."""

    def _layout(self, schema: pa.Schema, file: str) -> Layout:
        return Layout.of(schema, file, self.image_column, self.key_column)

    def _keyed(self, entry: Entry, key: str | None) -> Entry:
        if not key:
            raise DataError(f"{self.describe(entry)}: no value in column {self.key_column}, which is to be the key")
        return dataclasses.replace(entry, key=key)


def image_bytes(value: Any) -> bytes:
    """Return the bytes of the image file in a row's image column.

    Raises:
        ImageError: there are none.
    """
    path = None
    if isinstance(value, Mapping):
        value, path = value.get("bytes"), value.get("path")
    if isinstance(value, bytes):
        return value
    if path:
        raise ImageError(f"only the path of its file is stored, {path}; save the data set with its images in it")
    raise ImageError("there is no image in its row")


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return what Hugging Face ``datasets`` says of each column; empty if it did not write the schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_key(kind: pa.DataType) -> bool:
    return _kind(kind) in ("int", "category")


def _kind(kind: pa.DataType) -> Literal["int", "float", "category"] | None:
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "int"
    if pa.types.is_floating(kind):
        return "float"
    texts = pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type)
    return "category" if texts or pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _declared(field: pa.Field, feature: dict[str, Any]) -> Attribute | None:
    kind = _kind(field.type)
    if feature.get("_type") == "ClassLabel" and kind == "int" and feature.get("names"):
        return Attribute(field.name, "category", tuple(map(str, feature["names"])))
    return Attribute(field.name, kind) if kind in ("int", "float") else None


def _values(column: pa.Array, names: tuple[str, ...] | None) -> list[Value | None]:
    """Convert a column to a list; a class label becomes its name, and a NaN becomes ``None``."""
    values = column.to_pylist()
    if names is not None:
        # Hugging Face writes -1 where a label is not known.
        return [names[value] if value is not None and 0 <= value < len(names) else None for value in values]
    if pa.types.is_floating(column.type):
        return [value if value is not None and math.isfinite(value) else None for value in values]
    return values
