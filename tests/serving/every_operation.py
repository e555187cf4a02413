"""Each operation of each model that a server has, asked by what its card says."""

import base64
import io
from typing import Any

import httpx
from PIL import Image

FILM = {"image/png", "image/gif", "image/webp", "application/zip", "application/json"}
PICTURES = {"image/png", "image/jpeg", "application/zip", "multipart/mixed", "application/json"}
PICTURE = {"image/png", "image/jpeg", "image/webp", "application/json"}
ANSWERS = {
    "sample": PICTURES,
    "decode": PICTURES,
    "mix_styles": PICTURES,
    "translate": PICTURE,
    "reconstruct": PICTURE,
    "interpolate": FILM,
    "interpolate_draws": FILM,
    "encode": {"application/json"},
    "edit": PICTURE,
}
"""Media types that each operation may be asked for."""


def ask_every_operation(client: httpx.Client) -> dict[str, tuple[str, list[str]]]:
    """Ask each operation of each card for each media type, and by default; the family and operations of each model."""
    routes = client.get("/openapi.json").json()["paths"]
    asked = {}
    for card in client.get("/v1/models").json():
        name = card["name"]
        for operation in card["operations"]:
            path = f"/v1/models/{name}/{operation}"
            assert "post" in routes[path]
            body = request_of(card, operation)
            for accept in (None, *sorted(ANSWERS[operation])):
                answer = client.post(path, json=body, headers={} if accept is None else {"Accept": accept})
                assert answer.status_code == 200, f"{path} as {accept}: {answer.text}"
                expected = accept or ("application/json" if operation == "encode" else "image/png")
                assert answer.headers["Content-Type"].partition(";")[0] == expected, path
                assert answer.headers["X-Genlab-Version"] == card["version"]
                if expected.startswith("image/"):
                    with Image.open(io.BytesIO(answer.content)) as picture:
                        assert Image.MIME[str(picture.format)] == expected
                        picture.load()
        asked[name] = (card["family"], card["operations"])
    return asked


def request_of(card: dict[str, Any], operation: str) -> dict[str, Any]:
    """Parameters, with pictures, of an operation of a model."""
    width, height, latent_dim = card["image"]["width"], card["image"]["height"], card["latent_dim"]
    file = io.BytesIO()
    Image.effect_noise((width, height), 50).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    bodies: dict[str, dict[str, Any]] = {
        "sample": {"count": 2, "seed": 1},
        "decode": {"latents": [[0.5] * latent_dim] * 2},
        "mix_styles": {"rows": [1, 2], "columns": [3]},
        "translate": {"image": picture, "direction": (card["directions"] or [None])[-1]},
        "reconstruct": {"image": picture},
        "encode": {"image": picture},
        "interpolate": {"begin": picture, "end": picture, "steps": 3},
        "interpolate_draws": {"seeds": [1, 2], "steps": 3},
        "edit": {"seed": 1},
    }
    return bodies[operation] | ({"label": 0} if card["classes"] else {})
