"""What tests of ingest run in processes of their own. Little is imported, so that they start at once."""

import os
import resource
import signal
import sys
from multiprocessing.synchronize import Barrier, Event
from typing import Any

from genlab.core.errors import DataError, GenlabError
from genlab.data.ingest.ingest import IngestConfig, ingest


def watch_files(dest: str, on_event: Any) -> None:
    """Call ``on_event(number)`` before each opening, renaming and removing of a file in ``dest``."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(arguments[0]).startswith(dest):
            count += 1
            on_event(count)

    sys.addaudithook(hook)


def ingest_and_die(config: IngestConfig, moment: int, counted: Any) -> None:
    """Ingest in a process that is killed at its ``moment``-th touch of DEST; 0: never, but they are counted."""

    def on_event(number: int) -> None:
        counted.value = number
        if number == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    watch_files(config.dest, on_event)
    ingest(config)


def ingest_and_wait(config: IngestConfig, there: Event, go: Event) -> None:
    def on_event(number: int) -> None:
        if number == 14:
            there.set()
            go.wait()

    watch_files(config.dest, on_event)
    ingest(config)


def ingest_with_others(config: IngestConfig, barrier: Barrier, results: Any) -> None:
    barrier.wait()
    try:
        ingest(config)
        results.put("made")
    except GenlabError as error:
        results.put(str(error))


def ingest_little(config: IngestConfig, limit: int, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        ingest(config)
    except DataError as error:
        results.put(str(error))
