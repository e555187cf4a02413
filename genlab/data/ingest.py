"""Ingest: a source of images becomes a data set of Arrow shards (``genlab ingest SOURCE DEST``).

The source's entries are sorted by key and cut into shards, train before test; each shard is a pure function of its
slice. So it does not matter where the shards are made, here one after another or anywhere on a Ray cluster: the bytes
are the same. The manifest is written last.
"""

import dataclasses
import itertools
import math
import os
import pickle
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Annotated, Any, Literal, cast

import tyro
from annotated_types import Ge, Gt, Le
from upath import UPath

from genlab import config as configs
from genlab.data.images import Channels, Fit, ImageError, Prepared, prepare
from genlab.data.manifest import FILE_NAME, Encoding, Manifest, Origin, Shard, Skipped
from genlab.data.progress import progress
from genlab.data.sources import Entry, Load, Source, open_source
from genlab.data.sources.synthetic import MOST
from genlab.data.writer import write_shard
from genlab.errors import ConfigError, DataError, GenlabError, run_command
from genlab.storage import is_remote, locate, require_absolute, sha256

SPLITS = ("train", "test")
"""In the order of their shards."""


@dataclasses.dataclass(frozen=True)
class IngestConfig:
    """Turn images into a data set of Arrow shards.

    Splits: a data set has the splits `train` and `test`, or one of them. They are those in which the source was
    published (MNIST's two halves; folders named train and test that hold all images between them), else everything is
    `train`; --test-fraction draws them anew.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Images to ingest, as SCHEME:PATH or a path that is recognised by what is there. mnist:DIR (idx files, plain
    or .gz), folder:DIR (all images below it), zip:FILE, tfrecord:FILE-OR-DIR (features image and image_name),
    synthetic:scenes-a, synthetic:scenes-b, synthetic:digits. Paths may be s3:// URLs."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DEST")]
    """Directory or s3:// URL to make the data set in; it must not hold one yet."""
    size: Annotated[int, Ge(1)] | None = None
    """Side of the square to make of every image, in pixels; by default images keep their sizes. Synthetic scenes are
    drawn at this size (default 64)."""
    fit: Literal["auto", "keep", "resize", "crop"] = "auto"
    """How an image becomes a square: crop scales its short side to --size and cuts the middle out, resize squeezes
    it, both by antialiased Lanczos resampling; keep leaves its size alone. auto: crop with --size, keep without."""
    encoding: Literal["auto", "raw", "encoded"] = "auto"
    """What is stored: raw pixels, or encoded files: the very bytes of a JPEG or PNG that needs no change, and PNG of
    any other image. auto: encoded if the source holds image files and there is no --size, else raw."""
    channels: Literal["auto", 1, 3] = "auto"
    """Channels of every image: 1 (grey) or 3 (RGB). Transparent images are laid on white. auto: 3 for image files and
    scenes, 1 for MNIST and digits."""
    shard_size: Annotated[float, Gt(0)] = 64.0
    """Approximate size of a shard, in MiB."""
    test_fraction: Annotated[float, Ge(0), Le(1)] | None = None
    """Share of the images that go to the split test, chosen by a hash of their keys, so that an image stays on its side
    whatever else is ingested. By default the splits are those published."""
    validate: bool = True
    """Decode each image once, even where its bytes are stored untouched."""
    skip_bad: bool = False
    """Leave out images that cannot be used, and list them in the manifest, rather than end at the first."""
    count: Annotated[int, Ge(1), Le(MOST)] | None = None
    """How many synthetic images to draw (default: 1,024 scenes, 10,000 digits)."""
    seed: Annotated[int, Ge(0)] | None = None
    """Seed of synthetic images (default 0)."""


@dataclasses.dataclass(frozen=True)
class Form:
    """What every image of a data set is made into."""

    channels: Channels
    size: int | None
    fit: Fit
    encoding: Encoding
    validate: bool
    skip_bad: bool
    labelled: bool
    shape: tuple[int, int, int] | None = None
    """The one (height, width, channels) that raw images must have."""
    model: str = ""
    """The key of the image that set the shape."""


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """Everything that one shard is a function of."""

    source: Source
    form: Form
    path: str
    """The file to write, an absolute path or URL."""
    split: str
    entries: Sequence[Entry]


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """A shard, and what the manifest says of its images."""

    shard: Shard | None
    """``None`` if all its images were left out."""
    shapes: frozenset[tuple[int, int, int]]
    converted: Counter[str]
    skipped: tuple[Skipped, ...]


Runner = Callable[[Sequence[ShardTask]], Iterable[ShardResult]]
"""Makes shards, in any order, somewhere."""


def ingest(config: IngestConfig, run: Runner | None = None) -> Manifest:
    """Make a data set.

    Args:
        config: what from, where to, and how.
        run: makes the shards; by default this process does, see :func:`run_locally`.

    Raises:
        ConfigError: options that are at odds with each other or with the source.
        DataError: the source or one of its images cannot be used, or there is a data set in ``dest`` already.
            No manifest is left behind.
    """
    require_absolute("dest", config.dest)
    dest = locate(config.dest)
    if (dest / FILE_NAME).exists():
        raise DataError(f"{dest}: holds a data set already; choose another place, or delete it first")
    source = open_source(config.source, size=config.size, count=config.count, seed=config.seed)
    entries = _sorted(source)
    form = _form(config, source)
    entry, first = _first(source, form, entries)
    if form.encoding == "raw":
        form = dataclasses.replace(form, shape=first.shape, model=entry.key)
    kept = source.encoded and form.encoding == "encoded" and form.size is None
    image_bytes = sum(entry.size for entry in entries) / len(entries) if kept else math.prod(first.shape)
    rows = max(1, int(config.shard_size * 2**20 / max(1, image_bytes)))
    tasks = list(_tasks(source, form, dest, _assign(entries, config.test_fraction), rows))
    _clear(dest)
    results = list((run or run_locally)(tasks))
    manifest = _manifest(config, source, form, results)
    manifest.save(dest)
    return manifest


def run_locally(tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
    """Make shards one after another in this process; files are decoded by as many threads as there are CPUs."""
    with progress("ingest", sum(len(task.entries) for task in tasks), "images") as advance:
        for task in tasks:
            # Decoders release the GIL; drawing holds it, and more threads only slow it down.
            threads = (os.cpu_count() or 1) if task.source.encoded else 1
            yield make_shard(task, threads=threads, on_image=lambda: advance(1))


def run_on_ray(tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
    """Make shards by Ray Data on the cluster, one task and one CPU a shard.

    Every node needs access to the source and the destination: a shared file system, or S3.
    """
    import ray  # local ingest does without

    from genlab.ray_cluster import connected

    ray.data.DataContext.get_current().enable_progress_bars = False
    total = sum(len(task.entries) for task in tasks)
    with connected(), progress("ingest", total, "images") as advance:
        rows = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks))
        for row in rows.map(_make_row, num_cpus=1).iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, GenlabError):
                raise result
            advance(row["images"])
            yield result


def make_shard(task: ShardTask, *, threads: int = 1, on_image: Callable[[], object] = lambda: None) -> ShardResult:
    """Load and prepare a shard's images and write it.

    Args:
        task: which.
        threads: images in work at a time.
        on_image: called after each image, from any thread, to show progress.

    Raises:
        DataError: an image cannot be used, or is not of the one shape that raw pixels need.
    """

    def work(entry: Entry) -> tuple[Entry, Prepared | Skipped, int | None]:
        prepared, label = _prepare(task.source, load, task.form, entry)
        on_image()
        return entry, prepared, label

    with task.source.reader() as load, ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(work, task.entries))
    good = [(entry.key, prepared, label) for entry, prepared, label in done if isinstance(prepared, Prepared)]
    shard = None
    if good:
        shard = write_shard(
            locate(task.path),
            split=task.split,
            encoding=task.form.encoding,
            shape=task.form.shape,
            images=cast("Any", [prepared.image for _, prepared, _ in good]),
            keys=[key for key, _, _ in good],
            labels=[cast("int", label) for _, _, label in good] if task.form.labelled else None,
        )
    return ShardResult(
        shard,
        frozenset(prepared.shape for _, prepared, _ in good),
        Counter(change for _, prepared, _ in good for change in prepared.changes),
        tuple(skipped for _, skipped, _ in done if isinstance(skipped, Skipped)),
    )


def main(arguments: Sequence[str] | None = None, run: Runner | None = None) -> None:
    """The command ``genlab ingest``; ``run`` as of :func:`ingest`."""

    def command() -> None:
        config = configs.parse(IngestConfig, arguments, prog="genlab ingest")
        manifest = ingest(config, run)
        splits = ", ".join(f"{name} {rows:,}" for name, rows in manifest.splits.items())
        print(f"{config.dest}: {manifest.rows:,} images ({splits}), {len(manifest.shards)} shard(s)")
        for what, number in manifest.converted.items():
            print(f"converted: {number:,} {what}")
        for skipped in manifest.skipped:
            print(f"skipped: {skipped.key}: {skipped.why}")

    run_command(command)


def _make_row(row: dict[str, Any]) -> dict[str, Any]:
    """One task on Ray. What the user can put right is a result: raised here it would drown in Ray's traceback."""
    task = pickle.loads(row["task"])
    try:
        result: object = make_shard(task)
    except GenlabError as error:
        result = error
    return {"result": pickle.dumps(result), "images": len(task.entries)}


def _clear(dest: UPath) -> None:
    """Make the directory, without shards of an earlier ingest that failed."""
    try:
        if not is_remote(dest):
            dest.mkdir(parents=True, exist_ok=True)
        for leftover in dest.glob("shard-*.arrow"):
            leftover.unlink()
    except OSError as error:
        raise DataError(f"{dest}: cannot be written ({error.strerror or error})") from None


def _sorted(source: Source) -> list[Entry]:
    entries = sorted(source.entries(), key=lambda entry: entry.key)
    for one, other in itertools.pairwise(entries):
        if one.key == other.key:
            raise DataError(f"{source.describe(one)} and {source.describe(other)} have one name; rename one of them")
    return entries


def _form(config: IngestConfig, source: Source) -> Form:
    if config.size is None and config.fit in ("resize", "crop"):
        raise ConfigError(f"--fit {config.fit} needs --size, the side of the square in pixels")
    if config.size is not None and config.fit == "keep":
        raise ConfigError("--fit keep leaves images at their sizes; leave out --size, or fit by crop or resize")
    encoding: Encoding = "encoded" if source.encoded and config.size is None else "raw"
    return Form(
        channels=cast("Channels", source.channels if config.channels == "auto" else config.channels),
        size=config.size,
        fit=("keep" if config.size is None else "crop") if config.fit == "auto" else config.fit,
        encoding=encoding if config.encoding == "auto" else config.encoding,
        validate=config.validate,
        skip_bad=config.skip_bad,
        labelled=bool(source.label_names()),
    )


def _first(source: Source, form: Form, entries: Sequence[Entry]) -> tuple[Entry, Prepared]:
    """The first image that can be used."""
    with source.reader() as load:
        for entry in entries:
            prepared, _ = _prepare(source, load, form, entry)
            if isinstance(prepared, Prepared):
                return entry, prepared
    raise DataError(f"{source.path}: none of its {len(entries)} images can be used")


def _prepare(source: Source, load: Load, form: Form, entry: Entry) -> tuple[Prepared | Skipped, int | None]:
    try:
        sample = load(entry)
        prepared = prepare(
            sample.image,
            channels=form.channels,
            size=form.size,
            fit=form.fit,
            encoding=form.encoding,
            validate=form.validate,
        )
    except ImageError as error:
        if form.skip_bad:
            return Skipped(entry.key, str(error)), None
        raise DataError(
            f"{source.describe(entry)}: {error}; repair or remove it, or leave such images out with --skip-bad"
        ) from error
    if form.shape and prepared.shape != form.shape:
        (height, width, _), (first_height, first_width, _) = prepared.shape, form.shape
        raise DataError(
            f"{source.describe(entry)} is {width}x{height} pixels, but {form.model} is {first_width}x{first_height}, "
            "and raw pixels are stored at one size; fit them all into a square with --size, "
            "or keep the files with --encoding encoded"
        )
    return prepared, sample.label


def _assign(entries: Sequence[Entry], test_fraction: float | None) -> dict[str, list[Entry]]:
    """The entries of each split."""
    splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for entry in entries:
        split = entry.split
        if test_fraction is not None:
            split = "test" if int(sha256(entry.key.encode())[:16], 16) / 2**64 < test_fraction else "train"
        splits[split].append(entry)
    return splits


def _tasks(source: Source, form: Form, dest: UPath, splits: dict[str, list[Entry]], rows: int) -> Iterator[ShardTask]:
    numbers = itertools.count()
    for split, members in splits.items():
        for begin in range(0, len(members), rows):
            path = dest / f"shard-{next(numbers):05d}.arrow"
            yield ShardTask(source, form, str(path), split, members[begin : begin + rows])


def _manifest(config: IngestConfig, source: Source, form: Form, results: Sequence[ShardResult]) -> Manifest:
    shapes = frozenset().union(*(result.shapes for result in results))
    options = configs.to_dict(config)
    path = options.pop("source")
    del options["dest"]
    converted = sum((result.converted for result in results), Counter[str]())
    return Manifest(
        encoding=form.encoding,
        channels=form.channels,
        shape=next(iter(shapes)) if len(shapes) == 1 else None,
        label_names=source.label_names(),
        attributes=(),
        shards=tuple(sorted((result.shard for result in results if result.shard), key=lambda shard: shard.file)),
        origin=Origin(
            kind=source.kind,
            path=path.removeprefix(f"{source.kind}:"),
            options=options,
            versions={"python": platform.python_version()}
            | {name: version(name) for name in ("genlab", "numpy", "pillow", "pyarrow")},
        ),
        converted=dict(sorted(converted.items())),
        skipped=tuple(sorted((one for result in results for one in result.skipped), key=lambda one: one.key)),
    )
