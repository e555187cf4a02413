"""Claims: the exclusive right of one process to write a directory.

Of several processes that would write into one place at once, exactly one gets the claim and goes on; the others are
refused, with a message that names the holder. A claim is one for some work, such as an ingest or a training.

On a file system with locks a claim is a lock on ``DIRECTORY/WORK.lock`` (``flock``, which NFS passes to its server).
The operating system releases it when its process ends, however that ends.

An object store has no locks. There a claim is a lease: the file ``DIRECTORY/WORK-00000.lease``, which a conditional put
creates and which its holder writes again every :data:`HEARTBEAT` seconds. A process that finds a lease watches it. If
the lease does not change for :data:`LEASE_TIMEOUT` seconds of the watcher's own clock, its holder is taken for dead,
and the watcher creates the lease of the next number, again by a conditional put, so that of many watchers one wins.
Clocks of different machines are never compared. A holder that was only asleep sees the higher number and stops.

The file names the holder by a token drawn at random. So a process to which the holder handed its :class:`Claim` can
ask the store, too, whether the claim still counts.
"""

import errno
import fcntl
import json
import os
import platform
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from upath import UPath

from genlab.core.errors import GenlabError
from genlab.core.storage import create_exclusive, delete, exists, is_remote, locate, names, read_bytes, write_atomic

HEARTBEAT = 5.0
"""Seconds between two writings of a lease by its holder."""

LEASE_TIMEOUT = 30.0
"""Seconds without a change after which the holder of a lease is taken for dead."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class ClaimError(GenlabError):
    """Another process holds the claim on the directory, and so the files there are not this one's to write."""


class ClaimLostError(ClaimError):
    """Another process took over the claim on the directory that this one held."""


class Claim:
    """The claim of one process on a directory, as :func:`claimed` gives it.

    It may be sent to other processes that work for the holder; there :attr:`lost` is never set.

    Args:
        directory: the directory.
        work: what the claim is for.
        token: names the holder in the file of the lock or lease.
    """

    def __init__(self, directory: str, work: str, token: str) -> None:
        self.directory = directory
        self.work = work
        self.token = token
        self.lost = threading.Event()
        """Set as soon as the holder of a lease finds that another process took over."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Claim, (self.directory, self.work, self.token)

    def require(self) -> None:
        """Ask the storage whether this claim still counts.

        Raises:
            ClaimLostError: another process took over.
        """
        directory = locate(self.directory)
        if self.lost.is_set() or _field(_read(_current_file(directory, self.work)), "token") != self.token:
            raise self.lost_error()

    def lost_error(self) -> ClaimLostError:
        """Return the error that says that the claim was lost."""
        return ClaimLostError(
            f"{self.directory}: another {self.work} took over, because this one gave no sign of life for a while"
        )


@contextmanager
def claimed(directory: UPath, work: str, otherwise: str) -> Iterator[Claim]:
    """Hold the claim on a directory, which is created if it is not there.

    Args:
        directory: the directory.
        work: what the process does there, one word: ``ingest`` or ``training``. Claims for different work do not
            exclude each other.
        otherwise: what a user may do instead of waiting, for the message of a refusal.

    Raises:
        ClaimError: another process holds the claim.
    """
    claim = Claim(str(directory), work, secrets.token_hex(8))
    descriptor = None
    if not is_remote(directory):
        Path(str(directory)).mkdir(parents=True, exist_ok=True)
        descriptor = _lock(Path(str(directory)) / _lock_name(work), claim, otherwise)
    if descriptor is None:
        with _lease(directory, claim, otherwise):
            yield claim
        return
    try:
        yield claim
    finally:
        delete(directory / _lock_name(work))
        os.close(descriptor)


def is_claim_file(name: str, work: str) -> bool:
    """Return whether a file of this name is the lock or a lease of a claim for ``work``."""
    return name == _lock_name(work) or _lease_number(name, work) is not None


def is_claimed(directory: UPath, work: str) -> bool:
    """Return whether a lock or lease for ``work`` lies in the directory; its holder may be dead."""
    return _current_file(directory, work) is not None


def _lock(file: Path, claim: Claim, otherwise: str) -> int | None:
    """Lock a file, which is created if it is not there.

    Returns:
        The descriptor of the locked file; ``None`` where the file system has no locks.

    Raises:
        ClaimError: another process holds the lock.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder before may have removed the file between the opening and the locking here.
            if os.fstat(descriptor).st_nlink:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _content(claim, 0))
                return descriptor
        except BlockingIOError:
            holder = _holder(os.pread(descriptor, 1000, 0))
            os.close(descriptor)
            raise _refusal(claim, holder, otherwise) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return None
            raise
        os.close(descriptor)


@contextmanager
def _lease(directory: UPath, claim: Claim, otherwise: str) -> Iterator[None]:
    """Hold the claim on a directory without locks; see :func:`claimed`."""
    work, number = claim.work, 0
    while True:
        last = _last_number(directory, work)
        if last is not None:
            number = last + 1
            if not _watch(directory, _lease_file(directory, work, last), claim, otherwise):
                continue  # Another process may have begun with the first number meanwhile.
        if create_exclusive(_lease_file(directory, work, number), _content(claim, 0)):
            break
        if last is not None:
            raise _refusal(claim, "another process was faster", otherwise)
    for earlier in range(number):
        delete(_lease_file(directory, work, earlier))
    done = threading.Event()

    def renew() -> None:
        count = 0
        while not done.wait(HEARTBEAT):
            count += 1
            # A storage that does not answer for a while is no reason to stop: the work goes on, or fails by itself.
            with suppress(Exception):
                if _last_number(directory, work) == number:
                    write_atomic(_lease_file(directory, work, number), _content(claim, count))
                else:
                    claim.lost.set()
                    return

    thread = threading.Thread(target=renew, name="genlab-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        delete(_lease_file(directory, work, number))


def _watch(directory: UPath, lease: UPath, claim: Claim, otherwise: str) -> bool:
    """Wait until the holder of a lease may be taken for dead.

    Returns:
        False if the lease is gone: its holder has ended.

    Raises:
        ClaimError: the lease changed, so its holder is alive.
    """
    before = _read(lease)
    if before is None:
        return False
    print(
        f"{directory}: was claimed by {_holder(before)}; waiting up to {LEASE_TIMEOUT:.0f} s for a sign of life",
        flush=True,
    )
    waited, pause = 0.0, threading.Event()
    while waited < LEASE_TIMEOUT:
        pause.wait(HEARTBEAT / 5)
        waited += HEARTBEAT / 5
        now = _read(lease)
        if now is None:
            return False
        if now != before:
            raise _refusal(claim, _holder(now), otherwise)
    return True


def _current_file(directory: UPath, work: str) -> UPath | None:
    """Return the file that names the holder: the lock, else the lease that counts; ``None`` if there is neither."""
    if not is_remote(directory) and exists(directory / _lock_name(work)):
        return directory / _lock_name(work)
    number = _last_number(directory, work)
    return None if number is None else _lease_file(directory, work, number)


def _read(file: UPath | None) -> bytes | None:
    try:
        return None if file is None else read_bytes(file)
    except FileNotFoundError:
        return None


def _field(content: bytes | None, name: str) -> str | None:
    """Return a field of the content of a lock or lease; ``None`` if it has none, such as one of an earlier version."""
    try:
        return str(json.loads(content or b"")[name])
    except (ValueError, KeyError, TypeError):
        return None


def _holder(content: bytes) -> str:
    return _field(content, "holder") or "a process that did not say its name"


def _last_number(directory: UPath, work: str) -> int | None:
    """Return the highest number of a lease, which is the one that counts; ``None`` if there is no lease."""
    numbers = (_lease_number(name, work) for name in names(directory, f"{work}-"))
    return max((number for number in numbers if number is not None), default=None)


def _lock_name(work: str) -> str:
    return f"{work}.lock"


def _lease_file(directory: UPath, work: str, number: int) -> UPath:
    return directory / f"{work}-{number:05d}.lease"


def _lease_number(name: str, work: str) -> int | None:
    number = name.removeprefix(f"{work}-").removesuffix(".lease")
    return int(number) if name == f"{work}-{number}.lease" and number.isdigit() else None


def _content(claim: Claim, count: int) -> bytes:
    holder = f"process {os.getpid()} on {platform.node()}"
    return json.dumps({"holder": holder, "token": claim.token, "sign": count}).encode()


def _refusal(claim: Claim, holder: str, otherwise: str) -> ClaimError:
    return ClaimError(
        f"{claim.directory}: another {claim.work} is at work there ({holder}); wait for it, or {otherwise}"
    )
