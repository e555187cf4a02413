"""The files of a run that grow: metrics, TensorBoard events and pictures, as one attempt writes them.

On a disk lines and events are appended to a file that stays open. An object store cannot append. There each flush
writes what is new as parts of their own, from a thread beside training: ``metrics/00003-000007.jsonl`` is part 7 of
attempt 3 (:mod:`genlab.training.attempts`). Part 0 of an attempt holds all lines up to the step that it goes on from.
So the lines of a run are the parts of the last attempt that has a part 0, and no earlier attempt can add to them or
take from them. When a run is finished they are joined in ``metrics.jsonl``. :func:`read_metrics` reads either.
"""

import fnmatch
import json
import os
import re
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from upath import UPath

from genlab.core.storage import delete, is_remote, names, read_bytes, write_atomic
from genlab.training import event_file
from genlab.training.attempts import Attempt

METRICS = "metrics.jsonl"
PARTS = "metrics"
"""Folder of the parts of an unfinished run on an object store."""
TENSORBOARD = "tensorboard"
READERS = 8
"""Files that are read from an object store at once."""


class RunFiles(Protocol):
    """Where lines, events and pictures go. Thread-safe."""

    def line(self, line: str) -> None:
        """Add a line to the metrics."""
        ...

    def event(self, record: bytes) -> None:
        """Add a record to the events, see :mod:`genlab.training.event_file`."""
        ...

    def picture(self, name: str, png: bytes) -> None:
        """Write a file of this name, relative to the run directory."""
        ...

    def flush(self) -> "Future[None]":
        """Begin to write all that was added so far; the future is done when it is written.

        Raises:
            SupersededError, StorageError, OSError: what was added before could not be written; the future has the same.
        """
        ...

    def close(self, finished: bool) -> None:
        """Write all that was added; of a ``finished`` run, join the parts."""
        ...


def open_run_files(directory: UPath, step: int, without: str, attempt: Attempt | None) -> tuple[RunFiles, list[str]]:
    """Open the files of a run to go on after ``step``, without what earlier attempts wrote past it.

    Args:
        directory: the run directory.
        step: the step.
        without: events with this mark are dropped whatever their step, see :func:`event_file.records_up_to`.
        attempt: the attempt that writes them; ``None`` if nothing else can.

    Returns:
        The files, and the lines of metrics that stay.

    Raises:
        SupersededError: a later attempt goes on with the run.
    """
    lines = [json.dumps(line) for line in read_metrics(directory / METRICS) if line["step"] <= step]
    _require_last(attempt)
    folder = directory / TENSORBOARD
    there = names(folder)
    for partial in fnmatch.filter(there, f".{event_file.PATTERN}.partial"):
        delete(folder / partial)  # left when a process was killed while it rewound; TensorBoard would read it
    files: RunFiles = (
        _StoreFiles(directory, lines, attempt)
        if is_remote(directory)
        else _LocalFiles(Path(str(directory)), lines, attempt)
    )

    def rewind(name: str) -> None:
        before = read_bytes(folder / name)
        after = event_file.records_up_to(before, step, without)
        # A file on a disk is always put in place anew: an attempt that is over may still write to the one before.
        if after != before or not is_remote(directory):
            _require_last(attempt)
            write_atomic(folder / name, after)

    with ThreadPoolExecutor(READERS if is_remote(directory) else 1, thread_name_prefix="rewind") as readers:
        list(readers.map(rewind, fnmatch.filter(there, event_file.PATTERN)))
    files.event(event_file.header() + (event_file.resumption(step) if step else b""))
    return files, lines


def read_metrics(file: Path | UPath) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics, up to one that a crash cut short; none when there are none.

    Args:
        file: the run's ``metrics.jsonl``; where it is not joined yet, the parts beside it are read.
    """
    lines: list[dict[str, Any]] = []
    for text in _content(UPath(file)).decode().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _content(file: UPath) -> bytes:
    """Return the content of ``metrics.jsonl``, from the parts beside it if there are any."""
    folder = file.parent / PARTS
    while True:
        parts = _parts(folder)
        last = max((attempt for attempt, part in parts if part == 0), default=None)
        files = [file] if last is None else [_part(folder, *part) for part in parts if part[0] == last]
        try:
            with ThreadPoolExecutor(READERS if len(files) > 1 else 1, thread_name_prefix="metrics") as readers:
                return b"".join(readers.map(read_bytes, files))
        except FileNotFoundError:
            if _parts(folder) == parts:  # else they were joined meanwhile, or the run went on
                return b""


def _parts(folder: UPath) -> list[tuple[int, int]]:
    """Return attempt and number of the parts in ``folder``, in this order."""
    found = (re.fullmatch(r"(\d+)-(\d+)\.jsonl", name) for name in names(folder))
    return sorted((int(name[1]), int(name[2])) for name in found if name)


def _part(folder: UPath, attempt: int, number: int) -> UPath:
    return folder / f"{attempt:05d}-{number:06d}.jsonl"


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


class _LocalFiles:
    def __init__(self, directory: Path, lines: list[str], attempt: Attempt | None) -> None:
        self._directory = directory
        self._attempt = attempt
        write_atomic(UPath(directory / METRICS), _text(lines))
        _delete_parts(UPath(directory / PARTS), None)  # of a run that was copied from an object store
        self._metrics = (directory / METRICS).open("a+")
        (directory / TENSORBOARD).mkdir(exist_ok=True)
        self._events = (directory / TENSORBOARD / event_file.new_name()).open("xb")

    def line(self, line: str) -> None:
        self._metrics.write(line + "\n")
        self._metrics.flush()
        self._events.flush()

    def event(self, record: bytes) -> None:
        self._events.write(record)

    def picture(self, name: str, png: bytes) -> None:
        file = self._directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png)

    def flush(self) -> "Future[None]":
        _require_last(self._attempt)
        self._events.flush()
        self._put_back()
        done = Future[None]()
        done.set_result(None)
        return done

    def close(self, finished: bool) -> None:
        with self._metrics, self._events:
            _require_last(self._attempt)
            self._put_back()

    def _put_back(self) -> None:
        """Write the metrics anew where an attempt that is over has put its own in their place.

        It can if it stood still between looking for a later attempt and writing.
        """
        file = self._directory / METRICS
        if file.exists() and os.path.samestat(file.stat(), os.fstat(self._metrics.fileno())):
            return
        _require_last(self._attempt)
        with self._metrics as metrics:
            metrics.seek(0)
            write_atomic(UPath(file), metrics.read().encode())
        self._metrics = file.open("a+")


class _StoreFiles:
    def __init__(self, directory: UPath, lines: list[str], attempt: Attempt | None) -> None:
        self._directory = directory
        self._attempt = attempt
        self._number = attempt.number if attempt else 0
        self._name = event_file.new_name()
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._events = bytearray()
        self._pictures: list[tuple[str, bytes]] = []
        self._flushes = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="run files")
        self._pending: list[Future[None]] = []
        self._error: Exception | None = None
        write_atomic(_part(directory / PARTS, self._number, 0), _text(lines))
        _delete_parts(directory / PARTS, self._number)
        delete(directory / METRICS)

    def line(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)

    def event(self, record: bytes) -> None:
        with self._lock:
            self._events += record

    def picture(self, name: str, png: bytes) -> None:
        with self._lock:
            self._pictures.append((name, png))

    def flush(self) -> "Future[None]":
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()
        with self._lock:
            self._flushes += 1
            new = self._flushes, self._lines, bytes(self._events), self._pictures
            self._lines, self._events, self._pictures = [], bytearray(), []
        self._pending.append(self._writer.submit(self._write_or_fail, *new))
        return self._pending[-1]

    def _write_or_fail(self, *new: Any) -> None:
        """Write, unless an earlier write failed: then lines would be missing before these."""
        if self._error:
            raise self._error
        try:
            self._write(*new)
        except Exception as error:
            self._error = error
            raise

    def _write(self, number: int, lines: list[str], events: bytes, pictures: list[tuple[str, bytes]]) -> None:
        _require_last(self._attempt)
        for name, png in pictures:
            write_atomic(self._directory / name, png)
        if events:
            begin = b"" if number == 1 else event_file.header()
            write_atomic(self._directory / TENSORBOARD / f"{self._name}.{number:06d}", begin + events)
        if lines:
            write_atomic(_part(self._directory / PARTS, self._number, number), _text(lines))

    def close(self, finished: bool) -> None:
        try:
            self.flush()
            for written in self._pending:
                written.result()
            if finished:
                content = _content(self._directory / METRICS)
                _require_last(self._attempt)
                write_atomic(self._directory / METRICS, content)
                # Those of a later attempt, if one has begun since this one looked, count in place of the file.
                _delete_parts(self._directory / PARTS, self._number + 1)
        finally:
            self._writer.shutdown()


def _require_last(attempt: Attempt | None) -> None:
    if attempt:
        attempt.require_last()


def _delete_parts(folder: UPath, attempt: int | None) -> None:
    """Delete the parts of attempts before ``attempt``; with ``None``, all."""
    for part in _parts(folder):
        if attempt is None or part[0] < attempt:
            delete(_part(folder, *part))
    if attempt is None and not is_remote(folder) and folder.exists():
        folder.rmdir()
