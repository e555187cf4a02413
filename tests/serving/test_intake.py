"""Ids, bodies, errors and the log of requests, without a server."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from fastapi import Body, FastAPI, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp

from genlab.core.errors import ConfigError
from genlab.imaging.images import ImageError
from genlab.serving.intake import Intake
from genlab.serving.limits import Limits
from genlab.serving.problems import ERROR_HANDLERS, Problem
from genlab.serving.telemetry import PrometheusTelemetry
from tests.serving.asgi import ask

LIMITS = Limits(body_bytes=1000, body_seconds=30)


def api() -> FastAPI:
    app = FastAPI(exception_handlers=dict(ERROR_HANDLERS))

    @app.post("/length")
    async def length(request: Request) -> int:
        request.state.model, request.state.operation = "digits", "sample"
        return len(await request.body())

    @app.post("/json")
    async def of_json(body: dict[str, int] = Body()) -> int:  # noqa: B008 -- FastAPI's way
        return len(body)

    @app.get("/error")
    def error(kind: str = "bug") -> None:
        raise ZeroDivisionError("a secret")

    @app.get("/cut")
    def cut() -> StreamingResponse:
        def parts() -> Iterator[bytes]:
            yield b"begun"
            raise ZeroDivisionError

        return StreamingResponse(parts())

    app.add_middleware(Intake, LIMITS)
    return app


async def nothing() -> bytes:
    await asyncio.sleep(3600)
    return b""


def test_an_answer_has_the_clients_id_or_a_new_one() -> None:
    app = api()
    assert ask(app, path="/length", headers={"X-Request-Id": "A-b.c_9"}).headers["x-request-id"] == "A-b.c_9"
    assert ask(app, path="/nothing", headers={"X-Request-Id": "mine"}).problem["request_id"] == "mine"
    fresh = set()
    for bad in (None, "", "a b", "x" * 65, "ä", "a\tb"):
        answer = ask(app, path="/length", headers={} if bad is None else {"X-Request-Id": bad})
        fresh.add(answer.headers["x-request-id"])
        assert len(answer.headers["x-request-id"]) == 16
    assert len(fresh) == 6


def test_a_body_that_says_it_is_too_large_is_not_read_before_the_answer() -> None:
    seen = []

    async def part() -> bytes:
        seen.append(answered.is_set())
        return bytes(500)

    answered = asyncio.Event()
    app = api()

    async def watched(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        async def sent(message) -> None:  # type: ignore[no-untyped-def]
            await send(message)
            if message.get("body"):
                answered.set()

        await app(scope, receive, sent)

    answer = ask(watched, path="/length", headers={"Content-Length": "1500"}, body=[part] * 3)
    assert (answer.status, answer.problem["type"]) == (413, "/problems/body-too-large")
    assert answer.headers["connection"] == "close"
    assert answer.complete
    assert seen == [True] * 3, "the rest is read once the client has its answer, so that this is not lost"


@pytest.mark.parametrize("path", ["/length", "/json"])
def test_a_body_that_does_not_say_its_size_is_counted(path: str) -> None:
    answer = ask(api(), path=path, headers={"Content-Type": "application/json"}, body=[b"[" * 100] * 1000)
    assert (answer.status, answer.problem["type"]) == (413, "/problems/body-too-large")
    assert answer.read <= 2300, "of an endless body no more is read than twice the limit"
    whole = ask(api(), path="/length", body=[bytes(500), bytes(500)])
    assert (whole.status, whole.body) == (200, b"1000")
    assert "connection" not in whole.headers


@pytest.mark.parametrize("length", ["-1", "1e9", "٣", "9" * 5000])
def test_a_length_that_is_no_number_or_huge_is_refused(length: str) -> None:
    assert ask(api(), path="/length", headers={"Content-Length": length}).status == 413


@pytest.mark.parametrize("path", ["/length", "/json"])
def test_a_slow_body_ends_with_408(path: str) -> None:
    app = Intake(FastAPI_without_intake(), Limits(body_seconds=0.05))
    answer = ask(app, path=path, headers={"Content-Type": "application/json"}, body=[b"[", nothing])
    assert (answer.status, answer.problem["type"]) == (408, "/problems/slow-body")
    assert answer.headers["connection"] == "close"


def FastAPI_without_intake() -> ASGIApp:  # noqa: N802
    app = api()
    app.user_middleware.clear()
    return app


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (Problem(503, "queue-full", "wait", retry_after=2), 503, "queue-full"),
        (ConfigError("count: too many"), 422, "invalid"),
        (ImageError("is cut off"), 422, "unusable-picture"),
    ],
)
def test_an_error_that_reaches_the_outside_is_answered(
    error: Exception, status: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        raise error

    answer = ask(Intake(app, LIMITS))
    assert (answer.status, answer.problem["type"]) == (status, f"/problems/{kind}")
    assert answer.headers.get("retry-after") == ("2" if status == 503 else None)
    assert not caplog.records, "what a client can put right is no error of the server's"


def test_a_bug_is_logged_with_the_request_id_and_tells_the_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    answer = ask(api(), "GET", "/error", {"X-Request-Id": "r7"})
    assert (answer.status, answer.problem["type"]) == (500, "/problems/internal")
    assert b"secret" not in answer.body
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "r7" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_an_answer_that_breaks_off_is_not_completed(caplog: pytest.LogCaptureFixture) -> None:
    answer = ask(api(), "GET", "/cut")
    assert (answer.status, answer.body, answer.complete) == (200, b"begun", False)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_each_request_is_one_line_of_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    app = api()
    with caplog.at_level(logging.INFO, "genlab.access"):
        ask(app, path="/length", headers={"X-Request-Id": "r1"}, body=[b"12345"])
        ask(app, "GET", "/nothing%0Aforged", {"X-Request-Id": "r2"})
        ask(app, path="/length", headers={"X-Request-Id": "r3"}, body=[b"12345", None])
    one, two, three = (record.getMessage().split(" ") for record in caplog.records if record.name == "genlab.access")
    assert [one[:4], one[5:]] == [["POST", "/length", "200", "1"], ["r1", "-"]]
    assert float(one[4]) > 0
    assert two[:3] == ["GET", "/nothing%0Aforged", "404"]
    assert [three[2:4], three[5:]] == [["499", "0"], ["r3", "-"]], "the client left"
    assert not [record for record in caplog.records if record.name != "genlab.access"]
    assert "secret" not in caplog.text, "queries are not logged"


def test_answers_are_counted_by_model_and_operation() -> None:
    telemetry = PrometheusTelemetry()
    app = Intake(FastAPI_without_intake(), LIMITS, telemetry)
    for path, size in (("/length", 10), ("/length", 2000), ("/nothing", 0)):
        ask(app, path=path, body=[bytes(size)] if size else [])
    text = telemetry.text()[0].decode()
    assert 'genlab_requests_total{model="digits",operation="sample",status="200"} 1.0' in text
    assert 'genlab_requests_total{model="digits",operation="sample",status="413"} 1.0' in text
    assert 'genlab_requests_total{model="",operation="",status="404"} 1.0' in text


def test_other_protocols_do_not_reach_the_application() -> None:
    sent = []

    async def send(message) -> None:  # type: ignore[no-untyped-def]
        sent.append(message)

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        assert scope["type"] == "lifespan"
        await send({"type": "lifespan.startup.complete"})

    intake = Intake(app, LIMITS)
    asyncio.run(intake({"type": "websocket", "headers": []}, None, send))  # type: ignore[arg-type]
    asyncio.run(intake({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}, {"type": "lifespan.startup.complete"}]


def test_plain_applications_work_too() -> None:
    assert ask(Intake(PlainTextResponse("here"), LIMITS), "GET").body == b"here"
