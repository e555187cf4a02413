"""Who may ask for what: hosts, origins, tokens, and how often.

A server on loopback is reached by every page that its user's browser shows. So the checks hold there, too:

* The Host of a request must be one of the server's own names. A page of another site that has its own name resolved to
  this machine's address (DNS rebinding) is refused.
* A request that computes or changes something is refused if a browser says (``Origin``, ``Sec-Fetch-Site``) that a page
  of another origin sent it; CORS would only hide the answer. Programs send neither header, and pass.
* Where there are tokens, a request needs one; and each token has so many requests a minute.

All of it is decided by the headers alone, before any of the body is read.
"""

import functools
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from genlab.core.errors import ConfigError
from genlab.serving.problems import Problem
from genlab.serving.settings import LOOPBACK, Access, bracketed
from genlab.serving.tokens import TokenFile

LIVENESS = ("/livez", "/readyz")
"""Paths that anyone may ask, under any Host and without a token: an orchestrator's probes know neither."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_SINGLE = frozenset({b"host", b"origin", b"sec-fetch-site", b"authorization"})
_METHODS = b"GET, HEAD, POST, PUT, DELETE"
_REQUEST_HEADERS = b"Authorization, Content-Type, Idempotency-Key, X-Request-Id"


def changes_state(method: str, path: str) -> bool:
    """Return whether a request computes or changes something, for a server where no GET request does."""
    return method not in _SAFE


class Guard:
    """ASGI middleware that refuses requests by their headers; it works inside :class:`genlab.serving.intake.Intake`.

    In this order: 400 or 421 for the Host, 403 for the origin, 401 for the token, 429 for too many requests. A
    preflight request (CORS) of an allowed origin is answered here.

    Requests are counted in this process: N replicas let N times ``requests_per_minute`` pass, or give each its share of
    what all may.

    Args:
        app: the application.
        access: names and origins of the server.
        bound: the address that the server listens on. If it stands for all (``0.0.0.0``, ``::``), the machine's name
            and every IP address are names of the server; only names can be resolved by others to its address.
        tokens: the valid tokens; by default none is asked for.
        requests_per_minute: of a token, and of all requests together where there are no tokens.
        open_paths: paths that need no token and are not counted; one that ends in ``*`` stands for all that begin so.
            Those of :data:`LIVENESS` always are.
        computes: tells by method and path which requests compute or change something.

    Raises:
        ConfigError: a name or an origin is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        *,
        bound: str = "127.0.0.1",
        tokens: TokenFile | None = None,
        requests_per_minute: int | None = None,
        open_paths: Iterable[str] = (),
        computes: Callable[[str, str], bool] = changes_state,
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._rate = None if requests_per_minute is None else RateLimit(requests_per_minute)
        self._computes = computes
        open_paths = tuple(open_paths)
        self._open = frozenset(path for path in open_paths if not path.endswith("*"))
        self._open_below = tuple(path[:-1] for path in open_paths if path.endswith("*"))
        self._public = frozenset(map(_valid_origin, access.public_origins))
        self._origins = frozenset(map(_valid_origin, access.origins))
        everywhere = bound in ("", "0.0.0.0", "::", "[::]")
        names = [*LOOPBACK, *access.hosts, *(origin.partition("://")[2] for origin in self._public)]
        names += [socket.gethostname()] if everywhere else [bracketed(bound)]
        self._names = frozenset(map(_valid_name, names))
        self._any_address = everywhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Problem: it is refused.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        if path not in LIVENESS:
            headers: dict[bytes, bytes] = dict(scope["headers"])
            if len(headers) < len(scope["headers"]):
                _check_single(scope["headers"])
            host = headers.get(b"host", b"")
            self._check_host(host)
            if self._check_origin(scope, path, host, headers):
                await Response(status_code=204)(scope, receive, send)
                return
            if not (path in self._open or path.startswith(self._open_below)):
                name = None
                if self._tokens is not None:
                    name = scope["state"]["token"] = self._check_token(headers)
                if self._rate is not None:
                    self._rate.count(name or "")
        await self._app(scope, receive, send)

    def _check_host(self, host: bytes) -> None:
        name = host_name(host)
        if name is None:
            raise Problem(400, "bad-host", "the header Host must name this server")
        if name in self._names or (self._any_address and _is_address(name)):
            return
        raise Problem(
            421, "unknown-host", f"this server does not go by the name {name}; its operator may add it to the hosts"
        )

    def _check_origin(self, scope: Scope, path: str, host: bytes, headers: dict[bytes, bytes]) -> bool:
        """Check where a browser says that a request comes from, and return whether it is a preflight to be allowed."""
        origin = headers.get(b"origin")
        if self._origins:
            extra: list[tuple[bytes, bytes]] = scope["state"]["answer_headers"]
            extra.append((b"vary", b"Origin"))
            if origin is not None and origin.decode("latin-1") in self._origins:
                extra += ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"*"))
                if scope["method"] != "OPTIONS" or b"access-control-request-method" not in headers:
                    return False
                extra += (
                    (b"access-control-allow-methods", _METHODS),
                    (b"access-control-allow-headers", _REQUEST_HEADERS),
                    (b"access-control-max-age", b"600"),
                )
                return True
        if not self._computes(scope["method"], path):
            return False
        site = headers.get(b"sec-fetch-site", b"none")
        if site in (b"none", b"same-origin") and (origin is None or self._is_own(origin, scope["scheme"], host)):
            return False
        raise Problem(
            403, "cross-origin", "a page of another origin sent this request, which only this server's own may"
        )

    def _is_own(self, origin: bytes, scheme: str, host: bytes) -> bool:
        if origin == b"%b://%b" % (scheme.encode(), host):
            return True
        text = origin.decode("latin-1")
        return text in self._public or _without_port(text) == _without_port(f"{scheme}://{host.decode('latin-1')}")

    def _check_token(self, headers: dict[bytes, bytes]) -> str:
        assert self._tokens is not None
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Problem(
                401,
                "no-token",
                "this server asks for a token: send the header Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="genlab"'},
            )
        name = self._tokens.name_of(token.strip())
        if name is None:
            raise Problem(
                401,
                "invalid-token",
                "the token is not, or no longer, valid",
                headers={"WWW-Authenticate": 'Bearer realm="genlab", error="invalid_token"'},
            )
        return name


class RateLimit:
    """So many requests a minute for each name: a bucket of tokens that a minute fills.

    After a pause all of them may come at once; so any minute sees at most twice as many. Of a bucket only the time is
    kept at which it will be full again (the generic cell rate algorithm, ITU-T I.371).

    Args:
        per_minute: requests, 1 or more.
        now: the clock, in seconds.
    """

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._interval = 60 / per_minute
        self._now = now
        self._full: dict[str, float] = {}

    def count(self, name: str) -> None:
        """Count a request.

        Raises:
            Problem: 429, with the seconds after which there is room for one; it is not counted then.
        """
        now = self._now()
        full = max(self._full.get(name, now), now) + self._interval
        wait = full - now - 60
        if wait > 1e-6:  # rounding must not cost a request
            raise Problem(
                429, "too-many-requests", f"at most {self._per_minute} requests a minute are taken", retry_after=wait
            )
        self._full[name] = full


def route_path(scope: Scope) -> str:
    """Return the path below that under which the application is mounted, as routes see it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


@functools.lru_cache(maxsize=1024)
def host_name(header: bytes) -> str | None:
    """Return the name or address in a Host header, in lower case, without port; ``None`` if there is none in it."""
    found = _HOST.fullmatch(header.decode("latin-1"))
    return None if found is None else found[1].lower().rstrip(".")


def _check_single(headers: Iterable[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers if name in _SINGLE]
    if len(set(names)) < len(names):
        raise Problem(400, "repeated-header", "Host, Origin, Sec-Fetch-Site and Authorization may come once only")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _valid_name(name: str) -> str:
    found = host_name(bracketed(name).encode())
    if found is None:
        raise ConfigError(f"hosts: {name!r} is no name of a host")
    return found


def _valid_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ConfigError(f"{origin!r} is no origin; write it as a browser does: https://app.example.org")
    return origin


def _without_port(origin: str) -> str:
    """Return an origin in lower case, without the port that its scheme implies."""
    origin = origin.lower()
    return origin.removesuffix(":80") if origin.startswith("http:") else origin.removesuffix(":443")
