"""Errors become problem details."""

import json
import pickle

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from genlab.core.errors import ConfigError, DataError
from genlab.imaging.images import ImageError
from genlab.serving.problems import ERROR_HANDLERS, Problem, problem_of, problem_response


def test_a_problem_is_an_answer_of_rfc_9457() -> None:
    problem = Problem(503, "queue-full", "256 requests wait", retry_after=1.2, headers={"X-Extra": "1"})
    response = problem_response(problem, "r1")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.headers["retry-after"], response.headers["x-extra"]) == ("2", "1")
    assert json.loads(bytes(response.body)) == {
        "type": "/problems/queue-full",
        "title": "Queue full",
        "status": 503,
        "detail": "256 requests wait",
        "request_id": "r1",
    }
    assert "retry-after" not in problem_response(Problem(404, "no-model", "no model x"), "r1").headers


def test_a_problem_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(Problem(429, "too-many-requests", "wait", retry_after=3, headers={"A": "b"})))
    assert (copy.status, copy.kind, copy.detail, copy.retry_after, copy.headers) == (
        429, "too-many-requests", "wait", 3, {"A": "b"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "kind", "detail"),
    [
        (ConfigError("count: too many"), 422, "invalid", "count: too many"),
        (ImageError("is cut off"), 422, "unusable-picture", "the picture is cut off"),
        (DataError("/data/secret.arrow: damaged"), 500, "internal", "an internal error"),
        (ZeroDivisionError("/home/name"), 500, "internal", "an internal error"),
    ],
)
def test_genlabs_errors_become_problems_and_others_tell_nothing(
    error: Exception, status: int, kind: str, detail: str
) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.kind) == (status, kind)
    assert problem.detail.startswith(detail)
    assert "/" not in problem.detail


def test_errors_of_routes_are_problems() -> None:
    app = FastAPI(exception_handlers=dict(ERROR_HANDLERS))

    @app.get("/count")
    def count(number: int) -> int:
        if number > 3:
            raise ConfigError("number: at most 3")
        return number

    @app.delete("/count")
    def reset() -> None:
        pass

    client = TestClient(app)
    for method, path, status, kind, detail in (
        ("GET", "/count?number=9", 422, "invalid", "number: at most 3"),
        ("GET", "/count?number=x", 422, "invalid", "number: Input should be a valid integer"),
        ("GET", "/nothing", 404, "not-found", "there is nothing under this path"),
        ("POST", "/count", 405, "method-not-allowed", "this path does not take this method"),
    ):
        response = client.request(method, path)
        problem = response.json()
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.status_code, problem["status"], problem["type"]) == (status, status, f"/problems/{kind}")
        assert problem["detail"].startswith(detail)
    assert response.headers["allow"] == "DELETE, GET"
