"""What lies beside the weights of models and may change: read when models are looked for, kept for their cards."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from genlab.store.model_store import READERS, ModelVersion

AGAIN_SECONDS = 60.0
"""Seconds after which it is looked again beside a version."""

Found = TypeVar("Found")


class Beside(Generic[Found]):
    """What lies beside versions of models, read again about every minute. Thread-safe.

    Args:
        read: reads it; what is damaged it logs, and leaves out.
        nothing: what stands for a version that was not looked at.
    """

    def __init__(self, read: Callable[[ModelVersion], Found], nothing: Found) -> None:
        self._read, self._nothing = read, nothing
        self._found: Mapping[tuple[str, str], tuple[float, Found]] = {}

    def look(self, versions: Iterable[ModelVersion]) -> None:
        """Read what lies beside these versions, and forget others.

        Raises:
            StorageError: the storage cannot be reached.
        """
        now, found, due = time.monotonic(), {}, []
        for version in versions:
            read = self._found.get(_key(version))
            if read is not None and now - read[0] < AGAIN_SECONDS:
                found[_key(version)] = read
            else:
                due.append(version)
        with ThreadPoolExecutor(READERS, thread_name_prefix="beside") as readers:
            found |= {_key(one): (now, read) for one, read in zip(due, readers.map(self._read, due), strict=True)}
        self._found = found

    def of(self, version: ModelVersion) -> Found:
        """Return what lies beside a version."""
        return self._found.get(_key(version), (0.0, self._nothing))[1]


def _key(version: ModelVersion) -> tuple[str, str]:
    return str(version.directory), version.version
