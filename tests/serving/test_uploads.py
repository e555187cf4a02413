"""Pictures in the body of a request: where they may be, and what is refused before any is decoded."""

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.imaging.headers import Header
from genlab.serving.limits import Limits
from genlab.serving.problems import Problem
from genlab.serving.uploads import Received, decode_all, describe_body, parse_json, read_pictures
from tests.serving.odd_pictures import NOISE, encoded

LIMITS = Limits()
PHOTO = encoded(Image.fromarray(NOISE), "PNG")
OTHER = encoded(Image.fromarray(NOISE[::-1]), "WEBP")
B64 = base64.b64encode(PHOTO).decode()
ENDS = {"least": 2, "most": 2, "names": ("begin", "end")}


def form(
    *parts: tuple[str, bytes], boundary: str = "xyz", header: str = 'Content-Disposition: form-data; name="{}"'
) -> bytes:
    return (
        b"".join(f"--{boundary}\r\n{header.format(name)}\r\n\r\n".encode() + data + b"\r\n" for name, data in parts)
        + f"--{boundary}--\r\n".encode()
    )


def read(content_type: str | None, body: bytes | dict[str, Any], **options: Any) -> Received:
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    return read_pictures(content_type, body, options.pop("limits", LIMITS), **options)


def refusal(content_type: str | None, body: bytes | dict[str, Any], **options: Any) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        read(content_type, body, **options)
    return caught.value.status, caught.value.detail


MULTIPART = "multipart/form-data; boundary=xyz"
FILE = 'Content-Disposition: form-data; name="{}"; filename="../../a;b.png"'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (None, PHOTO),
        ("image/png", PHOTO),
        ("image/jpeg", PHOTO),
        ("application/x-www-form-urlencoded", PHOTO),
        (MULTIPART, form(("image", PHOTO))),
        ("Multipart/Form-Data; Boundary=xyz", form(("image", PHOTO))),
        ('multipart/form-data; charset=utf-8; boundary="a b"', form(("image", PHOTO), boundary="a b")),
        (MULTIPART, b"preamble\r\n" + form(("image", PHOTO)) + b"epilogue"),
        (MULTIPART, form(("image", PHOTO)).replace(b"--xyz\r\n", b"--xyz \t\r\n")),
        (
            MULTIPART,
            form(("image", PHOTO), header="content-type: image/png\r\nCONTENT-DISPOSITION: form-data; name={}"),
        ),
        (
            MULTIPART,
            form(("image", PHOTO), header='Content-Disposition: form-data; name="{}"; filename="../../x;.png"'),
        ),
        ("application/json", {"image": B64}),
        ("Application/JSON; charset=utf-8", {"image": B64}),
        ("application/problem+json", {"image": B64}),
        ("application/json", {"image": [B64]}),
        ("application/json", {"image": "data:image/png;base64," + B64}),
        ("application/json", {"image": "DATA:;BASE64," + B64}),
        ("application/json", {"image": base64.encodebytes(PHOTO).decode()}),
        ("application/json", {"image": B64.rstrip("=")}),
    ],
)
def test_a_picture_is_found_wherever_it_is(content_type: str | None, body: bytes | dict[str, Any]) -> None:
    received = read(content_type, body)
    [upload] = received.pictures
    assert upload.data == PHOTO
    assert upload.header == Header("PNG", 24, 16)
    assert received.fields == {}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (MULTIPART, form(("begin", PHOTO), ("end", OTHER), ("steps", b"7"))),
        (MULTIPART, form(("end", OTHER), ("steps", b"7"), ("begin", PHOTO))),
        (MULTIPART, form(("image", PHOTO), ("steps", b"7"), ("image", OTHER))),
        ("application/json", {"steps": "7", "end": base64.b64encode(OTHER).decode(), "begin": B64}),
        ("application/json", {"image": [B64, base64.b64encode(OTHER).decode()], "steps": "7"}),
    ],
)
def test_two_pictures_come_in_their_order_beside_other_parameters(content_type: str, body: Any) -> None:
    received = read(content_type, body, **ENDS)
    assert [upload.data for upload in received.pictures] == [PHOTO, OTHER]
    assert received.fields == {"steps": "7"}


def test_json_keeps_the_types_of_other_parameters() -> None:
    body = {"image": B64, "label": 3, "direction": "a_to_b", "scale": 0.5, "rest": [1, {"a": None}]}
    assert read("application/json", body).fields == {key: value for key, value in body.items() if key != "image"}


@pytest.mark.parametrize(
    ("content_type", "body", "status", "detail"),
    [
        ("multipart/form-data", form(("image", PHOTO)), 400, "boundary"),
        ("multipart/form-data; boundary=", form(("image", PHOTO)), 400, "boundary"),
        ("multipart/form-data; boundary=" + "x" * 71, form(("image", PHOTO)), 400, "boundary"),
        ("multipart/form-data; boundary=other", form(("image", PHOTO)), 400, "does not occur"),
        (MULTIPART, form(("image", PHOTO))[:-8], 400, "does not end"),
        (MULTIPART, b"", 400, "does not occur"),
        (MULTIPART, b"--xyz--\r\n", 422, "image"),
        (MULTIPART, form(("image", PHOTO)).replace(b"\r\n\r\n", b"\r\n", 1), 400, "head"),
        (MULTIPART, form(("image", PHOTO), header="X-Name: {}"), 400, "no name"),
        (MULTIPART, form(("image", PHOTO), header="X: " + "x" * 5000), 400, "head"),
        (MULTIPART, form(*[("image", b"")] * 1000), 400, "parts"),
        (MULTIPART, b"\r\n--xyzX" * 100_000, 400, "parts"),
        (MULTIPART, form(("steps", b"7")), 422, "in the field image; there are 0"),
        (MULTIPART, form(("photo", PHOTO), header=FILE), 422, "photo: is a file; pictures are those of image"),
        (MULTIPART, form(("image", PHOTO), ("image", PHOTO)), 422, "there are 2 in image"),
        (MULTIPART, form(("image", PHOTO), ("label", b"1"), ("label", b"2")), 422, "label: is given twice"),
        (MULTIPART, form(("image", PHOTO), ("label", b"\xff")), 422, "label: is not a text"),
        (MULTIPART, form(("image", PHOTO), ("label", bytes(70_000))), 422, "label: has more than"),
        (MULTIPART, form(("image", b"no picture")), 415, "not a picture"),
        ("multipart/mixed; boundary=xyz", form(("image", PHOTO)), 415, "not a picture"),
        ("text/plain; " + "x" * 5000, PHOTO, 400, "Content-Type"),
        ("application/json", b"", 400, "not JSON"),
        ("application/json", b"{", 400, "not JSON"),
        ("application/json", b"\xff\xfe{", 400, "not JSON"),
        ("application/json", b"[]", 400, "not an object"),
        ("application/json", b"[" * 50_000, 400, "nested"),
        ("application/json", b'{"a":' * 50_000, 400, "nested"),
        ("application/json", b"[" + b"[]," * 200_000, 400, "values"),
        ("application/json", b'{"latents": [NaN]}', 400, "NaN is not a finite number"),
        ("application/json", b'{"latents": [1e999]}', 400, "1e999 is not a finite number"),
        ("application/json", b'{"seed": %s}' % (b"9" * 5000), 400, "not JSON"),
        ("application/json", {}, 422, "image"),
        ("application/json", {"image": None}, 422, "image: should be"),
        ("application/json", {"image": {"data": B64}}, 422, "image: should be"),
        ("application/json", {"image": []}, 422, "a picture is wanted"),
        ("application/json", {"image": "\ud800"}, 422, "image: should be"),
        ("application/json", {"image": "?" * 100}, 422, "image: should be"),
        ("application/json", {"image": B64 + "=x"}, 422, "image: should be"),
        ("application/json", {"image": "data:image/png," + B64}, 422, "image: should be"),
        ("application/json", {"image": ""}, 415, "empty"),
        ("application/json", {"image": [B64, B64]}, 422, "there are 2 in image"),
    ],
)
def test_what_is_malformed_is_refused_with_its_reason(
    content_type: str, body: bytes | dict[str, Any], status: int, detail: str
) -> None:
    found, sentence = refusal(content_type, body)
    assert found == status
    assert detail in sentence


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("image/png", PHOTO),
        (MULTIPART, form(("begin", PHOTO))),
        (MULTIPART, form(("begin", PHOTO), ("end", OTHER), ("image", OTHER))),
        (MULTIPART, form(("begin", PHOTO), ("begin", PHOTO), ("end", OTHER))),
        (MULTIPART, form(*[("image", PHOTO)] * 3)),
        ("application/json", {"end": B64}),
    ],
)
def test_two_pictures_are_exactly_two(content_type: str, body: Any) -> None:
    status, detail = refusal(content_type, body, **ENDS)
    assert status == 422
    assert detail.startswith("2 pictures are wanted, in the field image, or the fields begin and end; there ")


def test_limits_are_of_the_whole_request() -> None:
    body = {"image": [B64] * 4}
    assert len(read("application/json", body, most=4).pictures) == 4
    pixels = 4 * 24 * 16
    for limits, most, status in (
        (Limits(pixels=pixels), 4, 200),
        (Limits(pixels=pixels - 1), 4, 413),
        (Limits(side=23), 4, 413),
        (Limits(side=24), 4, 200),
        (Limits(images=3), 4, 422),
        (Limits(), 3, 422),
        (Limits(body_bytes=100), 4, 413),
    ):
        try:
            read("application/json", body, most=most, limits=limits)
            found = 200
        except Problem as problem:
            found = problem.status
        assert found == status, limits


def test_the_description_names_each_place_of_a_picture() -> None:
    one = describe_body(LIMITS)["requestBody"]
    assert set(one["content"]) == {"image/*", "multipart/form-data", "application/json"}
    assert "16,777,216 bytes, 8,192 pixels a side" in one["description"]
    two = describe_body(LIMITS, most=2, names=("begin", "end"))["requestBody"]
    assert set(two["content"]) == {"multipart/form-data", "application/json"}
    for content in two["content"].values():
        assert set(content["schema"]["properties"]) == {"image", "begin", "end"}


def test_json_of_any_size_up_to_the_limit_of_values_is_parsed() -> None:
    body = {"latents": np.random.default_rng(0).normal(size=(64, 512)).tolist()}
    assert parse_json(json.dumps(body).encode()) == body


def test_pictures_are_decoded_in_threads_in_their_order() -> None:
    received = read("application/json", {"image": [B64, base64.b64encode(OTHER).decode()]}, most=2)
    with ThreadPoolExecutor(2) as threads:
        first, second = asyncio.run(decode_all(received.pictures, 3, executor=threads))
    np.testing.assert_array_equal(first, NOISE)
    assert second.shape == NOISE.shape
    assert first.dtype == second.dtype == np.uint8
