"""Hosts, origins, tokens and rates, by the headers of requests."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from genlab.core.errors import ConfigError
from genlab.serving.guard import Guard, RateLimit
from genlab.serving.intake import Intake
from genlab.serving.limits import Limits
from genlab.serving.problems import Problem
from genlab.serving.settings import Access, check_exposure
from genlab.serving.tokens import TokenFile, add_token
from tests.serving.asgi import Answer, ask


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads the whole body and says whose request it was."""
    while (await receive()).get("more_body"):
        pass
    await PlainTextResponse(scope["state"]["token"] or "anyone")(scope, receive, send)


def guarded(access: Access = Access(), **options: Any) -> Intake:  # noqa: B008 -- frozen
    return Intake(Guard(reading, access, **options), Limits())


def kind(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.problem["type"].removeprefix("/problems/")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1:8000", "[::1]", "[::1]:80", "localhost."]
)
def test_loopback_names_are_the_servers(host: str) -> None:
    assert ask(guarded(), host=host).status == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("evil.example:8000", (421, "unknown-host")),
        ("localhost.evil.example", (421, "unknown-host")),
        ("192.168.0.7", (421, "unknown-host")),
        (None, (400, "bad-host")),
        ("", (400, "bad-host")),
        ("local host", (400, "bad-host")),
        ("localhost:port", (400, "bad-host")),
        ("user@localhost", (400, "bad-host")),
        ("localhost/evil", (400, "bad-host")),
        ("[::1", (400, "bad-host")),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_hosts_are_refused(method: str, host: str | None, expected: tuple[int, str]) -> None:
    answer = ask(guarded(), method, host=host, body=[b"body"])
    assert kind(answer) == expected
    assert answer.read == 0


def test_names_are_configured_and_the_bound_address_is_one() -> None:
    access = Access(hosts=("models.example.org", "fe80::7"), public_origins=("https://public.example.org:8443",))
    app = guarded(access, bound="10.1.2.3")
    for host in ("10.1.2.3:8000", "models.example.org", "[fe80::7]:9", "public.example.org:8443", "localhost"):
        assert ask(app, "GET", host=host).status == 200
    assert kind(ask(app, "GET", host="10.1.2.4")) == (421, "unknown-host")
    everywhere = guarded(bound="0.0.0.0")
    assert ask(everywhere, "GET", host="10.1.2.4:8000").status == 200, "no name leads there, so none can be rebound"
    assert kind(ask(everywhere, "GET", host="evil.example")) == (421, "unknown-host")


@pytest.mark.parametrize("access", [Access(hosts=("a b",)), Access(origins=("app.example",)), Access(origins=("*",))])
def test_a_name_or_origin_that_is_none_is_refused_at_start(access: Access) -> None:
    with pytest.raises(ConfigError, match="is no"):
        guarded(access)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:8000"},
        {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_programs_and_the_servers_own_pages_pass(headers: dict[str, str]) -> None:
    assert ask(guarded(), headers=headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:9000"},
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost:8000"},
        {"Origin": "http://localhost:8000.evil.example"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "new-value"},
        {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_page_elsewhere_is_refused_before_its_body_is_read(method: str, headers: dict[str, str]) -> None:
    answer = ask(guarded(), method, headers=headers, body=[b"form=1"])
    assert kind(answer) == (403, "cross-origin")
    assert answer.read == 0
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_reading_is_open_to_links_unless_it_computes() -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert ask(guarded(), "GET", headers=headers).status == 200
    app = guarded(computes=lambda method, path: method == "POST" or path.endswith("/sample"))
    assert kind(ask(app, "GET", "/v1/models/digits/sample", headers)) == (403, "cross-origin")
    assert ask(app, "GET", "/v1/models", headers).status == 200


def test_the_port_of_a_scheme_may_be_written_or_not() -> None:
    headers = {"Origin": "http://localhost"}
    assert ask(guarded(), headers=headers, host="localhost:80").status == 200
    assert ask(guarded(), headers={"Origin": "https://localhost"}, host="localhost:443", scheme="https").status == 200
    assert ask(guarded(), headers={"Origin": "http://localhost"}, host="LocalHost").status == 200
    assert ask(guarded(), headers=headers, host="localhost:8080").status == 403


def test_a_public_origin_is_the_servers_own() -> None:
    app = guarded(Access(public_origins=("https://models.example.org",)))
    own = {"Origin": "https://models.example.org", "Sec-Fetch-Site": "same-origin"}
    assert ask(app, headers=own, host="models.example.org").status == 200
    other = {"Origin": "https://other.example.org", "Sec-Fetch-Site": "same-site"}
    assert kind(ask(app, headers=other, host="models.example.org")) == (403, "cross-origin")


def test_a_header_that_decides_may_come_once_only() -> None:
    for name, value in (("Host", "localhost"), ("Origin", "http://localhost:8000"), ("Authorization", "Bearer x")):
        answer = ask(guarded(), headers=[(name, value), (name, value)])
        assert kind(answer) == (400, "repeated-header")
    assert ask(guarded(), headers=[("Cookie", "a"), ("Cookie", "b")]).status == 200


def test_a_configured_origin_may_use_the_server_and_read_all_answers(tmp_path: Path) -> None:
    file = str(tmp_path / "tokens.json")
    token = add_token(file, "alice")
    app = guarded(Access(origins=("https://app.example.org",)), tokens=TokenFile(file))
    page = {"Origin": "https://app.example.org", "Sec-Fetch-Site": "cross-site"}
    preflight = page | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = ask(app, "OPTIONS", headers=preflight)
    assert allowed.status == 204
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.org"
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert "Authorization" in allowed.headers["access-control-allow-headers"]

    for headers, status in ((page | {"Authorization": f"Bearer {token}"}, 200), (page, 401)):
        answer = ask(app, headers=headers)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
        assert answer.headers["vary"] == "Origin"

    for origin in ("https://evil.example", "https://app.example.org.evil.example", "null"):
        other = ask(app, "OPTIONS", headers=preflight | {"Origin": origin})
        assert "access-control-allow-origin" not in other.headers
        assert other.headers["vary"] == "Origin"
        assert ask(app, headers={"Origin": origin}).status == 403


def test_without_configured_origins_there_are_no_cors_headers() -> None:
    headers = {"Origin": "http://localhost:8000", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "POST", "OPTIONS"):
        answer = ask(guarded(), method, headers=headers)
        assert not {name for name in answer.headers if name.startswith("access-control") or name == "vary"}


@pytest.fixture
def token_file(tmp_path: Path) -> tuple[str, str]:
    file = str(tmp_path / "tokens.json")
    return file, add_token(file, "alice")


def test_a_request_needs_a_token(token_file: tuple[str, str]) -> None:
    file, token = token_file
    app = guarded(tokens=TokenFile(file), open_paths=("/", "/static/*"))
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert ask(app, path="/v1/models", headers={"Authorization": f"{scheme} {token}"}).body == b"alice"
    for method, authorization, expected in (
        ("GET", None, (401, "no-token")),
        ("POST", None, (401, "no-token")),
        ("OPTIONS", None, (401, "no-token")),
        ("POST", "Bearer", (401, "no-token")),
        ("POST", f"Basic {token}", (401, "no-token")),
        ("POST", token, (401, "no-token")),
        ("POST", f"Bearer {token}x", (401, "invalid-token")),
        ("POST", "Bearer ä", (401, "invalid-token")),
    ):
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = ask(app, method, "/v1/models", headers, body=[b"body"])
        assert kind(answer) == expected
        assert answer.headers["www-authenticate"].startswith('Bearer realm="genlab"')
        assert answer.read == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/livez", 200), ("/readyz", 200), ("/", 200), ("/static/page.js", 200),
        ("/livez/", 401), ("/static", 401), ("/v1/livez", 401), ("//livez", 401), ("/metrics", 401),
    ],
)  # fmt: skip
def test_some_paths_need_no_token(token_file: tuple[str, str], path: str, status: int) -> None:
    app = guarded(tokens=TokenFile(token_file[0]), open_paths=("/", "/static/*"))
    assert ask(app, "GET", path).status == status
    assert ask(app, "GET", f"/genlab{path}", root_path="/genlab").status == status


def test_probes_pass_under_any_host_but_nothing_else_does(token_file: tuple[str, str]) -> None:
    app = guarded(tokens=TokenFile(token_file[0]), open_paths=("/",))
    assert ask(app, "GET", "/livez", host="10.4.5.6:8000").status == 200
    assert ask(app, "GET", "/livez", host=None).status == 200
    assert ask(app, "GET", "/", host="10.4.5.6:8000").status == 421
    assert ask(app, "GET", "/genlabx/livez", root_path="/genlab").status == 401


def test_a_token_has_so_many_requests_a_minute(tmp_path: Path) -> None:
    file = str(tmp_path / "tokens.json")
    alice, bob = ({"Authorization": f"Bearer {add_token(file, name)}"} for name in ("alice", "bob"))
    app = guarded(tokens=TokenFile(file), requests_per_minute=3)
    assert [ask(app, headers=alice).status for _ in range(4)] == [200, 200, 200, 429]
    answer = ask(app, headers=alice, body=[b"body"])
    assert kind(answer) == (429, "too-many-requests")
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert answer.read == 0
    assert ask(app, headers=bob).status == 200
    assert ask(app, "GET", "/readyz").status == 200
    assert ask(app).status == 401


def outcomes(limit: RateLimit, times: Iterable[float], clock: list[float]) -> list[float | None]:
    """For each time ``None`` if a request is taken then, else the seconds to wait."""
    found: list[float | None] = []
    for time in times:
        clock[0] = time
        try:
            limit.count("a")
            found.append(None)
        except Problem as problem:
            found.append(problem.retry_after)
    return found


def test_a_bucket_fills_in_a_minute() -> None:
    clock = [1000.0]
    limit = RateLimit(6, lambda: clock[0])
    start = clock[0]
    assert outcomes(limit, [start] * 6, clock) == [None] * 6
    assert outcomes(limit, [start, start + 4], clock) == pytest.approx([10.0, 6.0])
    assert outcomes(limit, [start + 10, start + 10], clock) == [None, pytest.approx(10.0)]
    assert outcomes(limit, [start + 20 + 10 * i for i in range(50)], clock) == [None] * 50, "at its rate all pass"
    later = start + 10_000
    assert outcomes(limit, [later] * 7, clock) == [None] * 6 + [pytest.approx(10.0)], "no more than a minute's"


def test_a_server_beyond_loopback_needs_tokens_or_to_be_told() -> None:
    for host in ("127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"):
        check_exposure(host, Access(), tls=False)
        check_exposure(host, Access(tokens="tokens.json"), tls=False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "models.example.org", ""):
        with pytest.raises(ConfigError, match="genlab token"):
            check_exposure(host, Access(), tls=True)
        check_exposure(host, Access(anyone=True), tls=False)
        with pytest.raises(ConfigError, match="in clear"):
            check_exposure(host, Access(tokens="tokens.json"), tls=False)
        check_exposure(host, Access(tokens="tokens.json"), tls=True)
        check_exposure(host, Access(tokens="tokens.json", clear=True), tls=False)
