"""The server's parts, put together: the ASGI application of one process, whatever runs it."""

import asyncio
import contextlib
import functools
import gc
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from starlette.types import ASGIApp

from genlab.inference.batching import Batcher
from genlab.serving.api import create_api, record_batch
from genlab.serving.computing import Computer
from genlab.serving.guard import Guard
from genlab.serving.intake import Intake
from genlab.serving.job_store import JobStore
from genlab.serving.jobs import PATH, Jobs, add_routes
from genlab.serving.library import Library
from genlab.serving.limits import Limits
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import Telemetry
from genlab.serving.tokens import TokenFile

OPEN_PATHS = ("/", "/page/*", "/docs", "/docs/*", "/openapi.json")
"""Paths that need no token: they say how to ask, and hold nothing of the models' makers but names and options."""


def create_app(
    sources: tuple[str, ...],
    limits: Limits,
    access: Access,
    settings: Settings,
    telemetry: Telemetry,
    *,
    bound: str = "127.0.0.1",
    device: str | None = None,
    loaded: Callable[[Library], None] = lambda library: None,
    wait: bool = False,
) -> FastAPI:
    """Create the application that serves ``sources``; models are loaded when it starts.

    Its state has ``library``, the models, and ``batcher``, which computes them.

    Args:
        sources: model directories, directories of runs that have a model, and folders of models.
        limits: of requests.
        access: who may use it.
        settings: how models are kept and computed.
        telemetry: records what requests cost.
        bound: the address that it is reached at.
        device: where models go; by default a GPU if there is one.
        loaded: is told when the models were tried to load.
        wait: whether it starts only when the models were tried to load.

    Raises:
        RunError: a source is no such directory, two models have one name, or a URL cannot hold it.
        ConfigError: a name of a host or an origin is none, or there is no file of tokens.
        StorageError: a store cannot be reached.
    """
    # Pillow warns of what is odd in a file, with numbers from it, and Python remembers each warning that it showed.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    tokens = None if access.tokens is None else TokenFile(access.tokens)
    memory = None if settings.memory_gib is None else int(settings.memory_gib * 2**30)
    batcher: Batcher | None = None
    library = Library(
        sources,
        limits=limits,
        device=device,
        exact=settings.exact,
        runtime=settings.runtime,
        memory_bytes=memory,
        require_probes=settings.require_probes,
        forget=lambda engine: batcher.forget(engine) if batcher else None,
        held=telemetry.memory,
    )
    batcher = Batcher(
        limits.waiting,
        limits.waiting_seconds,
        settings.codec_threads,
        functools.partial(record_batch, library, telemetry),
    )
    decoders = ThreadPoolExecutor(settings.codec_threads, thread_name_prefix="decode")

    computer = Computer(batcher, limits.seconds)
    jobs = None
    if settings.jobs is not None:
        store = JobStore(settings.jobs, settings.job_hours * 3600)
        jobs = Jobs(store, library, computer, limits, telemetry, decoders)

    async def load() -> None:
        if not library.ready:
            await library.load_all()
        loaded(library)
        await library.keep_fresh()

    @contextlib.asynccontextmanager
    async def at_work(app: FastAPI) -> AsyncIterator[None]:
        if tokens:
            tokens.watch()
        if wait:
            await library.load_all()
        tasks = [asyncio.create_task(load())]
        if jobs:
            tasks.append(asyncio.create_task(jobs.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.to_thread(batcher.close)
            decoders.shutdown()
            if tokens:
                tokens.close()

    larger_bodies = {PATH: limits.job_bytes} if jobs else {}

    def around(app: ASGIApp) -> ASGIApp:
        guard = Guard(
            app,
            access=access,
            bound=bound,
            tokens=tokens,
            requests_per_minute=limits.requests_per_minute,
            open_paths=OPEN_PATHS,
        )
        return Intake(guard, limits, telemetry, larger_bodies)

    api = create_api(library, computer, limits, telemetry, decoders, around, at_work)
    add_routes(api, jobs)
    api.state.library, api.state.batcher = library, batcher
    return api


def freeze_modules() -> None:
    """Have Python's garbage collector look no more through what the process holds now, above all imported modules.

    These are some 230,000 objects. To look through them takes a tenth of a second, which would come again every few
    thousand requests. It is for processes that only serve, before models are loaded.
    """
    gc.collect()
    gc.freeze()
