"""The HTTP interface: routes, limits and errors. A :class:`Backend` runs the models.

Every error is JSON ``{"detail": "one sentence"}``: 404 for a model that is not served and for an operation that it
does not have, 413 for too large a body or picture, 415 for what is no picture, 422 for parameters or a picture that
cannot be used, 503 when too many requests wait.
"""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from fastapi import Body, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response

from genlab import __version__
from genlab.core.errors import ConfigError
from genlab.imaging.images import ImageError
from genlab.inference.operations import choose_direction, class_number
from genlab.serving.schema import MAX_SEED, Health, ModelCard, Problem, SampleRequest
from genlab.serving.uploads import UPLOAD, BodyLimit, read_upload

SEED_HEADER = "X-Genlab-Seed"


class Backend(Protocol):
    """Runs the operations of the served models; see :class:`genlab.serving.served_models.ServedModels`.

    Its methods may raise ImageError for a picture that cannot be used, and HTTPException.
    """

    async def sample(self, name: str, count: int, seed: int, label: int | None) -> bytes:
        """Draw ``count`` pictures, of the class ``label`` if it is not ``None``: one PNG."""

    async def translate(self, name: str, picture: bytes, direction: str) -> bytes:
        """Translate a picture into a PNG."""

    async def reconstruct(self, name: str, picture: bytes, label: int | None) -> bytes:
        """Reconstruct a picture as a PNG; ``label`` is its class where the model has classes."""


class PngResponse(Response):
    """A response whose body is a PNG file."""

    media_type = "image/png"


Name = Annotated[str, Path(description="The model's name, from `GET /v1/models`.")]


def create_api(cards: Mapping[str, ModelCard], backend: Backend) -> FastAPI:
    """Create the web application that serves the models of ``cards``, by name, which ``backend`` runs."""
    api = FastAPI(
        title="genlab",
        version=__version__,
        summary="Image generators trained by genlab.",
        description=__doc__.partition("\n\n")[2],
    )
    api.add_middleware(BodyLimit)

    def card_of(name: str, operation: str | None = None) -> ModelCard:
        card = cards.get(name)
        if card is None:
            raise HTTPException(404, f"no model {name!r}; there are: {', '.join(cards)}")
        if operation is not None and operation not in card.operations:
            raise HTTPException(404, f"{name} has no operation {operation!r}; it has: {', '.join(card.operations)}")
        return card

    @api.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("docs")  # relative, so that the application may lie under a prefix

    @api.get("/healthz", summary="Whether the server answers")
    def health() -> Health:
        return Health(status="ok")

    @api.get("/v1/models", summary="All models")
    def models() -> list[ModelCard]:
        return list(cards.values())

    @api.get("/v1/models/{name}", summary="One model", responses=_problems(404, 422))
    def model(name: Name) -> ModelCard:
        return card_of(name)

    @api.post(
        "/v1/models/{name}/sample",
        summary="Draw pictures",
        response_class=PngResponse,
        responses=_picture("One picture, or a sheet of several.", seed=True) | _problems(404, 413, 422, 503),
    )
    async def sample(name: Name, request: Annotated[SampleRequest | None, Body()] = None) -> PngResponse:
        card = card_of(name, "sample")
        request = request or SampleRequest()
        label = class_number(card.classes, request.label)
        seed = secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed
        return PngResponse(await backend.sample(name, request.count, seed, label), headers={SEED_HEADER: str(seed)})

    @api.post(
        "/v1/models/{name}/translate",
        summary="Translate a picture",
        response_class=PngResponse,
        responses=_picture("The translated picture, of the same size.") | _problems(404, 413, 415, 422, 503),
        openapi_extra=UPLOAD,
    )
    async def translate(
        name: Name,
        request: Request,
        direction: Annotated[
            str | None, Query(description="One of the model's directions; by default the first.")
        ] = None,
    ) -> PngResponse:
        direction = choose_direction(card_of(name, "translate").directions, direction)
        return PngResponse(await backend.translate(name, await read_upload(request), direction))

    @api.post(
        "/v1/models/{name}/reconstruct",
        summary="Reconstruct a picture",
        description="What the model makes of a picture, which must have the size of the model's images.",
        response_class=PngResponse,
        responses=_picture("The reconstructed picture.") | _problems(404, 413, 415, 422, 503),
        openapi_extra=UPLOAD,
    )
    async def reconstruct(
        name: Name,
        request: Request,
        label: Annotated[
            str | None, Query(description="The picture's class, by name or number; needed if the model has classes.")
        ] = None,
    ) -> PngResponse:
        number = class_number(card_of(name, "reconstruct").classes, label, needed=True)
        return PngResponse(await backend.reconstruct(name, await read_upload(request), number))

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = (f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg']}" for fault in error.errors())
        return _refusal(422, "; ".join(faults))

    @api.exception_handler(ConfigError)
    async def impossible(request: Request, error: ConfigError) -> JSONResponse:
        return _refusal(422, str(error))

    @api.exception_handler(ImageError)
    async def unusable(request: Request, error: ImageError) -> JSONResponse:
        return _refusal(422, f"the picture {error}")

    @api.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return _refusal(500, "internal error; the server's log has more")

    return api


def _refusal(status: int, detail: str) -> JSONResponse:
    return JSONResponse(Problem(detail=detail).model_dump(), status)


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route for OpenAPI."""
    meanings = {
        404: "No such model, or the model has no such operation.",
        413: "The body has too many bytes, or the picture too many pixels.",
        415: "Not a picture.",
        422: "A parameter is out of range, or the picture cannot be used.",
        503: "Too many requests are waiting; try again later.",
    }
    content = {"application/json": {"schema": Problem.model_json_schema()}}
    return {code: {"description": meanings[code], "content": content} for code in codes}


def _picture(description: str, seed: bool = False) -> dict[int | str, dict[str, Any]]:
    """Describe a response that is a picture for OpenAPI."""
    response: dict[str, Any] = {
        "description": description,
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    }
    if seed:
        response["headers"] = {
            SEED_HEADER: {"description": "The seed that draws these pictures again.", "schema": {"type": "integer"}}
        }
    return {200: response}
