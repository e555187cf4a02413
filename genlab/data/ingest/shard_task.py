"""The work of an ingest: one task for each shard, a pure function that can be done anywhere.

A finished shard has a record beside it, ``shard-00003.json`` for ``shard-00003.arrow``, with the fingerprint of its
task and its own SHA-256. A task whose shard agrees with a record of the very same task need not be done again.
"""

import dataclasses
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from typing import TypeVar, overload

from pydantic import TypeAdapter, ValidationError
from upath import UPath

from genlab.core.errors import DataError, GenlabError
from genlab.core.storage import locate, read_bytes, read_json, sha256, write_json
from genlab.data.format.manifest import Attribute, Shard, Skipped
from genlab.data.format.writer import ShardWriter
from genlab.data.ingest.attributes import PlainRow, Row, row_of
from genlab.data.ingest.sources import Entry, Load, Sample, Source
from genlab.data.ingest.spool import Spool
from genlab.imaging.images import Channels, Encoding, Fit, ImageError, Lossy, Prepared, extremes, prepare
from genlab.imaging.value_range import ValueRange

T = TypeVar("T")

CHUNK = 32
"""Images that a thread takes at a time."""

VERSIONS = {name: version(name) for name in ("genlab", "numpy", "pillow", "pyarrow")}
"""Versions of the libraries that pixels and bytes depend on."""


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """The format into which every image of a data set is converted."""

    channels: Channels
    size: int | None
    fit: Fit
    encoding: Encoding
    validate: bool
    skip_bad: bool
    labelled: bool
    attributes: tuple[Attribute, ...] = ()
    shape: tuple[int, int, int] | None = None
    """The one (height, width, channels) that raw images must have."""
    shape_key: str = ""
    """The key of the image that set the shape."""
    value_range: ValueRange | None = None
    """The values that become 0 and 255 in images of more than 8 bits."""
    lossy: tuple[Lossy, int] | None = None
    """Format and quality of encoded files; ``None`` where nothing may be lost."""


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """The task of making one shard: everything that its bytes depend on."""

    source: Source
    image_format: ImageFormat
    path: str
    """The file to write, an absolute path or URL."""
    split: str
    rows: Sequence[Row]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that the shard depends on: two tasks of one fingerprint make the same bytes."""
        image_format = dataclasses.asdict(self.image_format)
        # Neither changes the bytes of a finished shard; images that were left out are checked by
        # :func:`load_finished_result`.
        del image_format["skip_bad"], image_format["shape_key"]
        if self.image_format.value_range is None:  # shards without a range keep their fingerprints
            del image_format["value_range"]
        if self.image_format.lossy is None:
            del image_format["lossy"]
        rows = [
            (row.key, row.label, row.values, entry.key, entry.size, entry.file, entry.index, entry.offset)
            for row in self.rows
            for entry in [row.entry]
        ]
        source = {"kind": self.source.kind, **dataclasses.asdict(self.source)}
        for name in self.source.listing_fields:
            del source[name]
        content = json.dumps([VERSIONS, source, image_format, self.split, rows], sort_keys=True)
        return sha256(content.encode())


@dataclasses.dataclass(frozen=True)
class ShardTasks(Sequence[ShardTask]):
    """The tasks of an ingest, split after split. Each is made when it is asked for, so memory holds the rows of few."""

    source: Source
    image_format: ImageFormat
    dest: UPath
    """The directory of the shards."""
    splits: Mapping[str, Spool[PlainRow]]
    """The rows of each split, sorted by key."""
    rows_per_shard: int

    @cached_property
    def _begins(self) -> list[tuple[str, int]]:
        """The split of each shard, and the number of its first row there."""
        return [
            (split, begin) for split, rows in self.splits.items() for begin in range(0, len(rows), self.rows_per_shard)
        ]

    @property
    def images(self) -> int:
        """How many images there are in all."""
        return sum(map(len, self.splits.values()))

    @property
    def paths(self) -> Iterator[str]:
        """The files of the shards."""
        return map(self._path, range(len(self)))

    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, index: int) -> ShardTask: ...
    @overload
    def __getitem__(self, index: slice) -> list[ShardTask]: ...
    def __getitem__(self, index: int | slice) -> ShardTask | list[ShardTask]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        split, begin = self._begins[number]
        rows = self.splits[split]
        slice_of_rows = rows.items(begin, min(begin + self.rows_per_shard, len(rows)))
        return ShardTask(self.source, self.image_format, self._path(number), split, list(map(row_of, slice_of_rows)))

    def _path(self, number: int) -> str:
        return str(self.dest / f"shard-{number:05d}.arrow")


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """A finished shard, and what the manifest says of its images."""

    shard: Shard | None
    """``None`` if all its images were left out."""
    shapes: tuple[tuple[int, int, int], ...]
    """The different shapes of its images, sorted."""
    converted: dict[str, int]
    skipped: tuple[Skipped, ...]
    greatest: dict[str, int] = dataclasses.field(default_factory=dict)
    """The greatest value, 0 to 65,535, in its 16-bit images that were made 8-bit without a range: of ``grey`` and of
    ``colour`` ones, as :attr:`genlab.imaging.images.Prepared.greatest` has it."""


@dataclasses.dataclass(frozen=True)
class Record:
    """The content of the file that lies beside a finished shard until the manifest is written."""

    fingerprint: str
    result: ShardResult


_RECORD = TypeAdapter(Record)

PreparedRow = tuple[Row, Prepared | Skipped, int | None]
"""A row; its image, or the reason why it was left out; and its label."""


def record_path(shard: str) -> str:
    """Return the path of a shard file's record."""
    return shard.removesuffix(".arrow") + ".json"


def load_finished_result(task: ShardTask) -> ShardResult | None:
    """Return the result of a task that was done before, or ``None``.

    Every byte of the shard is read: it must still be as its record says.
    """
    try:
        record = _RECORD.validate_python(read_json(locate(record_path(task.path))))
    except (GenlabError, OSError, ValidationError):
        return None
    if record.fingerprint != task.fingerprint or (record.result.skipped and not task.image_format.skip_bad):
        return None
    shard = record.result.shard
    try:
        if shard is not None and (
            shard.file != locate(task.path).name or sha256(read_bytes(locate(task.path))) != shard.sha256
        ):
            return None
    except OSError:
        return None
    return record.result


def make_shard(task: ShardTask) -> ShardResult:
    """Do a task in this thread, unless it was done before.

    Raises:
        DataError: an image cannot be used, or is not of the one shape that raw pixels need; or the shard cannot be
            written.
    """
    return load_finished_result(task) or begin_shard(task, load(task))()


def load(
    task: ShardTask,
    pool: Executor | None = None,
    *,
    ahead: int = 1,
    on_images: Callable[[int], object] = lambda _: None,
) -> Iterator[PreparedRow]:
    """Load and prepare a shard's images, in the order of their keys.

    Args:
        task: the task of the shard.
        pool: threads that do the work in chunks; without it, this thread does.
        ahead: most chunks that are in work or finished before they are taken.
        on_images: called with the number of images newly done, from any thread, to show progress.
    """

    def prepared(load_entry: Load, row: Row) -> PreparedRow:
        return row, *prepare_row(task.source, load_entry, task.image_format, row)

    made = _each_row(task, prepared, pool, ahead, on_images)
    yield from made if _in_storage_order(task) == task.rows else sorted(made, key=lambda one: one[0].key)


def measure(
    task: ShardTask,
    pool: Executor | None = None,
    *,
    ahead: int = 1,
    on_images: Callable[[int], object] = lambda _: None,
) -> ValueRange | None:
    """Find the least and the greatest value in a shard's images of more than 8 bits, without making the shard.

    Args:
        task: the task of the shard.
        pool, ahead, on_images: see :func:`load`.

    Returns:
        Both values, or ``None`` if all images of the shard have 8 bits.

    Raises:
        DataError: an image cannot be used, and such images are not to be left out.
    """

    def measured(load_entry: Load, row: Row) -> ValueRange | None:
        try:
            return extremes(load_entry(row.entry).image)
        except ImageError as error:
            if task.image_format.skip_bad:
                return None
            raise _unusable(task.source, row.entry, error) from error

    return union_of_ranges(_each_row(task, measured, pool, ahead, on_images))


def union_of_ranges(ranges: Iterable[ValueRange | None]) -> ValueRange | None:
    """Return the smallest range that contains all ``ranges``; ``None`` if there are none."""
    found = [one for one in ranges if one is not None]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _in_storage_order(task: ShardTask) -> list[Row]:
    """Return a shard's rows in the order in which the source stores them, so that files are read from front to back."""
    return sorted(task.rows, key=lambda row: (row.entry.file, row.entry.offset, row.entry.index))


def _each_row(
    task: ShardTask,
    work: Callable[[Load, Row], T],
    pool: Executor | None,
    ahead: int,
    on_images: Callable[[int], object],
) -> Iterator[T]:
    """Run ``work`` on each row of a shard, in the order in which the source stores them, and yield its results.

    The other arguments are those of :func:`load`.
    """
    rows = _in_storage_order(task)
    chunks = (rows[begin : begin + CHUNK] for begin in range(0, len(rows), CHUNK))
    with task.source.reader() as load_entry:

        def work_on(chunk: Sequence[Row], load_entry: Load) -> list[T]:
            done = [work(load_entry, row) for row in chunk]
            on_images(len(chunk))
            return done

        if pool is None:
            for chunk in chunks:
                yield from work_on(chunk, load_entry)
            return
        waiting: deque[Future[list[T]]] = deque()
        try:
            for chunk in chunks:
                if len(waiting) == ahead:
                    yield from waiting.popleft().result()
                loaded = _loaded(load_entry, chunk) if task.source.ordered else load_entry
                waiting.append(pool.submit(work_on, chunk, loaded))
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _loaded(load_entry: Load, chunk: Sequence[Row]) -> Load:
    """Load a chunk's images now, in this thread, and return a function that hands them out."""
    samples: dict[str, Sample | ImageError] = {}
    for row in chunk:
        try:
            samples[row.entry.key] = load_entry(row.entry)
        except ImageError as error:
            samples[row.entry.key] = error

    def hand_out(entry: Entry) -> Sample:
        sample = samples[entry.key]
        if isinstance(sample, ImageError):
            raise sample
        return sample

    return hand_out


def begin_shard(task: ShardTask, prepared: Iterable[PreparedRow]) -> Callable[[], ShardResult]:
    """Write a shard's rows as they come.

    Returns:
        A function that puts the shard and its record in place, waiting for the disk.

    Raises:
        DataError: an image cannot be used, or the shard cannot be written.
    """
    image_format = task.image_format
    shapes: set[tuple[int, int, int]] = set()
    converted: Counter[str] = Counter()
    skipped: list[Skipped] = []
    greatest: dict[str, int] = {}
    writer: ShardWriter | None = None
    with _dropped_on_error(task.path, lambda: writer):
        for row, image, label in prepared:
            if isinstance(image, Skipped):
                skipped.append(image)
                continue
            writer = writer or ShardWriter(
                locate(task.path),
                split=task.split,
                encoding=image_format.encoding,
                shape=image_format.shape,
                labelled=image_format.labelled,
                attributes=image_format.attributes,
            )
            writer.add(image.image, row.key, label, row.values)
            shapes.add(image.shape)
            if image.changes:
                converted.update(image.changes)
            if image.greatest:
                kind, value = image.greatest
                greatest[kind] = max(value, greatest.get(kind, 0))

    def finish() -> ShardResult:
        with _dropped_on_error(task.path, lambda: writer):
            shard = writer.close() if writer else None
            counts = dict(sorted(converted.items()))
            result = ShardResult(shard, tuple(sorted(shapes)), counts, tuple(skipped), greatest)
            record = Record(task.fingerprint, result)
            write_json(locate(record_path(task.path)), _RECORD.dump_python(record, mode="json"))
        return result

    return finish


@contextmanager
def _dropped_on_error(path: str, writer: Callable[[], ShardWriter | None]) -> Iterator[None]:
    """Remove the unfinished file of a writer, if there is one yet, when an error ends the block."""
    try:
        yield
    except BaseException as error:
        if (begun := writer()) is not None:
            begun.drop()
        if isinstance(error, OSError):
            raise unwritable(path, error) from None
        raise


def unwritable(path: object, error: OSError) -> DataError:
    """Return the error for a place that cannot be written to."""
    return DataError(
        f"{path}: cannot be written ({error.strerror or error}); put that right and run the same command again: "
        "finished shards are kept"
    )


def prepare_row(
    source: Source, load_entry: Load, image_format: ImageFormat, row: Row
) -> tuple[Prepared | Skipped, int | None]:
    """Load and prepare one image.

    Returns:
        The image, or the reason why it was left out; and its label.

    Raises:
        DataError: the image cannot be used, and bad images are not to be left out; or it does not have the one shape of
            raw pixels.
    """
    entry = row.entry
    try:
        sample = load_entry(entry)
        prepared = prepare(
            sample.image,
            channels=image_format.channels,
            size=image_format.size,
            fit=image_format.fit,
            encoding=image_format.encoding,
            validate=image_format.validate,
            value_range=image_format.value_range,
            lossy=image_format.lossy,
        )
    except ImageError as error:
        if image_format.skip_bad:
            return Skipped(row.key, str(error)), None
        raise _unusable(source, entry, error) from error
    if image_format.shape and prepared.shape != image_format.shape:
        (height, width, _), (first_height, first_width, _) = prepared.shape, image_format.shape
        raise DataError(
            f"{source.describe(entry)} is {width}x{height} pixels, but {image_format.shape_key} is "
            f"{first_width}x{first_height}, and raw pixels are stored at one size; fit them all into a square with "
            "--size, or keep the files with --encoding encoded"
        )
    return prepared, sample.label if row.label is None else row.label


def _unusable(source: Source, entry: Entry, error: ImageError) -> DataError:
    return DataError(
        f"{source.describe(entry)}: {error}; repair or remove it, or leave such images out with --skip-bad"
    )
