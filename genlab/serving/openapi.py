"""The OpenAPI description of the operations of the models that are served at the moment."""

from collections.abc import Iterable
from typing import Any

from genlab.models.model import NoOptions, model_type
from genlab.serving.answers import describe_answers
from genlab.serving.limits import Limits
from genlab.serving.operations import OPERATIONS, Form
from genlab.serving.schema import Edits, ModelCard, ProblemDetails
from genlab.serving.uploads import describe_body

_PROBLEMS = {
    400: "The body cannot be read.",
    403: "A page of another site sent the request.",
    404: "No such model, or the model has no such operation.",
    406: "The answer cannot have any of the types that Accept names.",
    408: "The body came too slowly.",
    409: "The job is not done.",
    413: "The body has too many bytes, or a picture too many pixels.",
    415: "Not a picture.",
    422: "A parameter is out of range, or a picture cannot be used.",
    429: "Too many requests in a minute, or too many jobs.",
    503: "Too many requests are waiting, or the version is not served; Retry-After says when to try again.",
}


def describe_operations(cards: Iterable[ModelCard], limits: Limits) -> dict[str, Any]:
    """Describe the route of each operation of each model, with a schema of the parameters that this model takes.

    Returns:
        OpenAPI's path items by path.
    """
    paths: dict[str, Any] = {}
    for card in cards:
        for name in card.operations:
            form = Form(name, card.name, model_type(card.family).operations.get(name, NoOptions), limits)
            paths[f"/v1/models/{card.name}/{name}"] = {"post": _describe(card, name, form, limits)}
    return paths


def _describe(card: ModelCard, name: str, form: Form, limits: Limits) -> dict[str, Any]:
    operation = OPERATIONS[name]
    schema = _schema(card, name, form, limits)
    without = {409} if operation.pictures else {409, 415}
    description: dict[str, Any] = {
        "summary": f"{operation.title} {card.name}",
        "operationId": f"{name}_{card.name}",
        "tags": [card.name],
        "responses": {
            "200": _answer(name),
            **{str(status): one for status, one in problems(*_PROBLEMS).items() if status not in without},
        },
    }
    if operation.pictures:
        required = schema.get("required", ())
        description["parameters"] = [
            {"name": key, "in": "query", "required": key in required, "schema": value}
            for key, value in schema.get("properties", {}).items()
        ]
        description |= describe_body(
            limits, least=operation.pictures, most=operation.pictures, names=operation.picture_names
        )
    else:
        description["requestBody"] = {
            "required": bool(schema.get("required")),
            "content": {"application/json": {"schema": schema}},
        }
    return description


def _schema(card: ModelCard, name: str, form: Form, limits: Limits) -> dict[str, Any]:
    """Return the JSON schema of an operation's parameters, with what this model takes and these limits allow."""
    schema = form.schema()
    properties, required = dict(schema["properties"]), list(schema.get("required", ()))
    if not card.classes:
        properties.pop("label", None)
    elif "label" in properties:
        needed = name not in ("sample", "edit")
        numbers = {"type": "integer", "minimum": 0, "maximum": len(card.classes) - 1}
        choices = [{"type": "string", "enum": [*card.classes]}, numbers, *([] if needed else [{"type": "null"}])]
        properties["label"] = {"description": properties["label"]["description"], "title": "Label", "anyOf": choices}
        required += ["label"] if needed else []
    if "direction" in properties:
        text = {"description": properties["direction"]["description"], "title": "Direction"}
        properties["direction"] = {**text, "type": "string", "enum": [*card.directions]}
    if "latents" in properties and name == "decode":
        latents = properties["latents"]
        vector = {**latents["items"], "minItems": card.latent_dim, "maxItems": card.latent_dim}
        properties["latents"] = {**latents, "maxItems": limits.images, "items": vector}
    if name == "edit" and card.edits is not None:
        schema.pop("$defs", None)  # references would be looked for in the whole document
        properties["edits"] = {**properties["edits"], "items": {"oneOf": _changes(card.edits)}}
        length, either = card.edits.latent_dim, properties["latents"]["anyOf"]
        vectors = [{**one, "minItems": length, "maxItems": length} for one in either if one["type"] == "array"]
        properties["latents"] = {**properties["latents"], "anyOf": [*vectors, {"type": "null"}]}
        both = {"seed": {"type": "integer"}, "latents": {"type": "array"}}
        schema["not"] = {"properties": both, "required": [*both]}
    for key in ("count", "steps"):
        if key in properties:
            properties[key] = {**properties[key], "maximum": limits.images}
    return {**schema, "properties": properties, "required": required}


def _changes(edits: Edits) -> list[dict[str, Any]]:
    """Return the JSON schema of a change along each direction of a model."""
    first = {one.name: one.method for one in reversed(edits.directions)}
    return [
        {
            "type": "object",
            "title": f"{one.name}, {one.method}",
            "properties": {
                "direction": {"const": one.name},
                "method": {"const": one.method, "default": first[one.name]},
                "amount": {
                    "type": "number",
                    "minimum": one.low,
                    "maximum": one.high,
                    "description": f"In {one.unit}.",
                },
            },
            "required": ["direction", "amount", *([] if one.method == first[one.name] else ["method"])],
            "additionalProperties": False,
        }
        for one in edits.directions
    ]


def _answer(name: str) -> dict[str, Any]:
    operation = OPERATIONS[name]
    headers = {
        "X-Genlab-Version": ("The version of the model that made it.", "string"),
        "X-Genlab-Exact": ("Whether it is the same bytes whatever was computed with it.", "string"),
    }
    if name in ("sample", "edit"):
        headers["X-Genlab-Seed"] = ("The seed that draws this again, if it is of one.", "integer")
    return {
        "description": operation.answer,
        "headers": {key: {"description": text, "schema": {"type": kind}} for key, (text, kind) in headers.items()},
        "content": describe_answers(operation.offers),
    }


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route."""
    content = {"application/problem+json": {"schema": ProblemDetails.model_json_schema()}}
    return {status: {"description": _PROBLEMS[status], "content": content} for status in statuses}
