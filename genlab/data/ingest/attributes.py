"""Attributes: what is known of images beside their pixels. They become typed columns before a shard is written.

Attributes come from the source itself (a Parquet file's columns, say), from the names and folders of its images, or
from a CSV file. One of them may be the label.
"""

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal, cast

import tyro

from genlab.core.errors import ConfigError, DataError
from genlab.core.storage import locate, require_absolute
from genlab.data.format.manifest import Attribute, Skipped
from genlab.data.format.splits import SPLITS
from genlab.data.ingest.sources.base import LABEL, Entry, Source, Value

KINDS = ("int", "float", "category")
Kind = Literal["int", "float", "category"]

MOST_NAMES = 1000
"""Most different texts in a column that is recognised as a category: a column of more holds names or captions."""

FILE_COLUMN, KEY_COLUMN, SPLIT_COLUMN = "file_name", "key", "split"
"""Columns of a CSV file for the image that a row is about, the key to give it, and its split."""

FOLDER = "folder"
"""The name of the label that is made from the folders of images, unless there is a column of this name."""

SPLIT_NAMES = frozenset(("dev", "test", "testing", "train", "training", "val", "valid", "validation"))
"""Names of folders that are likely meant as splits, in lower case."""

RESERVED = ("image", "key", "label", "split")

_INT64 = range(-(2**63), 2**63)


@dataclasses.dataclass(frozen=True)
class AttributesConfig:
    """Further columns: numbers and texts known of each image.

    Columns of the source itself (parquet, hf, webdataset) are taken without being asked for. A column named label
    becomes the label, unless --label names another.
    """

    pattern: Annotated[str | None, tyro.conf.arg(metavar="REGEX")] = None
    """Regular expression, searched in each image's key, whose named groups are attributes. For UTKFace, say:
    '(?P<age>\\d+)_(?P<gender>\\d)_(?P<race>\\d)_[^/]*$'."""
    csv: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """CSV file with a header and a row for each image, told by its column file_name, else key, else the first: the
    image's key, or the last part of it. Beside file_name, key gives the image another key; split (train, validation
    or test) its split. A header such as age:int states a kind, mood:["sad","glad"] a category's names in their order.
    As `genlab export` writes it."""
    columns: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Take these columns only; by default all."""
    kinds: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=KIND ...")] = ()
    """What columns are, as in age=int gender=category; int, float or category. By default columns are what their
    source says, and texts are recognised: int if all are, else float if all are numbers, else category (its names
    sorted)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One image, with the values of its columns."""

    entry: Entry
    key: str
    """Key of the image in the data set: the entry's key, or another that a CSV file gives it."""
    split: str
    label: int | None = None
    """Number of its class; ``None`` where the source gives the label with the image, or there is no label."""
    values: tuple[int | float, ...] = ()
    """Value of each attribute, in the order of the attributes; for a category, the index of its name."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """The images of a source with typed columns, sorted by key."""

    rows: tuple[Row, ...]
    attributes: tuple[Attribute, ...]
    label_names: tuple[str, ...]
    """Names of the labels in :attr:`Row.label`; empty if rows have no labels."""
    skipped: tuple[Skipped, ...]
    """Images that were left out because a value is missing or cannot be used."""
    notes: tuple[str, ...]
    """Remarks to the user on where the labels come from, a line each."""


class _ValueError(Exception):
    """A value that cannot be used; the message says why."""


def resolve(
    source: Source,
    entries: Sequence[Entry],
    config: AttributesConfig,
    *,
    label: str | None,
    skip_bad: bool,
    last_folder: bool = False,
) -> Columns:
    """Give each image its attributes and label.

    Args:
        source: the source of the entries.
        entries: the images, in any order.
        config: which columns to take, and from where.
        label: the column that is the label, or ``folder`` for the folders of the images; by default the column named
            ``label``.
        skip_bad: leave out images without a usable value, rather than end at the first.
        last_folder: with the label ``folder``, take the last folder of each image's path alone.

    Raises:
        ConfigError: an option names no column, or is not a regular expression.
        DataError: a value is missing or not of its kind, and the message names image and attribute; or the CSV file
            cannot be used.
    """
    from_folders = label == FOLDER and any(entry.folder is not None for entry in entries)
    if not (config.pattern or config.csv or from_folders or any(entry.values for entry in entries)):
        for option, names in (("--label", (label,) if label else ()), ("--attributes.columns", config.columns)):
            if names:
                raise ConfigError(
                    f"{option} {names[0]}: {source.path} has no columns; give --attributes.pattern or .csv"
                )
        rows = tuple(Row(entry, entry.key, entry.split) for entry in sorted(entries, key=lambda entry: entry.key))
        return Columns(rows, (), (), (), ())
    table = _Table(list(entries), {attribute.name: attribute for attribute in source.declared()})
    if config.pattern:
        _add_pattern(table, config.pattern)
    if config.csv:
        _add_csv(table, config.csv)
    notes: list[str] = []
    if label == FOLDER and FOLDER in table.names():
        idle = "; --label-last-folder has no effect" if last_folder else ""
        notes = [f"--label {FOLDER}: the label is the column called {FOLDER}, not the folders of the images{idle}"]
    elif from_folders:
        notes = _add_folders(table, source, last_only=last_folder, skip_bad=skip_bad)
    table.choose(config.columns, label)
    kinds = _kinds(config.kinds, table)
    order = sorted(range(len(table.entries)), key=lambda index: table.keys[index])
    columns = {name: _typed(table, name, kinds.get(name), order) for name in table.names()}
    if not skip_bad and (first := next((index for index in order if index in table.bad), None)) is not None:
        raise DataError(
            f"{source.describe(entries[first])}: {table.bad[first]}; put it right, choose other columns with "
            "--attributes.columns, or leave such images out with --skip-bad"
        )
    label = label or (LABEL if LABEL in columns and not source.label_names() else None)
    good = [index for index in order if index not in table.bad]
    if not good:
        raise DataError(f"{source.path}: none of its {len(entries)} images has all its values: {table.bad[order[0]]}")
    labels: list[int | None] = [None] * len(table.entries)
    label_names: tuple[str, ...] = ()
    if label:
        attribute, values = columns.pop(label)
        label_names = _label_names(attribute, [values[index] for index in good])
        labels = cast("list[int | None]", values)
    for name in columns:
        if name in RESERVED:
            raise ConfigError(
                f"an attribute cannot be called {name!r}; rename that column, or choose others with "
                "--attributes.columns"
            )
    values_of = [values for _, values in columns.values()]

    def row(index: int) -> Row:
        entry = table.entries[index]
        values = tuple(cast("int | float", values[index]) for values in values_of)
        entry = dataclasses.replace(entry, values={}) if entry.values else entry
        return Row(entry, table.keys[index], table.splits[index], labels[index], values)

    rows = tuple(row(index) for index in good)
    skipped = tuple(Skipped(table.keys[index], table.bad[index]) for index in order if index in table.bad)
    return Columns(rows, tuple(attribute for attribute, _ in columns.values()), label_names, skipped, tuple(notes))


def csv_header(attribute: Attribute, values: Sequence[int | float], *, label: bool = False) -> str:
    """Return the CSV header from which :func:`resolve` restores a column: the name of ``attribute``, followed by its
    kind only where the texts alone would be recognised as another kind.

    Args:
        attribute: the column, or a label in the form of a category.
        values: the column's values.
        label: whether the column is the label.
    """
    kind, names = _recognise([csv_value(attribute, value) for value in values])
    if label and kind == "int":  # labels that are numbers have these as names
        kind, names = "category", tuple(str(number) for number in range(1 + int(max(values))))
    if kind == attribute.kind and names == attribute.names and ":" not in attribute.name:
        return attribute.name
    stated = json.dumps(attribute.names, ensure_ascii=False) if attribute.kind == "category" else attribute.kind
    return f"{attribute.name}:{stated}"


def csv_value(attribute: Attribute, value: int | float) -> str:
    """Return a value as text for a CSV file; a float is read back bit for bit."""
    return attribute.names[int(value)] if attribute.kind == "category" else repr(value)


class _Table:
    """The columns of all entries while they are put together."""

    def __init__(self, entries: list[Entry], declared: Mapping[str, Attribute]) -> None:
        self.entries = entries
        self.keys = [entry.key for entry in entries]
        self.splits = [entry.split for entry in entries]
        self.declared = dict(declared)
        self.bad: dict[int, str] = {}
        """Index of an entry → the reason why it cannot be used."""
        self.textual: set[str] = set()
        """Names of the columns of texts in which numbers are recognised."""
        self._columns: dict[str, list[Value | None]] = {}
        for name in dict.fromkeys(name for entry in entries for name in entry.values):
            self.add(name, [entry.values.get(name) for entry in entries], textual=False)

    def names(self) -> tuple[str, ...]:
        return tuple(self._columns)

    def __getitem__(self, name: str) -> list[Value | None]:
        return self._columns[name]

    def add(self, name: str, values: list[Value | None], *, textual: bool = True) -> None:
        if name in self._columns:
            raise ConfigError(f"there are two columns {name!r}; rename one of them")
        self._columns[name] = values
        if textual:
            self.textual.add(name)

    def remove(self, name: str) -> list[Value | None] | None:
        return self._columns.pop(name, None)

    def choose(self, names: Sequence[str], label: str | None) -> None:
        for option, name in (("--label", label), *(("--attributes.columns", name) for name in names)):
            if name and name not in self._columns:
                raise ConfigError(f"{option} {name}: no such column; there are: {', '.join(self._columns)}")
        if names:
            kept = {*names, *([label] if label else [])}
            self._columns = {name: values for name, values in self._columns.items() if name in kept}


def _add_pattern(table: _Table, pattern: str) -> None:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--attributes.pattern {pattern}: not a regular expression ({error})") from None
    if not expression.groupindex:
        raise ConfigError(f"--attributes.pattern {pattern}: has no named groups, as in (?P<age>\\d+)")
    found = [expression.search(entry.key) for entry in table.entries]
    for index, match in enumerate(found):
        if match is None:
            table.bad[index] = f"its key {table.entries[index].key} does not match --attributes.pattern"
    for name in expression.groupindex:
        table.add(name, [match and match[name] for match in found])


def _add_csv(table: _Table, file: str) -> None:
    require_absolute("attributes.csv", file)
    names, lines = _read_csv(file)
    match = next((name for name in (FILE_COLUMN, KEY_COLUMN) if name in names), next(iter(names)))
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for number, line in lines:
        if line[match] in rows:
            raise DataError(f"{file}: lines {rows[line[match]][0]} and {number} are both about {line[match]!r}")
        rows[line[match]] = number, line
    taken: dict[str, str] = {}
    found: list[dict[str, str]] = []
    for index, entry in enumerate(table.entries):
        name = entry.key if entry.key in rows else PurePosixPath(entry.key).name
        if name not in rows:
            table.bad[index] = f"{file} has no row for it"
            found.append({})
            continue
        if name in taken:
            raise DataError(f"{file}: {name!r} names both {taken[name]} and {entry.key}; give whole keys")
        taken[name] = entry.key
        found.append(rows[name][1])
    if match == FILE_COLUMN and KEY_COLUMN in names:
        table.keys = [row.get(KEY_COLUMN) or key for key, row in zip(table.keys, found, strict=True)]
        del names[KEY_COLUMN]
    splits = {row[SPLIT_COLUMN] for row in found if SPLIT_COLUMN in row}
    if splits and splits <= set(SPLITS):
        table.splits = [row.get(SPLIT_COLUMN, split) for split, row in zip(table.splits, found, strict=True)]
        del names[SPLIT_COLUMN]
    del names[match]
    for name, declared in names.items():
        table.add(name, [row.get(name) for row in found])
        if declared:
            table.declared[name] = declared


def class_folders(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Find the folders of images that could be classes: those that hold images and no such folder.

    Returns:
        Their paths below the folder of the split, sorted.
    """
    folders = {entry.folder for entry in entries if entry.folder}
    return tuple(sorted(folders - _folders_above(folders)))


def _folders_above(folders: Iterable[str]) -> set[str]:
    """Return the paths of all folders that hold one of these folders; the top is the empty path."""
    return {
        "/".join(parts[:depth]) for parts in (folder.split("/") for folder in folders) for depth in range(len(parts))
    }


def _add_folders(table: _Table, source: Source, *, last_only: bool, skip_bad: bool) -> list[str]:
    """Add the column of the folders that images lie in.

    Returns:
        What to tell the user, a line each.

    Raises:
        ConfigError: no image lies in a folder.
        DataError: an image lies beside the folders of the others, and such images are not to be left out.
    """
    classes = class_folders(table.entries)
    if not classes:
        raise ConfigError(
            f"--label {FOLDER}: the images of {source.path} do not lie in folders of classes; "
            "give labels by --attributes.csv or --attributes.pattern"
        )
    above = _folders_above(classes)
    for index in sorted(range(len(table.entries)), key=lambda index: table.keys[index]):
        entry = table.entries[index]
        if entry.folder in above:
            beside = next(folder for folder in classes if folder.startswith(entry.folder and f"{entry.folder}/"))
            why = f"lies beside folders of classes, such as {beside}, in none of them"
            if not skip_bad:
                raise DataError(
                    f"{source.describe(entry)}: {why}; move it into one, or leave such images out with --skip-bad"
                )
            table.bad[index] = why
    names = [(entry.folder or "").rpartition("/")[2] if last_only else entry.folder for entry in table.entries]
    table.add(FOLDER, list(names))
    table.declared[FOLDER] = Attribute(FOLDER, "category")
    mistaken = next((folder for folder in classes if SPLIT_NAMES & set(folder.lower().split("/"))), None)
    if mistaken is None or last_only:
        return []
    return [
        f"--label {FOLDER}: {mistaken} is taken as a class, not as a split and a class, for not every image lies in a "
        "folder train or test"
    ]


def _read_csv(file: str) -> tuple[dict[str, Attribute | None], list[tuple[int, dict[str, str]]]]:
    """Read a CSV file.

    Returns:
        Column name → the attribute that the header states, if it does; and the number and cells of each line.
    """
    try:
        content = io.StringIO(locate(file).read_bytes().decode("utf-8-sig"), newline="")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None
    reader = csv.reader(content, strict=True)
    try:
        head = next(reader, None)
        if not head:
            raise DataError(f"{file}: empty; its first line should name the columns")
        names = dict(_parse_header(cell, file) for cell in head)
        if len(names) < len(head) or "" in names:
            raise DataError(f"{file}: its first line should name each column once")
        lines: list[tuple[int, dict[str, str]]] = []
        for cells in reader:
            if len(cells) != len(names) and cells:
                raise DataError(f"{file}: line {reader.line_num} has {len(cells)} cells, not {len(names)}")
            if cells:
                lines.append((reader.line_num, dict(zip(names, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num} is not CSV ({error})") from None
    return names, lines


def _parse_header(cell: str, file: str) -> tuple[str, Attribute | None]:
    name, _, stated = cell.partition(":[")
    if stated:
        try:
            return name, Attribute(name, "category", tuple(map(str, json.loads(f"[{stated}"))))
        except ValueError as error:
            raise DataError(f'{file}: {cell!r} does not state names, as in mood:["sad","glad"] ({error})') from None
    name, _, stated = cell.rpartition(":")
    if stated in KINDS and name:
        return name, Attribute(name, cast("Kind", stated))
    return cell, None


def _kinds(texts: Sequence[str], table: _Table) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for item in texts:
        name, _, kind = item.rpartition("=")
        if kind not in KINDS:
            raise ConfigError(f"--attributes.kinds {item}: should be NAME=KIND, with the kind {', '.join(KINDS)}")
        if name not in table.names():
            raise ConfigError(f"--attributes.kinds {item}: no such column; there are: {', '.join(table.names())}")
        kinds[name] = cast("Kind", kind)
    return kinds


def _typed(
    table: _Table, name: str, asked: Kind | None, order: Sequence[int]
) -> tuple[Attribute, list[int | float | None]]:
    """Convert a column to its attribute's kind.

    Returns:
        The attribute, and the values as it stores them; ``None`` where there is no usable value, which is also noted in
        ``table.bad``.
    """
    values = table[name]
    present = [values[index] for index in order if index not in table.bad and values[index] not in (None, "")]
    attribute = table.declared.get(name)
    if asked and (attribute is None or attribute.kind != asked):
        attribute = Attribute(name, asked)
    if attribute is None:
        kind, names = _recognise(present) if name in table.textual else _native(present)
        if len(names) > MOST_NAMES:
            raise DataError(
                f"column {name!r} has {len(names):,} different texts, too many for a category; leave it out by naming "
                f"the others with --attributes.columns, or state --attributes.kinds {name}=category"
            )
        attribute = Attribute(name, kind, names)
    elif attribute.kind == "category" and not attribute.names:
        attribute = dataclasses.replace(attribute, names=_names(present))
    convert = _converter(attribute)
    typed: list[int | float | None] = [None] * len(values)
    for index in order:
        if index in table.bad:
            continue
        try:
            typed[index] = convert(values[index])
        except _ValueError as error:
            table.bad[index] = f"its attribute {name} {error}"
    return attribute, typed


def _converter(attribute: Attribute) -> Callable[[Value | None], int | float]:
    indices = {name: index for index, name in enumerate(attribute.names)}

    def convert(value: Value | None) -> int | float:
        if value is None or value == "":
            raise _ValueError("has no value")
        try:
            if isinstance(value, str) and "_" in value and attribute.kind != "category":
                raise ValueError  # Python reads 1_000 as a number
            match attribute.kind:
                case "int":
                    number = int(value)
                    if number not in _INT64 or (isinstance(value, float) and number != value):
                        raise ValueError
                    return number
                case "float":
                    if not math.isfinite(real := float(value)):
                        raise ValueError
                    return real
                case "category":
                    return indices[_name(value)]
        except (ValueError, OverflowError):
            raise _ValueError(f"is {value!r}, not {_article(attribute.kind)}") from None
        except KeyError:
            raise _ValueError(f"is {value!r}, none of: {', '.join(attribute.names)}") from None

    return convert


def _article(kind: Kind) -> str:
    return "an int of 64 bits" if kind == "int" else "a finite float"


def _native(values: Sequence[Value | None]) -> tuple[Kind, tuple[str, ...]]:
    """Return the kind, and a category's names, of values that have types of their own."""
    if all(isinstance(value, int) for value in values):
        return "int", ()
    if all(isinstance(value, int | float) for value in values):
        return "float", ()
    return "category", _names(values)


def _recognise(texts: Sequence[Value | None]) -> tuple[Kind, tuple[str, ...]]:
    """Return the kind, and a category's names, that values which are texts look like."""
    kinds: tuple[Kind, ...] = ("int", "float")
    for kind in kinds:
        convert = _converter(Attribute("", kind))
        try:
            for value in texts:
                convert(value)
        except _ValueError:
            continue
        return kind, ()
    return "category", _names(texts)


def _names(values: Sequence[Value | None]) -> tuple[str, ...]:
    return tuple(sorted({_name(value) for value in values if value is not None}))


def _name(value: Value) -> str:
    return value if isinstance(value, str) else repr(value)


def _label_names(attribute: Attribute, values: Sequence[int | float | None]) -> tuple[str, ...]:
    """Return the names of labels: those of a category, else the numbers from 0 to the highest."""
    if attribute.kind == "category":
        return attribute.names
    numbers = cast("Sequence[int]", values)
    if attribute.kind == "float" or min(numbers) < 0 or max(numbers) >= MOST_NAMES:
        raise ConfigError(
            f"{attribute.name!r} cannot be the label: labels are a category, or ints from 0 to {MOST_NAMES - 1}; "
            f"state --attributes.kinds {attribute.name}=category, or choose another with --label"
        )
    return tuple(str(number) for number in range(1 + max(numbers)))
