"""The HTTP interface: routes, from requests to tasks and from their pictures to answers.

Pictures are computed by ``POST /v1/models/NAME/OPERATION``. Parameters come as JSON; as a query or the fields of a form
beside a picture. A picture comes as the body, in a form or as base64 in JSON. What comes back is chosen by the header
Accept. Every error is a problem of RFC 9457.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, cast

from fastapi import FastAPI, Path
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from genlab import __version__
from genlab.core.errors import RunError
from genlab.imaging.images import Channels, ImageError, Pixels
from genlab.inference.batching import BatchRecord
from genlab.serving import answers
from genlab.serving.computing import Computer
from genlab.serving.guard import route_path
from genlab.serving.library import Library, Served
from genlab.serving.limits import Limits
from genlab.serving.openapi import describe_operations, problems
from genlab.serving.operations import Form, Parameters
from genlab.serving.pages import add_pages
from genlab.serving.problems import ERROR_HANDLERS, Problem
from genlab.serving.schema import Health, ModelCard
from genlab.serving.telemetry import PrometheusTelemetry, Telemetry
from genlab.serving.uploads import Upload, check_sizes, decode_all, read_pictures

SEED_HEADER = "X-Genlab-Seed"
VERSION_HEADER = "X-Genlab-Version"
EXACT_HEADER = "X-Genlab-Exact"

READ_AT_ONCE = 2**18
"""Bytes of a body up to which pictures are found in it by the event loop itself; it takes about a millisecond."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

Name = Annotated[
    str, Path(description="The model's name, from `GET /v1/models`, with `@ALIAS` or `@VERSION` if wanted.")
]


class Api(FastAPI):
    """FastAPI's application, past whose middlewares and routes a POST request for an operation of a model takes a
    shorter way: in them it would spend more time than on drawing a small picture.

    Args:
        operate: answers such a request, whose path parameters are ``name`` and ``operation``.
        around: makes the application that all requests go through first, of the one behind it.
        settings: as FastAPI takes them.
    """

    def __init__(
        self,
        operate: Callable[[Request], Awaitable[Response]],
        around: Callable[[ASGIApp], ASGIApp],
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._operate = operate
        self._outermost = around(self._choose)
        # Of this route other methods learn that POST is allowed.
        self.router.routes.append(Route("/v1/models/{name}/{operation}", operate, methods=["POST"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the beginning and the end of the application."""
        await self._outermost(scope, receive, send)

    async def _choose(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            match route_path(scope).split("/"):
                case ["", "v1", "models", name, operation] if name and operation:
                    scope["path_params"] = {"name": name, "operation": operation}
                    response = await self._operate(Request(scope, receive))
                    await response(scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


def create_api(
    library: Library,
    computer: Computer,
    limits: Limits,
    telemetry: Telemetry,
    decoders: ThreadPoolExecutor,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    at_work: Lifespan | None = None,
) -> FastAPI:
    """Create the web application that serves the models of ``library``.

    Args:
        library: the models.
        computer: computes their tasks.
        limits: of requests.
        telemetry: records what they cost.
        decoders: the threads that decode pictures.
        around: makes the application that all requests go through first, of the one behind it.
        at_work: surrounds the time in which requests are answered.
    """
    api = Api(
        functools.partial(_operate, library, computer, limits, telemetry, decoders),
        around,
        title="genlab",
        version=__version__,
        summary="Image generators trained by genlab.",
        description=__doc__.partition("\n\n")[2],
        exception_handlers=dict(ERROR_HANDLERS),
        lifespan=at_work,
        docs_url=None,
        redoc_url=None,
    )
    add_pages(api)

    @api.get("/livez", summary="Whether the server answers")
    async def live() -> Health:
        return Health(status="ok")

    @api.get("/readyz", summary="Whether the server's models are loaded", responses=problems(503))
    async def ready() -> Health:
        if not library.ready:
            raise Problem(503, "loading", "models are being loaded", retry_after=1)
        return Health(status="ok")

    @api.get("/v1/models", summary="All models")
    async def models() -> list[ModelCard]:
        return list(_cards(library).values())

    @api.get("/v1/models/{name}", summary="One model", responses=problems(404, 422))
    async def model(name: Name) -> ModelCard:
        stored = library.models.get(name.partition("@")[0])
        if stored is None:
            raise Problem(404, "no-such-model", f"no model {name!r}; there are: {', '.join(library.models) or 'none'}")
        try:
            version = stored.find(name.partition("@")[2] or None)
            return library.card(stored, version)
        except RunError as error:
            raise Problem(404, "no-such-model", str(error)) from None

    if isinstance(telemetry, PrometheusTelemetry):

        @api.get("/metrics", include_in_schema=False)
        async def metrics() -> Response:
            text, media_type = telemetry.text()
            return Response(text, media_type=media_type)

    fixed = api.openapi

    def openapi() -> dict[str, Any]:
        document = {**fixed()}
        document["paths"] = {**document["paths"], **describe_operations(_cards(library).values(), limits)}
        return document

    api.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
    return api


def record_batch(library: Library, telemetry: Telemetry, batch: BatchRecord) -> None:
    """Record a batch in the metrics, under the name of its model."""
    name = next((served.name for served in library.loaded if served.engine is batch.engine), "")
    telemetry.batch(name, batch.operation, batch.rows, batch.pixels)
    telemetry.phase(name, "compute", batch.seconds)
    telemetry.waiting(name, batch.still_waiting)
    if batch.row_bytes is not None:
        telemetry.row(name, batch.operation, batch.row_bytes)
    for seconds in batch.waited:
        telemetry.phase(name, "wait", seconds)


def _cards(library: Library) -> dict[str, ModelCard]:
    """Return the cards of all models that can be served, by name."""
    cards = {}
    for name, model in library.models.items():
        try:
            version = model.find(None)
            cards[name] = library.card(model, version)
        except RunError:
            continue  # the server's log has it
    return cards


async def _operate(
    library: Library,
    computer: Computer,
    limits: Limits,
    telemetry: Telemetry,
    decoders: ThreadPoolExecutor,
    request: Request,
) -> Response:
    """Answer a request for an operation of a model."""
    reference, operation = request.path_params["name"], request.path_params["operation"]
    served = await library.get(reference)
    form = served.forms.get(operation)
    if form is None:
        there = ", ".join(served.forms)
        raise Problem(404, "no-such-operation", f"{served.name} has no operation {operation!r}; it has: {there}")
    request.scope["state"].update(model=served.name, operation=operation)
    media_type = answers.choose(_header(request, b"accept"), form.operation.offers)
    parameters, uploads = await _read(request, form, limits, decoders)
    pictures = await decode_pictures(served, form, parameters, uploads, limits, telemetry, decoders) if uploads else ()
    asked = form.ask(served.engine, parameters, pictures)

    def finish(pixels: NDArray[Any]) -> tuple[bytes, str]:
        begin = time.perf_counter()
        if form.operation.offers == answers.LATENTS:
            found = answers.encode_latents(pixels)
        else:
            found = answers.encode(
                pixels.reshape(-1, *pixels.shape[-3:]),
                media_type,
                columns=asked.columns,
                frames_per_second=asked.frames_per_second,
                note=asked.note,
            )
        telemetry.phase(served.name, "encode", time.perf_counter() - begin)
        return found

    body, content_type = await computer.compute(served.engine, asked.task, finish, request.receive)
    headers = {
        "Content-Type": content_type,
        VERSION_HEADER: served.version.version,
        EXACT_HEADER: "true" if served.engine.exact(asked.task.kind) else "false",
    }
    if asked.seed is not None:
        headers[SEED_HEADER] = str(asked.seed)
    return Response(body, headers=headers)


async def _read(
    request: Request, form: Form, limits: Limits, decoders: ThreadPoolExecutor
) -> tuple[Parameters, Sequence[Upload]]:
    """Read the parameters and the pictures of a request."""
    body, query = await _body(request.receive), _texts(request)
    operation = form.operation
    if not operation.pictures:
        if query and body:
            raise Problem(422, "invalid", "parameters come in the query or in the body, and not in both")
        return (form.read_texts(query) if query or not body else form.read_json(body)), ()
    content_type = _header(request, b"content-type")
    read = functools.partial(
        read_pictures,
        content_type,
        body,
        limits,
        least=operation.pictures,
        most=operation.pictures,
        names=operation.picture_names,
    )
    large = len(body) > READ_AT_ONCE
    received = await asyncio.get_running_loop().run_in_executor(decoders, read) if large else read()
    is_json = content_type is not None and "json" in content_type.partition(";")[0].lower()
    if is_json and received.fields:
        if query:
            raise Problem(422, "invalid", "parameters come in the query or in the body, and not in both")
        return form.read_values(received.fields), received.pictures
    return form.read_texts({**query, **received.fields}), received.pictures


async def _body(receive: Receive) -> bytes:
    """Return the body of a request.

    Raises:
        ClientDisconnect: the client has left.
    """
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _header(request: Request, name: bytes) -> str | None:
    """Return a header; of several of one name, joined by commas. Starlette's own way decodes them all."""
    found = [value for key, value in request.scope["headers"] if key == name]
    return b", ".join(found).decode("latin-1") if found else None


def _texts(request: Request) -> Mapping[str, str | list[str]]:
    """Return the parameters of the query; one that is there several times is a list."""
    if not request.scope["query_string"]:
        return {}
    texts: dict[str, str | list[str]] = {}
    for name, text in request.query_params.multi_items():
        before = texts.get(name)
        texts[name] = text if before is None else [*(before if isinstance(before, list) else [before]), text]
    return texts


async def decode_pictures(
    served: Served,
    form: Form,
    parameters: Parameters,
    uploads: Sequence[Upload],
    limits: Limits,
    telemetry: Telemetry,
    decoders: ThreadPoolExecutor,
) -> list[Pixels]:
    """Decode the pictures of a request, if they are not too large, as the model takes them."""
    info, engine = served.engine.info, served.engine
    check_sizes(((upload.header.height, upload.header.width) for upload in uploads), limits)
    if form.operation.any_size:
        pixels = sum(engine.translated_pixels(upload.header.height, upload.header.width) for upload in uploads)
        if pixels > limits.pixels:
            detail = f"{pixels:,} pixels would go through the model, padding included; at most {limits.pixels:,} may"
            raise Problem(413, "too-many-pixels", detail)
    direction = None
    if hasattr(parameters, "direction"):
        direction = info.direction(parameters.direction)
    begin = time.perf_counter()
    pictures = await decode_all(
        uploads, cast("Channels", info.image_shape[2]), info.value_range(direction), executor=decoders
    )
    telemetry.phase(served.name, "decode", time.perf_counter() - begin)
    if not form.operation.any_size:
        height, width, _ = info.image_shape
        for picture in pictures:
            if picture.shape[:2] != (height, width):
                raise ImageError(f"is {picture.shape[1]}x{picture.shape[0]} pixels; the model takes {width}x{height}")
    return pictures
