"""The Python client, against a real server: what it gets, and what it does when connections and servers fail."""

import asyncio
import datetime
import email.utils
import io
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.client import Answer, AsyncClient, Client, Retries, ServerError
from genlab.inference.engine import Engine
from genlab.serving.limits import Limits
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import PrometheusTelemetry
from genlab.serving.tokens import add_token
from tests.serving.live import Faulty, live

HURRIED = Retries(tries=4, seconds=20, backoff=(0.001, 0.01))


@pytest.fixture(scope="module")
def faulty(served_runs: Path, edited_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Faulty:
    """A server of five models, in front of which requests can be broken."""
    settings = Settings(runtime="pytorch", exact=True, jobs=str(tmp_path_factory.mktemp("jobs")))
    app = create_app((str(served_runs), str(edited_runs)), Limits(images=8), Access(), settings, PrometheusTelemetry())
    return Faulty(app)


@pytest.fixture(scope="module")
def url(faulty: Faulty) -> Iterator[str]:
    with live(faulty) as port:
        url = f"http://127.0.0.1:{port}"
        with Client(url, retries=Retries(seconds=30)) as client:
            client.sample("digits")  # the models are loaded
        yield url


@pytest.fixture
def client(url: str, faulty: Faulty) -> Iterator[Client]:
    faulty.faults.clear()
    faulty.requests.clear()
    with Client(url, retries=HURRIED) as client:
        yield client


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_models_are_described(client: Client) -> None:
    cards = {card.name: card for card in client.models()}
    assert set(cards) == {"digits", "monet", "classes", "faces", "encoder"}
    assert client.card("monet") == cards["monet"]
    assert cards["monet"].directions == ["a_to_b", "b_to_a"]
    assert cards["digits"].image.height == 28


def test_a_photo_is_encoded_and_edited(client: Client, url: str) -> None:
    styles = client.encode("encoder", picture(8, 8))
    assert styles.shape == (32,)
    plain = client.edit("faces", {}, latents=styles)
    edited = client.edit("faces", {"age": -15, "gender": 2}, latents=styles)
    assert edited.pixels().shape == (1, 8, 8, 3)
    assert not np.array_equal(edited.pixels(), plain.pixels())
    drawn = client.edit("faces", {"gender": 2}, method="channel")
    assert client.edit("faces", {"gender": 2}, seed=drawn.seed, method="channel").data == drawn.data
    with pytest.raises(ServerError, match="this direction goes from -30 to 20"):
        client.edit("faces", {"age": -500}, seed=1)

    async def ask() -> bytes:
        async with AsyncClient(url, retries=HURRIED) as client:
            return (await client.edit("faces", {"gender": 2}, seed=drawn.seed, method="channel")).data

    assert asyncio.run(ask()) == drawn.data


@pytest.mark.slow
def test_every_operation_gives_what_the_engine_gives(client: Client, served_runs: Path) -> None:
    digits = Engine(str(served_runs / "digits" / "model"), "cpu")
    grey, other = picture(28, 28, 1), picture(28, 28, 1)[::-1]
    for answer, expected in (
        (client.sample("digits", 5, seed=7), digits.sample(5, 7)),
        (client.sample("digits", seed=7), digits.sample(1, 7)),
        (client.reconstruct("digits", grey[:, :, 0]), digits.reconstruct([grey])),
        (client.interpolate("digits", grey, other, steps=3), digits.interpolate(grey, other, steps=3)),
        (client.interpolate_draws("digits", (3, 4), steps=4), digits.interpolate_draws((3, 4), steps=4)),
    ):
        np.testing.assert_array_equal(answer.pixels(), expected)
        assert answer.exact
        assert answer.version == client.card("digits").version
    latents = np.stack([client.encode("digits", one) for one in (grey, other)])
    np.testing.assert_allclose(latents, digits.encode([grey, other]), rtol=1e-5)
    np.testing.assert_array_equal(client.decode("digits", latents).pixels(), digits.decode(latents.tolist()))
    again = client.sample("digits", 2)
    assert again.seed is not None
    assert client.sample("digits", 2, seed=again.seed).data == again.data
    monet, photo = Engine(str(served_runs / "monet" / "model"), "cpu"), picture(24, 40)
    back = client.translate("monet", photo, direction="b_to_a")
    np.testing.assert_array_equal(back.pixels()[0], monet.translate(photo, "b_to_a"))
    classes = Engine(str(served_runs / "classes" / "model"), "cpu")
    np.testing.assert_array_equal(
        client.sample("classes", 2, seed=1, label="dog").pixels(), classes.sample(2, 1, "dog")
    )


def test_a_picture_may_be_an_array_a_file_or_its_bytes(client: Client, tmp_path: Path) -> None:
    pixels, file = picture(20, 30), tmp_path / "photo.png"
    Image.fromarray(pixels).save(file)
    answers = {client.translate("monet", one).data for one in (pixels, file, str(file), file.read_bytes())}
    assert len(answers) == 1
    wrongs: list[Any] = [pixels.astype(np.float32), pixels[None], picture(4, 4, 4)]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="a picture is uint8"):
            client.translate("monet", wrong)


def test_the_answer_has_the_type_asked_for(client: Client) -> None:
    jpeg = client.sample("digits", 4, seed=1, accept="image/jpeg")
    assert jpeg.media_type == "image/jpeg"
    with Image.open(io.BytesIO(jpeg.data)) as image:
        assert (image.format, image.size) == ("JPEG", (62, 62))
    film = client.interpolate_draws("digits", (1, 2), steps=5, accept="image/gif", frames_per_second=5)
    assert film.pixels().shape[:3] == (5, 28, 28)
    with pytest.raises(ValueError, match="pixels are not read from application/json"):
        client.sample("digits", accept="application/json").pixels()


def test_what_the_server_refuses_is_not_sent_again(client: Client, faulty: Faulty) -> None:
    with pytest.raises(ServerError) as raised:
        client.sample("digits", 9)
    error = raised.value
    assert (error.status, error.kind) == (422, "too-many-pictures")
    assert error.detail == "9 pictures were asked for; at most 8 are allowed"
    [(_, _, headers)] = faulty.requests
    assert headers["x-request-id"] == error.request_id
    for call in (lambda: client.card("manet"), lambda: client.sample("digits", colour="red")):
        with pytest.raises(ServerError) as raised:
            call()
        assert raised.value.status in (404, 422)
    assert len(faulty.requests) == 3


@pytest.mark.parametrize("faults", [["cut"], [503, 429, "cut"], [502, 408, 504], [500]])
def test_a_request_is_sent_again_until_it_is_answered(
    client: Client, faulty: Faulty, url: str, faults: list[str | int]
) -> None:
    expected = client.sample("digits", 3, seed=5).data
    photo = picture(20, 30)
    translated = client.translate("monet", photo).data
    faulty.requests.clear()
    faulty.faults[:] = faults
    assert client.sample("digits", 3, seed=5).data == expected
    assert len(faulty.requests) == len(faults) + 1
    assert len({headers["x-request-id"] for _, _, headers in faulty.requests}) == 1, "all are one request of the log"

    async def translate() -> Answer:
        async with AsyncClient(url, retries=HURRIED) as several:
            return await several.translate("monet", photo)

    faulty.faults[:] = faults
    assert asyncio.run(translate()).data == translated
    assert not faulty.faults


def test_a_job_is_submitted_once_whatever_breaks(client: Client, faulty: Faulty, url: str) -> None:
    photos = [picture(20, 30), picture(16, 16)]
    faulty.faults[:] = ["cut", "cut"]
    job = client.submit_job("monet", "translate", photos, {"direction": "b_to_a"})
    submitted = [headers for method, _, headers in faulty.requests if method == "POST"]
    assert len(submitted) == 3
    assert len({headers["idempotency-key"] for headers in submitted}) == 1
    assert client.wait_for_job(job.id, 60, pause=0.05).state == "done"
    with zipfile.ZipFile(io.BytesIO(client.job_result(job.id).data)) as archive:
        for name, photo in zip(archive.namelist(), photos, strict=True):
            assert archive.read(name) == client.translate("monet", photo, direction="b_to_a").data

    async def draw() -> tuple[Answer, int]:
        async with AsyncClient(url, retries=HURRIED) as several:
            drawn = await several.submit_job("digits", "sample", parameters={"count": 20, "seed": 3}, key="twenty")
            again = await several.submit_job("digits", "sample", parameters={"count": 20, "seed": 3}, key="twenty")
            assert again.id == drawn.id
            status = await several.wait_for_job(drawn.id, 60, pause=0.05)
            answer = await several.job_result(drawn.id)
            faulty.faults[:] = ["cut"]
            await several.delete_job(drawn.id)
            return answer, status.done

    answer, done = asyncio.run(draw())
    assert done == 20
    np.testing.assert_array_equal(answer.pixels()[:8], client.sample("digits", 8, seed=3).pixels())
    with pytest.raises(ServerError) as raised:
        client.job("0" * 32)
    assert raised.value.kind == "no-such-job"


def test_it_gives_up_after_so_many_tries(client: Client, faulty: Faulty) -> None:
    faulty.faults[:] = [502] * 9
    with pytest.raises(ServerError, match="out of order") as raised:
        client.sample("digits")
    assert (raised.value.status, raised.value.kind) == (502, "error")
    assert len(faulty.requests) == HURRIED.tries


def test_it_waits_as_long_as_the_server_says(client: Client, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("genlab.client.time.sleep", waits.append)
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=10)
    for retry_after, least, most in (("7", 7, 7.1), (email.utils.format_datetime(then, usegmt=True), 5, 10.1)):
        faulty.faults[:] = [503]
        faulty.retry_after = retry_after
        client.sample("digits")
        assert least <= waits.pop() <= most
    faulty.faults[:] = [503]
    faulty.retry_after = "3600"
    with pytest.raises(ServerError, match="503"):
        client.sample("digits")
    assert not waits, "an hour is longer than it may take"
    faulty.retry_after = "0"


def test_where_no_server_is_the_error_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retries=HURRIED) as client, pytest.raises(ServerError) as raised:
        client.models()
    assert (raised.value.status, raised.value.kind) == (0, "no-answer")


def test_a_token_goes_along(served_runs: Path, tmp_path: Path) -> None:
    tokens = str(tmp_path / "tokens.json")
    token = add_token(tokens, "alice")
    sources = (str(served_runs / "digits"),)
    app = create_app(sources, Limits(), Access(tokens=tokens), Settings(runtime="pytorch"), PrometheusTelemetry())
    with live(app) as port:
        url = f"http://127.0.0.1:{port}/"
        with Client(url, token) as client:
            assert client.card("digits").name == "digits"
        with Client(url) as client, pytest.raises(ServerError) as raised:
            client.models()
    assert (raised.value.status, raised.value.kind) == (401, "no-token")


def test_many_requests_of_one_async_client(url: str, client: Client) -> None:
    async def draw() -> list[Answer]:
        async with AsyncClient(url) as several:
            assert [card.name for card in await several.models()] == [card.name for card in client.models()]
            assert await several.card("digits") == client.card("digits")
            return await asyncio.gather(*(several.sample("digits", seed=seed) for seed in range(20)))

    for seed, answer in enumerate(asyncio.run(draw())):
        assert answer.data == client.sample("digits", seed=seed).data


def test_it_is_light() -> None:
    program = "import sys, genlab.client; print({'torch', 'ray', 'fastapi'} & set(sys.modules) or 'light')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "light\n"
