"""Answers: the form that a client asked for, with the same pictures in it."""

import base64
import email
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from genlab.imaging.images import Pixels
from genlab.imaging.sheets import sheet
from genlab.serving.answers import (
    FILM,
    GIF,
    JPEG,
    JSON,
    MULTIPART,
    PICTURE,
    PICTURES,
    PNG,
    WEBP,
    ZIP,
    choose,
    describe_answers,
    encode,
)
from genlab.serving.problems import Problem

CHROME_IMAGE = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
CHROME_PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"


def pictures(count: int, channels: int = 1) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, 10, 14, channels), np.uint8)


def pixels_of(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


@pytest.mark.parametrize(
    ("accept", "offers", "chosen"),
    [
        (None, PICTURES, PNG),
        ("", PICTURES, PNG),
        ("*/*", PICTURES, PNG),
        (" */* ", PICTURES, PNG),
        ("image/*", PICTURES, PNG),
        ("application/*", PICTURES, ZIP),
        ("image/jpeg", PICTURE, JPEG),
        ("IMAGE/JPEG", PICTURE, JPEG),
        ("image/jpeg;q=0.5, image/webp;q=0.7", PICTURE, WEBP),
        ("image/jpeg;q=0.5,image/webp;q=0.5", PICTURE, JPEG),
        ("image/png;q=0.1, */*", PICTURE, JPEG),
        ("image/png;q=0, image/*", PICTURE, JPEG),
        ("image/*;q=0, */*", PICTURES, ZIP),
        ("image/*;q=0.2, image/webp ; q=0.3", PICTURE, WEBP),
        ("image/webp;Q=0.3, image/jpeg;q=.2", PICTURE, WEBP),
        ("image/gif", FILM, GIF),
        ("image/gif;q=0.9, image/png;q=0.8", PICTURE, PNG),
        ("application/json; charset=utf-8", PICTURES, JSON),
        ("text/html, multipart/mixed;boundary=x;q=0.4", PICTURES, MULTIPART),
        ("image/webp;q=high, image/jpeg;q=0.1", PICTURE, JPEG),
        ("image/webp;q=2, image/jpeg;q=0.1", PICTURE, JPEG),
        (",,image/jpeg,", PICTURE, JPEG),
        (CHROME_IMAGE, PICTURE, PNG),
        (CHROME_PAGE, PICTURE, WEBP),
        ("text/html," * 1000 + "image/jpeg", PICTURE, JPEG),
    ],
)
def test_the_preferred_form_is_chosen(accept: str | None, offers: tuple[str, ...], chosen: str) -> None:
    assert choose(accept, offers) == chosen


@pytest.mark.parametrize(
    "accept", ["text/html", "image/gif", "image/png;q=0", "*/*;q=0", "image/png;q=x", "image", "?"]
)
def test_where_nothing_is_acceptable_the_forms_are_named(accept: str) -> None:
    with pytest.raises(Problem) as caught:
        choose(accept, PICTURE)
    assert (caught.value.status, caught.value.kind) == (406, "not-acceptable")
    assert caught.value.detail == "Accept: choose from image/png, image/jpeg, image/webp, application/json"


@pytest.mark.parametrize("channels", [1, 3])
def test_one_picture_is_itself_and_several_are_a_square_sheet(channels: int) -> None:
    one = pictures(1, channels)
    body, kind = encode(one, PNG)
    assert kind == PNG
    np.testing.assert_array_equal(pixels_of(body), one[0])
    some = pictures(7, channels)
    np.testing.assert_array_equal(pixels_of(encode(some, PNG)[0]), sheet(some, 3))
    np.testing.assert_array_equal(pixels_of(encode(some, PNG, columns=5)[0]), sheet(some, 5))


@pytest.mark.parametrize(("kind", "name"), [(JPEG, "JPEG"), (WEBP, "WEBP")])
def test_a_sheet_may_be_lossy(kind: str, name: str) -> None:
    body, found = encode(pictures(4, 3), kind)
    image = Image.open(io.BytesIO(body))
    assert (found, image.format, image.size) == (kind, name, (34, 26))


@pytest.mark.parametrize("count", [1, 3, 12])
def test_each_picture_is_a_file_of_its_own(count: int) -> None:
    some = pictures(count)
    archive = zipfile.ZipFile(io.BytesIO(encode(some, ZIP)[0]))
    assert archive.testzip() is None
    assert archive.namelist() == [f"{number:03}.png" for number in range(count)]
    body, kind = encode(some, MULTIPART)
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    parts = message.get_payload()
    body, kind = encode(some, JSON)
    document = json.loads(body)
    assert kind == JSON
    assert set(document) == set(describe_answers(PICTURES)[JSON]["schema"]["required"])
    assert {key: document[key] for key in ("type", "width", "height")} == {"type": PNG, "width": 14, "height": 10}
    assert len(parts) == len(document["pictures"]) == count
    for name, part, text, picture in zip(archive.namelist(), parts, document["pictures"], some, strict=True):
        assert part.get_content_type() == PNG
        for file in (archive.read(name), part.get_payload(decode=True), base64.b64decode(text)):
            np.testing.assert_array_equal(pixels_of(file), picture)


def test_a_film_is_animated_or_a_strip() -> None:
    frames = pictures(5, 3)
    np.testing.assert_array_equal(pixels_of(encode(frames, PNG, frames_per_second=10)[0]), sheet(frames, 5))
    for kind, name in ((GIF, "GIF"), (WEBP, "WEBP")):
        for rate, milliseconds in ((10.0, 100), (25.0, 40), (1000.0, 20)):
            body, found = encode(frames, kind, frames_per_second=rate)
            film = Image.open(io.BytesIO(body))
            film.load()
            assert (found, film.format, film.n_frames, film.info["duration"]) == (kind, name, 5, milliseconds)  # type: ignore[attr-defined]
    assert Image.open(io.BytesIO(encode(frames, JPEG, frames_per_second=10)[0])).size == (5 * 16 + 2, 14)


@pytest.mark.parametrize("kind", FILM)
def test_an_answer_is_a_function_of_its_pictures(kind: str) -> None:
    first, second = (encode(pictures(4), kind, frames_per_second=10) for _ in range(2))
    assert first == second
    assert encode(pictures(5), kind, frames_per_second=10) != first


def test_a_sheet_that_a_format_cannot_hold_is_not_acceptable() -> None:
    with pytest.raises(Problem, match="16,383 a side; ask for image/png") as caught:
        encode(np.zeros((2, 1, 8192, 1), np.uint8), WEBP, columns=2)
    assert caught.value.status == 406
