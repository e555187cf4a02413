"""The pages that people see: models to try at ``/``, and a description of the interface at ``/docs``.

Both are a few files of this package and of Swagger UI's distribution, and ask for nothing from any other host. Their
Content-Security-Policy holds a browser to that.
"""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_SWAGGER_UI = ("swagger-ui.css", "swagger-ui-bundle.js")


def add_pages(api: FastAPI) -> None:
    """Add the routes of the pages to an application: ``/``, ``/docs`` and the files below ``/page`` and ``/docs``."""
    own = {file.name: file for file in (files("genlab.serving") / "page").iterdir()}
    swagger_ui = files("fastapi_swagger") / "resources"
    paths = {"/": own.pop("index.html"), "/docs": own.pop("docs.html")}
    paths |= {f"/page/{name}": file for name, file in own.items()}
    paths |= {f"/docs/{name}": swagger_ui / name for name in _SWAGGER_UI}
    api.router.routes.extend(_route(path, file) for path, file in paths.items())


def _route(path: str, file: Traversable) -> Route:
    """Make the route of a file, which is read now: no path of a request reaches the file system."""
    body, media_type = file.read_bytes(), _MEDIA_TYPES[file.name.rpartition(".")[2]]
    headers = {**HEADERS, "ETag": f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return Route(path, answer, methods=["GET"], include_in_schema=False)
