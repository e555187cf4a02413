"""The HTTP interface, in this process: what is asked for, what comes back, and what is refused."""

import contextlib
import io
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest import mock

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from torch import Tensor

from genlab.inference.memory import peak_bytes
from genlab.models.cvae import CVAE
from genlab.serving.library import Library
from genlab.serving.limits import Limits
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import PrometheusTelemetry
from genlab.store import model_directory
from tests.imaging.support import tiff
from tests.inference.support import with_ranges

LINE = {
    "steps": {
        "type": "integer",
        "minimum": 2,
        "default": 10,
        "title": "Steps",
        "description": "Images from end to end, both included.",
    }
}


@contextlib.contextmanager
def serving(*directories: str | Path, limits: Limits | None = None) -> Iterator[TestClient]:
    """A server of the models in these directories, in this process."""
    paths = tuple(map(str, directories))
    app = create_app(
        paths, limits or Limits(), Access(), Settings(runtime="pytorch", exact=True), PrometheusTelemetry()
    )
    with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(served_runs: Path) -> Iterator[TestClient]:
    with serving(*(served_runs / name for name in ("digits", "monet", "classes"))) as client:
        yield client


def detail_of(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    detail: str = problem["detail"]
    return detail


def body_schema(paths: dict[str, Any], name: str, operation: str) -> dict[str, Any]:
    content = paths[f"/v1/models/{name}/{operation}"]["post"]["requestBody"]["content"]
    properties: dict[str, Any] = content["application/json"]["schema"]["properties"]
    return properties


def photo(width: int = 40, height: int = 24, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image)


def translated(served_runs: Path, image: Image.Image, direction: str = "a_to_b") -> np.ndarray:
    model = model_directory.load(str(served_runs / "monet" / "model"))
    return model.translate(torch.tensor(np.asarray(image.convert("RGB")))[None], direction)[0].numpy()  # type: ignore[operator]


def test_models_are_listed_with_what_they_can_do(client: TestClient, served_runs: Path) -> None:
    digits, monet, classes = client.get("/v1/models").json()
    version = digits.pop("version")
    assert re.fullmatch("[0-9a-f]{12}", version)
    assert [one["name"] for one in digits.pop("quality")] == ["kid", "fid_infinity"]
    assert monet["quality"] == []
    assert digits == {
        "name": "digits",
        "versions": [version],
        "aliases": {},
        "family": "vae",
        "operations": ["sample", "reconstruct", "interpolate", "interpolate_draws", "decode", "encode"],
        "options": {
            "sample": {},
            "reconstruct": {},
            "interpolate": LINE,
            "interpolate_draws": LINE,
            "decode": {},
            "encode": {},
        },
        "image": {"height": 28, "width": 28, "channels": 1},
        "directions": [],
        "label_names": ["zero", "one"],
        "classes": [],
        "latent_dim": 2,
        "value_ranges": {},
        "step": 100,
        "images": 1600,
        "metrics": {"test/loss": 0.25, "test/diverged": None},
        "weights": model_directory.describe(served_runs / "digits" / "model")["weights"]["sha256"],
        "edits": None,
        "generator": "",
    }
    assert monet["operations"] == ["translate"]
    assert monet["directions"] == ["a_to_b", "b_to_a"]
    assert client.get("/v1/models/monet").json() == monet
    assert classes["classes"] == ["cat", "dog", "2"], "the third has no name"


def test_a_sample_can_be_drawn_again_by_its_seed(client: TestClient) -> None:
    first = client.post("/v1/models/digits/sample")
    assert first.status_code == 200
    assert first.headers["content-type"] == "image/png"
    assert pixels_of(first.content).shape == (28, 28)
    seed = int(first.headers["X-Genlab-Seed"])
    again = client.post("/v1/models/digits/sample", json={"seed": seed})
    assert again.content == first.content
    assert again.headers["X-Genlab-Seed"] == str(seed)
    assert client.post("/v1/models/digits/sample", json={"seed": seed ^ 1}).content != first.content


def test_a_sample_is_what_the_model_draws(client: TestClient, served_runs: Path) -> None:
    model = model_directory.load(str(served_runs / "digits" / "model"))
    expected = model.sample(5, 7)[:, :, :, 0].numpy()  # type: ignore[operator]
    page = pixels_of(client.post("/v1/models/digits/sample", json={"count": 5, "seed": 7}).content)
    assert page.shape == (2 * 30 + 2, 3 * 30 + 2)  # a sheet of 2 rows and 3 columns, 2 pixels apart
    for number, image in enumerate(expected):
        top, left = 2 + 30 * (number // 3), 2 + 30 * (number % 3)
        np.testing.assert_array_equal(page[top : top + 28, left : left + 28], image)


@pytest.mark.parametrize("body", [{"count": 0}, {"seed": -1}, {"seed": 2**31}, {"count": "many"}, {"counts": 2}])
def test_a_parameter_out_of_range_is_named(client: TestClient, body: dict[str, object]) -> None:
    response = client.post("/v1/models/digits/sample", json=body)
    assert response.status_code == 422
    assert detail_of(response).startswith(f"{next(iter(body))}: ")


def test_integers_may_be_written_as_json_schema_has_them(client: TestClient) -> None:
    def send(model: str, body: str) -> httpx.Response:
        return client.post(f"/v1/models/{model}/sample", content=body, headers={"Content-Type": "application/json"})

    for model, body, usual in (
        ("digits", '{"count": 2.0, "seed": 3e2}', '{"count": 2, "seed": 300}'),
        ("classes", '{"label": 1.0, "seed": 3}', '{"label": 1, "seed": 3}'),
    ):
        assert send(model, body).status_code == 200
        assert send(model, body).content == send(model, usual).content
    for body, detail in (
        ('{"count": 2.5}', "count: Input should be a valid integer"),
        ('{"count": 2.0, "seed": -1.0}', "seed: Input should be greater than or equal to 0"),
    ):
        refused = send("digits", body)
        assert refused.status_code == 422
        assert detail_of(refused).startswith(detail)


def test_a_model_of_classes_draws_the_class_asked_for_or_all_in_turn(client: TestClient, served_runs: Path) -> None:
    model = cast("CVAE", model_directory.load(str(served_runs / "classes" / "model")))
    asked: list[tuple[object, Tensor | None]] = [
        ("dog", torch.tensor([1])), (1, torch.tensor([1])), ("2", torch.tensor([2])), (None, None)
    ]  # fmt: skip
    for label, number in asked:
        response = client.post("/v1/models/classes/sample", json={"seed": 3, "label": label})
        np.testing.assert_array_equal(pixels_of(response.content), model.sample(1, 3, number)[0, :, :, 0])


@pytest.mark.parametrize(
    ("name", "label", "detail"),
    [
        ("classes", "bird", "label: no class 'bird'; choose from cat, dog, 2"),
        ("classes", 3, "label: no class 3; choose from cat, dog, 2"),
        ("classes", "9" * 5000, "label: no class '9"),
        ("classes", True, "label.str: "),
        ("digits", "zero", "label: this model knows no classes; leave it out"),
    ],
)
def test_a_class_that_cannot_be_drawn_is_refused(client: TestClient, name: str, label: object, detail: str) -> None:
    response = client.post(f"/v1/models/{name}/sample", json={"label": label})
    assert response.status_code == 422
    assert detail_of(response).startswith(detail)


def test_reconstruct_is_told_the_class_by_a_model_of_classes_only(client: TestClient, served_runs: Path) -> None:
    data = encoded(photo(16, 16, "L"))
    model = cast("CVAE", model_directory.load(str(served_runs / "classes" / "model")))
    pixels = torch.tensor(np.asarray(photo(16, 16, "L")))[None, :, :, None]
    response = client.post("/v1/models/classes/reconstruct?label=dog", content=data)
    expected = model.reconstruct(pixels, torch.tensor([1]))[0, :, :, 0]
    np.testing.assert_array_equal(pixels_of(response.content), expected)
    for path, detail in (
        ("classes/reconstruct", "label: this model must be told the class of a picture; choose from cat, dog, 2"),
        ("digits/reconstruct?label=zero", "label: this model knows no classes; leave it out"),
    ):
        size = client.get(f"/v1/models/{path.partition('/')[0]}").json()["image"]["width"]
        refused = client.post(f"/v1/models/{path}", content=encoded(photo(size, size, "L")))
        assert (refused.status_code, detail_of(refused)) == (422, detail)


def test_translate_gives_what_the_model_gives(client: TestClient, served_runs: Path) -> None:
    image = photo()
    response = client.post("/v1/models/monet/translate", content=encoded(image))
    assert response.status_code == 200
    np.testing.assert_array_equal(pixels_of(response.content), translated(served_runs, image))
    back = client.post("/v1/models/monet/translate?direction=b_to_a", content=encoded(image))
    np.testing.assert_array_equal(pixels_of(back.content), translated(served_runs, image, "b_to_a"))


def test_a_form_does_as_well_as_a_body(client: TestClient) -> None:
    data = encoded(photo())
    body = client.post("/v1/models/monet/translate", content=data, headers={"content-type": "image/png"})
    form = client.post("/v1/models/monet/translate", files={"image": ("photo.png", data, "image/png")})
    assert form.status_code == 200
    assert form.content == body.content


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_pictures_of_any_mode_are_converted(client: TestClient, mode: str) -> None:
    data = encoded(photo(mode=mode), "TIFF")
    response = client.post("/v1/models/monet/translate", content=data)
    assert pixels_of(response.content).shape == (24, 40, 3)


def test_a_turned_photo_is_set_upright(client: TestClient, served_runs: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    data = encoded(photo(), exif=exif)
    response = client.post("/v1/models/monet/translate", content=data)
    upright = photo().transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(pixels_of(response.content), translated(served_runs, upright))


def test_reconstruct_takes_the_models_size_only(client: TestClient) -> None:
    response = client.post("/v1/models/digits/reconstruct", content=encoded(photo(28, 28)))
    assert pixels_of(response.content).shape == (28, 28)
    refused = client.post("/v1/models/digits/reconstruct", content=encoded(photo()))
    assert refused.status_code == 422
    assert detail_of(refused) == "the picture is 40x24 pixels; the model takes 28x28"


def test_an_unknown_model_is_told_the_known_ones(client: TestClient) -> None:
    for response in (client.get("/v1/models/manet"), client.post("/v1/models/manet/sample")):
        assert response.status_code == 404
        assert detail_of(response) == "no model 'manet'; there are: digits, monet, classes"


def test_pictures_become_latent_vectors_and_these_pictures_again(client: TestClient, served_runs: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    url, content = "/v1/models/classes", encoded(Image.fromarray(pixels))
    latents = client.post(f"{url}/encode?label=cat", content=content)
    assert latents.headers["content-type"] == "application/json"
    model: Any = model_directory.load(str(served_runs / "classes" / "model"))
    means = model.encode(torch.from_numpy(pixels)[None, :, :, None], torch.tensor([0]))[0]
    np.testing.assert_array_equal(np.float32(latents.json()["latents"]), means)
    decoded = client.post(f"{url}/decode", json={**latents.json(), "label": "cat"})
    assert decoded.content == client.post(f"{url}/reconstruct?label=cat", content=content).content
    two = client.post(f"{url}/decode", json={"latents": [[0, 0], [1, -1.5]], "label": 2})
    expected = model.decode(torch.tensor([[0, 0], [1, -1.5]]), torch.tensor([2, 2]))[..., 0].numpy()
    np.testing.assert_array_equal(pixels_of(two.content)[2:18, 2:18], expected[0])
    accept = client.post(f"{url}/encode?label=cat", content=content, headers={"Accept": "image/png"})
    assert accept.status_code == 406


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ("[[0, 0, 0]]", "latents: the model takes 2 numbers each, not 3"),
        ("[[]]", "latents: the model takes 2 numbers each, not 0"),
        ("[]", "latents: List should have at least 1 item"),
        ("[[0, NaN]]", r"latents.0.1: Input should be"),
        ("[[0, Infinity]]", r"latents.0.1: Input should be"),
        ("[[0, 1e40]]", r"latents.0.1: Input should be"),
        ('[[0, "1"]]', r"latents.0.1: Input should be"),
        ("[0, 1]", r"latents.0: Input should be"),
        (str([[0, 0]] * 2000), "2,000 pictures were asked for; at most"),
    ],
)
def test_latent_vectors_that_are_none_of_the_models_are_refused(client: TestClient, latents: str, message: str) -> None:
    response = client.post("/v1/models/digits/decode", content=f'{{"latents": {latents}}}')
    assert response.status_code == 422
    assert message in detail_of(response)


def test_an_operation_the_model_lacks_is_not_found(client: TestClient) -> None:
    response = client.post("/v1/models/digits/translate", content=encoded(photo()))
    assert response.status_code == 404
    there = "sample, reconstruct, interpolate, interpolate_draws, decode, encode"
    assert detail_of(response) == f"digits has no operation 'translate'; it has: {there}"
    assert client.post("/v1/models/monet/sample").status_code == 404
    assert client.post("/v1/models/monet/reconstruct", content=encoded(photo())).status_code == 404


def test_an_unknown_direction_is_told_the_known_ones(client: TestClient) -> None:
    response = client.post("/v1/models/monet/translate?direction=sideways", content=encoded(photo()))
    assert response.status_code == 422
    assert detail_of(response) == "direction = 'sideways': choose from a_to_b, b_to_a"


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_refused(client: TestClient, data: bytes) -> None:
    response = client.post("/v1/models/monet/translate", content=data)
    assert response.status_code == 415
    assert "not a picture" in detail_of(response)


def test_a_truncated_picture_is_refused(client: TestClient) -> None:
    response = client.post("/v1/models/monet/translate", content=encoded(photo(), "JPEG")[:-100])
    assert response.status_code == 422
    assert detail_of(response).startswith("the picture cannot be decoded")


def test_a_form_without_the_picture_is_refused(client: TestClient) -> None:
    response = client.post("/v1/models/monet/translate", files={"picture": ("photo.png", encoded(photo()))})
    assert response.status_code == 422
    assert "image" in detail_of(response)


@pytest.mark.parametrize(
    ("width", "height", "kind"),
    [
        (4100, 4100, "too-many-pixels"),
        (20_000, 20_000, "too-many-pixels"),
        (4_194_304, 1, "too-long-side"),
        (8192, 1, None),
        (8192, 4, None),
    ],
)
def test_too_large_pictures_are_refused_by_the_header(
    width: int, height: int, kind: str | None, client: TestClient
) -> None:
    """Pictures that are nothing but a header: to decode one would end in 422."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data += struct.pack(">I", 1000) + b"IDAT"
    response = client.post("/v1/models/monet/translate", content=data)
    assert response.status_code == (422 if kind is None else 413), detail_of(response)
    if kind:
        assert response.json()["type"] == f"/problems/{kind}"


def test_pixels_are_counted_with_the_padding_that_goes_through_the_model(served_runs: Path) -> None:
    with serving(served_runs / "monet", limits=Limits(pixels=4096)) as client:
        assert client.post("/v1/models/monet/translate", content=encoded(photo(64, 64))).status_code == 200
        response = client.post("/v1/models/monet/translate", content=encoded(photo(65, 62)))
    assert response.status_code == 413
    assert detail_of(response) == "6,144 pixels would go through the model, padding included; at most 4,096 may"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("digits/sample", {"count": 9}),
        ("digits/interpolate_draws", {"seeds": [1, 2], "steps": 9}),
    ],
)
def test_more_pictures_than_allowed_are_refused(path: str, body: dict[str, Any], served_runs: Path) -> None:
    with serving(served_runs / "digits", limits=Limits(images=8)) as client:
        response = client.post(f"/v1/models/{path}", json=body)
    assert response.status_code == 422
    assert detail_of(response) == "9 pictures were asked for; at most 8 are allowed"


def test_too_long_a_body_is_refused(served_runs: Path) -> None:
    data = encoded(photo()) + bytes(2**20)
    json = {"content-type": "application/json"}
    with serving(served_runs / "digits", served_runs / "monet", limits=Limits(body_bytes=2**20)) as client:
        for response in (
            client.post("/v1/models/monet/translate", content=data),
            client.post("/v1/models/monet/translate", files={"image": ("photo.png", data)}),
            client.post("/v1/models/digits/sample", content=data, headers=json),
        ):
            assert response.status_code == 413
            assert detail_of(response) == "the body has more than the 1048576 bytes allowed"


def test_a_film_between_pictures_or_seeds(client: TestClient, served_runs: Path) -> None:
    model: Any = model_directory.load(served_runs / "digits" / "model")
    begin, end = (Image.fromarray(np.random.default_rng(i).integers(0, 256, (28, 28), np.uint8)) for i in (0, 1))
    files = {"begin": ("a.png", encoded(begin)), "end": ("b.png", encoded(end))}
    strip = client.post("/v1/models/digits/interpolate", files=files, data={"steps": "3"})
    pixels = torch.from_numpy(np.stack([np.asarray(begin), np.asarray(end)])[..., None])
    expected = model.interpolate(pixels, None, model.operations["interpolate"](steps=3))[:, :, :, 0]
    np.testing.assert_array_equal(pixels_of(strip.content)[2:30, 2:30], expected[0])
    np.testing.assert_array_equal(pixels_of(strip.content)[2:30, 62:90], expected[2])
    body = {"seeds": [3, 4], "steps": 5, "frames_per_second": 20}
    film = client.post("/v1/models/digits/interpolate_draws", json=body, headers={"Accept": "image/gif"})
    assert film.headers["content-type"] == "image/gif"
    with Image.open(io.BytesIO(film.content)) as frames:
        assert (frames.n_frames, frames.info["duration"]) == (5, 50)  # type: ignore[attr-defined]


def test_the_answer_has_the_type_that_accept_names(client: TestClient) -> None:
    for accept, kind in (("image/jpeg", "JPEG"), ("image/webp", "WEBP"), ("text/html, image/*;q=0.5", "PNG")):
        response = client.post("/v1/models/digits/sample", json={"seed": 3}, headers={"Accept": accept})
        with Image.open(io.BytesIO(response.content)) as image:
            assert image.format == kind
    refused = client.post("/v1/models/digits/sample", headers={"Accept": "text/html"})
    assert refused.status_code == 406
    two = client.post("/v1/models/digits/sample", json={"count": 2}, headers={"Accept": "application/json"}).json()
    assert len(two["pictures"]) == 2


def test_answers_name_the_version_and_say_that_they_are_exact(client: TestClient) -> None:
    card = client.get("/v1/models/digits").json()
    by_version = f"/v1/models/digits@{card['version'][:8]}/sample"
    for path in ("/v1/models/digits/sample", by_version):
        headers = client.post(path).headers
        assert (headers["X-Genlab-Version"], headers["X-Genlab-Exact"]) == (card["version"], "true")
    absent = client.post("/v1/models/digits@000000000000/sample")
    assert (absent.status_code, detail_of(absent)[:38]) == (404, "digits@000000000000: no such alias or ")


def test_a_fault_of_the_server_is_a_problem_without_its_secrets(served_runs: Path) -> None:
    with serving(served_runs / "digits") as client, mock.patch.object(Library, "get", side_effect=KeyError("secret")):
        response = client.post("/v1/models/digits/sample")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert detail_of(response) == "an internal error; the server's log has more under this request_id"


def test_openapi_describes_every_route(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    fixed = {"/livez", "/readyz", "/v1/models", "/v1/models/{name}", "/v1/models/monet/translate"}
    operations = ("sample", "reconstruct", "interpolate", "interpolate_draws", "decode", "encode")
    assert set(paths) == fixed | {f"/v1/models/{name}/{each}" for name in ("digits", "classes") for each in operations}
    translate = paths["/v1/models/monet/translate"]["post"]
    assert set(translate["responses"]) > {"200", "404", "413", "415", "422", "503"}
    assert set(translate["responses"]["200"]["content"]) >= {"image/png", "image/jpeg", "image/webp"}
    assert set(translate["requestBody"]["content"]) == {"image/*", "multipart/form-data", "application/json"}
    assert "X-Genlab-Seed" in paths["/v1/models/digits/sample"]["post"]["responses"]["200"]["headers"]
    for operation in (operation for path in paths.values() for operation in path.values()):
        assert operation["summary"]
        for code, response in operation["responses"].items():
            if code != "200" and "content" in response:
                [content] = response["content"].items()
                assert content[0] == "application/problem+json"
                assert "detail" in content[1]["schema"]["properties"]


def test_openapi_says_what_a_model_takes(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    def described(model: str, operation: str) -> dict[str, Any]:
        content: dict[str, Any] = paths[f"/v1/models/{model}/{operation}"]["post"]["requestBody"]["content"]
        schema: dict[str, Any] = content["application/json"]["schema"]
        return schema

    assert "label" not in described("digits", "sample")["properties"]
    names, numbers = described("classes", "decode")["properties"]["label"]["anyOf"]
    assert (names["enum"], numbers["minimum"], numbers["maximum"]) == (["cat", "dog", "2"], 0, 2)
    assert described("classes", "decode")["required"] == ["latents", "label"]
    assert "label" not in described("classes", "sample")["required"]
    latents = described("digits", "decode")["properties"]["latents"]
    length = client.get("/v1/models/digits").json()["latent_dim"]
    assert (latents["maxItems"], latents["items"]["minItems"], latents["items"]["maxItems"]) == (64, length, length)
    assert described("digits", "sample")["properties"]["count"]["maximum"] == 64
    [direction] = paths["/v1/models/monet/translate"]["post"]["parameters"]
    assert direction["schema"]["enum"] == ["a_to_b", "b_to_a"]
    assert described("monet", "translate")["required"] == ["image"]
    assert described("digits", "interpolate")["oneOf"] == [{"required": ["image"]}, {"required": ["begin", "end"]}]


def test_health(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "ok"}


def test_deep_pictures_are_read_by_the_range_of_training(served_runs: Path, tmp_path: Path, client: TestClient) -> None:
    ranged = str(with_ranges(served_runs / "digits", tmp_path / "scans", images=(-1000, 1550)) / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    scan = tiff(pixels.astype("<f4") * 10 - 1000)
    with serving(ranged) as scans:
        assert scans.get("/v1/models/scans").json()["value_ranges"] == {"images": [-1000, 1550]}
        deep = scans.post("/v1/models/scans/reconstruct", content=scan)
        assert deep.status_code == 200
        flat = scans.post("/v1/models/scans/reconstruct", content=encoded(Image.fromarray(pixels)))
        assert deep.content == flat.content
    refused = client.post("/v1/models/digits/reconstruct", content=scan)
    assert refused.status_code == 422
    assert "has signed, 32-bit or float values and no range of them" in detail_of(refused)


def test_options_of_a_models_own_are_taken_by_its_route_and_described(gan_run: Path, tmp_path: Path) -> None:
    model: Any = model_directory.load(gan_run / "model")
    with serving(shutil.copytree(gan_run, tmp_path / "copy" / "gan")) as client:
        response = client.post("/v1/models/gan/sample", json={"seed": 3, "truncation": 0.25})
        expected = model.sample(1, 3, options=model.operations["sample"](0.25))[0, :, :, 0]
        np.testing.assert_array_equal(pixels_of(response.content), expected)
        assert client.post("/v1/models/gan/sample", json={"seed": 3}).content != response.content
        for value, detail in (
            (1.5, "truncation: Input should be less than or equal to 1"),
            ("wide", "truncation: Input should be a valid number"),
        ):
            refused = client.post("/v1/models/gan/sample", json={"truncation": value})
            assert refused.status_code == 422
            assert detail_of(refused).startswith(detail)
        [name] = client.get("/v1/models/gan").json()["options"]["sample"]
        assert name == "truncation"
        paths = client.get("/openapi.json").json()["paths"]
    truncation = body_schema(paths, "gan", "sample")["truncation"]
    assert truncation.items() >= {"type": "number", "minimum": 0, "maximum": 1, "default": 1}.items()
    assert truncation["description"].startswith("Scale of the latent vectors")
    assert "count" in body_schema(paths, "gan", "sample")


def test_styles_are_mixed_by_seeds_and_options(model_runs: Path, client: TestClient) -> None:
    model: Any = model_directory.load(model_runs / "faces" / "model")
    route, body = "/v1/models/faces/mix_styles", {"rows": [1, 2], "columns": [4, 5, 6], "styles": "fine"}
    with serving(model_runs / "faces") as faces:
        page = pixels_of(faces.post(route, json=body).content)
        assert page.shape == (3 * 10 + 2, 4 * 10 + 2)
        expected = model.mix_styles((1, 2), (4, 5, 6), None, model.operations["mix_styles"](styles="fine"))[2, 3]
        np.testing.assert_array_equal(page[22:30, 32:40], expected[:, :, 0])
        assert faces.post(route, json={"rows": [*range(8)], "columns": [*range(8)]}).status_code == 200
        for change, detail in (
            ({"styles": "other"}, "styles: Input should be 'coarse', 'middle' or 'fine'"),
            ({"rows": []}, "rows: List should have at least 1 item"),
            ({"columns": [0] * 9}, "columns: List should have at most 8 items"),
            ({"columns": [-1]}, "columns.0: Input should be greater than or equal to 0"),
            ({"label": 0}, "label: this model knows no classes"),
        ):
            refused = faces.post(route, json=body | change)
            assert refused.status_code == 422
            assert detail_of(refused).startswith(detail)
        paths = faces.get("/openapi.json").json()["paths"]
    assert body_schema(paths, "faces", "mix_styles")["styles"]["enum"] == ["coarse", "middle", "fine"]
    absent = client.post("/v1/models/digits/mix_styles", json=body)
    assert (absent.status_code, detail_of(absent)[:33]) == (404, "digits has no operation 'mix_styl")


def test_styles_are_drawn_and_checked_over_http(model_runs: Path) -> None:
    model: Any = model_directory.load(model_runs / "faces" / "model")
    chosen = {"truncation": -0.5, "noise": "fixed", "latents": 2}
    with serving(model_runs / "faces") as client:
        url = "/v1/models/faces/sample"
        response = client.post(url, json={"seed": 3, **chosen})
        expected = model.sample(1, 3, options=model.operations["sample"](**chosen))[0, :, :, 0]
        np.testing.assert_array_equal(pixels_of(response.content), expected)
        for body, name in (
            ('{"truncation": NaN}', "truncation"),
            ('{"truncation": 2.5}', "truncation"),
            ('{"truncation": -3}', "truncation"),
            ('{"latents": 9}', "latents"),
            ('{"noise": "loud"}', "noise"),
        ):
            refused = client.post(url, content=body, headers={"Content-Type": "application/json"})
            assert refused.status_code == 422
            assert detail_of(refused).startswith(f"{name}: ")
        paths = client.get("/openapi.json").json()["paths"]
    properties = body_schema(paths, "faces", "sample")
    assert properties["truncation"].items() >= {"type": "number", "minimum": -2, "maximum": 2, "default": 1}.items()
    assert properties["latents"].items() >= {"type": "integer", "minimum": 1, "maximum": 8, "default": 1}.items()
    assert properties["noise"]["enum"] == ["random", "fixed", "none"]


def test_options_of_other_models_are_refused(client: TestClient) -> None:
    body = client.post("/v1/models/digits/sample", json={"truncation": 0.5})
    query = client.post("/v1/models/monet/translate?strength=0.5", content=encoded(photo()))
    for refused, name in ((body, "truncation"), (query, "strength")):
        assert refused.status_code == 422
        assert detail_of(refused).startswith(f"{name}: ")


def test_memory_is_on_the_metrics(client: TestClient) -> None:
    assert client.post("/v1/models/digits/sample", json={"seed": 1}).status_code == 200
    lines = client.get("/metrics").text.splitlines()
    assert float(next(line for line in lines if line.startswith('genlab_model_bytes{model="digits"}')).split()[1]) > 0
    if peak_bytes(lambda: None, torch.device("cpu")) is not None:  # this system tells
        assert any(line.startswith('genlab_row_bytes{model="digits",operation="sample"}') for line in lines)
    assert 'genlab_waiting_requests{model="digits"} 0.0' in lines
