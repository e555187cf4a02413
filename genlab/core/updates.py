"""Updates of a small file that several processes change: each sees what the one before has written."""

import random
import time
from collections.abc import Callable

from upath import UPath

from genlab.core import s3
from genlab.core.claims import ClaimError, claimed
from genlab.core.storage import read_bytes, write_atomic

WAIT_SECONDS = 60.0
"""How long another process is waited for."""

_random = random.SystemRandom()  # never the global generator, on which training may depend


def update(path: UPath, work: str, change: Callable[[bytes | None], bytes | None]) -> None:
    """Read a file, change its content and write it, so that no change of another process in between is lost.

    On S3 this is a put on the condition that the object is the one that was read; on a file system and on other stores
    the file's folder is claimed meanwhile (:mod:`genlab.core.claims`).

    Args:
        path: the file, which need not be there; nor need its folder.
        work: what is done, one word, for the claim.
        change: a pure function of the content, ``None`` where there is no file, to the new one; ``None`` leaves the
            file as it is. It may be called several times; what it raises is raised here.

    Raises:
        ClaimError: other processes have been at work for :data:`WAIT_SECONDS`.
        StorageError: the store cannot be reached.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        if s3.is_s3(path):
            if _update_object(path, change):
                return
            if time.monotonic() > deadline:
                raise ClaimError(f"{path}: other processes change it all the time; try again")
        else:
            try:
                with claimed(path.parent, work, "try again"):
                    content = change(_content(path))
                    if content is not None:
                        write_atomic(path, content)
                    return
            except ClaimError:
                if time.monotonic() > deadline:
                    raise
        time.sleep(_random.uniform(0.01, 0.1))


def _update_object(path: UPath, change: Callable[[bytes | None], bytes | None]) -> bool:
    """Change an object; return whether nobody else did meanwhile."""
    try:
        before, tag = s3.get_tagged(path)
    except FileNotFoundError:
        content = change(None)
        return content is None or s3.create(path, content)
    content = change(before)
    return content is None or s3.replace(path, content, tag)


def _content(path: UPath) -> bytes | None:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None
