"""JSON bodies of requests and responses of the HTTP interface."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from upath import UPath

from genlab.core.errors import RunError
from genlab.core.option_text import options_schema
from genlab.inference.operations import ModelInfo
from genlab.store import model_directory

MAX_COUNT = 64
"""Largest number of pictures that one request draws."""
MAX_MIXED = 8
"""Largest number of rows, and of columns, of one request that mixes styles."""
MAX_SEED = 2**31 - 1
NOT_IN_NAMES = frozenset("/\\{}?#%")
"""Characters that mean something of their own in a URL or a route."""


class ImageForm(BaseModel):
    """Size and channels of a model's images; their pixels are 8-bit."""

    height: int = Field(description="Pixels.")
    width: int = Field(description="Pixels.")
    channels: int = Field(description="1 (grey) or 3 (RGB).")


class ModelCard(BaseModel):
    """Description of a served model and of its operations."""

    name: str = Field(description="Its name in paths: that of its run.")
    family: str
    operations: list[str] = Field(description="The operations that may be asked of it, such as sample or translate.")
    options: dict[str, dict[str, Any]] = Field(
        description="By operation, the options of the model's own by name, each as a JSON schema."
    )
    image: ImageForm = Field(description="The images it was trained on; translate takes any height and width.")
    directions: list[str] = Field(description="Of translate, the default first; empty if it does not translate.")
    label_names: list[str] = Field(description="Names of the labels 0, 1, ...; empty if its images have none.")
    classes: list[str] = Field(description="Names of the classes it is told, number 0 first; empty if it is told none.")
    value_ranges: dict[str, tuple[float, float]] = Field(
        description="By domain, the values that become 0 and 255 in a picture of more than 8 bits; empty if the model "
        "was trained on images that were ingested without a range."
    )
    step: int = Field(description="Training steps.")
    images: int = Field(description="Images seen in training.")
    metrics: dict[str, float | None] = Field(description="Its last measured values; null where not finite.")


Seeds = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_SEED, strict=True)]], Field(min_length=1, max_length=MAX_MIXED)
]


class SampleRequest(BaseModel):
    """Request for pictures to draw; that of a model has the options of its own as well."""

    model_config = ConfigDict(extra="forbid")

    count: Annotated[
        int, Field(ge=1, le=MAX_COUNT, strict=True, description="How many; several come as one sheet, row by row.")
    ] = 1
    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_SEED,
            strict=True,
            description="Picture i of a seed is the same for any count; by default a random one.",
        ),
    ] = None
    label: Annotated[
        str | Annotated[int, Field(strict=True)] | None,
        Field(
            description="Class of all pictures, by name or number, if the model has classes; by default all in turn."
        ),
    ] = None


class MixRequest(BaseModel):
    """Request for pictures of seeds with styles of others; that of a model has the options of its own as well."""

    model_config = ConfigDict(extra="forbid")

    rows: Annotated[Seeds, Field(description="Seeds of the pictures that are changed, each a row.")]
    columns: Annotated[Seeds, Field(description="Seeds of the pictures whose styles they get, each a column.")]
    label: Annotated[
        str | Annotated[int, Field(strict=True)] | None,
        Field(description="Class of all pictures, by name or number; needed if the model has classes."),
    ] = None


class TranslateQuery(BaseModel):
    """Parameters of a translation; those of a model have the options of its own as well."""

    model_config = ConfigDict(extra="forbid")

    direction: Annotated[str | None, Field(description="One of the model's directions; by default the first.")] = None


class ReconstructQuery(BaseModel):
    """Parameters of a reconstruction; those of a model have the options of its own as well."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[
        str | None, Field(description="The picture's class, by name or number; needed if the model has classes.")
    ] = None


class Health(BaseModel):
    """Response of a server that works."""

    status: str = Field(description='"ok".')


class Problem(BaseModel):
    """Response to a request that is refused, with the reason."""

    detail: str = Field(description="One sentence that says what to change.")


def read_card(name: str, directory: str | UPath) -> ModelCard:
    """Read the card of the model in ``directory``, served as ``name``, from its ``genlab.json``.

    Raises:
        RunError: it is not a model directory, its description is damaged, or a URL cannot hold the name.
    """
    if name in ("", ".", "..") or NOT_IN_NAMES & set(name):
        raise RunError(
            f"{directory} would be served as {name!r}, and a URL cannot hold this name: rename the directory to one "
            f"without any of {' '.join(sorted(NOT_IN_NAMES))}"
        )
    model = ModelInfo.read(directory)
    height, width, channels = model.image_shape
    try:
        metrics = model.provenance["metrics"]
        return ModelCard(
            name=name,
            family=model.family,
            operations=list(model.operations),
            options={operation: options_schema(options) for operation, options in model.operations.items()},
            image=ImageForm(height=height, width=width, channels=channels),
            directions=list(model.directions),
            label_names=model.provenance["label_names"],
            classes=list(model.classes),
            value_ranges=dict(model.value_ranges),
            step=model.provenance["step"],
            images=model.provenance["images"],
            metrics={key: value if math.isfinite(value) else None for key, value in metrics.items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{directory}/{model_directory.DESCRIPTION}: damaged ({error}); export the model again"
        ) from None
