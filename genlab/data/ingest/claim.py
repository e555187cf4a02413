"""The claim on DEST: of several processes that would ingest into one place at once, exactly one goes on.

Where the operating system can tell whether a process lives, it is asked: a local claim is a lock on
``DEST/ingest.lock`` (``flock``, which NFS passes to its server), and ends with its process, however that ends.

An object store has no locks. There a claim is a lease, ``DEST/ingest-00000.lease``, created by a conditional put and
written again every :data:`BEAT` seconds. Who finds a lease watches it: one that does not change for :data:`PATIENCE`
seconds of the watcher's own clock is dead, and the next number is claimed, again by a conditional put, so that of many
watchers one wins; clocks of different machines are never compared. Its holder, should it have slept only, sees
the higher number and stops.

A claim saves work. That no data set lies does not hang on it: shards are pure functions of their tasks and are put in
place whole, and the manifest comes last.
"""

import errno
import fcntl
import json
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import create_exclusive, is_remote, write_atomic

LOCK = "ingest.lock"
LEASES = "ingest-*.lease"

BEAT = 5.0
"""Seconds between two signs of life."""

PATIENCE = 30.0
"""Seconds without one after which a lease is dead."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class ClaimLostError(DataError):
    """Another process took DEST over: what lies there is its own now."""


@contextmanager
def claimed(dest: UPath) -> Iterator[Callable[[], None]]:
    """Hold the claim on a directory, which is made if need be.

    Yields:
        A function that raises a :class:`ClaimLostError` if the claim was lost meanwhile.

    Raises:
        DataError: another process holds it.
    """
    if is_remote(dest):
        with _lease(dest) as check:
            yield check
        return
    directory = Path(str(dest))
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(directory / LOCK)
    if descriptor is None:
        with _lease(dest) as check:
            yield check
        return
    try:
        yield lambda: None
    finally:
        (directory / LOCK).unlink(missing_ok=True)
        os.close(descriptor)


def _lock(file: Path) -> int | None:
    """Lock a file, created if need be; ``None`` where the file system has no locks."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed it between our opening and our locking.
            if os.fstat(descriptor).st_nlink:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _who().encode())
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace")
            os.close(descriptor)
            raise _taken(file.parent, holder) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return None
            raise
        os.close(descriptor)


@contextmanager
def _lease(dest: UPath) -> Iterator[Callable[[], None]]:
    number = 0
    while True:
        last = _last(dest)
        if last is not None:
            number = last + 1
            _watch(dest, _path(dest, last))
        if create_exclusive(_path(dest, number), _sign(0)):
            break
        if last is not None:
            raise _taken(dest, "another process was faster")
    for earlier in range(number):
        with suppress(FileNotFoundError):
            _path(dest, earlier).unlink()
    done, lost = threading.Event(), threading.Event()

    def check() -> None:
        if lost.is_set() or _last(dest) != number:
            raise ClaimLostError(f"{dest}: another ingest took over, because this one gave no sign of life for a while")

    def live() -> None:
        count = 0
        while not done.wait(BEAT):
            count += 1
            # A storage that is away for a moment is no reason to stop: the work goes on, or fails by itself.
            with suppress(OSError):
                if _last(dest) == number:
                    write_atomic(_path(dest, number), _sign(count))
                else:
                    lost.set()
                    return

    thread = threading.Thread(target=live, name="genlab-lease", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        done.set()
        thread.join()
        with suppress(FileNotFoundError):
            _path(dest, number).unlink()


def _watch(dest: UPath, lease: UPath) -> None:
    """Wait until a lease has proved dead.

    Raises:
        DataError: it is alive.
    """
    before = _content(lease)
    if before is None:
        return
    print(f"{dest}: was claimed by {_holder(before)}; waiting up to {PATIENCE:.0f} s for a sign of life", flush=True)
    waited, pause = 0.0, threading.Event()
    while waited < PATIENCE:
        pause.wait(BEAT / 5)
        waited += BEAT / 5
        now = _content(lease)
        if now is None:
            return
        if now != before:
            raise _taken(dest, _holder(now))


def _content(lease: UPath) -> bytes | None:
    try:
        return lease.read_bytes()
    except FileNotFoundError:
        return None


def _holder(content: bytes) -> str:
    try:
        return str(json.loads(content)["holder"])
    except (ValueError, KeyError, TypeError):
        return "a process that did not say its name"


def _last(dest: UPath) -> int | None:
    """The highest number of a lease; that one is held."""
    names = (file.name for file in dest.glob(LEASES))
    numbers = [int(number) for name in names if (number := name[len("ingest-") : -len(".lease")]).isdigit()]
    return max(numbers, default=None)


def _path(dest: UPath, number: int) -> UPath:
    return dest / f"ingest-{number:05d}.lease"


def _sign(count: int) -> bytes:
    return json.dumps({"holder": _who(), "sign": count}).encode()


def _who() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _taken(dest: UPath | Path, holder: str) -> DataError:
    return DataError(f"{dest}: another ingest is at work there ({holder}); wait for it, or choose another place")
