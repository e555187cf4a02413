"""The parameters of a request, of which as much may be wrong as fits its body."""

import json
from dataclasses import dataclass

import pytest

from genlab.serving.limits import Limits
from genlab.serving.operations import FAULTS_SHOWN, MOST_NAMES, Form
from genlab.serving.problems import Problem


@dataclass(frozen=True)
class NoOptions:
    """A model without options of its own."""


def form(operation: str) -> Form:
    return Form(operation, "digits", NoOptions, Limits())


def refused(operation: str, body: bytes) -> Problem:
    with pytest.raises(Problem) as raised:
        form(operation).read_json(body)
    return raised.value


@pytest.mark.parametrize("latents", [[[9e9] * 200_000], [[9e9]] * 200_000, ["z"] * 200_000])
def test_of_thousands_of_wrong_numbers_the_first_is_told(latents: list[object]) -> None:
    problem = refused("decode", json.dumps({"latents": latents}).encode())
    assert problem.status == 422
    assert problem.detail.count("latents.") == 1
    assert problem.detail.startswith("latents.0")


def test_the_first_of_many_unknown_names_are_told_and_very_many_are_not_looked_at() -> None:
    def named(count: int) -> bytes:
        return json.dumps({f"name{number}": 1 for number in range(count)}).encode()

    detail = refused("sample", named(FAULTS_SHOWN + 3)).detail
    assert detail.count("name") == FAULTS_SHOWN
    assert detail.endswith("; and 3 more")
    assert refused("sample", named(100_000)).detail == f"100,000 parameters; at most {MOST_NAMES:,} are looked at"
    with pytest.raises(Problem, match=f"at most {MOST_NAMES:,}"):
        form("sample").read_texts({f"name{number}": "1" for number in range(MOST_NAMES + 1)})


def test_many_latents_are_read() -> None:
    latents = [[0.5] * 9216] * 16
    assert form("decode").read_json(json.dumps({"latents": latents}).encode()).model_dump()["latents"] == latents


def test_whole_numbers_may_be_written_with_a_point() -> None:
    body = b'{"rows": [1.0, 2], "columns": [3.0], "label": null}'
    assert form("mix_styles").read_json(body).model_dump()["rows"] == [1, 2]
