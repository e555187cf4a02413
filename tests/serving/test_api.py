"""The HTTP interface, without Ray: ServedModels in this process does the work."""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from torch import Tensor

from genlab.models.cvae import CVAE
from genlab.serving.api import Options, create_api
from genlab.serving.schema import read_card
from genlab.serving.served_models import ServedModels
from genlab.serving.uploads import MAX_BODY_BYTES
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


class Direct:
    """A backend that works in this process."""

    def __init__(self, models: ServedModels) -> None:
        self.models = models

    async def sample(self, name: str, count: int, seed: int, label: int | None, options: Options) -> bytes:
        return self.models.sample(name, count, seed, label, options)

    async def translate(self, name: str, picture: bytes, direction: str, options: Options) -> bytes:
        return self.models.translate(name, picture, direction, options)

    async def reconstruct(self, name: str, picture: bytes, label: int | None, options: Options) -> bytes:
        return self.models.reconstruct(name, picture, label, options)

    async def mix_styles(
        self, name: str, rows: Sequence[int], columns: Sequence[int], label: int | None, options: Options
    ) -> bytes:
        return self.models.mix_styles(name, rows, columns, label, options)


@pytest.fixture(scope="module")
def client(served_runs: Path) -> Iterator[TestClient]:
    directories = {name: str(served_runs / name / "model") for name in ("digits", "monet", "classes")}
    cards = {name: read_card(name, directory) for name, directory in directories.items()}
    with TestClient(create_api(cards, Direct(ServedModels(directories))), raise_server_exceptions=False) as client:
        yield client


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


def test_models_are_listed_with_what_they_can_do(client: TestClient) -> None:
    digits, monet, classes = client.get("/v1/models").json()
    assert digits == {
        "name": "digits",
        "family": "vae",
        "operations": ["sample", "reconstruct", "interpolate", "interpolate_draws"],
        "options": {
            "sample": {},
            "reconstruct": {},
            "interpolate": LINE,
            "interpolate_draws": LINE,
        },
        "image": {"height": 28, "width": 28, "channels": 1},
        "directions": [],
        "label_names": ["zero", "one"],
        "classes": [],
        "value_ranges": {},
        "step": 100,
        "images": 1600,
        "metrics": {"test/loss": 0.25, "test/diverged": None},
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


@pytest.mark.parametrize(
    "body", [{"count": 0}, {"count": 65}, {"seed": -1}, {"seed": 2**31}, {"count": "many"}, {"counts": 2}]
)
def test_a_parameter_out_of_range_is_named(client: TestClient, body: dict[str, object]) -> None:
    response = client.post("/v1/models/digits/sample", json=body)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(f"{next(iter(body))}: ")


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
    assert response.json()["detail"].startswith(detail)


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
        refused = client.post(f"/v1/models/{path}", content=data)
        assert (refused.status_code, refused.json()) == (422, {"detail": detail})


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
    assert refused.json() == {"detail": "the picture is 40x24 pixels; the model takes 28x28"}


def test_an_unknown_model_is_told_the_known_ones(client: TestClient) -> None:
    for response in (client.get("/v1/models/manet"), client.post("/v1/models/manet/sample")):
        assert response.status_code == 404
        assert response.json() == {"detail": "no model 'manet'; there are: digits, monet, classes"}


def test_an_operation_the_model_lacks_is_not_found(client: TestClient) -> None:
    response = client.post("/v1/models/digits/translate", content=encoded(photo()))
    assert response.status_code == 404
    assert response.json() == {
        "detail": "digits has no operation 'translate'; it has: sample, reconstruct, interpolate, interpolate_draws"
    }
    assert client.post("/v1/models/monet/sample").status_code == 404
    assert client.post("/v1/models/monet/reconstruct", content=encoded(photo())).status_code == 404


def test_an_unknown_direction_is_told_the_known_ones(client: TestClient) -> None:
    response = client.post("/v1/models/monet/translate?direction=sideways", content=encoded(photo()))
    assert response.status_code == 422
    assert response.json()["detail"] == "direction = 'sideways': choose from a_to_b, b_to_a"


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_refused(client: TestClient, data: bytes) -> None:
    response = client.post("/v1/models/monet/translate", content=data)
    assert response.status_code == 415
    assert "not a picture" in response.json()["detail"]


def test_a_truncated_picture_is_refused(client: TestClient) -> None:
    response = client.post("/v1/models/monet/translate", content=encoded(photo(), "JPEG")[:-100])
    assert response.status_code == 422
    assert response.json()["detail"].startswith("the picture cannot be decoded")


def test_a_form_without_the_picture_is_refused(client: TestClient) -> None:
    response = client.post("/v1/models/monet/translate", files={"picture": ("photo.png", encoded(photo()))})
    assert response.status_code == 422
    assert "image" in response.json()["detail"]


def test_too_many_pixels_are_refused_by_the_header(client: TestClient) -> None:
    """A picture that is nothing but a header: to decode it would end in 422."""
    for side in (2049, 20000):
        header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        data += struct.pack(">I", 1000) + b"IDAT"
        response = client.post("/v1/models/monet/translate", content=data)
        assert response.status_code == 413, side
        assert "more than 4,194,304 pixels" in response.json()["detail"]


def test_too_long_a_body_is_refused(client: TestClient) -> None:
    data = encoded(photo()) + bytes(MAX_BODY_BYTES)
    for response in (
        client.post("/v1/models/monet/translate", content=data),
        client.post("/v1/models/monet/translate", files={"image": ("photo.png", data)}),
        client.post("/v1/models/digits/sample", content=data, headers={"content-type": "application/json"}),
    ):
        assert response.status_code == 413
        assert response.json() == {"detail": "the body is larger than 10 MiB"}


def test_a_fault_of_the_server_is_json_without_its_secrets(served_runs: Path) -> None:
    directory = str(served_runs / "digits" / "model")
    models = ServedModels({})  # knows no model, so that sampling raises KeyError
    api = create_api({"digits": read_card("digits", directory)}, Direct(models))
    response = TestClient(api, raise_server_exceptions=False).post("/v1/models/digits/sample")
    assert response.status_code == 500
    assert response.json() == {"detail": "internal error; the server's log has more"}


def test_openapi_describes_every_route(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/healthz", "/v1/models", "/v1/models/{name}", "/v1/models/monet/translate"} | {
        f"/v1/models/{name}/{operation}" for name in ("digits", "classes") for operation in ("sample", "reconstruct")
    }
    translate = paths["/v1/models/monet/translate"]["post"]
    assert set(translate["responses"]) == {"200", "404", "413", "415", "422", "503"}
    assert set(translate["responses"]["200"]["content"]) == {"image/png"}
    assert set(translate["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
    assert "X-Genlab-Seed" in paths["/v1/models/digits/sample"]["post"]["responses"]["200"]["headers"]
    for operation in (operation for path in paths.values() for operation in path.values()):
        assert operation["summary"]
        for code, response in operation["responses"].items():
            if code != "200":
                assert set(response["content"]["application/json"]["schema"]["properties"]) == {"detail"}


def test_health_and_the_way_to_the_documentation(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/").url.path == "/docs"


def test_deep_pictures_are_read_by_the_range_of_training(served_runs: Path, tmp_path: Path, client: TestClient) -> None:
    ranged = str(with_ranges(served_runs / "digits", tmp_path / "scans", images=(-1000, 1550)) / "model")
    api = create_api({"scans": read_card("scans", ranged)}, Direct(ServedModels({"scans": ranged})))
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    scan = tiff(pixels.astype("<f4") * 10 - 1000)
    with TestClient(api) as scans:
        assert scans.get("/v1/models/scans").json()["value_ranges"] == {"images": [-1000, 1550]}
        deep = scans.post("/v1/models/scans/reconstruct", content=scan)
        assert deep.status_code == 200
        flat = scans.post("/v1/models/scans/reconstruct", content=encoded(Image.fromarray(pixels)))
        assert deep.content == flat.content
    refused = client.post("/v1/models/digits/reconstruct", content=scan)
    assert refused.status_code == 422
    assert "has signed, 32-bit or float values and no range of them" in refused.json()["detail"]


def test_options_of_a_models_own_are_taken_by_its_route_and_described(gan_run: Path) -> None:
    directories = {"gan": str(gan_run / "model")}
    api = create_api({"gan": read_card("gan", directories["gan"])}, Direct(ServedModels(directories)))
    model: Any = model_directory.load(directories["gan"])
    with TestClient(api) as client:
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
            assert refused.json()["detail"].startswith(detail)
        [name] = client.get("/v1/models/gan").json()["options"]["sample"]
        assert name == "truncation"
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
    truncation = schemas["SampleRequest_gan"]["properties"]["truncation"]
    assert truncation.items() >= {"type": "number", "minimum": 0, "maximum": 1, "default": 1}.items()
    assert truncation["description"].startswith("Scale of the latent vectors")
    assert "count" in schemas["SampleRequest_gan"]["properties"]


def test_styles_are_mixed_by_seeds_and_options(model_runs: Path, client: TestClient) -> None:
    directories = {"faces": str(model_runs / "faces" / "model")}
    api = create_api({"faces": read_card("faces", directories["faces"])}, Direct(ServedModels(directories)))
    model: Any = model_directory.load(directories["faces"])
    route, body = "/v1/models/faces/mix_styles", {"rows": [1, 2], "columns": [4, 5, 6], "styles": "fine"}
    with TestClient(api) as faces:
        page = pixels_of(faces.post(route, json=body).content)
        assert page.shape == (3 * 10 + 2, 4 * 10 + 2)
        expected = model.mix_styles((1, 2), (4, 5, 6), None, model.operations["mix_styles"](styles="fine"))[2, 3]
        np.testing.assert_array_equal(page[22:30, 32:40], expected[:, :, 0])
        for change, detail in (
            ({"styles": "other"}, "styles: Input should be 'coarse', 'middle' or 'fine'"),
            ({"rows": []}, "rows: List should have at least 1 item"),
            ({"columns": [0] * 9}, "columns: List should have at most 8 items"),
            ({"columns": [-1]}, "columns.0: Input should be greater than or equal to 0"),
            ({"label": 0}, "label: this model knows no classes"),
        ):
            refused = faces.post(route, json=body | change)
            assert refused.status_code == 422
            assert refused.json()["detail"].startswith(detail)
        schemas = faces.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["MixRequest_faces"]["properties"]["styles"]["enum"] == ["coarse", "middle", "fine"]
    absent = client.post("/v1/models/digits/mix_styles", json=body)
    assert (absent.status_code, absent.json()["detail"][:33]) == (404, "digits has no operation 'mix_styl")


def test_styles_are_drawn_and_checked_over_http(model_runs: Path) -> None:
    directories = {"styles": str(model_runs / "faces" / "model")}
    api = create_api({"styles": read_card("styles", directories["styles"])}, Direct(ServedModels(directories)))
    model: Any = model_directory.load(directories["styles"])
    chosen = {"truncation": -0.5, "noise": "fixed", "latents": 2}
    with TestClient(api) as client:
        url = "/v1/models/styles/sample"
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
            assert refused.json()["detail"].startswith(f"{name}: ")
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
    properties = schemas["SampleRequest_styles"]["properties"]
    assert properties["truncation"].items() >= {"type": "number", "minimum": -2, "maximum": 2, "default": 1}.items()
    assert properties["latents"].items() >= {"type": "integer", "minimum": 1, "maximum": 8, "default": 1}.items()
    assert properties["noise"]["enum"] == ["random", "fixed", "none"]


def test_options_of_other_models_are_refused(client: TestClient) -> None:
    body = client.post("/v1/models/digits/sample", json={"truncation": 0.5})
    query = client.post("/v1/models/monet/translate?strength=0.5", content=encoded(photo()))
    for refused, name in ((body, "truncation"), (query, "strength")):
        assert refused.status_code == 422
        assert refused.json()["detail"].startswith(f"{name}: ")
