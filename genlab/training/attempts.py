"""Attempts: the groups of workers that train a run one after the other, and how only the last of them writes.

A group is formed by each launch and by each restart of Ray Train. Its rank 0 takes the next number: it creates
``RUN/attempts/00003.json``, which of several processes only one can. From then on the attempts before it are over: each
looks for the next number before it changes the run, and stops when it is there. What it may still have under way then
does no harm, because the files of an attempt are named by its number, and because a later attempt records the step that
it resumed from: a checkpoint past that step of an earlier attempt does not count.
"""

import json
import os
import platform
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from upath import UPath

from genlab.core.claims import Claim
from genlab.core.errors import RunError
from genlab.core.storage import create_exclusive, exists, json_bytes, names, read_bytes, write_json

FOLDER = "attempts"


class SupersededError(RunError):
    """A later attempt goes on with the run, and so this one must not write to it any more."""


class Attempt:
    """An attempt at a run, of which this process is rank 0; made by :func:`begin_attempt`.

    Args:
        directory: the run directory.
        number: its number, from 1.
    """

    def __init__(self, directory: UPath, number: int) -> None:
        self.number = number
        self._directory = directory
        self._content = _this_process()
        self._lock = threading.Lock()

    def require_last(self) -> None:
        """Ask the storage whether this is still the last attempt; one request.

        Raises:
            SupersededError: there is a later one.
        """
        if exists(_file(self._directory, self.number + 1)):
            raise SupersededError(
                f"{self._directory}: attempt {self.number} ends here, because attempt {self.number + 1} goes on with "
                f"the run ({_record(self._directory, self.number + 1).get('process', 'a process unknown')})"
            )

    def resume_from(self, step: int) -> None:
        """Record the step of the checkpoint that this attempt goes on from; 0 if there was none."""
        self.record({"resumed_from": step})

    def record(self, facts: Mapping[str, Any]) -> None:
        """Add facts to the file of this attempt, or replace them there. Thread-safe."""
        with self._lock:
            self._content |= facts
            write_json(_file(self._directory, self.number), self._content)

    def overrules(self, number: int, step: int) -> bool:
        """Return whether attempt ``number`` wrote its checkpoint of ``step`` when a later attempt had taken over.

        So it did if an attempt between that one and this one resumed from an earlier step.

        Args:
            number: the attempt; 0 for checkpoints from before attempts had numbers.
            step: the step.
        """
        later = (_record(self._directory, between) for between in range(number + 1, self.number))
        return any(record.get("resumed_from", step) < step for record in later)


def begin_attempt(directory: UPath, claim: Claim | None) -> Attempt:
    """Take the number after the highest that there is; the attempts before are over.

    Args:
        directory: the run directory.
        claim: the claim on it, which the process that started this group of workers holds; ``None`` if nothing else can
            write there.

    Raises:
        ClaimLostError: another process has the claim now.
    """
    while True:
        number = max(_numbers(directory), default=0) + 1
        # Between the two: if the claim is lost after this line, the number is taken by who has it, or of no use to it.
        if claim is not None:
            claim.require()
        if create_exclusive(_file(directory, number), json_bytes(_this_process())):
            return Attempt(directory, number)


def read_records(directory: UPath) -> dict[int, dict[str, Any]]:
    """Return what each attempt at a run recorded, by its number."""
    return {number: _record(directory, number) for number in sorted(_numbers(directory))}


def _file(directory: UPath, number: int) -> UPath:
    return directory / FOLDER / f"{number:05d}.json"


def _numbers(directory: UPath) -> list[int]:
    found = (re.fullmatch(r"(\d{5,})\.json", name) for name in names(directory / FOLDER))
    return [int(name[1]) for name in found if name]


def _record(directory: UPath, number: int) -> dict[str, Any]:
    """Return what an attempt recorded; nothing if its file is gone or torn."""
    try:
        record: dict[str, Any] = json.loads(read_bytes(_file(directory, number)))
    except (FileNotFoundError, ValueError):
        return {}
    return record


def _this_process() -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "process": f"process {os.getpid()} on {platform.node()}",
    }
