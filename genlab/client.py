"""A client of a server's HTTP interface: :class:`Client`, and :class:`AsyncClient` for programs of asyncio::

    from genlab.client import Client

    with Client("http://127.0.0.1:8000") as client:
        digits = client.sample("digits", 16, seed=7).pixels()       # uint8 [16, 28, 28, 1]
        painting = client.translate("monet", "photo.jpg").data      # a PNG file

A request is sent again when its connection breaks, and after the answers 408, 429, 502, 503 and 504: when the server's
``Retry-After`` says, else after waits that double on average and are drawn at random (:class:`Retries`). That is right
since operations are pure functions of what they are sent, and jobs carry an idempotency key. Neither torch nor Ray is
imported.
"""

import asyncio
import datetime
import email.utils
import io
import json
import math
import os
import random
import secrets
import ssl
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from genlab.core.errors import GenlabError
from genlab.imaging.codecs import encode_png_fast
from genlab.serving.schema import EditMethod, JobStatus, ModelCard

Picture = bytes | str | os.PathLike[str] | NDArray[np.uint8]
"""The bytes of an image file, its path, or uint8 [H, W] or [H, W, 1 or 3]."""
Label = str | int | None
"""A class, by name or number."""
Latents = Sequence[Sequence[float]] | NDArray[np.floating[Any]]
"""Latent vectors, [N, D]."""

DEFAULT_URL = "http://127.0.0.1:8000"
PNG, ZIP = "image/png", "application/zip"

_PASSING = frozenset({408, 429, 502, 503, 504})
_FOR_GOOD = frozenset({"version-refused"})
"""Kinds of problems of these statuses that waiting does not change."""
_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout, httpx.PoolTimeout)

_random = random.SystemRandom()  # never the global generator, on which training may depend


class ServerError(GenlabError):
    """The server refused a request or gave no answer, also when it was sent again.

    Attributes:
        status: the HTTP status; 0 when there was no answer.
        kind: the kind of the problem, such as ``too-many-pixels``, which never changes; ``no-answer`` for a connection
            that cannot be made or breaks, and ``error`` where an answer names no kind.
        detail: one sentence that says what to change.
        request_id: finds the request in the server's log.
    """

    def __init__(self, status: int, kind: str, detail: str, request_id: str) -> None:
        super().__init__(f"{status or 'no answer'}: {detail} ({kind}; request {request_id})")
        self.status = status
        self.kind = kind
        self.detail = detail
        self.request_id = request_id


@dataclass(frozen=True)
class Retries:
    """How often a request is sent."""

    tries: int = 10
    """Most times that it is sent."""
    seconds: float = 120.0
    """Seconds after the first failure from which on it is not sent again."""
    backoff: tuple[float, float] = (0.1, 8.0)
    """Without ``Retry-After``, the wait before try n + 1 is drawn from 0 to the first of these times 2^(n - 1), and to
    the second at most. With it, as much is added, so that not all clients come back at one moment."""


@dataclass(frozen=True)
class Answer:
    """What a model made."""

    data: bytes = field(repr=False)
    """The file that the server sent."""
    media_type: str
    """Its type: ``application/zip`` has a PNG file of each picture."""
    version: str
    """The version of the model."""
    exact: bool
    """Whether it is the same bytes whatever was computed with it."""
    seed: int | None
    """The seed that was drawn or given, of a sample or an edit."""

    def pixels(self) -> NDArray[np.uint8]:
        """Decode the pictures, uint8 [N, H, W, 1 or 3]: those of a zip, an image, or the frames of a film.

        Raises:
            ValueError: it is of another type.
        """
        if self.media_type == ZIP:
            with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
                names = sorted(name for name in archive.namelist() if name.endswith(".png"))
                return np.concatenate([_pixels_of(archive.read(name)) for name in names])
        if self.media_type.startswith("image/"):
            return _pixels_of(self.data)
        raise ValueError(f"pixels are not read from {self.media_type}; ask for {ZIP} or an image")


class _Client:
    """What clients of both kinds know."""

    def __init__(self, url: str, token: str | None, retries: Retries) -> None:
        self.url = url.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._retries = retries

    def _arguments(self, call: "_Call") -> dict[str, Any]:
        """Return httpx's arguments of a request."""
        return {
            "method": call.method,
            "url": self.url + call.path,
            "headers": {**self._headers, "X-Request-Id": call.request_id, **call.headers},
            **call.content,
        }


class Client(_Client):
    """A client of one server; several threads may use it.

    Args:
        url: where the server is, with the prefix that it lies under, if any.
        token: a token of ``genlab token``, if the server asks for one.
        timeout: seconds without a byte after which an answer is not waited for any longer.
        retries: how often a request is sent.
        verify: whose certificates are trusted; by default those that httpx trusts.

    Each operation raises :class:`ServerError`. Options of the model's own, which its card lists, are given by name. The
    answer's type is the argument ``accept``, such as ``image/webp``; by default one picture is a PNG file and several a
    zip of PNG files, without loss.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        timeout: float = 150.0,
        retries: Retries = Retries(),
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        super().__init__(url, token, retries)
        self._http = httpx.Client(timeout=timeout, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[ModelCard]:
        """Return the cards of all models."""
        return [ModelCard.model_validate(card) for card in self._send(_Call("GET", "/v1/models")).json()]

    def card(self, model: str) -> ModelCard:
        """Return the card of a model: its versions, operations, options, image size, classes and metrics."""
        return ModelCard.model_validate_json(self._send(_Call("GET", _path(model))).content)

    def sample(
        self,
        model: str,
        count: int = 1,
        *,
        seed: int | None = None,
        label: Label = None,
        accept: str | None = None,
        **options: Any,
    ) -> Answer:
        """Draw pictures of a seed, by default a random one; of a class, by default of all in turn."""
        return _answer(self._send(_sample(model, count, seed, label, accept, options)))

    def translate(
        self, model: str, picture: Picture, *, direction: str | None = None, accept: str | None = None, **options: Any
    ) -> Answer:
        """Translate a picture, by default in the model's first direction."""
        return _answer(self._send(_translate(model, picture, direction, accept, options)))

    def reconstruct(
        self, model: str, picture: Picture, *, label: Label = None, accept: str | None = None, **options: Any
    ) -> Answer:
        """Encode and decode a picture; a model with classes must be told its class."""
        return _answer(self._send(_reconstruct(model, picture, label, accept, options)))

    def interpolate(
        self,
        model: str,
        begin: Picture,
        end: Picture,
        *,
        label: Label = None,
        frames_per_second: float | None = None,
        accept: str | None = None,
        **options: Any,
    ) -> Answer:
        """Go from one picture to another; ``accept="image/gif"`` or ``"image/webp"`` makes a film."""
        return _answer(self._send(_interpolate(model, begin, end, label, frames_per_second, accept, options)))

    def interpolate_draws(
        self,
        model: str,
        seeds: tuple[int, int],
        *,
        label: Label = None,
        frames_per_second: float | None = None,
        accept: str | None = None,
        **options: Any,
    ) -> Answer:
        """Go from the first picture of one seed to that of another; see :meth:`interpolate`."""
        return _answer(self._send(_interpolate_draws(model, seeds, label, frames_per_second, accept, options)))

    def decode(
        self, model: str, latents: Latents, *, label: Label = None, accept: str | None = None, **options: Any
    ) -> Answer:
        """Decode latent vectors, [N, D] of the card's ``latent_dim``; a model with classes must be told one."""
        return _answer(self._send(_decode(model, latents, label, accept, options)))

    def encode(self, model: str, picture: Picture, *, label: Label = None, **options: Any) -> NDArray[np.float32]:
        """Encode a picture: its latent vector, float32 [D], the mean of q(z|x); by a StyleGAN's encoder styles w+."""
        call = _encode(model, picture, label, options)
        return np.asarray(self._send(call).json()["latents"][0], np.float32)

    def mix_styles(
        self,
        model: str,
        rows: Sequence[int],
        columns: Sequence[int],
        *,
        label: Label = None,
        accept: str | None = None,
        **options: Any,
    ) -> Answer:
        """Mix the styles of the seeds ``rows`` and ``columns``: (len(rows) + 1) * (len(columns) + 1) pictures."""
        return _answer(self._send(_mix_styles(model, rows, columns, label, accept, options)))

    def edit(
        self,
        model: str,
        amounts: Mapping[str, float],
        *,
        seed: int | None = None,
        latents: Sequence[float] | NDArray[np.floating[Any]] | None = None,
        label: Label = None,
        method: EditMethod | None = None,
        accept: str | None = None,
    ) -> Answer:
        """Change a picture along directions of the model, which its card lists as ``edits``.

        Args:
            model: the model.
            amounts: how far along each direction, in its unit; all together.
            seed: the seed whose first picture is changed; by default a random one.
            latents: in place of a seed, the styles that :meth:`encode` of the model's encoder gives.
            label: class of a seed's picture, for a model with classes.
            method: how the directions were found; by default as the first of the name in the card.
            accept: type of the answer.
        """
        return _answer(self._send(_edit(model, amounts, seed, latents, label, method, accept)))

    def submit_job(
        self,
        model: str,
        operation: str,
        pictures: Sequence[Picture] = (),
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> JobStatus:
        """Submit a job: an operation on many pictures, or a sample of many.

        Args:
            model: the model.
            operation: ``translate``, ``sample``, ...
            pictures: those that are translated, or the two ends of an interpolation.
            parameters: of the operation, with options of the model's own.
            key: a text of your own; a submission with the same key is not made again. By default a random one, so that
                it is not made twice when its connection breaks.
        """
        call = _submission(model, operation, pictures, parameters, key)
        return JobStatus.model_validate_json((self._send(call)).content)

    def job(self, job_id: str) -> JobStatus:
        """Return how far a job is."""
        return JobStatus.model_validate_json((self._send(_Call("GET", _job_path(job_id)))).content)

    def wait_for_job(self, job_id: str, seconds: float = math.inf, pause: float = 1.0) -> JobStatus:
        """Ask until a job has ended, every ``pause`` seconds, for ``seconds`` at most; return how far it is."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.job(job_id)
            if status.state not in ("waiting", "running") or time.monotonic() + pause > deadline:
                return status
            time.sleep(pause)

    def job_result(self, job_id: str) -> Answer:
        """Return the pictures of a job that is done: a zip of PNG files, or the PNG file of one."""
        return _answer(self._send(_Call("GET", f"{_job_path(job_id)}/result")))

    def delete_job(self, job_id: str) -> None:
        """Cancel a job, and delete it with its result; one that is not there is deleted already."""
        try:
            self._send(_Call("DELETE", _job_path(job_id)))
        except ServerError as error:
            if error.kind != "no-such-job":
                raise

    def _send(self, call: "_Call") -> httpx.Response:
        attempts = _Attempts(self._retries, call.request_id)
        while True:
            try:
                response = self._http.request(**self._arguments(call))
            except httpx.TransportError as error:
                pause = attempts.after_break(error)
            else:
                if response.is_success:
                    return response
                pause = attempts.after(response)
            time.sleep(pause)


class AsyncClient(_Client):
    """The client for asyncio; see :class:`Client`, whose arguments and methods it has."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        timeout: float = 150.0,
        retries: Retries = Retries(),
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        super().__init__(url, token, retries)
        self._http = httpx.AsyncClient(timeout=timeout, verify=verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def models(self) -> list[ModelCard]:
        """Return the cards of all models."""
        return [ModelCard.model_validate(card) for card in (await self._send(_Call("GET", "/v1/models"))).json()]

    async def card(self, model: str) -> ModelCard:
        """Return the card of a model; see :meth:`Client.card`."""
        return ModelCard.model_validate_json((await self._send(_Call("GET", _path(model)))).content)

    async def sample(
        self,
        model: str,
        count: int = 1,
        *,
        seed: int | None = None,
        label: Label = None,
        accept: str | None = None,
        **options: Any,
    ) -> Answer:
        """Draw pictures; see :meth:`Client.sample`."""
        return _answer(await self._send(_sample(model, count, seed, label, accept, options)))

    async def translate(
        self, model: str, picture: Picture, *, direction: str | None = None, accept: str | None = None, **options: Any
    ) -> Answer:
        """Translate a picture; see :meth:`Client.translate`."""
        call = await asyncio.to_thread(_translate, model, picture, direction, accept, options)
        return _answer(await self._send(call))

    async def reconstruct(
        self, model: str, picture: Picture, *, label: Label = None, accept: str | None = None, **options: Any
    ) -> Answer:
        """Encode and decode a picture; see :meth:`Client.reconstruct`."""
        call = await asyncio.to_thread(_reconstruct, model, picture, label, accept, options)
        return _answer(await self._send(call))

    async def interpolate(
        self,
        model: str,
        begin: Picture,
        end: Picture,
        *,
        label: Label = None,
        frames_per_second: float | None = None,
        accept: str | None = None,
        **options: Any,
    ) -> Answer:
        """Go from one picture to another; see :meth:`Client.interpolate`."""
        call = await asyncio.to_thread(_interpolate, model, begin, end, label, frames_per_second, accept, options)
        return _answer(await self._send(call))

    async def interpolate_draws(
        self,
        model: str,
        seeds: tuple[int, int],
        *,
        label: Label = None,
        frames_per_second: float | None = None,
        accept: str | None = None,
        **options: Any,
    ) -> Answer:
        """Go from the picture of one seed to that of another; see :meth:`Client.interpolate_draws`."""
        return _answer(await self._send(_interpolate_draws(model, seeds, label, frames_per_second, accept, options)))

    async def decode(
        self, model: str, latents: Latents, *, label: Label = None, accept: str | None = None, **options: Any
    ) -> Answer:
        """Decode latent vectors; see :meth:`Client.decode`."""
        return _answer(await self._send(_decode(model, latents, label, accept, options)))

    async def encode(self, model: str, picture: Picture, *, label: Label = None, **options: Any) -> NDArray[np.float32]:
        """Encode a picture; see :meth:`Client.encode`."""
        call = await asyncio.to_thread(_encode, model, picture, label, options)
        return np.asarray((await self._send(call)).json()["latents"][0], np.float32)

    async def mix_styles(
        self,
        model: str,
        rows: Sequence[int],
        columns: Sequence[int],
        *,
        label: Label = None,
        accept: str | None = None,
        **options: Any,
    ) -> Answer:
        """Mix styles; see :meth:`Client.mix_styles`."""
        return _answer(await self._send(_mix_styles(model, rows, columns, label, accept, options)))

    async def edit(
        self,
        model: str,
        amounts: Mapping[str, float],
        *,
        seed: int | None = None,
        latents: Sequence[float] | NDArray[np.floating[Any]] | None = None,
        label: Label = None,
        method: EditMethod | None = None,
        accept: str | None = None,
    ) -> Answer:
        """Change a picture along directions of the model; see :meth:`Client.edit`."""
        return _answer(await self._send(_edit(model, amounts, seed, latents, label, method, accept)))

    async def submit_job(
        self,
        model: str,
        operation: str,
        pictures: Sequence[Picture] = (),
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> JobStatus:
        """Submit a job; see :meth:`Client.submit_job`."""
        call = await asyncio.to_thread(_submission, model, operation, pictures, parameters, key)
        return JobStatus.model_validate_json((await self._send(call)).content)

    async def job(self, job_id: str) -> JobStatus:
        """Return how far a job is."""
        return JobStatus.model_validate_json((await self._send(_Call("GET", _job_path(job_id)))).content)

    async def wait_for_job(self, job_id: str, seconds: float = math.inf, pause: float = 1.0) -> JobStatus:
        """Ask until a job has ended; see :meth:`Client.wait_for_job`."""
        deadline = time.monotonic() + seconds
        while True:
            status = await self.job(job_id)
            if status.state not in ("waiting", "running") or time.monotonic() + pause > deadline:
                return status
            await asyncio.sleep(pause)

    async def job_result(self, job_id: str) -> Answer:
        """Return the pictures of a job; see :meth:`Client.job_result`."""
        return _answer(await self._send(_Call("GET", f"{_job_path(job_id)}/result")))

    async def delete_job(self, job_id: str) -> None:
        """Cancel and delete a job; see :meth:`Client.delete_job`."""
        try:
            await self._send(_Call("DELETE", _job_path(job_id)))
        except ServerError as error:
            if error.kind != "no-such-job":
                raise

    async def _send(self, call: "_Call") -> httpx.Response:
        attempts = _Attempts(self._retries, call.request_id)
        while True:
            try:
                response = await self._http.request(**self._arguments(call))
            except httpx.TransportError as error:
                pause = attempts.after_break(error)
            else:
                if response.is_success:
                    return response
                pause = attempts.after(response)
            await asyncio.sleep(pause)


@dataclass(frozen=True)
class _Call:
    """A request, which may be sent several times; all have one id."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)
    """httpx's arguments of body and query."""
    request_id: str = field(default_factory=lambda: secrets.token_hex(8))


class _Attempts:
    """Counts the tries of a request, and says how long to wait before the next."""

    def __init__(self, retries: Retries, request_id: str) -> None:
        self._retries = retries
        self._request_id = request_id
        self._tries = 0
        self._deadline: float | None = None

    def after_break(self, error: httpx.TransportError) -> float:
        """Return the seconds to wait after a try that got no answer.

        Raises:
            ServerError: there is no point in another try.
        """
        detail = str(error) or type(error).__name__
        failed = ServerError(0, "no-answer", detail, self._request_id)
        passing = isinstance(error, _BROKEN) and "CERTIFICATE_VERIFY_FAILED" not in detail
        return self._pause(failed, passing, None)

    def after(self, response: httpx.Response) -> float:
        """Return the seconds to wait after an answer that is an error.

        Raises:
            ServerError: there is no point in another try.
        """
        failed, is_problem = _error_of(response, self._request_id)
        # The server's own 500 is a problem; another one is a proxy's that has lost the server.
        passing = response.status_code in _PASSING or (response.status_code == 500 and not is_problem)
        retry_after = _seconds(response.headers.get("retry-after"))
        return self._pause(failed, passing and failed.kind not in _FOR_GOOD, retry_after)

    def _pause(self, failed: ServerError, passing: bool, retry_after: float | None) -> float:
        self._tries += 1
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._retries.seconds
        first, longest = self._retries.backoff
        pause = (retry_after or 0.0) + _random.uniform(0, min(first * 2.0 ** (self._tries - 1), longest))
        if not passing or self._tries >= self._retries.tries or now + pause > self._deadline:
            raise failed
        return pause


def _error_of(response: httpx.Response, request_id: str) -> tuple[ServerError, bool]:
    """Return the error that an answer is, and whether it is a problem of RFC 9457."""
    try:
        problem = response.json()
        kind = str(problem["type"]).rpartition("/")[2]
        error = ServerError(response.status_code, kind, str(problem["detail"]), str(problem["request_id"]))
    except (ValueError, KeyError, TypeError):
        detail = " ".join(response.text[:200].split()) or response.reason_phrase
        return ServerError(response.status_code, "error", detail, request_id), False
    return error, True


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which has a number or a date; ``None`` if there are none in it."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        then = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    return max(0.0, (then - datetime.datetime.now(datetime.UTC)).total_seconds())


def _path(model: str, operation: str | None = None) -> str:
    path = f"/v1/models/{quote(model, safe='@')}"
    return path if operation is None else f"{path}/{operation}"


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _asking(model: str, operation: str, accept: str, parameters: Mapping[str, Any]) -> _Call:
    body = json.dumps(parameters).encode()
    headers = {"Accept": accept, "Content-Type": "application/json"}
    return _Call("POST", _path(model, operation), headers, {"content": body})


def _sending(model: str, operation: str, picture: Picture, accept: str | None, parameters: Mapping[str, Any]) -> _Call:
    headers = {"Accept": accept or PNG, "Content-Type": "application/octet-stream"}
    content = {"content": _file(picture), "params": parameters}
    return _Call("POST", _path(model, operation), headers, content)


def _sample(
    model: str, count: int, seed: int | None, label: Label, accept: str | None, options: Mapping[str, Any]
) -> _Call:
    parameters = {"count": count, **_given(seed=seed, label=label), **options}
    return _asking(model, "sample", accept or (PNG if count == 1 else ZIP), parameters)


def _translate(
    model: str, picture: Picture, direction: str | None, accept: str | None, options: Mapping[str, Any]
) -> _Call:
    return _sending(model, "translate", picture, accept, {**_given(direction=direction), **options})


def _reconstruct(model: str, picture: Picture, label: Label, accept: str | None, options: Mapping[str, Any]) -> _Call:
    return _sending(model, "reconstruct", picture, accept, {**_given(label=label), **options})


def _interpolate(
    model: str,
    begin: Picture,
    end: Picture,
    label: Label,
    frames_per_second: float | None,
    accept: str | None,
    options: Mapping[str, Any],
) -> _Call:
    files = {"begin": ("begin", _file(begin)), "end": ("end", _file(end))}
    parameters = {**_given(label=label, frames_per_second=frames_per_second), **options}
    content = {"files": files, "data": parameters}
    return _Call("POST", _path(model, "interpolate"), {"Accept": accept or ZIP}, content)


def _interpolate_draws(
    model: str,
    seeds: tuple[int, int],
    label: Label,
    frames_per_second: float | None,
    accept: str | None,
    options: Mapping[str, Any],
) -> _Call:
    parameters = {"seeds": [*seeds], **_given(label=label, frames_per_second=frames_per_second), **options}
    return _asking(model, "interpolate_draws", accept or ZIP, parameters)


def _decode(model: str, latents: Latents, label: Label, accept: str | None, options: Mapping[str, Any]) -> _Call:
    vectors = np.asarray(latents, np.float64).tolist()
    parameters = {"latents": vectors, **_given(label=label), **options}
    return _asking(model, "decode", accept or (PNG if len(vectors) == 1 else ZIP), parameters)


def _encode(model: str, picture: Picture, label: Label, options: Mapping[str, Any]) -> _Call:
    return _sending(model, "encode", picture, "application/json", {**_given(label=label), **options})


def _mix_styles(
    model: str,
    rows: Sequence[int],
    columns: Sequence[int],
    label: Label,
    accept: str | None,
    options: Mapping[str, Any],
) -> _Call:
    parameters = {"rows": [*rows], "columns": [*columns], **_given(label=label), **options}
    return _asking(model, "mix_styles", accept or ZIP, parameters)


def _edit(
    model: str,
    amounts: Mapping[str, float],
    seed: int | None,
    latents: Sequence[float] | NDArray[np.floating[Any]] | None,
    label: Label,
    method: EditMethod | None,
    accept: str | None,
) -> _Call:
    edits = [{"direction": name, "amount": float(amount), **_given(method=method)} for name, amount in amounts.items()]
    numbers = None if latents is None else np.asarray(latents, np.float64).tolist()
    return _asking(model, "edit", accept or PNG, {"edits": edits, **_given(seed=seed, latents=numbers, label=label)})


def _submission(
    model: str, operation: str, pictures: Sequence[Picture], parameters: Mapping[str, Any] | None, key: str | None
) -> _Call:
    fields = {"model": model, "operation": operation}
    headers = {"Idempotency-Key": key or secrets.token_hex(16)}
    content: dict[str, Any]
    if pictures:
        files = [("image", (f"{number:05d}", _file(picture))) for number, picture in enumerate(pictures)]
        content = {"files": files, "data": {**fields, "parameters": json.dumps(parameters or {})}}
    else:
        content = {"content": json.dumps({**fields, "parameters": parameters or {}}).encode()}
        headers["Content-Type"] = "application/json"
    return _Call("POST", "/v1/jobs", headers, content)


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _answer(response: httpx.Response) -> Answer:
    seed = response.headers.get("x-genlab-seed")
    return Answer(
        data=response.content,
        media_type=response.headers["content-type"],
        version=response.headers.get("x-genlab-version", ""),
        exact=response.headers.get("x-genlab-exact") == "true",
        seed=None if seed is None else int(seed),
    )


def _file(picture: Picture) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ValueError: an array is not uint8 of [H, W] or [H, W, 1 or 3].
        OSError: a file cannot be read.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    pixels = picture[:, :, None] if picture.ndim == 2 else picture
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ValueError(f"a picture is uint8 [H, W] or [H, W, 1 or 3], not {picture.dtype} {list(picture.shape)}")
    return encode_png_fast(np.ascontiguousarray(pixels))


def _pixels_of(data: bytes) -> NDArray[np.uint8]:
    """Decode an image or an animation, uint8 [frames, H, W, 1 or 3]."""
    with Image.open(io.BytesIO(data)) as image:
        frames = [
            np.asarray(frame.convert("L" if frame.mode == "L" else "RGB")) for frame in ImageSequence.Iterator(image)
        ]
    pixels = np.stack(frames)
    return pixels[..., None] if pixels.ndim == 3 else pixels
