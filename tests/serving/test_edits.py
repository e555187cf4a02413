"""Pictures are edited over HTTP: what comes back, what it says of its origin, and what is refused."""

import asyncio
import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from genlab.core.storage import locate
from genlab.editing.edit_tasks import Amount, edit_task
from genlab.editing.edits import edit, start_of_seed
from genlab.imaging.images import encode_png, read_note
from genlab.inference.engine import Engine
from genlab.models.encoder import Encoder
from genlab.models.pixels import from_signed
from genlab.models.stylegan import StyleGAN
from genlab.serving import beside
from genlab.serving.library import Library
from genlab.serving.limits import Limits
from genlab.serving.schema import ModelCard
from genlab.store import model_directory
from genlab.store.directions import Directions, load_directions
from tests.serving.every_operation import ask_every_operation
from tests.serving.test_api import body_schema, detail_of, serving

AGE = {"direction": "age", "amount": -15}
ROUTE = "/v1/models/faces/edit"


@pytest.fixture(scope="module")
def client(edited_runs: Path) -> Iterator[TestClient]:
    with serving(edited_runs / "faces", edited_runs / "encoder") as client:
        yield client


@pytest.fixture(scope="module")
def generator(edited_runs: Path) -> StyleGAN:
    model = model_directory.load(edited_runs / "faces" / "model")
    assert isinstance(model, StyleGAN)
    return model


@pytest.fixture(scope="module")
def found(edited_runs: Path) -> Directions:
    directory = locate(edited_runs / "faces" / "model")
    return load_directions(directory, model_directory.describe(directory))


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(("name", "method"), [("age", "linear"), ("gender", "linear"), ("gender", "channel")])
def test_an_edit_is_that_of_the_command_line(
    client: TestClient, generator: StyleGAN, found: Directions, name: str, method: Any
) -> None:
    answer = client.post(ROUTE, json={"seed": 3, "edits": [{"direction": name, "amount": 2.5, "method": method}]})
    assert answer.status_code == 200, answer.text
    assert (answer.headers["X-Genlab-Seed"], answer.headers["X-Genlab-Exact"]) == ("3", "true")
    before, after = edit(generator, start_of_seed(generator, 3, None), found.find(name, method), [0, 2.5]).numpy()
    shown = pixels_of(answer.content)
    assert np.abs(shown.astype(int) - after).max() <= 1
    assert not np.array_equal(shown, before)


def test_without_a_change_it_is_the_picture_of_the_seed(client: TestClient) -> None:
    same = client.post(ROUTE, json={"seed": 3}).content
    assert np.array_equal(pixels_of(same), pixels_of(client.post("/v1/models/faces/sample", json={"seed": 3}).content))
    drawn = client.post(ROUTE, json={"edits": [AGE]})
    again = client.post(ROUTE, json={"edits": [AGE], "seed": int(drawn.headers["X-Genlab-Seed"])})
    assert again.content == drawn.content


def test_a_photo_is_encoded_and_its_styles_are_edited(
    client: TestClient, edited_runs: Path, generator: StyleGAN, found: Directions
) -> None:
    encoder = model_directory.load(edited_runs / "encoder" / "model")
    assert isinstance(encoder, Encoder)
    photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    answer = client.post("/v1/models/encoder/encode", content=encode_png(photo))
    [latents] = answer.json()["latents"]
    styles = encoder.styles(torch.from_numpy(photo)[None])
    np.testing.assert_allclose(latents, styles.flatten().numpy(), rtol=1e-4, atol=1e-4)
    edited = client.post(ROUTE, json={"latents": latents, "edits": [AGE]})
    moved = styles + found.find("age").steps_for(-15) * torch.tensor(found.find("age").vector)
    expected = from_signed(generator.synthesise(moved, None))[0].numpy()
    assert np.abs(pixels_of(edited.content).astype(int) - expected).max() <= 1
    note = read_note(edited.content)
    assert note is not None
    assert len(note["latents"]) == 64
    assert "X-Genlab-Seed" not in edited.headers


def test_every_file_says_where_its_picture_is_from(client: TestClient, generator: StyleGAN, edited_runs: Path) -> None:
    weights = model_directory.describe(edited_runs / "faces" / "model")["weights"]["sha256"]
    both = [AGE, {"direction": "gender", "amount": 3}]
    for accept in ("image/png", "image/jpeg", "image/webp", "application/json"):
        answer = client.post(ROUTE, json={"seed": 3, "edits": both}, headers={"Accept": accept})
        data = answer.content
        if accept == "application/json":
            data = base64.b64decode(answer.json()["pictures"][0])
        note = read_note(data)
        assert note is not None, accept
        assert (note["made"], note["model"], note["seed"]) == ("edit", weights, 3)
        assert note["edits"] == [one | {"method": "linear"} for one in both]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"edits": [{"direction": "aeg", "amount": 1}]}, "did you mean 'age'? there are: age, gender"),
        ({"edits": [{"direction": "age", "amount": 500}]}, "this direction goes from -30 to 20 (the column's units)"),
        ({"edits": [{"direction": "age", "amount": 1, "method": "sefa"}]}, "no direction 'age' by the method sefa"),
        ({"edits": [{"direction": "age"}]}, "edits.0.amount: Field required"),
        ({"edits": [AGE, AGE]}, "edits: 'age' is there twice; give the sum of its amounts"),
        ({"edits": [AGE] * 17}, "edits: List should have at most 16 items"),
        ({"seed": 1, "latents": [0.0] * 32}, "seed and latents: give one of them"),
        ({"latents": [0.0] * 31}, "latents: this model takes 32 numbers, not 31"),
        ({"seed": 1, "label": 0}, "label: this model knows no classes"),
    ],
)
def test_what_cannot_be_edited_is_said(client: TestClient, body: dict[str, Any], message: str) -> None:
    refused = client.post(ROUTE, json=body)
    assert refused.status_code == 422
    assert message in detail_of(refused)


def test_an_amount_that_is_no_number_is_refused(client: TestClient) -> None:
    body = '{"edits": [{"direction": "age", "amount": NaN}]}'
    refused = client.post(ROUTE, content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code in (400, 422)
    assert "amount" in detail_of(refused)


def test_an_edit_is_the_same_bytes_in_any_company(edited_runs: Path, found: Directions) -> None:
    engine = Engine(edited_runs / "faces" / "model", "cpu")
    for given in (None, [0.1 * number for number in range(32)]):
        tasks = [
            edit_task(engine, found, [Amount("age", -number)], seed=None if given else 3, styles=given, label=None).task
            for number in range(5)
        ]
        assert {task.kind for task in tasks} == {tasks[0].kind}
        rows = [row for task in tasks for row in task.rows]
        alone = [engine.run(task)[0] for task in tasks]
        together = list[Any]()
        while len(together) < len(rows):
            left = rows[len(together) :]
            together += engine.compute(tasks[0].kind, left[: engine.next_batch(tasks[0].kind, len(left))])
        assert engine.exact(tasks[0].kind)
        assert np.array_equal(np.stack(alone), np.stack(together))


def test_the_card_says_what_edits_do_and_what_they_are_not(client: TestClient, edited_runs: Path) -> None:
    card = ModelCard.model_validate(client.get("/v1/models/faces").json())
    assert "edit" in card.operations
    assert card.edits is not None
    assert card.edits.latent_dim == 32
    assert [(one.name, one.method) for one in card.edits.directions] == [
        ("age", "linear"),
        ("gender", "linear"),
        ("gender", "channel"),
    ]
    age = card.edits.directions[0]
    assert (age.low, age.high, age.effects[0].changes["gender"].same_class) == (-30, 20, 0.82)
    assert any("age by 6.5 in the mean and gender in 10.0%" in one for one in card.edits.cautions)
    assert any("neither is a fact about a person" in one for one in card.edits.cautions)
    encoder = ModelCard.model_validate(client.get("/v1/models/encoder").json())
    assert (encoder.generator, encoder.edits, encoder.operations) == (card.weights, None, ["encode"])
    readme = (edited_runs / "faces" / "model" / "README.md").read_text()
    assert "| age | linear | -15 (the column's units) | -13.5 | gender +0.1 (size 0.5, same class in 82%) |" in readme
    assert all(one in readme for one in card.edits.cautions)


def test_openapi_has_the_range_of_each_direction(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    fields = body_schema(paths, "faces", "edit")
    changes = fields["edits"]["items"]["oneOf"]
    assert [one["title"] for one in changes] == ["age, linear", "gender, linear", "gender, channel"]
    assert changes[0]["properties"]["amount"].items() >= {"minimum": -30, "maximum": 20}.items()
    assert fields["latents"]["anyOf"][0].items() >= {"minItems": 32, "maxItems": 32}.items()


def test_every_type_of_answer(client: TestClient) -> None:
    asked = ask_every_operation(client)
    assert asked["faces"][1][-1] == "edit"
    assert asked["encoder"] == ("encoder", ["encode"])


def test_directions_that_are_found_later_are_offered(
    edited_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(edited_runs / "faces", tmp_path / "faces"))
    directions = run / "model" / "directions.json"
    content = directions.read_bytes()
    directions.unlink()

    async def look() -> list[bool]:
        library, offered = Library([str(run)], limits=Limits(), device="cpu"), []
        for there in (False, True):
            if there:
                directions.write_bytes(content)
                monkeypatch.setattr(beside, "AGAIN_SECONDS", 0.0)
                await library.refresh()
            offered.append("edit" in (await library.get("faces")).forms)
        return offered

    assert asyncio.run(look()) == [False, True]
