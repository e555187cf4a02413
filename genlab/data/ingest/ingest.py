"""Ingest: a source of images becomes a data set of Arrow shards (``genlab ingest SOURCE DEST``).

The source's entries are sorted by key, on disk, and cut into shards, split after split; each shard is a pure function
of its slice. So it does not matter where the shards are made, here one after another or anywhere on a Ray cluster: the
bytes are the same. The index and the manifest are written last.

A killed ingest leaves in DEST its specification, ``ingest.json``, and the finished shards, each with its record. The
same command goes on from there. A changed option or source is refused, as it is likely a mistake; but after an error,
which asks for such a change, it is accepted, and the shards that it does not concern are kept.
"""

import dataclasses
import fnmatch
import hashlib
import itertools
import json
import math
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, cast

import tyro
from annotated_types import Ge, Gt, Le
from upath import UPath

from genlab.core import config as configs
from genlab.core.claims import ClaimLostError, claimed, is_claimed
from genlab.core.errors import ConfigError, DataError, GenlabError
from genlab.core.storage import delete, exists, locate, names, read_bytes, require_absolute, sha256, write_json
from genlab.data.format.index import IndexWriter
from genlab.data.format.manifest import FILE_NAME, Attribute, IndexFile, Manifest, Origin, Shard, Skipped
from genlab.data.format.splits import SPLITS, TEST, TRAIN, VALIDATION
from genlab.data.ingest.attributes import FOLDER, AttributesConfig, PlainRow, Row, Rows, resolve, row_of
from genlab.data.ingest.shard_makers import ShardMaker, ShardMeter, make_locally, measure_locally
from genlab.data.ingest.shard_task import (
    VERSIONS,
    ImageFormat,
    ShardResult,
    ShardTasks,
    prepare_row,
    record_path,
    union_of_ranges,
    unwritable,
)
from genlab.data.ingest.sources import Source, open_source
from genlab.data.ingest.sources.synthetic import MOST
from genlab.data.ingest.sources.webdataset import KeyEnd
from genlab.data.ingest.spool import CHUNK, Spool
from genlab.imaging.images import Channels, Encoding, Lossy, Prepared
from genlab.imaging.value_range import ValueRange, parse_range

SPECIFICATION = "ingest.json"
"""The file that says what an unfinished data set is to become; it is removed when the data set is complete."""

WORK = "ingest"
"""What the claim on the directory is for, see :mod:`genlab.core.claims`."""

FOUND_RANGE = "range of values"
"""The key in that file under which stands the range that ``--range auto`` found."""

AUTO = "auto"
"""The value of ``--range`` for a range that is to be found."""

QUALITY = 90
"""The default of ``--quality``."""

MEASURED = 32
"""The most images whose size, encoded anew, says how many rows a shard has."""
FEWEST_BYTES = 2048
"""Images whose pixels take fewer bytes are not stored as JPEG or WebP: heads and tables alone take hundreds."""

UNUSED_RANGE = {
    "grey": "make the data set again with --range 0:{} or --range auto",
    "colour": "scale them to all 16 bits, or to 8, before ingest (--range is for grey images)",
}
"""Kind of 16-bit images -> the way out where they use little of their range."""

LATER_OPTIONS = ("image_member", "key_ends_at", "label_last_folder", "quality", "range", "validation_fraction")
"""Options added after format 1 was released; omitted from a manifest when unused, so that old checksums stay valid."""


@dataclasses.dataclass(frozen=True)
class IngestConfig:
    """Turn images into a data set of Arrow shards.

    Splits: a data set has the splits `train` and `test`, or one of them. They are those in which the source was
    published (MNIST's two halves; folders named train and test that hold all images between them), else everything is
    `train`; --test-fraction draws them anew. --validation-fraction adds the split `validation`, on which checkpoints
    and options are chosen, so that the split test is left for results.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Images to ingest, as SCHEME:PATH or a path that is recognised by what is there. mnist:DIR (idx files, plain
    or .gz), folder:DIR (all images below it), zip:FILE, tfrecord:FILE-OR-DIR (features image and image_name),
    webdataset:FILE-OR-DIR (tar archives), parquet:FILE-OR-DIR, hf:DIR (written by save_to_disk of Hugging Face
    datasets), synthetic:scenes-a, synthetic:scenes-b, synthetic:digits. Paths may be s3:// URLs."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DEST")]
    """Directory or s3:// URL to make the data set in; it must not hold one yet. After a crash the same command goes
    on with what is missing."""
    size: Annotated[int, Ge(1)] | None = None
    """Side of the square to make of every image, in pixels; by default images keep their sizes. Synthetic scenes are
    drawn at this size (default 64)."""
    fit: Literal["auto", "keep", "resize", "crop"] = "auto"
    """How an image becomes a square: crop scales its short side to --size and cuts the middle out, resize squeezes
    it, both by antialiased Lanczos resampling; keep leaves its size alone. auto: crop with --size, keep without."""
    encoding: Literal["auto", "raw", "encoded", "jpeg", "webp"] = "auto"
    """What is stored: raw pixels, or encoded files: the very bytes of a JPEG or PNG that needs no change, and PNG of
    any other image. auto: encoded if the source holds image files and there is no --size, else raw. jpeg and webp, with
    --size: files of that format, which lose details (see --quality) and take a tenth of the space of pixels."""
    quality: Annotated[int, Ge(1), Le(100)] | None = None
    """Quality of the files of --encoding jpeg or webp (default 90)."""
    channels: Literal["auto", 1, 3] = "auto"
    """Channels of every image: 1 (grey) or 3 (RGB). Transparent images are laid on white. auto: 3 for image files and
    scenes, 1 for MNIST and digits."""
    shard_size: Annotated[float, Gt(0)] = 64.0
    """Approximate size of a shard, in MiB."""
    test_fraction: Annotated[float, Ge(0), Le(1)] | None = None
    """Share of the images that go to the split test, chosen by a hash of their keys, so that an image stays on its side
    whatever else is ingested. By default the splits are those published."""
    validation_fraction: Annotated[float, Ge(0), Le(1)] | None = None
    """Share of the images that go to the split validation, chosen by the same hash: of all images with
    --test-fraction, which chooses the same ones with or without it; else of those that were not published as test. By
    default the splits are those published."""
    validate: bool = True
    """Decode each image once, even where its bytes are stored untouched."""
    range: Annotated[str | None, tyro.conf.arg(metavar="LO:HI|auto")] = None
    """Values that become black (0) and white (255) in images of more than 8 bits, which are grey: 16-bit PNG and TIFF,
    32-bit integer and float TIFF. What lies beyond is clipped; 8-bit images stay as they are. 0:4095 suits a camera of
    12 bits; auto takes the least and the greatest value of all images of all splits, which are read once more for it.
    The model that is trained on the data set reads such pictures by the same range. By default the upper 8 of 16 bits
    are kept, and 32-bit images are refused."""
    skip_bad: bool = False
    """Leave out images that cannot be used, and list them in the manifest, rather than end at the first."""
    count: Annotated[int, Ge(1), Le(MOST)] | None = None
    """How many synthetic images to draw (default: 1,024 scenes, 10,000 digits)."""
    seed: Annotated[int, Ge(0)] | None = None
    """Seed of synthetic images (default 0)."""
    image_column: str | None = None
    """The column of images in a Parquet file or Hugging Face data set, where there is more than one."""
    key_column: str | None = None
    """The column of keys in it, which holds each key once; by default the number of a row is its key."""
    image_member: Annotated[str | None, tyro.conf.arg(metavar="EXT")] = None
    """The member of each WebDataset sample that is the image, by its extension, as in jpg or seg.png; needed where
    not exactly one member has the extension of an image."""
    key_ends_at: KeyEnd | None = None
    """The dot that ends the key in the names of WebDataset members: 22.05.png is the member 05.png of the sample 22 by
    first-dot, the default and WebDataset's own rule, and the member png of the sample 22.05 by last-dot."""
    label: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The attribute that is the label; by default the one called label, where the source has no labels itself. With
    folder, the class of an image is the path of the folders that it lies in, below the folder of its split (train,
    test; else SOURCE), as in animals/cat; an attribute that is really called folder wins."""
    label_last_folder: bool = False
    """With --label folder, take the last folder alone as the class: animals/cat and toys/cat are both cat."""
    attributes: AttributesConfig = dataclasses.field(default_factory=AttributesConfig)
    start_over: bool = False
    """Make this data set in place of an unfinished one, of another source or other options, that a killed ingest left
    in DEST."""


def ingest(
    config: IngestConfig, make_shards: ShardMaker = make_locally, measure_shards: ShardMeter = measure_locally
) -> Manifest:
    """Make a data set, or go on making it: shards that an earlier ingest finished are kept.

    Args:
        config: the source, the destination and the options.
        make_shards: the function that makes the shards.
        measure_shards: the function that measures the range of their values, for ``--range auto``.

    Raises:
        ConfigError: options contradict each other or do not go with the source.
        DataError: the source or one of its images cannot be used; or ``dest`` holds a data set, or a killed ingest of
            another source or other options left it. No manifest is left behind.
        ClaimError: another process is at work in ``dest``.
    """
    require_absolute("dest", config.dest)
    dest = locate(config.dest)
    if exists(dest / FILE_NAME) and not (exists(dest / SPECIFICATION) or is_claimed(dest, WORK)):
        raise _occupied(dest)
    _check_options(config)
    source = open_source(
        config.source,
        size=config.size,
        count=config.count,
        seed=config.seed,
        image_column=config.image_column,
        key_column=config.key_column,
        image_member=config.image_member,
        key_ends_at=config.key_ends_at,
    )
    columns = resolve(
        source,
        source.entries(),
        config.attributes,
        label=config.label,
        skip_bad=config.skip_bad,
        last_folder=config.label_last_folder,
    )
    for note in columns.notes:
        print(note, flush=True)
    listing = _Listing.of(source, columns.rows, config)
    label_names = columns.label_names or source.label_names()
    image_format = _image_format(config, source, columns.attributes, bool(label_names))
    row, first = _first(source, image_format, columns.rows)
    if image_format.encoding == "raw":
        image_format = dataclasses.replace(image_format, shape=first.shape, shape_key=row.key)
    kept = source.encoded and image_format.encoding == "encoded" and image_format.size is None
    image_bytes = listing.bytes / listing.images if kept else math.prod(first.shape)
    if image_format.lossy:
        image_bytes = _mean_bytes(source, image_format, columns.rows, first)
    per_shard = max(1, int(config.shard_size * 2**20 / max(1, image_bytes)))
    tasks = ShardTasks(source, image_format, dest, listing.splits, per_shard)
    specification = _specification(config, source, listing)
    with _writing(dest), claimed(dest, WORK, "choose another place") as claim:
        # Checked again, for another process may have finished it in the meantime.
        if exists(dest / FILE_NAME):
            if _read_specification(dest)[0] != specification:
                raise _occupied(dest)
            manifest = Manifest.load(dest)
        else:
            found_range = _check_unfinished(dest, specification, config.start_over)
            if config.range == AUTO:
                value_range = found_range or _measured(source, measure_shards(tasks))
                claim.require()
                image_format = dataclasses.replace(image_format, value_range=value_range)
                tasks = dataclasses.replace(tasks, image_format=image_format)
                specification[FOUND_RANGE] = value_range
            _begin(dest, specification, tasks)
            index, results = IndexWriter(), []
            try:
                for result in make_shards(tasks):
                    claim.require()
                    if result.shard:
                        index.add(result.shard)
                    results.append(dataclasses.replace(result, shard=None))
            except ClaimLostError:
                raise
            except GenlabError:
                # The error asks for another source or other options, which the next ingest must not refuse.
                delete(dest / SPECIFICATION)
                raise
            claim.require()
            manifest = _manifest(config, source, image_format, label_names, columns.skipped, results, *index.save(dest))
            claim.require()
            manifest.save(dest)
            _warn_of_unused_range(config.dest, results)
        _clear(dest, [*map(record_path, tasks.paths), str(dest / SPECIFICATION)])
    if not label_names and len(folders := columns.class_folders) > 1:
        print(
            f"no labels: the images lie in {len(folders):,} folders, such as {folders[0]} and {folders[1]}; if those "
            f"are classes, --label {FOLDER} makes them the labels",
            flush=True,
        )
    return manifest


def _occupied(dest: UPath) -> DataError:
    return DataError(f"{dest}: holds a data set already; choose another place, or delete it first")


@contextmanager
def _writing(dest: UPath) -> Iterator[None]:
    """Turn an error of the file system into one message that names the directory."""
    try:
        yield
    except OSError as error:
        raise unwritable(dest, error) from None


@dataclasses.dataclass(frozen=True)
class _Listing:
    """The images of an ingest."""

    splits: dict[str, Spool[PlainRow]]
    """The rows of each split, sorted by key."""
    images: int
    bytes: int
    """Sum of the entries' sizes."""
    checksum: str
    """SHA-256 of names, sizes, published splits, labels and attributes."""

    @staticmethod
    def of(source: Source, rows: Rows, config: IngestConfig) -> "_Listing":
        """List rows, in one pass.

        Raises:
            DataError: two images have one name.
        """
        splits: dict[str, Spool[PlainRow]] = {split: Spool() for split in SPLITS}
        checksum = hashlib.sha256(b"[")  # of one JSON list, which is never in memory
        size, last, rest = 0, None, iter(rows)
        while some := list(itertools.islice(rest, CHUNK)):
            text = json.dumps([row[:5] for row in some])  # without the entries' other fields
            checksum.update(f"{', ' if last else ''}{text[1:-1]}".encode())
            for row in some:
                key, bytes_of_row, split, *_ = row
                if last and last[0] == key:
                    first, second = (source.describe(row_of(one).entry) for one in (last, row))
                    raise DataError(f"{first} and {second} have one name; rename one of them")
                splits[_split(key, split, config)].append(row)
                size, last = size + bytes_of_row, row
        checksum.update(b"]")
        return _Listing(splits, len(rows), size, checksum.hexdigest())


def _split(key: str, published: str, config: IngestConfig) -> str:
    """Return the split that an image goes to.

    A hash of the key is a number from 0 to 1: the lowest are the test split, the highest the validation split. So
    neither changes with the size of the other.
    """
    test, validation = config.test_fraction, config.validation_fraction
    if test is None and validation is None:
        return published
    number = int(sha256(key.encode())[:16], 16) / 2**64
    if number < test if test is not None else published == TEST:
        return TEST
    return VALIDATION if validation is not None and number >= 1 - validation else TRAIN


def _specification(config: IngestConfig, source: Source, listing: _Listing) -> dict[str, Any]:
    """Return the content of ``ingest.json``: two ingests of equal content make the same data set."""
    return {
        **_options(config),
        "source": f"{source.kind}:{source.path}",
        "images": listing.images,
        "bytes": listing.bytes,
        "checksum of names, sizes and attributes": listing.checksum,
        **{f"version of {name}": number for name, number in VERSIONS.items()},
    }


def _options(config: IngestConfig) -> dict[str, Any]:
    """Return the options that decide what is made, by their names on the command line."""
    options = configs.flatten(configs.to_dict(config))
    # source and dest are recorded elsewhere; skip_bad and start_over do not change what is made.
    for name in ("source", "dest", "skip_bad", "start_over"):
        del options[name]
    return {f"--{name.replace('_', '-')}": value for name, value in options.items()}


def _read_specification(dest: UPath) -> tuple[dict[str, Any] | None, ValueRange | None]:
    """Return what ``ingest.json`` holds, and apart from that the range that ``--range auto`` found.

    Options that it does not name are newer than it, and have their defaults.
    """
    try:
        specification = json.loads(read_bytes(dest / SPECIFICATION))
    except FileNotFoundError:
        return None, None
    except ValueError:
        return {}, None
    if not isinstance(specification, dict):
        return {}, None
    found = specification.pop(FOUND_RANGE, None)
    return _options(IngestConfig("", "")) | specification, found and (float(found[0]), float(found[1]))


def _check_unfinished(dest: UPath, specification: dict[str, Any], start_over: bool) -> ValueRange | None:
    """Check that the directory holds no unfinished ingest, or one of the same specification.

    Returns:
        The range that the unfinished ingest of the same specification has found already, if it has.

    Raises:
        DataError: the directory holds the specification of another ingest, which was killed.
    """
    found, found_range = _read_specification(dest)
    if found is not None and found != specification and not start_over:
        raise DataError(
            f"{dest}: holds an unfinished ingest of something else "
            f"({configs.describe_changes(found, specification)}); run that one again to finish it, "
            "choose another place, or make this one in its place with --start-over"
        )
    return found_range if found == specification else None


def _measured(source: Source, ranges: Iterable[ValueRange | None]) -> ValueRange:
    """Return the range of the values of all images.

    Raises:
        DataError: no image has more than 8 bits, or all have one value.
    """
    measured = union_of_ranges(ranges)
    if measured is None:
        raise DataError(f"{source.path}: none of its images has more than 8 bits; leave out --range auto")
    if measured[0] == measured[1]:
        raise DataError(
            f"{source.path}: its images of more than 8 bits hold one value only, {measured[0]:g}; name the values that "
            "are to become black and white, by --range LO:HI"
        )
    return measured


def _begin(dest: UPath, specification: dict[str, Any], tasks: ShardTasks) -> None:
    """Write the specification into the directory, and remove the shards there that do not belong to it."""
    write_json(dest / SPECIFICATION, specification)
    mine = {name for path in tasks.paths for name in (path, record_path(path))}
    patterns = ("shard-[0-9]*.arrow", "shard-[0-9]*.json", ".*.partial")
    there = names(dest)
    files = (str(dest / name) for pattern in patterns for name in fnmatch.filter(there, pattern))
    _clear(dest, [file for file in files if file not in mine])


def _clear(dest: UPath, files: Iterable[str]) -> None:
    for file in files:
        delete(locate(file))


def _check_options(config: IngestConfig) -> None:
    if config.label_last_folder and config.label != FOLDER:
        raise ConfigError(f"--label-last-folder goes with --label {FOLDER}; add that, or leave it out")
    if config.size is None and config.fit in ("resize", "crop"):
        raise ConfigError(f"--fit {config.fit} needs --size, the side of the square in pixels")
    if config.size is not None and config.fit == "keep":
        raise ConfigError("--fit keep leaves images at their sizes; leave out --size, or fit by crop or resize")
    test, validation = config.test_fraction or 0, config.validation_fraction or 0
    if test + validation > 1:
        raise ConfigError(
            f"--test-fraction {test:g} and --validation-fraction {validation:g} are more than all images; "
            "make one of them smaller"
        )


def _lossy(config: IngestConfig, source: Source, channels: int) -> tuple[Lossy, int] | None:
    """Return format and quality of the files to store; ``None`` where nothing may be lost."""
    if config.encoding not in ("jpeg", "webp"):
        if config.quality is not None:
            raise ConfigError(
                f"--quality goes with --encoding jpeg or webp; --encoding {config.encoding} loses nothing"
            )
        return None
    if not source.encoded:
        raise ConfigError(
            f"--encoding {config.encoding} is for image files; the pixels of {config.source} are stored as they are "
            "(leave it out)"
        )
    if config.size is None:
        raise ConfigError(
            f"--encoding {config.encoding} needs --size; without it, files keep their bytes (--encoding encoded)"
        )
    if config.size**2 * channels < FEWEST_BYTES:
        raise ConfigError(
            f"--encoding {config.encoding}: {config.size}x{config.size} pixels take no more bytes than such a file; "
            "store them with --encoding raw"
        )
    return config.encoding, config.quality or QUALITY


def _image_format(
    config: IngestConfig, source: Source, attributes: tuple[Attribute, ...], labelled: bool
) -> ImageFormat:
    """Return the format of the images before their shape is known; a range that is still to be found is 0 to 1."""
    value_range = None
    if config.range is not None:
        if not source.encoded:
            raise ConfigError(f"--range is for image files; leave it out for {config.source}")
        value_range = (0.0, 1.0) if config.range == AUTO else parse_range(config.range)
    encoding: Encoding = "encoded" if source.encoded and config.size is None else "raw"
    channels = source.channels if config.channels == "auto" else config.channels
    lossy = _lossy(config, source, channels)
    if config.encoding != "auto":
        encoding = "raw" if config.encoding == "raw" else "encoded"
    return ImageFormat(
        channels=cast("Channels", channels),
        size=config.size,
        fit=("keep" if config.size is None else "crop") if config.fit == "auto" else config.fit,
        encoding=encoding,
        validate=config.validate,
        skip_bad=config.skip_bad,
        labelled=labelled,
        attributes=attributes,
        value_range=value_range,
        lossy=lossy,
    )


def _first(source: Source, image_format: ImageFormat, rows: Rows) -> tuple[Row, Prepared]:
    """Return the first image that can be used, with its row."""
    with source.reader() as load_entry:
        for row in map(row_of, rows):
            prepared, _ = prepare_row(source, load_entry, image_format, row)
            if isinstance(prepared, Prepared):
                return row, prepared
    raise DataError(f"{source.path}: none of its {len(rows)} images can be used")


def _mean_bytes(source: Source, image_format: ImageFormat, rows: Rows, first: Prepared) -> float:
    """Return the mean size of encoded images: of the first, and of some others at even distances that can be used."""
    chosen = map(row_of, itertools.islice(rows, 0, None, math.ceil(len(rows) / MEASURED)))
    with source.reader() as load_entry:
        made = [first, *(prepare_row(source, load_entry, image_format, row)[0] for row in chosen)]
    sizes = [len(one.image) for one in made if isinstance(one, Prepared)]
    return sum(sizes) / len(sizes)


def _manifest(
    config: IngestConfig,
    source: Source,
    image_format: ImageFormat,
    label_names: tuple[str, ...],
    skipped: Sequence[Skipped],
    results: Sequence[ShardResult],
    index: IndexFile,
    shards: tuple[Shard, ...],
) -> Manifest:
    shapes = {shape for result in results for shape in result.shapes}
    options, defaults = configs.to_dict(config), configs.to_dict(IngestConfig("", ""))
    path = options.pop("source")
    for name in ("dest", "start_over", *(name for name in LATER_OPTIONS if options[name] == defaults[name])):
        del options[name]
    converted: Counter[str] = Counter()
    for result in results:
        converted.update(result.converted)
    return Manifest(
        encoding=image_format.encoding,
        channels=image_format.channels,
        shape=next(iter(shapes)) if len(shapes) == 1 else None,
        label_names=label_names,
        attributes=image_format.attributes,
        shards=shards,
        origin=Origin(
            kind=source.kind,
            path=path.removeprefix(f"{source.kind}:"),
            options=options,
            versions={"python": platform.python_version()} | VERSIONS,
        ),
        converted=dict(sorted(converted.items())),
        skipped=tuple(
            sorted((*skipped, *(one for result in results for one in result.skipped)), key=lambda one: one.key)
        ),
        value_range=image_format.value_range,
        index=index,
    )


def _warn_of_unused_range(dest: str, results: Sequence[ShardResult]) -> None:
    """Say if the 16-bit images, made 8-bit without a range, use less than a quarter of what 16 bits hold."""
    for kind, remedy in UNUSED_RANGE.items():
        greatest = max((result.greatest.get(kind, 0) for result in results), default=0)
        if 0 < greatest < 2**14:
            bits = greatest.bit_length()
            print(
                f"warning: {dest}: the values of its 16-bit {kind} images are at most {greatest:,} of 65,535, so they "
                f"became nearly black; {remedy.format(2**bits - 1)}",
                file=sys.stderr,
            )
