"""Jobs: operations on more pictures than a request may wait for, submitted, asked about and fetched by requests.

``POST /v1/jobs`` takes the parameters and the pictures of an operation, and answers at once with the job's id. Any
replica that reaches the jobs' folder (:mod:`genlab.serving.job_store`) computes it, picture by picture, through the
batcher that requests use; when that replica ends, another one goes on behind the pictures that are there. A job holds
to the version of the model that it was submitted for, and to a seed, so its result does not depend on who computed it.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import io
import json
import logging
import math
import re
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, FastAPI
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from genlab.core.claims import Claim, ClaimError
from genlab.core.errors import ConfigError, GenlabError
from genlab.imaging.codecs import encode_png_fast
from genlab.imaging.images import ImageError
from genlab.serving import answers
from genlab.serving.api import VERSION_HEADER, decode_pictures
from genlab.serving.computing import Computer
from genlab.serving.job_store import Draft, Job, JobName, JobStore, KeyReusedError, Progress, TooManyJobsError
from genlab.serving.library import Library, Served
from genlab.serving.limits import Limits
from genlab.serving.openapi import problems
from genlab.serving.operations import OPERATIONS, Asked, Form
from genlab.serving.problems import Problem, problem_of
from genlab.serving.schema import JobStatus
from genlab.serving.telemetry import Telemetry
from genlab.serving.uploads import Upload, describe_body, parse_json, read_pictures

logger = logging.getLogger(__name__)

PATH = "/v1/jobs"
LOOK_SECONDS = 2.0
"""Seconds between two looks for jobs that other replicas took in, or left."""
SWEEP_SECONDS = 60.0
"""Seconds between two looks for jobs that have expired."""
JOBS_AT_ONCE = 4
"""Jobs that a replica computes side by side, so that a long one does not keep the others waiting."""
AT_ONCE = 2
"""Parts of a job that are decoded, computed and encoded at the same time; more would be in the way of requests."""
SUBMISSIONS_AT_ONCE = 2
"""Bodies of submissions that are in memory at a time."""
ROWS_AT_ONCE = 32
"""Pictures that are drawn or decoded as one part of a job."""
TRIES = 10
"""Times that a part is submitted to a batcher that is too busy for it, before the job is left for a while."""
ATTEMPTS = 5
"""Times that replicas begin to compute a job without getting any further; then it has failed, lest a picture that ends
a replica end them all."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_PASSING = (GenlabError, OSError)
"""Errors of a storage that is away, which need no traceback."""
_PICTURE_NAMES = tuple(dict.fromkeys(name for one in OPERATIONS.values() for name in one.picture_names))
_OPERATIONS = {name: one for name, one in OPERATIONS.items() if answers.PNG in one.offers and name != "edit"}
_ROW_BY_ROW = ("sample", "decode")
"""Operations each of whose rows is a picture of the answer."""

T = TypeVar("T")


class Jobs:
    """The jobs of one replica. Its coroutines belong to one event loop.

    Args:
        store: where jobs are kept.
        library: the models.
        computer: computes their tasks.
        limits: of requests and jobs.
        telemetry: records what they cost.
        decoders: the threads that decode pictures.
    """

    def __init__(
        self,
        store: JobStore,
        library: Library,
        computer: Computer,
        limits: Limits,
        telemetry: Telemetry,
        decoders: ThreadPoolExecutor,
    ) -> None:
        self.store = store
        self._library, self._computer, self._telemetry, self._decoders = library, computer, telemetry, decoders
        self._limits = limits
        self.job_limits = dataclasses.replace(
            limits, images=limits.job_images, body_bytes=limits.job_bytes, pixels=2**31
        )
        self._files = ThreadPoolExecutor(2 * JOBS_AT_ONCE + 2, thread_name_prefix="jobs")
        self._submissions = asyncio.Semaphore(SUBMISSIONS_AT_ONCE)
        self._at_work: dict[JobName, asyncio.Task[None]] = {}
        self._not_before: dict[JobName, float] = {}
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Compute jobs until this is cancelled; then what was begun is left to other replicas."""
        sweeping = asyncio.create_task(self._sweep_always())
        try:
            while True:
                self._woken.clear()
                try:
                    await self._begin()
                except Exception as error:  # This must not end: all jobs of this replica would wait for ever.
                    logger.warning("cannot look for jobs: %s", error, exc_info=not isinstance(error, _PASSING))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):  # wait_for may lose a cancellation (Python 3.11)
                        await self._woken.wait()
        finally:
            tasks = [sweeping, *self._at_work.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._files.shutdown(wait=False)

    async def submit(self, request: Request) -> Job:
        """Take in the job of a request.

        Raises:
            Problem: something about it is wrong, or there are too many.
        """
        key = request.headers.get("idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            raise Problem(400, "bad-request", "Idempotency-Key: has 1 to 255 visible characters of ASCII")
        async with self._submissions:
            draft = await self._draft(request)
            try:
                job = await self.on_files(self.store.submit, owner_of(request), draft, key, self._limits.jobs)
            except KeyReusedError as error:
                raise Problem(422, "idempotency-key-reused", str(error)) from None
            except TooManyJobsError as error:
                raise Problem(429, "too-many-jobs", str(error), retry_after=60) from None
        self._woken.set()
        return job

    async def find(self, request: Request, job_id: str) -> Job:
        """Return a job of the one who asks.

        Raises:
            Problem: there is none of this id.
        """
        job = await self.on_files(self.store.find, owner_of(request), job_id)
        if job is None or job.expires < time.time():
            raise Problem(404, "no-such-job", "no job of this id; it may have expired, or belong to another token")
        return job

    async def cancel(self, job: Job) -> None:
        """Have a job deleted."""
        await self.on_files(self.store.cancel, job.name)
        self._woken.set()

    async def on_files(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call something that blocks on files, in a thread; a task that is cancelled meanwhile ends after the call."""
        called = self._files.submit(call, *arguments)
        result = asyncio.wrap_future(called)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            if not called.cancel():
                await asyncio.wait([result])  # Else it might write into a folder that is deleted next.
            raise

    async def _draft(self, request: Request) -> Draft:
        """Read what a request asks for, and check all that can be known before pictures are decoded."""
        body = await request.body()
        content_type = request.headers.get("content-type")
        read = functools.partial(
            read_pictures, content_type, body, self.job_limits, least=0, most=self._limits.job_images,
            names=_PICTURE_NAMES,
        )  # fmt: skip
        received = await asyncio.get_running_loop().run_in_executor(self._decoders, read)
        reference, operation, parameters = _fields(received.fields)
        if operation not in _OPERATIONS:
            raise Problem(422, "invalid", f"operation: choose from {', '.join(_OPERATIONS)}")
        served = await self._library.get(reference)
        form = self._form(served, operation)
        read_parameters = form.read_values(parameters)
        wanted, pictures = form.operation.pictures, received.pictures
        if len(pictures) < wanted or (wanted != 1 and len(pictures) > wanted):
            several = "one or more pictures" if wanted == 1 else f"{wanted} pictures" if wanted else "no picture"
            raise Problem(422, "wrong-pictures", f"{operation} takes {several}; there are {len(pictures)}")
        engine = served.engine
        stand_in = [np.zeros(engine.info.image_shape, np.uint8)] * wanted
        asked = form.ask(engine, read_parameters, stand_in)
        request_hash = _fingerprint((reference, operation, parameters), pictures)
        if asked.seed is not None:
            parameters = {**parameters, "seed": asked.seed}
        return Draft(
            model=served.name,
            version=served.version.version,
            operation=operation,
            parameters=parameters,
            count=len(pictures) if wanted == 1 else asked.count,
            request=request_hash,
            pictures=[upload.data for upload in pictures],
        )

    def _form(self, served: Served, operation: str) -> Form:
        options = served.engine.info.operations.get(operation)
        if options is None:
            raise Problem(422, "no-such-operation", f"{served.name} has no operation {operation!r}")
        divisible = operation in _ROW_BY_ROW or OPERATIONS[operation].pictures == 1
        return Form(operation, served.name, options, self.job_limits if divisible else self._limits)

    async def _begin(self) -> None:
        """Begin to compute what waits, as far as there is room."""
        now = time.monotonic()
        names = await self.on_files(self.store.unfinished)
        self._not_before = {name: self._not_before[name] for name in names if name in self._not_before}
        for name in names:
            if len(self._at_work) >= JOBS_AT_ONCE:
                return
            if name not in self._at_work and self._not_before.get(name, 0.0) <= now:
                task = self._at_work[name] = asyncio.create_task(self._attempt(name))
                task.add_done_callback(functools.partial(self._ended, name))

    def _ended(self, name: JobName, task: "asyncio.Task[None]") -> None:
        self._at_work.pop(name, None)
        if not task.cancelled() and (error := task.exception()):
            logger.error("job %s cannot be computed now", name.id, exc_info=error)
            self._not_before[name] = time.monotonic() + SWEEP_SECONDS
        if name not in self._not_before:
            self._woken.set()

    async def _attempt(self, name: JobName) -> None:
        """Compute or delete a job, if no other replica is at it."""
        self._not_before.pop(name, None)
        job = await self.on_files(self.store.read, name)
        if job is None:
            self._not_before[name] = time.monotonic() + LOOK_SECONDS  # its submission is under way, or was cut short
            return
        try:
            async with self._claimed(name) as claim:
                await self._compute_claimed(job, claim)
        except (ClaimError, FileNotFoundError):  # another replica's, or just deleted
            self._not_before[name] = time.monotonic() + (30.0 if self.store.is_remote else LOOK_SECONDS)

    @contextlib.asynccontextmanager
    async def _claimed(self, name: JobName) -> AsyncIterator[Claim]:
        """Hold the claim on a job; it is let go of also when this task is cancelled while it is taken."""
        held = contextlib.ExitStack()
        taking = asyncio.ensure_future(self.on_files(held.enter_context, self.store.claim(name)))
        try:
            yield await asyncio.shield(taking)
        finally:
            await asyncio.wait([taking])
            await self.on_files(held.close)

    async def _compute_claimed(self, job: Job, claim: Claim) -> None:
        store, name = self.store, job.name
        if await self.on_files(store.is_cancelled, name) or job.expires < time.time():
            await self.on_files(store.delete, name)
            return
        if await self.on_files(store.read, name) is None:
            return  # deleted in between; it takes its place in the queue with it
        if await self.on_files(store.has_ended, name):
            await self.on_files(store.take_from_queue, job)
            return
        try:
            await self._compute(job, claim)
        except _DroppedError:
            if not claim.lost.is_set():
                await self.on_files(store.delete, name)
        except Problem as problem:
            if problem.retry_after is None:
                logger.error("job %s failed: %s", job.id, problem.detail)
                await self.on_files(store.fail, job, problem.detail)
            else:
                logger.warning("job %s waits: %s", job.id, problem.detail)
                self._not_before[name] = time.monotonic() + problem.retry_after

    async def _compute(self, job: Job, claim: Claim) -> None:
        """Compute all pictures that are not there yet.

        Raises:
            Problem: the job cannot be done; with ``retry_after``, not now.
            _DroppedError: it is no longer wanted, or another replica has it.
        """
        served = await self._library.get(f"{job.model}@{job.version}")
        form = self._form(served, job.operation)
        parameters = form.read_values(job.parameters)
        there = await self.on_files(self.store.results, job)
        missing = [number for number in range(job.count) if number not in there]
        before = await self.on_files(self.store.progress, job)
        attempts = before.attempts + 1 if before.done == len(there) else 1
        if attempts > ATTEMPTS:
            raise Problem(500, "internal", f"given up: {ATTEMPTS} times no further picture could be computed")
        asked = form.ask(served.engine, parameters, ()) if form.operation.pictures == 0 else None
        room = asyncio.Semaphore(AT_ONCE)
        progress = _ProgressNote(self.store, job, Progress("running", len(there), attempts=attempts))
        await self.on_files(progress.write)

        async def compute(part: Sequence[int]) -> None:
            async with room:
                if claim.lost.is_set() or await self.on_files(self.store.is_cancelled, job.name):
                    raise _DroppedError
                try:
                    pngs = await self._compute_part(job, served, form, parameters, asked, part)
                except (Problem, ImageError, ConfigError) as error:
                    problem = problem_of(error)
                    if problem.retry_after is not None or form.operation.pictures != 1:
                        raise problem from None
                    await self.on_files(self.store.write_failure, job, part[0], problem.detail)
                else:
                    for number, png in zip(part, pngs, strict=True):
                        await self.on_files(self.store.write_result, job, number, png)
                await self.on_files(progress.add, len(part))

        try:
            async with asyncio.TaskGroup() as group:
                for part in self._parts(job, served, form, missing):
                    group.create_task(compute(part))
        except BaseExceptionGroup as errors:
            error = errors.exceptions[0]
            if isinstance(error, Problem) and error.retry_after is not None:  # No fault of this job's pictures.
                await self.on_files(progress.uncount_attempt)
            raise error from None
        if claim.lost.is_set():
            raise _DroppedError
        await self.on_files(self.store.finish, job)

    def _parts(self, job: Job, served: Served, form: Form, missing: Sequence[int]) -> list[Sequence[int]]:
        """Return the numbers of pictures that are computed together."""
        if not missing:
            return []
        if form.operation.pictures == 1:
            return [[number] for number in missing]
        if job.operation in _ROW_BY_ROW:
            height, width, _ = served.engine.info.image_shape
            size = min(ROWS_AT_ONCE, max(1, self._limits.pixels // (height * width)))
            return [missing[begin : begin + size] for begin in range(0, len(missing), size)]
        return [range(job.count)]

    async def _compute_part(
        self, job: Job, served: Served, form: Form, parameters: Any, asked: Asked | None, part: Sequence[int]
    ) -> list[bytes]:
        """Compute some pictures, as PNG."""
        if asked is None:
            count = form.operation.pictures
            numbers = part if count == 1 else range(count)
            files = [await self.on_files(self.store.input, job, number) for number in numbers]
            uploads = [Upload.of(file) for file in files]
            pictures = await decode_pictures(
                served, form, parameters, uploads, self._limits, self._telemetry, self._decoders
            )
            asked = form.ask(served.engine, parameters, pictures)
        task = asked.task
        if job.operation in _ROW_BY_ROW:
            task = dataclasses.replace(task, rows=[task.rows[number] for number in part])
        tries = 0
        while True:
            tries += 1
            try:
                pngs: list[bytes] = await self._computer.compute(served.engine, task, _encode)
                return pngs
            except Problem as problem:
                if problem.retry_after is None or problem.kind == "stopping" or tries == TRIES:
                    raise
                await asyncio.sleep(problem.retry_after)

    async def _sweep_always(self) -> None:
        while True:
            try:
                for name in await self.on_files(self.store.expired):
                    await self.on_files(self.store.cancel, name)
            except Exception as error:
                logger.warning("cannot delete expired jobs: %s", error, exc_info=not isinstance(error, _PASSING))
            await asyncio.sleep(SWEEP_SECONDS)


def add_routes(api: FastAPI, jobs: Jobs | None) -> None:
    """Add the routes of jobs to an application.

    Args:
        api: the application.
        jobs: the jobs; by ``None`` the routes say that the server takes none.
    """

    router = APIRouter(prefix=PATH, include_in_schema=jobs is not None)

    def there() -> Jobs:
        if jobs is None:
            raise Problem(404, "no-jobs", "this server takes no jobs; its operator may set a folder for them")
        return jobs

    async def status(found: Jobs, job: Job) -> JobStatus:
        progress = await found.on_files(found.store.progress, job)
        return JobStatus(
            id=job.id,
            state=progress.state,
            model=job.model,
            version=job.version,
            operation=job.operation,
            parameters=dict(job.parameters),
            pictures=job.count,
            done=progress.done,
            failures={str(number): text for number, text in progress.failures.items()},
            error=progress.error,
            created=_time(job.created),
            expires=_time(job.expires),
        )

    @router.post(
        "",
        summary="Submit a job",
        status_code=202,
        response_model=JobStatus,
        responses=problems(400, 404, 408, 413, 415, 422, 429, 503),
        openapi_extra=_describe(jobs.job_limits if jobs else Limits()),
    )
    async def submit(request: Request) -> Response:
        found = there()
        job = await found.submit(request)
        location = f"{request.scope.get('root_path', '')}{PATH}/{job.id}"
        content = (await status(found, job)).model_dump(mode="json")
        return JSONResponse(content, 202, {"Location": location, "Retry-After": "1"})

    @router.get("/{job_id}", summary="How far a job is", responses=problems(404))
    async def ask(job_id: str, request: Request) -> JobStatus:
        found = there()
        return await status(found, await found.find(request, job_id))

    @router.get(
        "/{job_id}/result",
        summary="The pictures of a job that is done",
        response_class=Response,
        responses={
            200: {
                "description": "A zip of PNG files, or the PNG file of a single picture.",
                "content": answers.describe_answers((answers.PNG, answers.ZIP)),
            },
            **problems(404, 406, 409),
        },
    )
    async def result(job_id: str, request: Request) -> Response:
        found = there()
        job = await found.find(request, job_id)
        progress = await found.on_files(found.store.progress, job)
        if progress.state != "done":
            waiting = progress.state in ("waiting", "running")
            detail = progress.error or f"the job is {progress.state}: {progress.done} of {job.count} pictures are there"
            raise Problem(409, "not-done" if waiting else f"job-{progress.state}", detail, 1 if waiting else None)
        offers = (answers.PNG, answers.ZIP) if job.count == 1 else (answers.ZIP,)
        media_type = answers.choose(request.headers.get("accept"), offers)
        headers = {VERSION_HEADER: job.version}
        if media_type == answers.PNG:
            return Response(await found.on_files(found.store.result, job, 0), 200, headers, media_type)
        headers["Content-Disposition"] = f'attachment; filename="{job.id}.zip"'
        numbers = [number for number in range(job.count) if number not in progress.failures]
        return StreamingResponse(_zip(found.store, job, numbers), 200, headers, media_type)

    @router.delete("/{job_id}", summary="Cancel a job and delete it", status_code=204, responses=problems(404))
    async def delete(job_id: str, request: Request) -> Response:
        found = there()
        await found.cancel(await found.find(request, job_id))
        return Response(status_code=204)

    api.include_router(router)


def owner_of(request: Request) -> str:
    """Return the name of the token of a request, empty where there are none."""
    return getattr(request.state, "token", None) or ""


class _DroppedError(Exception):
    """A job is no longer wanted, or another replica has it."""


class _ProgressNote:
    """Writes how far a job is, once a second at most. Thread-safe."""

    def __init__(self, store: JobStore, job: Job, progress: Progress) -> None:
        self._store, self._job, self._progress = store, job, progress
        self._written = -math.inf
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count pictures that are there now."""
        with self._lock:
            self._progress = dataclasses.replace(self._progress, done=self._progress.done + count)
            if time.monotonic() > self._written + 1:
                self._write()

    def uncount_attempt(self) -> None:
        """Write that this attempt does not count."""
        with self._lock:
            self._progress = dataclasses.replace(self._progress, attempts=self._progress.attempts - 1)
            self._write()

    def write(self) -> None:
        """Write how many there are."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        self._store.write_progress(self._job, self._progress)


class _Parcel(io.RawIOBase):
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _zip(store: JobStore, job: Job, numbers: Sequence[int]) -> Iterator[bytes]:
    """Make a zip of results, a picture at a time."""
    parcel = _Parcel()
    with zipfile.ZipFile(parcel, "w", zipfile.ZIP_STORED) as archive:
        for number in numbers:
            archive.writestr(answers.zip_entry(number, job.count), store.result(job, number))
            yield parcel.take()
    yield parcel.take()


def _encode(pixels: NDArray[Any]) -> list[bytes]:
    return [encode_png_fast(picture) for picture in pixels.reshape(-1, *pixels.shape[-3:])]


def _fields(fields: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Return model, operation and parameters of a submission."""
    unknown = [name for name in fields if name not in ("model", "operation", "parameters")]
    if unknown:
        raise Problem(422, "invalid", f"{unknown[0][:64]}: a job has model, operation, parameters and pictures")
    parameters = fields.get("parameters", {})
    if isinstance(parameters, str):  # of a form
        try:
            parameters = parse_json(parameters.encode())
        except Problem as problem:
            raise Problem(422, "invalid", f"parameters: {problem.detail}") from None
    if not isinstance(parameters, dict):
        raise Problem(422, "invalid", "parameters: should be an object")
    for name in ("model", "operation"):
        if not isinstance(fields.get(name), str):
            raise Problem(422, "invalid", f"{name}: is missing, or no text")
    return fields["model"], fields["operation"], parameters


def _fingerprint(asked: Sequence[Any], pictures: Sequence[Upload]) -> str:
    """Return a hash of what a submission asks for."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for upload in pictures:
        digest.update(hashlib.sha256(upload.data).digest())
    return digest.hexdigest()


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(round(seconds), datetime.UTC)


def _describe(limits: Limits) -> dict[str, Any]:
    """Describe the body of a submission for OpenAPI."""
    description = describe_body(limits, least=0, most=limits.images, names=_PICTURE_NAMES)
    body = description["requestBody"]
    texts = {"model": {"type": "string"}, "operation": {"enum": [*_OPERATIONS]}}
    for media_type, content in body["content"].items():
        of_form = media_type.startswith("multipart")
        parameters = {"type": "string", "contentMediaType": "application/json"} if of_form else {"type": "object"}
        content["schema"]["properties"] |= {**texts, "parameters": parameters}
        content["schema"]["required"] = ["model", "operation"]
    body["description"] = (
        "The model, with an alias or a version if wanted, the operation, its parameters as of its own route, and the "
        f"pictures, for translate and reconstruct up to {limits.images:,}. {body['description']}"
    )
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "A submission with the same key is not made again; it gets the job that is there.",
        "schema": {"type": "string", "maxLength": 255},
    }
    return {**description, "parameters": [key]}
