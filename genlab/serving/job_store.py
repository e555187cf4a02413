"""Jobs in files, on a disk or on S3, where the replicas of a server share them.

==========================================  ===========================================================================
``OWNER/jobs/ID/job.json``                  what was asked for (:class:`Job`); a job is there when this file is
``OWNER/jobs/ID/input-00000``, ...          its pictures, as they were sent
``OWNER/jobs/ID/result-00000.png``, ...     the pictures it gave; ``.error`` holds why there is none
``OWNER/jobs/ID/progress.json``             how far the replica is that works on it
``OWNER/jobs/ID/end.json``                  how it ended
``OWNER/jobs/ID/cancelled``                 it is no longer wanted; whoever holds its claim deletes it
``OWNER/keys/KEY.json``                     the job that a client's idempotency key stands for
``queue/CREATED-OWNER-ID``                  of a job that has not ended
``expiry/EXPIRES-OWNER-ID``                 of each job, written first: what was cut short is found by it
==========================================  ===========================================================================

ID is 128 random bits. OWNER is a hash of the name of the token, KEY of the client's key: nothing that a request says
becomes part of a path. A job is computed and deleted by one process at a time, which holds the claim on its folder
(:mod:`genlab.core.claims`). Times are seconds since 1970, of the clocks of the machines.
"""

import dataclasses
import hashlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from upath import UPath

from genlab.core.claims import Claim, ClaimError, claimed, is_claimed
from genlab.core.errors import GenlabError
from genlab.core.storage import (
    create_exclusive,
    delete,
    delete_folder,
    exists,
    is_remote,
    json_bytes,
    locate,
    names,
    read_bytes,
    write_atomic,
)
from genlab.serving.schema import JobState

WORK = "job"
"""What the claim on the folder of a job is for."""

_ID = re.compile(r"[0-9a-f]{32}")
_MARKER = re.compile(r"(?P<time>[0-9]{14})-(?P<owner>[0-9a-f]{32})-(?P<id>[0-9a-f]{32})")
_RESULT = re.compile(r"result-(?P<number>[0-9]{5})\.(?P<kind>png|error)")


class KeyReusedError(GenlabError):
    """An idempotency key came with another request before."""


class TooManyJobsError(GenlabError):
    """An owner has as many jobs as one may have."""


@dataclasses.dataclass(frozen=True)
class JobName:
    """Where a job is."""

    owner: str
    """Hash of the name of the owner's token."""
    id: str


@dataclasses.dataclass(frozen=True)
class Job:
    """What was asked for, with all that its result depends on."""

    owner: str
    id: str
    model: str
    """The model's name."""
    version: str
    """The version of the model that the name stood for when the job was submitted."""
    operation: str
    parameters: Mapping[str, Any]
    """JSON values, a seed that was drawn included."""
    count: int
    """Pictures of the result."""
    created: float
    expires: float
    request: str
    """Hash of what the client sent."""
    key: str | None = None
    """Hash of the idempotency key."""

    @property
    def name(self) -> JobName:
        """Return where it is."""
        return JobName(self.owner, self.id)


@dataclasses.dataclass(frozen=True)
class Draft:
    """A job that is to be submitted; see :class:`Job`."""

    model: str
    version: str
    operation: str
    parameters: Mapping[str, Any]
    count: int
    request: str
    pictures: Sequence[bytes] = dataclasses.field(repr=False)
    """The files that were sent."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a job is."""

    state: JobState
    done: int = 0
    """Pictures of the result that are there, or that cannot be."""
    failures: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Why there is none, by number of the picture; set when the job is done."""
    error: str | None = None
    """Why the job failed."""
    attempts: int = 0
    """Times that a replica has begun with the number of results that there is."""


class JobStore:
    """The jobs under a folder or an ``s3://`` prefix. Its methods block; they may be called from any thread.

    Args:
        root: the folder.
        seconds: how long a job is kept after it was submitted, whether it is done or not.
    """

    def __init__(self, root: str, seconds: float) -> None:
        self._root = locate(root)
        self._seconds = seconds

    @property
    def is_remote(self) -> bool:
        """Return whether claims are leases, which it takes a while to take over."""
        return is_remote(self._root)

    def submit(self, owner_name: str, draft: Draft, key: str | None, most: int) -> Job:
        """Write a job, unless the key stands for one already; then return that.

        Args:
            owner_name: name of the token; empty where there are none.
            draft: what is asked for.
            key: the client's idempotency key.
            most: jobs that an owner may have. Of submissions at the same time a few more may pass.

        Raises:
            KeyReusedError: the key came with another request.
            TooManyJobsError: the owner has ``most`` jobs.
            StorageError: the store does not answer.
        """
        owner = _hash(owner_name)
        hashed = None if key is None else _hash(key)
        found = None if hashed is None else self._of_key(owner, hashed)
        if found is None:
            if len(_names(self._root / owner / "jobs")) >= most:
                raise TooManyJobsError(f"there are {most:,} jobs of this owner already; delete some that are done")
            now = time.time()
            new = Job(
                owner=owner,
                id=secrets.token_hex(16),
                model=draft.model,
                version=draft.version,
                operation=draft.operation,
                parameters=draft.parameters,
                count=draft.count,
                created=now,
                expires=now + self._seconds,
                request=draft.request,
                key=hashed,
            )
            write_atomic(self._expiry(new), b"")
            if hashed is None or create_exclusive(self._key_file(owner, hashed), _json(new)):
                found = new
            else:
                delete(self._expiry(new))
                found = self._of_key(owner, hashed)
        if found is None:
            raise TooManyJobsError("the job of this idempotency key has just been deleted; submit it again")
        if found.request != draft.request:
            raise KeyReusedError("this idempotency key came with another request before; use a new one")
        self._complete(found, draft.pictures)
        return found

    def find(self, owner_name: str, job_id: str) -> Job | None:
        """Return a job of an owner; ``None`` if there is none of this id."""
        return self.read(JobName(_hash(owner_name), job_id)) if _ID.fullmatch(job_id) else None

    def read(self, name: JobName) -> Job | None:
        """Return a job; ``None`` if it is not there."""
        content = _read(self._folder(name) / "job.json")
        return None if content is None else Job(**json.loads(content))

    def progress(self, job: Job) -> Progress:
        """Return how far a job is."""
        folder = self._folder(job.name)
        if exists(folder / "cancelled"):
            return Progress("cancelled")
        content = _read(folder / "end.json") or _read(folder / "progress.json")
        if content is None:
            return Progress("waiting")
        fields = json.loads(content)
        return Progress(**{**fields, "failures": {int(key): text for key, text in fields["failures"].items()}})

    def unfinished(self) -> list[JobName]:
        """Return where the jobs are that have not ended, the oldest first."""
        return [name for _, name in _markers(self._root / "queue")]

    def expired(self) -> list[JobName]:
        """Return where the jobs are that have expired, and what is left of submissions and deletions cut short."""
        now = time.time()
        expired = [name for expires, name in _markers(self._root / "expiry") if expires < now]
        queued = [name for created, name in _markers(self._root / "queue") if created + self._seconds < now]
        return [*dict.fromkeys(expired + queued)]

    @contextmanager
    def claim(self, name: JobName) -> Iterator[Claim]:
        """Hold the claim on a job.

        Raises:
            ClaimError: another process holds it.
        """
        try:
            with claimed(self._folder(name), WORK, "ask another job") as claim:
                yield claim
        finally:
            if self.read(name) is None:  # the claim made the folder again
                self._remove_empty(name)

    def input(self, job: Job, number: int) -> bytes:
        """Return a picture that was sent."""
        return read_bytes(self._folder(job.name) / f"input-{number:05d}")

    def results(self, job: Job) -> dict[int, bool]:
        """Return the numbers of the results that are there, and whether each is a picture, not a failure."""
        found = (_RESULT.fullmatch(name) for name in _names(self._folder(job.name)))
        return {int(one["number"]): one["kind"] == "png" for one in found if one}

    def result(self, job: Job, number: int) -> bytes:
        """Return a picture of the result, as PNG."""
        return read_bytes(self._folder(job.name) / f"result-{number:05d}.png")

    def write_result(self, job: Job, number: int, png: bytes) -> None:
        """Keep a picture of the result. Only for the holder of the claim, as are the other methods below."""
        write_atomic(self._folder(job.name) / f"result-{number:05d}.png", png)

    def write_failure(self, job: Job, number: int, detail: str) -> None:
        """Keep why there is no picture."""
        write_atomic(self._folder(job.name) / f"result-{number:05d}.error", detail.encode())

    def write_progress(self, job: Job, progress: Progress) -> None:
        """Say how many results are there."""
        write_atomic(self._folder(job.name) / "progress.json", _json(progress))

    def finish(self, job: Job) -> None:
        """End a job all of whose results are there; it has failed if none of them is a picture."""
        results = self.results(job)
        failures = {
            number: read_bytes(self._folder(job.name) / f"result-{number:05d}.error").decode()
            for number, is_picture in sorted(results.items())
            if not is_picture
        }
        error = next(iter(failures.values())) if len(failures) == len(results) else None
        self._end(job, Progress("failed" if error else "done", len(results), failures, error))

    def fail(self, job: Job, error: str) -> None:
        """End a job that cannot be done."""
        self._end(job, Progress("failed", len(self.results(job)), error=error))

    def is_cancelled(self, name: JobName) -> bool:
        """Return whether a job is no longer wanted."""
        return exists(self._folder(name) / "cancelled")

    def has_ended(self, name: JobName) -> bool:
        """Return whether a job is done or has failed."""
        return exists(self._folder(name) / "end.json")

    def take_from_queue(self, job: Job) -> None:
        """Strike off a job that has ended."""
        delete(self._queued(job))

    def cancel(self, name: JobName) -> None:
        """Have a job deleted: now, or soon by the process that works on it. Needs no claim."""
        job = self.read(name)
        if job is not None:
            write_atomic(self._folder(name) / "cancelled", b"")
            write_atomic(self._queued(job), b"")
            if self.read(name) is None:  # deleted meanwhile, perhaps before these two were written
                delete(self._folder(name) / "cancelled")
                delete(self._queued(job))
                self._remove_empty(name)
                return
        if self.is_remote and is_claimed(self._folder(name), WORK):
            return
        with suppress(ClaimError), self.claim(name):
            self.delete(name)

    def delete(self, name: JobName) -> None:
        """Delete all that there is of a job, its place in the queue and its expiry last."""
        job, folder = self.read(name), self._folder(name)
        if job is not None and job.key is not None:
            delete(self._key_file(job.owner, job.key))
        delete(folder / "job.json")
        if self.is_remote:
            delete_folder(folder)
        else:
            shutil.rmtree(str(folder), ignore_errors=True)
        if job is not None:
            self.take_from_queue(job)
            delete(self._expiry(job))
            return
        for kind in ("queue", "expiry"):
            for seconds, one in _markers(self._root / kind):
                if one == name:
                    delete(self._root / kind / _marker(seconds, name))

    def _complete(self, job: Job, pictures: Sequence[bytes]) -> None:
        """Write what is not there yet of a submission."""
        folder = self._folder(job.name)
        if exists(folder / "job.json"):
            return
        for number, picture in enumerate(pictures):
            write_atomic(folder / f"input-{number:05d}", picture)
        write_atomic(self._queued(job), b"")
        write_atomic(folder / "job.json", _json(job))

    def _end(self, job: Job, progress: Progress) -> None:
        create_exclusive(self._folder(job.name) / "end.json", _json(progress))
        self.take_from_queue(job)

    def _of_key(self, owner: str, hashed: str) -> Job | None:
        """Return the job that a key stands for, also if its submission was cut short; ``None`` if it has expired."""
        content = _read(self._key_file(owner, hashed))
        job = None if content is None else Job(**json.loads(content))
        if job is not None and job.expires < time.time():
            delete(self._key_file(owner, hashed))
            return None
        return job

    def _folder(self, name: JobName) -> UPath:
        return self._root / name.owner / "jobs" / name.id

    def _queued(self, job: Job) -> UPath:
        return self._root / "queue" / _marker(job.created, job.name)

    def _expiry(self, job: Job) -> UPath:
        return self._root / "expiry" / _marker(job.expires, job.name)

    def _key_file(self, owner: str, hashed: str) -> UPath:
        return self._root / owner / "keys" / f"{hashed}.json"

    def _remove_empty(self, name: JobName) -> None:
        if not self.is_remote:
            with suppress(OSError):  # not empty: a submission is being written
                self._folder(name).rmdir()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _json(value: Any) -> bytes:
    return json_bytes(dataclasses.asdict(value))


def _read(file: UPath) -> bytes | None:
    try:
        return read_bytes(file)
    except FileNotFoundError:
        return None


def _names(folder: UPath) -> list[str]:
    """Return the names in a folder, which need not be there; none of files that are being written."""
    try:
        return [name for name in names(folder) if not name.startswith(".")]
    except NotADirectoryError:
        return []


def _marker(seconds: float, name: JobName) -> str:
    return f"{round(seconds * 1000):014d}-{name.owner}-{name.id}"


def _markers(folder: UPath) -> list[tuple[float, JobName]]:
    found = (_MARKER.fullmatch(name) for name in _names(folder))
    return [(int(one["time"]) / 1000, JobName(one["owner"], one["id"])) for one in found if one]
