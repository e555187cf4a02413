"""A cache of blocks on a local disk, for data sets on a remote store; shared by all processes of a node.

Entries are named by their content, so they never go stale, and are written under a temporary name and renamed, so a
reader sees a whole entry or none. Space is reserved under a file lock before a byte is written, and entries are removed
for it; so the bound holds at every moment, whichever process is killed when.

Training reads every block once in a pass through a data set. Of a cache that holds a part of them, the least recently
used one is then the one that is needed next, and a cache that replaced it would hardly ever be hit. So entries that are
used in passes stay, and others take their place only where they are left over from other work.
"""

import fcntl
import logging
import math
import os
import re
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK = "lock"
"""File of the cache that is locked while space is reserved or freed; it holds the number of bytes reserved."""
ENTRIES = "entries"
"""Folder of the cache with the entries, each in a folder of the first two characters of its name."""

_PARTIAL = ".partial"
_RESERVED = struct.Struct("<q")
_PAGE = 4096
_log = logging.getLogger(__name__)


class BlockCache:
    """Blocks by name, in a folder. Safe for threads, and for processes of one node that may be killed at any moment.

    The size of all entries, in whole pages of 4 KiB and with entries that are being written, never exceeds
    ``max_bytes`` as long as all processes give the same bound. When space is short, up to a tenth of the bound is freed
    at a time, the least recently used entries first, and also the space that killed processes had reserved or half
    filled; the latter is done as well when a cache is opened.

    A cache that cannot be read or written, on a full disk for instance, makes no read fail: it logs one warning, and
    takes no more entries from this process.

    Args:
        directory: the folder, on a local disk; made if need be. Several data sets can share it.
        max_bytes: the most bytes that the cache may hold, >= 0.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._usable = True
        self._opened = time.time_ns()
        self._passes = 0
        self._full = False
        try:
            (directory / ENTRIES).mkdir(parents=True, exist_ok=True)
            with self._lock() as lock:
                _set_reserved(lock, self._free(max_bytes))
        except OSError as error:
            self._disable(error)

    def get(self, name: str) -> bytes | None:
        """Return the entry called ``name``, which counts as used now; ``None`` when there is none.

        An entry may be damaged, after a power cut for instance: check it, and :meth:`discard` it if it is.
        """
        try:
            with self._path(name).open("rb", buffering=0) as file:
                now = time.time_ns()
                with suppress(OSError):  # The disk may be mounted read-only.
                    os.utime(file.fileno(), ns=(now, now))
                return file.readall()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._disable(error)
            return None

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Keep ``data``, if there is space for it or space can be freed.

        Args:
            name: a name that only this content has, such as its checksum with its length: two or more letters, digits,
                ``-`` and ``_``.
            data: the content.
        """
        path = self._path(name)
        if not self._usable or path.exists():
            return
        partial = path.with_name(f"{name}.{secrets.token_hex(4)}{_PARTIAL}")
        try:
            with self._reserve(partial, memoryview(data).nbytes) as file:
                if file is None:
                    return
                file.write(data)
                file.flush()
                with self._lock():  # A process that counts the entries must find this one under one name.
                    partial.replace(path)
        except OSError as error:
            self._disable(error)

    def next_pass(self) -> None:
        """Note that a pass through a data set begins, in which each of its blocks is used once.

        From now on no entry makes room that was used since this cache was opened; and as long as no whole pass has
        shown what is used, none at all.
        """
        self._passes += 1
        self._full = False

    def discard(self, name: str) -> None:
        """Remove an entry, because it is damaged. Its space counts as free from the next time that space is freed."""
        with suppress(OSError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]{2,}", name):
            raise ValueError(f"{name!r}: not a name for a cache entry")
        return self.directory / ENTRIES / name[:2] / name

    def _disable(self, error: OSError) -> None:
        """Take no more entries, and log why; the second time this does nothing."""
        if self._usable:
            self._usable = False
            _log.warning("cache %s: cannot be used (%s); going on without it", self.directory, error)

    @contextmanager
    def _lock(self) -> Iterator[int]:
        """Hold the lock; yields the file descriptor of the lock file.

        The file is opened each time, so that threads exclude each other, too.
        """
        file = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # Closing does not unlock if another thread has forked meanwhile.
            os.close(file)

    @contextmanager
    def _reserve(self, partial: Path, size: int) -> Iterator[BinaryIO | None]:
        """Reserve space and make the file ``partial``; yields the file, or ``None`` when there is no space.

        The file is locked while it is written, so that it can be told from one whose writer was killed, and has its
        full size from the start, so that it is counted. It is removed in the end if it was not renamed.

        Args:
            partial: the file to make.
            size: how many bytes will be written.
        """
        needed, file = _pages(size), None
        try:
            with self._lock() as lock:
                reserved = _reserved(lock)
                short = reserved is None or reserved + needed > self.max_bytes
                if needed <= self.max_bytes and short and not self._full:
                    reserved = self._free(max(self.max_bytes - self.max_bytes // 10 - needed, 0))
                    _set_reserved(lock, reserved)
                    # Until the next pass all entries would be looked at in vain.
                    self._full = self._passes > 0 and reserved + needed > self.max_bytes
                if reserved is not None and reserved + needed <= self.max_bytes:
                    # Before the file: a process killed here has reserved too much, never too little.
                    _set_reserved(lock, reserved + needed)
                    partial.parent.mkdir(exist_ok=True)
                    file = partial.open("xb")
                    fcntl.flock(file, fcntl.LOCK_EX)
                    file.truncate(size)
            yield file
        finally:
            if file is not None:
                partial.unlink(missing_ok=True)
                with suppress(OSError):  # The write failed before, and that error is the one to raise.
                    file.close()

    def _kept_since(self) -> float:
        """Return the time from which on entries that were used stay, in nanoseconds since 1970."""
        if not self._passes:
            return math.inf
        # The first pass may have begun anywhere in the data set.
        return self._opened if self._passes > 2 else -math.inf

    def _free(self, most: int) -> int:
        """Remove the files that killed processes left, then the least recently used entries until ``most`` bytes
        remain, or only such as have to stay.

        The caller holds the lock.

        Returns:
            The size of the remaining files, which can be more than ``most`` when much is being written.
        """
        entries: list[tuple[int, int, str]] = []
        total = 0
        for folder in os.scandir(self.directory / ENTRIES):
            for file in os.scandir(folder):
                with suppress(FileNotFoundError):  # It was removed just now, as damaged or by its writer.
                    if file.name.endswith(_PARTIAL) and _removed_if_left(file.path):
                        continue
                    stat = file.stat()
                    total += _pages(stat.st_size)
                    if not file.name.endswith(_PARTIAL):
                        entries.append((stat.st_mtime_ns, _pages(stat.st_size), file.path))
        for used, size, path in sorted(entries):
            if total <= most or used >= self._kept_since():
                break
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
            total -= size
        return total


def _removed_if_left(partial: str) -> bool:
    """Remove a half-written file if its writer has ended; returns whether it was removed."""
    with open(partial, "rb") as file:  # noqa: PTH123
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.unlink(partial)  # noqa: PTH108
        return True


def _pages(size: int) -> int:
    """Return ``size`` rounded up to whole pages."""
    return -(-size // _PAGE) * _PAGE


def _reserved(lock: int) -> int | None:
    """Return the bytes reserved, by the lock file; ``None`` when it does not say."""
    data = os.pread(lock, _RESERVED.size, 0)
    return _RESERVED.unpack(data)[0] if len(data) == _RESERVED.size else None


def _set_reserved(lock: int, size: int) -> None:
    os.pwrite(lock, _RESERVED.pack(size), 0)
