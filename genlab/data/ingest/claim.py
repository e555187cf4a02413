"""The claim on DEST: the exclusive right of one process to write a directory.

Of several processes that would ingest into one place at once, exactly one gets the claim and goes on; the others are
refused.

On a file system with locks a claim is a lock on ``DEST/ingest.lock`` (``flock``, which NFS passes to its server). The
operating system releases it when its process ends, however that ends.

An object store has no locks. There a claim is a lease: the file ``DEST/ingest-00000.lease``, which a conditional put
creates and which its holder writes again every :data:`HEARTBEAT` seconds. A process that finds a lease watches it. If
the lease does not change for :data:`LEASE_TIMEOUT` seconds of the watcher's own clock, its holder is taken for dead,
and the watcher creates the lease of the next number, again by a conditional put, so that of many watchers one wins.
Clocks of different machines are never compared. A holder that was only asleep sees the higher number and stops.

A claim saves work that would be done twice. A data set is right without it too: shards are pure functions of their
tasks and are put in place whole, and the manifest is written last.
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

HEARTBEAT = 5.0
"""Seconds between two writings of a lease by its holder."""

LEASE_TIMEOUT = 30.0
"""Seconds without a change after which the holder of a lease is taken for dead."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class ClaimLostError(DataError):
    """Another process holds the claim on DEST now, and with it the files there."""


@contextmanager
def claimed(dest: UPath) -> Iterator[Callable[[], None]]:
    """Hold the claim on a directory, which is created if it is not there.

    Yields:
        A function that raises a :class:`ClaimLostError` if the claim was lost meanwhile.

    Raises:
        DataError: another process holds the claim.
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
    """Lock a file, which is created if it is not there.

    Returns:
        The descriptor of the locked file; ``None`` where the file system has no locks.

    Raises:
        DataError: another process holds the lock.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder before may have removed the file between the opening and the locking here.
            if os.fstat(descriptor).st_nlink:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _this_process().encode())
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace")
            os.close(descriptor)
            raise _refusal(file.parent, holder) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return None
            raise
        os.close(descriptor)


@contextmanager
def _lease(dest: UPath) -> Iterator[Callable[[], None]]:
    """Hold the claim on a directory without locks; see :func:`claimed`."""
    number = 0
    while True:
        last = _last_number(dest)
        if last is not None:
            number = last + 1
            _watch(dest, _lease_file(dest, last))
        if create_exclusive(_lease_file(dest, number), _lease_content(0)):
            break
        if last is not None:
            raise _refusal(dest, "another process was faster")
    for earlier in range(number):
        with suppress(FileNotFoundError):
            _lease_file(dest, earlier).unlink()
    done, lost = threading.Event(), threading.Event()

    def check() -> None:
        if lost.is_set() or _last_number(dest) != number:
            raise ClaimLostError(f"{dest}: another ingest took over, because this one gave no sign of life for a while")

    def renew() -> None:
        count = 0
        while not done.wait(HEARTBEAT):
            count += 1
            # A storage that does not answer for a moment is no reason to stop: the work goes on, or fails by itself.
            with suppress(OSError):
                if _last_number(dest) == number:
                    write_atomic(_lease_file(dest, number), _lease_content(count))
                else:
                    lost.set()
                    return

    thread = threading.Thread(target=renew, name="genlab-lease", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        done.set()
        thread.join()
        with suppress(FileNotFoundError):
            _lease_file(dest, number).unlink()


def _watch(dest: UPath, lease: UPath) -> None:
    """Wait until the holder of a lease may be taken for dead.

    Raises:
        DataError: the lease changed, so its holder is alive.
    """
    before = _read(lease)
    if before is None:
        return
    print(
        f"{dest}: was claimed by {_holder(before)}; waiting up to {LEASE_TIMEOUT:.0f} s for a sign of life", flush=True
    )
    waited, pause = 0.0, threading.Event()
    while waited < LEASE_TIMEOUT:
        pause.wait(HEARTBEAT / 5)
        waited += HEARTBEAT / 5
        now = _read(lease)
        if now is None:
            return
        if now != before:
            raise _refusal(dest, _holder(now))


def _read(lease: UPath) -> bytes | None:
    try:
        return lease.read_bytes()
    except FileNotFoundError:
        return None


def _holder(content: bytes) -> str:
    try:
        return str(json.loads(content)["holder"])
    except (ValueError, KeyError, TypeError):
        return "a process that did not say its name"


def _last_number(dest: UPath) -> int | None:
    """Return the highest number of a lease, which is the one that counts; ``None`` if there is no lease."""
    names = (file.name for file in dest.glob(LEASES))
    numbers = [int(number) for name in names if (number := name[len("ingest-") : -len(".lease")]).isdigit()]
    return max(numbers, default=None)


def _lease_file(dest: UPath, number: int) -> UPath:
    return dest / f"ingest-{number:05d}.lease"


def _lease_content(count: int) -> bytes:
    return json.dumps({"holder": _this_process(), "sign": count}).encode()


def _this_process() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _refusal(dest: UPath | Path, holder: str) -> DataError:
    return DataError(f"{dest}: another ingest is at work there ({holder}); wait for it, or choose another place")
