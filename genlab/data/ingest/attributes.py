"""Attributes: what is known of images beside their pixels. They become typed columns before a shard is written.

Attributes come from the source itself (a Parquet file's columns, say), from the names and folders of its images, or
from a CSV file. One of them may be the label.
"""

import csv
import dataclasses
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast

import tyro

from genlab.core.errors import ConfigError, DataError
from genlab.core.storage import locate, read_bytes, require_absolute
from genlab.data.format.manifest import Attribute, Skipped
from genlab.data.format.splits import SPLITS
from genlab.data.ingest.sources.base import LABEL, Entry, Source, Value, entry_fields
from genlab.data.ingest.spool import SortedSpool

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


PlainRow = tuple[str, int, str, int | None, tuple[int | float, ...], tuple[Any, ...]]
"""A :class:`Row` as plain values: key, size of the entry, split, label and values, and the fields of the entry."""


def row_of(plain: PlainRow) -> Row:
    """Return the row that these values are of."""
    key, _, split, label, values, entry = plain
    return Row(Entry(*entry), key, split, label, values)


class Rows(Iterable[PlainRow]):
    """Images with their columns, sorted by key; they lie on disk, and are put together whenever they are iterated."""

    def __init__(self, found: SortedSpool["_Found"], make: Callable[["_Found"], PlainRow | None], count: int) -> None:
        self._found, self._make, self._count = found, make, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PlainRow]:
        return filter(None, map(self._make, self._found))


@dataclasses.dataclass(frozen=True)
class Columns:
    """The images of a source with typed columns."""

    rows: Rows
    attributes: tuple[Attribute, ...]
    label_names: tuple[str, ...]
    """Names of the labels in :attr:`Row.label`; empty if rows have no labels."""
    skipped: tuple[Skipped, ...]
    """Images that were left out because a value is missing or cannot be used."""
    notes: tuple[str, ...]
    """Remarks to the user on where the labels come from, a line each."""
    class_folders: tuple[str, ...]
    """The folders of images that could be classes: those that hold images and no such folder. Paths below the folder of
    the split, sorted."""


class _ValueError(Exception):
    """A value that cannot be used; the message says why."""


_Texts = Mapping[str, str | None]
"""What an image's name and the CSV file say of it, by column."""

_Found = tuple[str, int, str, str | None, Mapping[str, Value | None], _Texts, tuple[Any, ...], str | None]
"""An image as it is listed: its key in the data set; size, split, folder and values of its entry; its texts; all fields
of the entry, without the values; and the reason why it cannot be used, if there is one."""

_Lookup = Callable[[str | None, Mapping[str, Value | None], _Texts], Value | None]
"""Returns the value of an image in a column, given its folder, values and texts."""

_NO_TEXTS: _Texts = {}


def resolve(
    source: Source,
    entries: Iterable[Entry],
    config: AttributesConfig,
    *,
    label: str | None,
    skip_bad: bool,
    last_folder: bool = False,
) -> Columns:
    """Give each image its attributes and label.

    The images are sorted by key on disk. Memory holds the folders that they lie in, the names of categories, the images
    that are left out, and the CSV file.

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
    table = _Table(config)
    found = SortedSpool(table.find(entries))
    folders = class_folders(table.folders)
    from_folders = label == FOLDER and any(folder is not None for folder in table.folders)
    if not (config.pattern or config.csv or from_folders or table.native):
        for option, names in (("--label", (label,) if label else ()), ("--attributes.columns", config.columns)):
            if names:
                raise ConfigError(
                    f"{option} {names[0]}: {source.path} has no columns; give --attributes.pattern or .csv"
                )
    columns = table.columns({attribute.name: attribute for attribute in source.declared()})
    notes: list[str] = []
    above: set[str] = set()
    if label == FOLDER and FOLDER in columns:
        idle = "; --label-last-folder has no effect" if last_folder else ""
        notes = [f"--label {FOLDER}: the label is the column called {FOLDER}, not the folders of the images{idle}"]
    elif from_folders:
        notes, above = _folder_notes(source, folders, last_only=last_folder), _folders_above(folders)
        columns[FOLDER] = _Column(FOLDER, _last_folder if last_folder else _folder, Attribute(FOLDER, "category"))
    columns = _chosen(columns, config.columns, label)
    _state_kinds(columns, config.kinds)

    plain = not columns and not table.may_lack
    skipped, first = ([], None) if plain else _look(source, found, columns.values(), folders, above, skip_bad)
    attributes = {name: column.attribute(found) for name, column in columns.items()}
    if first and not skip_bad:
        raise DataError(
            f"{source.describe(first)}: {skipped[0].why}; put it right, choose other columns with "
            "--attributes.columns, or leave such images out with --skip-bad"
        )
    if len(skipped) == len(found):
        raise DataError(f"{source.path}: none of its {len(found)} images has all its values: {skipped[0].why}")
    label = label or (LABEL if LABEL in columns and not source.label_names() else None)
    values_of = [(columns[name].value, _converter(attribute)) for name, attribute in attributes.items()]
    label_index = list(attributes).index(label) if label else None
    tells_splits = table.tells_splits

    def make(item: _Found) -> PlainRow | None:
        key, size, split, folder, values, texts, fields, why = item
        if plain:
            return key, size, split, None, (), fields
        if why or folder in above:
            return None
        try:
            converted = [convert(value(folder, values, texts)) for value, convert in values_of]
        except _ValueError:
            return None
        number = None if label_index is None else cast("int", converted.pop(label_index))
        if tells_splits:
            split = texts[SPLIT_COLUMN] or split
        return key, size, split, number, tuple(converted), fields

    rows = Rows(found, make, len(found) - len(skipped))
    label_names: tuple[str, ...] = ()
    if label:
        label_names = _label_names(attributes.pop(label), (cast("int", number) for _, _, _, number, *_ in rows))
    for name in attributes:
        if name in RESERVED:
            raise ConfigError(
                f"an attribute cannot be called {name!r}; rename that column, or choose others with "
                "--attributes.columns"
            )
    return Columns(rows, tuple(attributes.values()), label_names, tuple(skipped), tuple(notes), folders)


def _look(
    source: Source,
    found: Iterable[_Found],
    columns: Collection["_Column"],
    classes: Sequence[str],
    above: Container[str],
    skip_bad: bool,
) -> tuple[list[Skipped], Entry | None]:
    """Have columns look at the values of all images that can be used.

    Args:
        source: the source of the images.
        found: the images, sorted by key.
        columns: the columns; the first that cannot use its value says why.
        classes: the folders of classes.
        above: the folders that hold folders of classes, and so no images.
        skip_bad: see :func:`resolve`.

    Returns:
        The images that cannot be used, and the first of them; only this one if they are not to be left out.

    Raises:
        DataError: an image lies beside the folders of classes, and such images are not to be left out.
    """
    skipped: list[Skipped] = []
    first: Entry | None = None
    for key, _, _, folder, values, texts, fields, why in found:
        if folder is not None and folder in above:
            beside = next(name for name in classes if name.startswith(folder and f"{folder}/"))
            why = f"lies beside folders of classes, such as {beside}, in none of them"
            if not skip_bad:
                raise DataError(
                    f"{source.describe(Entry(*fields))}: {why}; move it into one, or leave such images out with "
                    "--skip-bad"
                )
        for column in columns if why is None else ():
            try:
                column.look(column.value(folder, values, texts))
            except _ValueError as error:
                why = f"its attribute {column.name} {error}"
                break
        if why and (skip_bad or not skipped):
            first = first or Entry(*fields)
            skipped.append(Skipped(key, why))
    return skipped, first


def csv_header(attribute: Attribute, values: Sequence[int | float], *, label: bool = False) -> str:
    """Return the CSV header from which :func:`resolve` restores a column: the name of ``attribute``, followed by its
    kind only where the texts alone would be recognised as another kind.

    Args:
        attribute: the column, or a label in the form of a category.
        values: the column's values.
        label: whether the column is the label.
    """
    recognition = _Recognition.of_texts()
    for value in values:
        recognition.add(csv_value(attribute, value))
    kind, names = recognition.kind, recognition.names
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
    """What is known of images, and which columns there are, while they are listed."""

    def __init__(self, config: AttributesConfig) -> None:
        self.folders: set[str | None] = set()
        """The different :attr:`Entry.folder`."""
        self.native: dict[str, None] = {}
        """Names of the source's own columns, in the order in which they come."""
        self._pattern = _compiled(config.pattern) if config.pattern else None
        self._csv = _Csv(config.csv) if config.csv else None

    @property
    def may_lack(self) -> bool:
        """Whether there may be images of which nothing is known."""
        return bool(self._pattern or self._csv)

    @property
    def tells_splits(self) -> bool:
        """Whether the CSV file tells the splits of the images."""
        return self._csv is not None and bool(self._csv.splits) and self._csv.splits <= set(SPLITS)

    def find(self, entries: Iterable[Entry]) -> Iterator[_Found]:
        """Yield each image with what its name and the CSV file say of it."""
        for entry in entries:
            self.folders.add(entry.folder)
            values = entry.values
            if values:
                self.native |= dict.fromkeys(values)
                entry = dataclasses.replace(entry, values={})
            key, texts, why = entry.key, _NO_TEXTS, None
            if self._pattern:
                match = self._pattern.search(entry.key)
                texts = match.groupdict() if match else texts
                why = None if match else f"its key {entry.key} does not match --attributes.pattern"
            if self._csv:
                line = self._csv.line(entry)
                if line is None:
                    why = f"{self._csv.file} has no row for it"
                else:
                    key = self._csv.key(line) or key
                    texts = {**texts, **{name: line[name] for name in self._csv.columns}}
            yield key, entry.size, entry.split, entry.folder, values, texts, entry_fields(entry), why

    def columns(self, declared: Mapping[str, Attribute]) -> dict[str, "_Column"]:
        """Return the columns of the images that were found, by name, in their order.

        Args:
            declared: the columns whose kind the source states.
        """
        found = [_Column(name, _native_value(name), declared.get(name)) for name in self.native]
        stated: dict[str, Attribute | None] = dict.fromkeys(self._pattern.groupindex) if self._pattern else {}
        from_csv = dict(self._csv.columns) if self._csv else {}
        if self.tells_splits:
            del from_csv[SPLIT_COLUMN]
        for name, attribute in (*stated.items(), *from_csv.items()):
            found.append(_Column(name, _text(name), attribute or declared.get(name), textual=True))
        columns: dict[str, _Column] = {}
        for column in found:
            if column.name in columns:
                raise ConfigError(f"there are two columns {column.name!r}; rename one of them")
            columns[column.name] = column
        return columns


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--attributes.pattern {pattern}: not a regular expression ({error})") from None
    if not expression.groupindex:
        raise ConfigError(f"--attributes.pattern {pattern}: has no named groups, as in (?P<age>\\d+)")
    return expression


class _Csv:
    """A CSV file with a row for each image, in memory."""

    def __init__(self, file: str) -> None:
        require_absolute("attributes.csv", file)
        self.file = file
        self.columns, lines = _read_csv(file)
        """Name of each column that is to be an attribute → the attribute that the header states, if it does."""
        self.splits: set[str] = set()
        """The different texts in the column ``split``, of the images that were asked for."""
        match = next((name for name in (FILE_COLUMN, KEY_COLUMN) if name in self.columns), next(iter(self.columns)))
        numbers: dict[str, int] = {}
        for number, line in lines:
            if line[match] in numbers:
                raise DataError(f"{file}: lines {numbers[line[match]]} and {number} are both about {line[match]!r}")
            numbers[line[match]] = number
        self._rows = {line[match]: line for _, line in lines}
        self._gives_keys = match == FILE_COLUMN and KEY_COLUMN in self.columns
        for name in (match, KEY_COLUMN) if self._gives_keys else (match,):
            del self.columns[name]
        self._taken: dict[str, str] = {}

    def line(self, entry: Entry) -> dict[str, str] | None:
        """Return the row of an image, by column; ``None`` if there is none."""
        name = entry.key if entry.key in self._rows else PurePosixPath(entry.key).name
        if name not in self._rows:
            return None
        if name in self._taken:
            raise DataError(f"{self.file}: {name!r} names both {self._taken[name]} and {entry.key}; give whole keys")
        self._taken[name] = entry.key
        line = self._rows[name]
        if SPLIT_COLUMN in self.columns:
            self.splits.add(line[SPLIT_COLUMN])
        return line

    def key(self, line: Mapping[str, str]) -> str:
        """Return the key that a row gives its image; empty if it gives none."""
        return line[KEY_COLUMN] if self._gives_keys else ""


class _Column:
    """A column whose kind, if it is not stated, is found out by looking at its values.

    Args:
        name: its name.
        value: returns the value of an image.
        stated: what its source or the user says of it; a category's names may be missing.
        textual: whether numbers are recognised in its texts.
    """

    def __init__(
        self,
        name: str,
        value: _Lookup,
        stated: Attribute | None,
        *,
        textual: bool = False,
    ) -> None:
        self.name, self.value, self._textual = name, value, textual
        self.state(stated)

    def state(self, attribute: Attribute | None) -> None:
        """Say what it is."""
        self.stated = attribute
        if attribute is None:
            self._recognition = _Recognition.of_texts() if self._textual else _Recognition.of_values()
        else:
            self._recognition = _Recognition((), most=None)
        self.look: Callable[[Value | None], object] = self._recognise
        """Takes a value, and raises :class:`_ValueError` if it cannot be used."""
        if attribute is not None and (attribute.kind != "category" or attribute.names):
            self.look = _converter(attribute)

    def _recognise(self, value: Value | None) -> None:
        if value is None or value == "":
            raise _ValueError("has no value")
        self._recognition.add(value)

    def attribute(self, found: Iterable[_Found]) -> Attribute:
        """Return what it is, after :attr:`look` has seen all values: it raises for those that cannot be used.

        Args:
            found: the images.

        Raises:
            DataError: it is none of the kinds that are recognised.
        """
        kind, names = self._recognition.kind, self._recognition.names
        if self.stated:
            return self.stated if self.stated.names or not names else dataclasses.replace(self.stated, names=names)
        if len(names) > MOST_NAMES:
            values = (self.value(folder, native, texts) for _, _, _, folder, native, texts, *_ in found)
            different = itertools.groupby(SortedSpool((_name(value),) for value in values if value not in (None, "")))
            raise DataError(
                f"column {self.name!r} has {sum(1 for _ in different):,} different texts, too many for a category; "
                "leave it out by naming the others with --attributes.columns, or state --attributes.kinds "
                f"{self.name}=category"
            )
        return Attribute(self.name, kind, names)


class _Recognition:
    """Finds out what kind values are of, which it is given one by one.

    Args:
        kinds: kinds that they may be of, with a test for each; a value that passes one also passes those that follow.
            What passes none is a category.
        most: how many names are kept, and one more, of a category; ``None`` for all.
    """

    def __init__(self, kinds: Iterable[tuple[Kind, Callable[[Value], bool]]], most: int | None) -> None:
        self._kinds, self._most = list(kinds), most
        self._names: set[str] = set()

    @staticmethod
    def of_texts() -> "_Recognition":
        """Return one that recognises numbers in texts."""
        return _Recognition([("int", _is_convertible("int")), ("float", _is_convertible("float"))], MOST_NAMES)

    @staticmethod
    def of_values() -> "_Recognition":
        """Return one for values that have types of their own."""
        return _Recognition([("int", _is_int), ("float", _is_number)], MOST_NAMES)

    def add(self, value: Value) -> None:
        """Take note of a value."""
        while self._kinds and not self._kinds[0][1](value):
            del self._kinds[0]
        if self._most is None or len(self._names) <= self._most:
            self._names.add(_name(value))

    @property
    def kind(self) -> Kind:
        """The narrowest kind of all values so far."""
        return self._kinds[0][0] if self._kinds else "category"

    @property
    def names(self) -> tuple[str, ...]:
        """The different values, sorted, of a category."""
        return () if self._kinds else tuple(sorted(self._names))


def _is_convertible(kind: Kind) -> Callable[[Value], bool]:
    convert = _converter(Attribute("", kind))

    def test(value: Value) -> bool:
        try:
            convert(value)
        except _ValueError:
            return False
        return True

    return test


def _is_int(value: Value) -> bool:
    return isinstance(value, int)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float)


def _native_value(name: str) -> _Lookup:
    return lambda folder, values, texts: values.get(name)


def _text(name: str) -> _Lookup:
    return lambda folder, values, texts: texts.get(name)


def _folder(folder: str | None, values: object, texts: object) -> str | None:
    return folder


def _last_folder(folder: str | None, values: object, texts: object) -> str:
    return (folder or "").rpartition("/")[2]


def _chosen(columns: dict[str, _Column], names: Sequence[str], label: str | None) -> dict[str, _Column]:
    """Return the columns of these names and the label; all if there are no names."""
    for option, name in (("--label", label), *(("--attributes.columns", name) for name in names)):
        if name and name not in columns:
            raise ConfigError(f"{option} {name}: no such column; there are: {', '.join(columns)}")
    kept = {*names, *([label] if label else [])} if names else columns.keys()
    return {name: column for name, column in columns.items() if name in kept}


def class_folders(folders: Iterable[str | None]) -> tuple[str, ...]:
    """Find the folders of images that could be classes: those that hold images and no such folder.

    Args:
        folders: :attr:`Entry.folder` of the images.

    Returns:
        Their paths, sorted.
    """
    named = {folder for folder in folders if folder}
    return tuple(sorted(named - _folders_above(named)))


def _folders_above(folders: Iterable[str]) -> set[str]:
    """Return the paths of all folders that hold one of these folders; the top is the empty path."""
    return {
        "/".join(parts[:depth]) for parts in (folder.split("/") for folder in folders) for depth in range(len(parts))
    }


def _folder_notes(source: Source, classes: Sequence[str], *, last_only: bool) -> list[str]:
    """Return what to tell the user of the folders that are classes, a line each.

    Raises:
        ConfigError: no image lies in a folder.
    """
    if not classes:
        raise ConfigError(
            f"--label {FOLDER}: the images of {source.path} do not lie in folders of classes; "
            "give labels by --attributes.csv or --attributes.pattern"
        )
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
        content = io.StringIO(read_bytes(locate(file)).decode("utf-8-sig"), newline="")
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


def _state_kinds(columns: Mapping[str, _Column], texts: Sequence[str]) -> None:
    """Tell columns the kinds that the user states, as in ``age=int``."""
    for item in texts:
        name, _, kind = item.rpartition("=")
        if kind not in KINDS:
            raise ConfigError(f"--attributes.kinds {item}: should be NAME=KIND, with the kind {', '.join(KINDS)}")
        if name not in columns:
            raise ConfigError(f"--attributes.kinds {item}: no such column; there are: {', '.join(columns)}")
        if (stated := columns[name].stated) is None or stated.kind != kind:
            columns[name].state(Attribute(name, cast("Kind", kind)))


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


def _name(value: Value) -> str:
    return value if isinstance(value, str) else repr(value)


def _label_names(attribute: Attribute, values: Iterable[int]) -> tuple[str, ...]:
    """Return the names of labels: those of a category, else the numbers from 0 to the highest."""
    if attribute.kind == "category":
        return attribute.names
    highest = 0
    for number in values:
        if attribute.kind == "float" or not 0 <= number < MOST_NAMES:
            raise ConfigError(
                f"{attribute.name!r} cannot be the label: labels are a category, or ints from 0 to {MOST_NAMES - 1}; "
                f"state --attributes.kinds {attribute.name}=category, or choose another with --label"
            )
        highest = max(highest, number)
    return tuple(str(number) for number in range(1 + highest))
