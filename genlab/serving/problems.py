"""Errors over HTTP, as the problem details of RFC 9457.

Every answer of status 400 and above is a JSON object of the type ``application/problem+json``::

    {"type": "/problems/too-many-pixels", "title": "Too many pixels", "status": 413,
     "detail": "the picture has 9000x9000 pixels; at most 16777216 are allowed", "request_id": "..."}

``type`` and ``title`` name the kind of the problem and never change; ``detail`` says what to do about this one.
"""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ExceptionHandler

from genlab.core.errors import ConfigError
from genlab.imaging.images import ImageError

PROBLEM_JSON = "application/problem+json"

_KINDS = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    408: "timeout",
    409: "conflict",
    413: "too-large",
    415: "unsupported-media-type",
    422: "invalid",
    429: "too-many-requests",
    503: "unavailable",
}


class Problem(Exception):  # noqa: N818 -- RFC 9457's name, for an error and its answer alike
    """An error that becomes the answer to a request.

    It survives pickling, so that it may be raised in another process than the one that answers.

    Args:
        status: the HTTP status, 400 to 599.
        kind: a short word that never changes, such as ``too-many-pixels``: lower case, with hyphens.
        detail: one sentence that says what to change.
        retry_after: seconds after which the request may be sent again; it becomes the header Retry-After, rounded up.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, kind, detail, retry_after, headers)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.headers: Mapping[str, str] = headers or {}

    def __str__(self) -> str:
        return f"{self.status} {self.kind}: {self.detail}"


def problem_of(error: BaseException) -> Problem:
    """Return the problem that an error is to a client: 500 ``internal`` for one that is not the client's to know."""
    match error:
        case Problem():
            return error
        case HTTPException(__cause__=Problem() as cause):  # FastAPI hides so what is raised while it reads a body
            return cause
        case HTTPException():
            kind = _KINDS.get(error.status_code, "error")
            return Problem(error.status_code, kind, _sentence(error), headers=error.headers)
        case RequestValidationError():
            faults = (f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg']}" for fault in error.errors())
            return Problem(422, "invalid", "; ".join(faults))
        case ImageError():
            return Problem(422, "unusable-picture", f"the picture {error}")
        case ConfigError():
            return Problem(422, "invalid", str(error))
    return Problem(500, "internal", "an internal error; the server's log has more under this request_id")


def problem_body(problem: Problem, request_id: str) -> bytes:
    """Return the JSON of a problem."""
    return json.dumps(
        {
            "type": f"/problems/{problem.kind}",
            "title": problem.kind.replace("-", " ").capitalize(),
            "status": problem.status,
            "detail": problem.detail,
            "request_id": request_id,
        }
    ).encode()


def problem_headers(problem: Problem) -> dict[str, str]:
    """Return the headers of a problem's answer, without those of the body and of the request."""
    headers = {"Cache-Control": "no-store", **problem.headers}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(0, math.ceil(problem.retry_after)))
    return headers


def problem_response(problem: Problem, request_id: str) -> Response:
    """Return the answer to a request that meets ``problem``."""
    return Response(problem_body(problem, request_id), problem.status, problem_headers(problem), PROBLEM_JSON)


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer a request with the problem that ``error`` is: an exception handler of Starlette and FastAPI."""
    problem = problem_of(error)
    if problem.status == 405:
        problem.headers = {**problem.headers, "Allow": _methods(request)}
    return problem_response(problem, getattr(request.state, "request_id", ""))


ERROR_HANDLERS: Mapping[Any, ExceptionHandler] = dict.fromkeys(
    (HTTPException, RequestValidationError, Problem, ImageError, ConfigError), answer_error
)
"""For ``FastAPI(exception_handlers=...)``: makes a problem of every error that a client can put right. Other errors are
answered and logged by :class:`genlab.serving.intake.Intake`."""


def _methods(request: Request) -> str:
    """Return the methods that the path of a request takes; Starlette names those of one route alone."""
    return ", ".join(
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    )


def _sentence(error: HTTPException) -> str:
    """Return what an error of Starlette's says; by itself it says no more than the status, such as "Not Found"."""
    if error.detail != HTTPStatus(error.status_code).phrase:
        return str(error.detail)
    match error.status_code:
        case 404:
            return "there is nothing under this path; /docs lists what there is"
        case 405:
            return "this path does not take this method; the header Allow names those that it takes"
    return str(error.detail)
