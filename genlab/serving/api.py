"""The HTTP interface: routes, limits and errors. A :class:`Backend` runs the models.

Every error is JSON ``{"detail": "one sentence"}``: 404 for a model that is not served and for an operation that it
does not have, 413 for too large a body or picture, 415 for what is no picture, 422 for parameters or a picture that
cannot be used, 503 when too many requests wait.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from fastapi import Body, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel

from genlab import __version__
from genlab.core.errors import ConfigError
from genlab.core.option_text import with_options
from genlab.imaging.images import ImageError
from genlab.inference.operations import choose_direction, class_number
from genlab.models.model import model_type
from genlab.serving.schema import (
    MAX_SEED,
    Health,
    MixRequest,
    ModelCard,
    Problem,
    ReconstructQuery,
    SampleRequest,
    TranslateQuery,
)
from genlab.serving.uploads import UPLOAD, BodyLimit, read_upload

SEED_HEADER = "X-Genlab-Seed"


Options = Mapping[str, Any]
"""Values of the options of a model's own, by name."""


class Backend(Protocol):
    """Runs the operations of the served models; see :class:`genlab.serving.served_models.ServedModels`.

    Its methods take the options of the model's own last, all of them. They may raise ImageError for a picture that
    cannot be used, and HTTPException.
    """

    async def sample(self, name: str, count: int, seed: int, label: int | None, options: Options) -> bytes:
        """Draw ``count`` pictures, of the class ``label`` if it is not ``None``: one PNG."""

    async def translate(self, name: str, picture: bytes, direction: str, options: Options) -> bytes:
        """Translate a picture into a PNG."""

    async def reconstruct(self, name: str, picture: bytes, label: int | None, options: Options) -> bytes:
        """Reconstruct a picture as a PNG; ``label`` is its class where the model has classes."""

    async def mix_styles(
        self, name: str, rows: Sequence[int], columns: Sequence[int], label: int | None, options: Options
    ) -> bytes:
        """Mix the styles of the pictures of seeds: one PNG; ``label`` is their class where the model has classes."""


class PngResponse(Response):
    """A response whose body is a PNG file."""

    media_type = "image/png"


Name = Annotated[str, Path(description="The model's name, from `GET /v1/models`.")]


def create_api(cards: Mapping[str, ModelCard], backend: Backend) -> FastAPI:
    """Create the web application that serves the models of ``cards``, by name, which ``backend`` runs.

    Each operation of each model has a route of its own, with a schema of the options that this model takes.
    """
    api = FastAPI(
        title="genlab",
        version=__version__,
        summary="Image generators trained by genlab.",
        description=__doc__.partition("\n\n")[2],
    )
    api.add_middleware(BodyLimit)

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
        if name not in cards:
            raise HTTPException(404, f"no model {name!r}; there are: {', '.join(cards)}")
        return cards[name]

    for card in cards.values():
        for operation, add in (
            ("sample", _add_sample),
            ("translate", _add_translate),
            ("reconstruct", _add_reconstruct),
            ("mix_styles", _add_mix_styles),
        ):
            if operation in card.operations:
                add(api, card, model_type(card.family).operations[operation], backend)

    @api.post("/v1/models/{name}/{operation}", include_in_schema=False)
    def absent(name: str, operation: str) -> None:
        raise HTTPException(404, f"{name} has no operation {operation!r}; it has: {', '.join(model(name).operations)}")

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


def _add_sample(api: FastAPI, card: ModelCard, options: type, backend: Backend) -> None:
    body = with_options(f"SampleRequest_{card.name}", SampleRequest, options)

    @api.post(
        f"/v1/models/{card.name}/sample",
        summary=f"Draw pictures from {card.name}",
        response_class=PngResponse,
        responses=_picture("One picture, or a sheet of several.", seed=True) | _problems(404, 413, 422, 503),
    )
    async def sample(request: Annotated[body | None, Body()] = None) -> PngResponse:  # type: ignore[valid-type]
        asked: SampleRequest = request or body()
        label = class_number(card.classes, asked.label)
        seed = secrets.randbelow(MAX_SEED + 1) if asked.seed is None else asked.seed
        pictures = await backend.sample(card.name, asked.count, seed, label, _own(asked, SampleRequest))
        return PngResponse(pictures, headers={SEED_HEADER: str(seed)})


def _add_translate(api: FastAPI, card: ModelCard, options: type, backend: Backend) -> None:
    parameters = with_options(f"TranslateQuery_{card.name}", TranslateQuery, options)

    @api.post(
        f"/v1/models/{card.name}/translate",
        summary=f"Translate a picture by {card.name}",
        response_class=PngResponse,
        responses=_picture("The translated picture, of the same size.") | _problems(404, 413, 415, 422, 503),
        openapi_extra=UPLOAD,
    )
    async def translate(request: Request, query: Annotated[parameters, Query()]) -> PngResponse:  # type: ignore[valid-type]
        asked: TranslateQuery = query
        direction = choose_direction(card.directions, asked.direction)
        picture = await read_upload(request)
        return PngResponse(await backend.translate(card.name, picture, direction, _own(asked, TranslateQuery)))


def _add_reconstruct(api: FastAPI, card: ModelCard, options: type, backend: Backend) -> None:
    parameters = with_options(f"ReconstructQuery_{card.name}", ReconstructQuery, options)

    @api.post(
        f"/v1/models/{card.name}/reconstruct",
        summary=f"Reconstruct a picture by {card.name}",
        description="What the model makes of a picture, which must have the size of the model's images.",
        response_class=PngResponse,
        responses=_picture("The reconstructed picture.") | _problems(404, 413, 415, 422, 503),
        openapi_extra=UPLOAD,
    )
    async def reconstruct(request: Request, query: Annotated[parameters, Query()]) -> PngResponse:  # type: ignore[valid-type]
        asked: ReconstructQuery = query
        number = class_number(card.classes, asked.label, needed=True)
        picture = await read_upload(request)
        return PngResponse(await backend.reconstruct(card.name, picture, number, _own(asked, ReconstructQuery)))


def _add_mix_styles(api: FastAPI, card: ModelCard, options: type, backend: Backend) -> None:
    body = with_options(f"MixRequest_{card.name}", MixRequest, options)

    @api.post(
        f"/v1/models/{card.name}/mix_styles",
        summary=f"Mix the styles of pictures that {card.name} draws",
        response_class=PngResponse,
        responses=_picture(
            "A sheet: the pictures of the rows' seeds in the first column, those of the columns' in the first row, and "
            "where they meet the row's picture with some styles of the column's."
        )
        | _problems(404, 413, 422, 503),
    )
    async def mix_styles(request: Annotated[body, Body()]) -> PngResponse:  # type: ignore[valid-type]
        asked: MixRequest = request
        label = class_number(card.classes, asked.label, needed=True)
        own = _own(asked, MixRequest)
        return PngResponse(await backend.mix_styles(card.name, asked.rows, asked.columns, label, own))


def _own(request: BaseModel, base: type[BaseModel]) -> dict[str, Any]:
    """Return the options of the model's own in a request: all that ``base`` does not have."""
    return request.model_dump(exclude=set(base.model_fields))


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
