"""Pictures through a translator: ``genlab translate MODEL IN OUT``.

One picture is translated in this process; a folder or a data set by Ray Data, on a pool of processes that hold the
model. OUT keeps a plan, ``translate.json``: a picture that lies there under the same plan is done, and the same command
goes on with the others.
"""

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from upath import UPath

from genlab.core.config import then_and_now
from genlab.core.errors import ConfigError, DataError, StorageError
from genlab.core.progress import progress
from genlab.core.storage import (
    create_exclusive,
    json_bytes,
    locate,
    read_bytes,
    read_json,
    write_atomic,
)
from genlab.data.format.manifest import FILE_NAME as MANIFEST
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.sources.base import list_files
from genlab.data.ingest.sources.files import is_image
from genlab.data.ingest.to_files import CHUNK, file_name
from genlab.imaging.images import Pixels
from genlab.inference.pictures import as_png, best_device, folder_keys, png_name, read_picture
from genlab.models.model import Translator, model_type
from genlab.store import model_directory

BATCH = 8
"""Pictures that a process translates before it reports."""
MOST_BLOCKS = 10_000
"""Of more than so many batches Ray makes blocks of several: each block costs the driver time and memory."""
THREADS = 4
"""CPU threads of each process, at most: more of them speed one picture up by less than one more process does."""
PLAN = "translate.json"
"""In a folder of translated pictures: what they were translated from, with what, and which way."""
VERSION = 1
"""Of the plan; another one makes other pixels of the same picture."""


class Picture(NamedTuple):
    """One of the pictures to translate."""

    key: str
    """Its path in its folder, or its key in its data set."""
    row: int
    """Its number there."""
    name: str
    """What its translation is called."""


class Outcome(NamedTuple):
    """What became of one."""

    key: str
    why: str
    """Why it could not be translated; empty if it was."""
    stop: bool
    """Whether it failed by no fault of its own, as the others would: the store is away, or the disk full."""


@dataclass(frozen=True)
class Job:
    """What every process of the pool is to know, for all pictures; a small value that can be sent to it."""

    model: str
    """Directory of the model."""
    source: str
    """The folder or data set."""
    split: str | None
    dest: str
    direction: str


Runner = Callable[[Sequence[Picture], Job], Iterator[Outcome]]
"""Translates pictures by :class:`Worker` objects and yields what became of each, in any order."""


class Worker:
    """A process of the pool: holds the model, and translates batches of pictures."""

    def __init__(self, job: Job) -> None:
        self._model = cast("Translator", model_directory.load(job.model, best_device()))
        self._read = _reader(locate(job.source), job.split)
        self._dest, self._direction = locate(job.dest), job.direction
        self._stopped = ""

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Translate the pictures with the columns of :class:`Picture`; gives the columns of :class:`Outcome`."""
        columns = (batch[field].tolist() for field in Picture._fields)
        outcomes = [self._translate(Picture(*values)) for values in zip(*columns, strict=True)]
        return {field: [getattr(outcome, field) for outcome in outcomes] for field in Outcome._fields}

    def _translate(self, picture: Picture) -> Outcome:
        if self._stopped:
            return Outcome(picture.key, self._stopped, stop=True)
        try:
            translated = translate_picture(self._model, self._read(picture), self._direction)
        except StorageError as error:
            self._stopped = str(error)
        except (DataError, OSError) as error:
            return Outcome(picture.key, str(error), stop=False)
        else:
            try:
                write_atomic(self._dest / picture.name, translated)
            except StorageError as error:
                self._stopped = str(error)
            except OSError as error:
                self._stopped = f"{self._dest / picture.name}: cannot be written ({error.strerror or error})"
        return Outcome(picture.key, self._stopped, stop=bool(self._stopped))


def on_ray(pictures: Sequence[Picture], job: Job) -> Iterator[Outcome]:
    """A :data:`Runner`: Ray Data with a pool of actors, on a GPU each where there are GPUs."""
    import ray.data  # one picture does without

    from genlab.core.ray_cluster import connected

    with connected():
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1] or [1]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        threads = min(THREADS, *cpus)  # a process has to fit on any node
        batches = math.ceil(len(pictures) / BATCH)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its plan and its warnings are not the user's business
        rows = ray.data.from_items(
            [picture._asdict() for picture in pictures], override_num_blocks=min(batches, MOST_BLOCKS)
        )
        done = rows.map_batches(
            Worker,
            fn_constructor_args=(job,),
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=min(batches, gpus or sum(cpu // threads for cpu in cpus))),
            num_cpus=1 if gpus else threads,
            num_gpus=1 if gpus else None,
        )
        for row in done.iter_rows():
            yield Outcome(**row)


def translate_picture(model: Translator, picture: bytes | Pixels, direction: str) -> bytes:
    """Translate an image file, or uint8 [H, W, 1 or 3], into a PNG file of the same size.

    Raises:
        ImageError: it cannot be decoded.
    """
    return as_png(model.translate(read_picture(picture, model), direction))


def directions(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The directions of the model that ``description`` (a ``genlab.json``) describes; none if it does not translate."""
    if "translate" not in description["operations"]:
        return ()
    return cast("type[Translator]", model_type(description["family"])).directions


def translate_all(job: Job, weights: str, run: Runner) -> None:
    """Translate all pictures of a folder or a data set that are not done yet, and say what was written.

    Args:
        job: what to translate, and with what.
        weights: SHA-256 of the model's weights.
        run: what translates the pictures.

    Raises:
        ConfigError: the destination is a file.
        DataError: nothing could be translated, or the destination holds pictures of another translation.
        StorageError: a store that cannot be reached, or a folder that cannot be written, on the way.
    """
    source, dest = locate(job.source), locate(job.dest)
    if dest.is_file():
        raise ConfigError(f"dest = {job.dest!r}: a file; a folder of pictures needs a folder to go to")
    model_directory.load(job.model)  # what ails it is better said here, once
    shards = _shards(source, job.split) if is_data_set(source) else None
    pictures = _folder_pictures(source) if shards is None else _data_pictures(shards)
    plan = {
        "version": VERSION,
        "model": weights,
        "direction": job.direction,
        "source": job.source,
        "data set": shards and shards.checksum,
        "split": job.split,
    }
    done = _begin(dest, plan, {picture.name for picture in pictures})
    left = [picture for picture in pictures if picture.name not in done]
    translated = len(done)
    with progress("translate", len(left), "images") as advance:
        for outcome in run(left, job) if left else ():
            if outcome.stop:
                raise StorageError(outcome.why)
            advance(1)
            translated += not outcome.why
            if outcome.why:
                print(f"skipped: {source}/{outcome.key}: {outcome.why}", file=sys.stderr)
    if not translated:
        raise DataError(f"{source}: none of its {len(pictures)} images could be translated")
    before = f", {len(done):,} of them done before" if done else ""
    print(f"{dest}: {translated:,} of {len(pictures):,} images {job.direction}{before}")


def _begin(dest: UPath, plan: Mapping[str, Any], names: set[str]) -> set[str]:
    """Leave the plan in ``dest``, unless it is there.

    Returns:
        Those of ``names`` that lie there: they were written whole, under this plan.

    Raises:
        DataError: there are pictures of another plan, or of none, or it cannot be written.
    """
    try:
        there = names & list_files(str(dest)).keys() if dest.is_dir() else set()
        if there and not (dest / PLAN).exists():
            raise DataError(
                f"{dest}: holds {min(there)} already, and no {PLAN} that says what it was made from; choose another "
                "place, or delete it"
            )
        create_exclusive(dest / PLAN, json_bytes(plan))
    except OSError as error:
        raise DataError(f"{dest}: cannot be written ({error.strerror or error})") from None
    found = read_json(dest / PLAN)
    if found != plan:
        differing = then_and_now(found if isinstance(found, dict) else {}, plan)
        raise DataError(
            f"{dest}: holds the pictures of another translation ({differing}); choose another place, or delete that one"
        )
    return there


def is_data_set(source: UPath) -> bool:
    """Whether a directory holds a data set."""
    return (source / MANIFEST).exists()


def _shards(source: UPath, split: str | None) -> ShardSet:
    shards = ShardSet.open(source)
    return shards.split(split) if split else shards


def _folder_pictures(source: UPath) -> list[Picture]:
    return [Picture(key, row, png_name(key)) for row, key in enumerate(folder_keys(source))]


def _data_pictures(shards: ShardSet) -> list[Picture]:
    """All rows of a data set, with names that differ. Reads every block once, of a remote one, too."""
    rows = np.arange(len(shards))
    taken: set[str] = set()
    pictures = []
    for begin in range(0, len(rows), CHUNK):
        for row, key in enumerate(shards.keys(rows[begin : begin + CHUNK]), begin):
            wanted = png_name(key) if is_image(key) else f"{key}.png"
            pictures.append(Picture(key, row, file_name(wanted, row, taken)))
    return pictures


def _reader(source: UPath, split: str | None) -> Callable[[Picture], bytes | Pixels]:
    """What loads a picture: the bytes of its file, or uint8 [H, W, C]."""
    if not is_data_set(source):
        return lambda picture: read_bytes(source / picture.key)
    shards = _shards(source, split)

    def read(picture: Picture) -> bytes | Pixels:
        row = np.array([picture.row])
        return shards.encoded(row)[0] if shards.encoded_files else shards.read(row).image[0]

    return read
