"""Translation of a folder or a data set of pictures, whatever processes do the work.

The folder of the translated pictures keeps a record, ``translate.json``, of what they were made from. A picture that
lies there under the same record is done, and the same command goes on with the others.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from genlab.core.errors import ConfigError, DataError, StorageError
from genlab.core.progress import progress
from genlab.core.storage import is_file, locate, write_atomic
from genlab.data.format.shards import ShardSet
from genlab.imaging.images import encode_png
from genlab.imaging.value_range import range_text
from genlab.inference.batching import Batcher, Work
from genlab.inference.engine import Engine
from genlab.inference.operations import ModelInfo
from genlab.inference.sources import (
    Picture,
    begin,
    data_pictures,
    folder_pictures,
    is_data_set,
    open_shards,
    picture_reader,
)
from genlab.store import model_directory

RECORD = "translate.json"
"""File in a folder of translated pictures: what they were translated from, with what, and which way."""
VERSION = 1
"""Version of the record. Raise it when translated pixels change; pictures of another version are not mixed."""


class Outcome(NamedTuple):
    """The outcome of translating a picture."""

    key: str
    """The picture's key."""
    why: str
    """Why it could not be translated; empty if it was."""
    stop: bool
    """Whether the others would fail as well: the store does not answer, or the disk is full."""


@dataclass(frozen=True)
class Job:
    """What every process needs to know to translate pictures; a small value that can be sent to it."""

    model: str
    """Directory of the model."""
    source: str
    """Folder or data set of the pictures."""
    split: str | None
    """Split of the data set to translate; ``None`` for all of it, and for a folder."""
    dest: str
    """Folder of the translated pictures."""
    direction: str
    """Direction of the model."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values of the options of the model's own, by name."""


Runner = Callable[[Sequence[Picture], Job], Iterator[Outcome]]
"""Translates pictures by :class:`Worker` objects and yields the outcome of each, in any order."""


class Worker:
    """A process of the pool: holds the model, and translates batches of pictures into files.

    While the model computes, a thread encodes what it made before, and the next pictures are read.
    """

    def __init__(self, job: Job) -> None:
        self._engine = Engine(job.model)
        self._batcher = Batcher(most_waiting=sys.maxsize)
        self._read = picture_reader(locate(job.source), job.split)
        self._dest, self._direction, self._options = locate(job.dest), job.direction, job.options
        self._stopped = ""

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Translate pictures: takes the columns of :class:`Picture`, returns those of :class:`Outcome`."""
        columns = (batch[field].tolist() for field in Picture._fields)
        pictures = [Picture(*values) for values in zip(*columns, strict=True)]
        outcomes = [self._outcome(*begun) for begun in [(picture, self._begin(picture)) for picture in pictures]]
        return {field: [getattr(outcome, field) for outcome in outcomes] for field in Outcome._fields}

    def _begin(self, picture: Picture) -> "Future[bytes]":
        """Read a picture, and begin to translate it into a PNG file."""
        translated = Future[bytes]()
        if self._stopped:
            return translated
        try:
            pixels = self._engine.read(self._read(picture), self._direction)
            task = self._engine.translate_task(pixels, self._direction, self._options)
        except StorageError as error:
            self._stopped = str(error)
        except (DataError, OSError) as error:
            translated.set_exception(error)
        else:

            def done(work: Work) -> None:
                if work.error is None:
                    translated.set_result(work.result)
                else:
                    translated.set_exception(work.error)

            self._batcher.submit(self._engine, task, encode_png, done)
        return translated

    def _outcome(self, picture: Picture, translated: "Future[bytes]") -> Outcome:
        """Wait for a translated picture, and write it."""
        if self._stopped:
            return Outcome(picture.key, self._stopped, stop=True)
        try:
            png = translated.result()
        except (DataError, OSError) as error:
            return Outcome(picture.key, str(error), stop=False)
        except torch.OutOfMemoryError:
            return Outcome(picture.key, "the GPU has too little memory for a picture of its size", stop=False)
        try:
            write_atomic(self._dest / picture.name, png)
        except StorageError as error:
            self._stopped = str(error)
        except OSError as error:
            self._stopped = f"{self._dest / picture.name}: cannot be written ({error.strerror or error})"
        return Outcome(picture.key, self._stopped, stop=bool(self._stopped))


def translate_all(job: Job, weights: str, run: Runner) -> None:
    """Translate the pictures of a folder or a data set that are not done yet, and print what was written.

    Args:
        job: the pictures, and what to translate them with.
        weights: SHA-256 of the model's weights.
        run: translates the pictures.

    Raises:
        ConfigError: the destination is a file.
        DataError: nothing could be translated, or the destination holds pictures of another translation.
        StorageError: a store cannot be reached, or a folder cannot be written, on the way.
    """
    source, dest = locate(job.source), locate(job.dest)
    if is_file(dest):
        raise ConfigError(f"dest = {job.dest!r}: a file; a folder of pictures needs a folder to go to")
    model_directory.load(job.model)  # a model that cannot be loaded is refused here, not by each process
    shards = open_shards(source, job.split) if is_data_set(source) else None
    if shards is not None:
        _warn_of_another_range(job, shards)
    pictures = folder_pictures(source) if shards is None else data_pictures(shards)
    record = {
        "version": VERSION,
        "model": weights,
        "direction": job.direction,
        "source": job.source,
        "data set": shards and shards.checksum,
        "split": job.split,
        **({"options": dict(job.options)} if job.options else {}),
    }
    done = begin(dest, RECORD, record, {picture.name for picture in pictures}, "translation")
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


def _warn_of_another_range(job: Job, shards: ShardSet) -> None:
    """Warn of a data set that was ingested with another range of values than the images that trained the model."""
    trained, ingested = ModelInfo.read(job.model).value_range(job.direction), shards.manifest.value_range
    if trained and ingested and trained != ingested:
        print(
            f"warning: {job.source}: was ingested with --range {range_text(ingested)}, the model's images with "
            f"{range_text(trained)}; to translate by the model's range, ingest with that, or translate the files",
            file=sys.stderr,
        )
