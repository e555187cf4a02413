"""Requests that schemathesis makes of the OpenAPI document, right and wrong ones, over real connections."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genlab.imaging.codecs import encode_png_fast
from genlab.serving.limits import Limits
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import PrometheusTelemetry
from tests.serving.live import live

pytestmark = pytest.mark.slow

CONFIG = """
# What is made as a picture is seldom one of the model's size, and a text seldom the name of a model.
[[operations]]
include-path-regex = "/(reconstruct|encode|interpolate|jobs|translate)$"
checks.positive_data_acceptance.enabled = false
"""
PROGRAM = "from schemathesis.cli import schemathesis; schemathesis()"
OPTIONS = (
    "--generation-deterministic --no-shrink --continue-on-failure --no-color --max-examples 4 --request-timeout 60"
)


class Watched:
    """Notes the status of each answer of an application, and the memory of this process behind it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.statuses: list[int] = []
        self.memory: list[int] = []
        """Bytes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses.append(message["status"])
                self.memory.append(psutil.Process().memory_info().rss)
            await send(message)

        await self._app(scope, receive, note)


@pytest.fixture(scope="module")
def watched(model_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Watched, str]]:
    """A server of small models of all families, and its URL."""
    settings = Settings(runtime="pytorch", jobs=str(tmp_path_factory.mktemp("jobs")), exact=True)
    models = tuple(str(model_runs / name) for name in ("digits", "classes", "monet", "faces"))
    app = Watched(create_app(models, Limits(), Access(), settings, PrometheusTelemetry()))
    with live(app) as port:
        yield app, f"http://127.0.0.1:{port}"


def ordinary(url: str) -> list[bytes]:
    """What the models make of ordinary requests."""
    picture = encode_png_fast(np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3))
    with httpx.Client(base_url=f"{url}/v1/models", timeout=300) as client:
        answers = [
            client.post("/digits/sample", json={"seed": 3, "count": 4}),
            client.post("/classes/decode", json={"latents": [[0.5, -1.0]], "label": "cat"}),
            client.post("/monet/translate?direction=b_to_a", content=picture),
            client.post("/faces/mix_styles", json={"rows": [1, 2], "columns": [3]}),
        ]
    assert [answer.status_code for answer in answers] == [200] * 4
    return [answer.content for answer in answers]


def test_whatever_is_sent_is_answered_as_described_and_changes_nothing(
    watched: tuple[Watched, str], tmp_path: Path
) -> None:
    app, url = watched
    while httpx.get(f"{url}/readyz").status_code == 503:
        time.sleep(0.1)
    before = ordinary(url)
    app.statuses.clear()
    app.memory.clear()
    (tmp_path / "config.toml").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--config-file", "config.toml", "run", f"{url}/openapi.json", *OPTIONS.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(app.statuses) >= 500
    assert {200, 400, 404, 405, 415, 422} <= set(app.statuses)
    assert not [status for status in app.statuses if status >= 500]
    assert ordinary(url) == before
    second, last = app.memory[len(app.memory) * 2 // 3], app.memory[-1]
    assert last - second < 0.05 * second + 2**25
