"""The ledger of a run: what it used of cores or GPUs, and what of that was lost, by cause.

Each attempt (:mod:`genlab.training.attempts`) keeps its own account in its file, which a thread writes again every
:data:`WRITE_SECONDS` and at each checkpoint: how many cores or GPUs it has, when it began, when its first step began,
when it was last at work and at which step, and how it ended. What it lost follows from where the next one went on.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from upath import UPath

from genlab.core.errors import StorageError
from genlab.training.attempts import Attempt, read_records
from genlab.training.notices import PREEMPTION, RESIZE, Notice

WRITE_SECONDS = 10.0
"""Seconds between two writings of an account: the most work of a killed attempt that is not in it."""

LOST, STARTED = "lost worker", "new start"
CAUSES = {
    LOST: "a worker or node lost",
    PREEMPTION: "a notice",
    RESIZE: "room for more workers",
    STARTED: "started again",
}
"""Why an attempt followed another, in words."""


class Account:
    """Writes the account of the attempt that this process is rank 0 of; a context manager around its training.

    Args:
        attempt: the attempt.
        driver: names the process that started the workers; attempts of one driver follow each other at once.
        workers: number of workers.
        devices: cores or GPUs of all workers.
        device: ``core`` or ``GPU``.
    """

    def __init__(self, attempt: Attempt, driver: str, workers: int, devices: int, device: str) -> None:
        self._attempt = attempt
        self._lock = threading.Lock()
        now = time.time()
        self._facts: dict[str, Any] = {
            "driver": driver,
            "workers": workers,
            "devices": devices,
            "device": device,
            "began": now,
            "until": now,
            "checkpoints": 0,
            "checkpoint_seconds": 0.0,
        }
        self._over, self._due = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ledger", daemon=True)

    def __enter__(self) -> "Account":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._due.set()
        self._thread.join()
        self._note(until=time.time())
        with suppress(StorageError):  # What else happened here is to be told.
            self._write()

    def trains(self, step: int) -> None:
        """Note that the first step begins, ``step`` being done."""
        now = time.time()
        self._note(trained=now, until=now, first=step, step=step)

    def reaches(self, step: int) -> None:
        """Note the steps done."""
        self._note(step=step, until=time.time())

    def checkpoint(self, seconds: float) -> None:
        """Note a checkpoint, for which training waited so long."""
        with self._lock:
            self._facts["checkpoints"] += 1
            self._facts["checkpoint_seconds"] += seconds
        self._due.set()

    def notice(self, notice: Notice) -> None:
        """Note that the attempt ends by a notice."""
        self._note(end=notice.cause)

    def _note(self, **facts: Any) -> None:
        with self._lock:
            self._facts |= facts

    def _keep(self) -> None:
        while not self._over.is_set():
            self._due.wait(WRITE_SECONDS)
            self._due.clear()
            with suppress(StorageError):  # The store may be back the next time.
                self._write()

    def _write(self) -> None:
        with self._lock:
            facts = dict(self._facts)
        self._attempt.record(facts)


@dataclass(frozen=True)
class Entry:
    """An attempt in the ledger. Hours are those of one core or GPU."""

    attempt: int
    """Its number."""
    workers: int
    device: str
    """``core`` or ``GPU``."""
    steps: int
    """Steps done, those that were lost included."""
    seconds: float
    """Seconds from its first step to its end."""
    hours: float
    """From the end of the attempt before, if that was of the same driver, else from its own beginning, to its end."""
    starting: float
    """The part of these hours before its first step."""
    cause: str | None
    """Why the next attempt began, a key of :data:`CAUSES`; ``None`` for the last."""
    lost_steps: int
    """Steps that the next attempt did again."""
    lost: float
    """Hours of these steps, and of the next attempt before its first step."""
    waited: float
    """The part of these hours until the next attempt began, if that was of the same driver."""
    restart: float | None
    """Seconds from its end to the first step of the next attempt, if that was of the same driver."""
    checkpoints: int
    checkpoint_seconds: float
    """Seconds that training waited for its checkpoints."""


@dataclass(frozen=True)
class Losses:
    """What a run lost by one cause."""

    times: int = 0
    steps: int = 0
    """Steps that were done again."""
    hours: float = 0.0
    """Hours of one core or GPU: of these steps, and until the first step after."""


@dataclass(frozen=True)
class Ledger:
    """The attempts of a run that have an account, oldest first."""

    entries: tuple[Entry, ...]

    @property
    def hours(self) -> float:
        """Hours of one core or GPU that the run used."""
        return sum(entry.hours for entry in self.entries)

    @property
    def losses(self) -> dict[str, Losses]:
        """What was lost, by cause."""
        found: dict[str, Losses] = {}
        for entry in self.entries:
            if entry.cause:
                before = found.get(entry.cause, Losses())
                found[entry.cause] = Losses(
                    before.times + 1, before.steps + entry.lost_steps, before.hours + entry.lost
                )
        return {cause: found[cause] for cause in CAUSES if cause in found}

    @property
    def lost(self) -> float:
        """Hours of one core or GPU that were lost."""
        return sum(losses.hours for losses in self.losses.values())

    @property
    def device(self) -> str:
        """``core`` or ``GPU``; ``core or GPU`` where it was now one, now the other."""
        return " or ".join(dict.fromkeys(entry.device for entry in self.entries))

    @property
    def step_seconds(self) -> float | None:
        """Seconds of a step, in the mean, with all that lies between steps but checkpoints."""
        steps = sum(entry.steps for entry in self.entries)
        return sum(entry.seconds - entry.checkpoint_seconds for entry in self.entries) / steps if steps else None

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds that training waits for a checkpoint, in the mean."""
        checkpoints = sum(entry.checkpoints for entry in self.entries)
        return sum(entry.checkpoint_seconds for entry in self.entries) / checkpoints if checkpoints else None

    @property
    def restart_seconds(self) -> float | None:
        """Seconds from the end of an attempt to the first step of the next of the same driver, in the mean."""
        found = [entry.restart for entry in self.entries if entry.restart is not None]
        return sum(found) / len(found) if found else None

    @property
    def seconds_between_losses(self) -> float | None:
        """Seconds of training for each time that a worker was lost or a notice came."""
        times = len(self._interruptions)
        return sum(entry.seconds for entry in self.entries) / times if times else None

    @property
    def noticed(self) -> float | None:
        """Share of these times at which a notice came."""
        causes = self._interruptions
        return causes.count(PREEMPTION) / len(causes) if causes else None

    @property
    def waited(self) -> float:
        """Hours between groups of workers of one driver: of waiting for nodes and of starting workers."""
        return sum(entry.waited for entry in self.entries)

    @property
    def _interruptions(self) -> list[str]:
        return [entry.cause for entry in self.entries if entry.cause in (LOST, PREEMPTION)]


def read_ledger(run: UPath) -> Ledger:
    """Read the ledger of a run directory; it has no entries where the run is of an earlier genlab."""
    return make_ledger(read_records(run))


def make_ledger(records: Mapping[int, Mapping[str, Any]]) -> Ledger:
    """Return the ledger of attempts, given the content of the file of each by its number."""
    found = [(number, records[number]) for number in sorted(records) if "trained" in records[number]]
    entries = []
    for place, (number, record) in enumerate(found):
        before = found[place - 1][1] if place else None
        after = found[place + 1][1] if place + 1 < len(found) else None
        entries.append(_entry(number, record, before, after))
    return Ledger(tuple(entries))


def _entry(
    number: int, record: Mapping[str, Any], before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> Entry:
    devices, until = record["devices"], record["until"]
    begin = before["until"] if before and before["driver"] == record["driver"] else record["began"]
    steps, seconds = record["step"] - record["first"], until - record["trained"]
    cause, lost_steps, lost, waited, restart = None, 0, 0.0, 0.0, None
    if after:
        same = after["driver"] == record["driver"]
        end = record.get("end")
        cause = end if end in (PREEMPTION, RESIZE) else LOST if same else STARTED
        lost_steps = max(0, record["step"] - after["first"])
        again = seconds * lost_steps / steps if steps else 0.0
        starting = after["trained"] - (until if same else after["began"])
        lost = (devices * again + after["devices"] * starting) / 3600
        if same:
            waited, restart = after["devices"] * (after["began"] - until) / 3600, starting
    return Entry(
        number,
        record["workers"],
        record["device"],
        steps,
        seconds,
        devices * (until - begin) / 3600,
        devices * (record["trained"] - begin) / 3600,
        cause,
        lost_steps,
        lost,
        waited,
        restart,
        record["checkpoints"],
        record["checkpoint_seconds"],
    )
