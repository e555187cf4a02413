"""A cache of blocks on a local disk, for data sets on a remote store; shared by all processes of a node.

Entries are named by their content, so they never go stale, and are written beside their place and renamed, so a
reader sees a whole entry or none. Room is booked under a file lock before a byte is written, and the least recently
used entries give way; so the bound holds at every moment, whichever process is killed when.
"""

import fcntl
import logging
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
"""File of the cache that is locked while room is booked or freed; it holds the bytes booked."""
ENTRIES = "entries"
"""Folder of the cache with the entries, each in a folder of the first two characters of its name."""

_PARTIAL = ".partial"
_BOOKED = struct.Struct("<q")
_PAGE = 4096
_log = logging.getLogger(__name__)


class BlockCache:
    """Blocks by name. Safe for threads, and for processes of one node that may be killed at any moment.

    What it holds, in whole pages of 4 KiB and with entries that are being written, never exceeds ``max_bytes`` as long
    as all processes give the same bound. When room is short a tenth is freed at a time, and what killed processes had
    booked or half written is found; so it is when a cache is opened.

    A cache that cannot be read or written, on a full disk for instance, fails no read: it says so once, as a warning
    of this module's logger, and takes no more entries from this process.

    Args:
        directory: where it lies, on a local disk; made if need be. Several data sets can share it.
        max_bytes: the most that it may hold, >= 0.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._usable = True
        try:
            (directory / ENTRIES).mkdir(parents=True, exist_ok=True)
            with self._lock() as lock:
                _book(lock, self._free(max_bytes))
        except OSError as error:
            self._give_up(error)

    def get(self, name: str) -> bytes | None:
        """The entry called ``name``, which counts as used now; ``None`` when there is none.

        It may be damaged, after a power cut for instance: check it, and :meth:`discard` it if it is.
        """
        try:
            with self._path(name).open("rb", buffering=0) as file:
                now = time.time_ns()
                with suppress(OSError):  # The disk may be mounted to be read only.
                    os.utime(file.fileno(), ns=(now, now))
                return file.readall()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Keep ``data``, if there is or can be made room for it.

        Args:
            name: what tells this content from all other, such as its checksum with its length: two or more letters,
                digits, ``-`` and ``_``.
            data: the content.
        """
        path = self._path(name)
        if not self._usable or path.exists():
            return
        partial = path.with_name(f"{name}.{secrets.token_hex(4)}{_PARTIAL}")
        try:
            with self._reserved(partial, memoryview(data).nbytes) as file:
                if file is None:
                    return
                file.write(data)
                file.flush()
                with self._lock():  # So that whoever counts the entries finds it under one name.
                    partial.replace(path)
        except OSError as error:
            self._give_up(error)

    def discard(self, name: str) -> None:
        """Forget an entry, because it is damaged. Its room is found when room is short."""
        with suppress(OSError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]{2,}", name):
            raise ValueError(f"{name!r}: not a name for a cache entry")
        return self.directory / ENTRIES / name[:2] / name

    def _give_up(self, error: OSError) -> None:
        if self._usable:
            self._usable = False
            _log.warning("cache %s: cannot be used (%s); going on without it", self.directory, error)

    @contextmanager
    def _lock(self) -> Iterator[int]:
        """The file descriptor of the lock file, locked. Opened each time: threads, too, must exclude each other."""
        file = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # Closing does not, if another thread has forked meanwhile.
            os.close(file)

    @contextmanager
    def _reserved(self, partial: Path, size: int) -> Iterator[BinaryIO | None]:
        """A new file ``partial`` to write ``size`` bytes to, for which there is room; ``None`` when there is not.

        It is locked as long as it is written, which tells it from one whose writer was killed, and has its full size
        from the start, so that it counts. It is gone in the end if it was not renamed.
        """
        room, file = _pages(size), None
        try:
            with self._lock() as lock:
                booked = _booked(lock)
                if room <= self.max_bytes and (booked is None or booked + room > self.max_bytes):
                    booked = self._free(max(self.max_bytes - self.max_bytes // 10 - room, 0))
                    _book(lock, booked)
                if booked is not None and booked + room <= self.max_bytes:
                    _book(lock, booked + room)  # Before the file: a process killed here has booked too much.
                    partial.parent.mkdir(exist_ok=True)
                    file = partial.open("xb")
                    fcntl.flock(file, fcntl.LOCK_EX)
                    file.truncate(size)
            yield file
        finally:
            if file is not None:
                partial.unlink(missing_ok=True)
                with suppress(OSError):  # Of a write that failed, and was said.
                    file.close()

    def _free(self, most: int) -> int:
        """Remove what killed processes left, then the least recently used entries until the rest fits ``most``.

        For those who hold the lock.

        Returns:
            The bytes that what is left takes up, which can be more than ``most`` when much is being written.
        """
        entries: list[tuple[int, int, str]] = []
        total = 0
        for folder in os.scandir(self.directory / ENTRIES):
            for file in os.scandir(folder):
                with suppress(FileNotFoundError):  # Discarded, or given up by its writer, just now.
                    if file.name.endswith(_PARTIAL) and _removed_if_left(file.path):
                        continue
                    stat = file.stat()
                    total += _pages(stat.st_size)
                    if not file.name.endswith(_PARTIAL):
                        entries.append((stat.st_mtime_ns, _pages(stat.st_size), file.path))
        for _, room, path in sorted(entries):
            if total <= most:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
            total -= room
        return total


def _removed_if_left(partial: str) -> bool:
    """Remove a half-written file if its writer is no more; whether it was."""
    with open(partial, "rb") as file:  # noqa: PTH123
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.unlink(partial)  # noqa: PTH108
        return True


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _booked(lock: int) -> int | None:
    """The bytes booked; ``None`` when that is not known."""
    data = os.pread(lock, _BOOKED.size, 0)
    return _BOOKED.unpack(data)[0] if len(data) == _BOOKED.size else None


def _book(lock: int, booked: int) -> None:
    os.pwrite(lock, _BOOKED.pack(booked), 0)
