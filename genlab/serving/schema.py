"""JSON of the answers of the HTTP interface, for server and client. Without torch, Ray or any web library."""

import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

EditMethod = Literal["gradient", "linear", "channel", "sefa"]
JobState = Literal["waiting", "running", "done", "failed", "cancelled"]


class ImageForm(BaseModel):
    """Size and channels of a model's images; their pixels are 8-bit."""

    height: int = Field(description="Pixels.")
    width: int = Field(description="Pixels.")
    channels: int = Field(description="1 (grey) or 3 (RGB).")


class Quality(BaseModel):
    """One measure of how good a model's pictures are, as `genlab evaluate` wrote it."""

    name: str = Field(description="`kid` or `fid_infinity`; of a translator also by direction, such as `kid_a_to_b`.")
    title: str = Field(description="Its name in words.")
    value: float | None = Field(description="Lower is better; null where not finite.")
    interval: tuple[float, float] | None = Field(description="The 95% interval; null where it is not known.")
    images: int | None = Field(
        description="Pictures of the model that it is of; null where the two directions of a translator differ."
    )
    extractor: str = Field(description="The network in whose features it is taken.")
    caution: str = Field(description="Why not to trust it; empty if it can be trusted.")
    settings: dict[str, str | int | float] = Field(
        description="All that it depends on besides the model, such as data set, split, rows and seed: only measures "
        "of equal settings can be compared."
    )


class EditedAxis(BaseModel):
    """How far an edit moved what is read of an attribute, or of a class of it."""

    mean: float = Field(description="Mean change, in the attribute's units, or in nats of log-odds of a class.")
    size: float = Field(description="Mean of the absolute change.")
    same_class: float | None = Field(
        description="Of a class: share of the pictures on which the same class is read as before."
    )


class EditEffect(BaseModel):
    """What one amount along a direction did to pictures that took no part in finding it."""

    amount: float
    pictures: int
    changes: dict[str, EditedAxis] = Field(description="By the name of the axis, its own included.")


class EditDirection(BaseModel):
    """A direction along which an attribute of a model's pictures changes."""

    name: str
    attribute: str = Field(description="The column of the data set that it is of.")
    method: EditMethod = Field(description="How it was found.")
    unit: str = Field(description="What amounts are counted in.")
    low: float = Field(description="The smallest amount that it was calibrated for.")
    high: float = Field(description="The largest.")
    towards: str = Field(description="The class that more of it means; empty for a number.")
    away: str = Field(description="The other one of two classes; empty where there are more, and for a number.")
    effects: list[EditEffect]


class Edits(BaseModel):
    """What `genlab directions` found and measured of the very weights of a model."""

    latent_dim: int = Field(description="Length of the `latents` that edit takes: of all styles w+ together.")
    directions: list[EditDirection]
    read_errors: dict[str, float] = Field(
        description="By attribute, the error of the classifier by which all of this was found and measured: mean "
        "absolute error of a number, share of wrong ones of a class."
    )
    read_rows: int = Field(description="The number of held-out pictures that these errors are of.")
    cautions: list[str] = Field(description="What the pictures and the edits are not.")


class ModelCard(BaseModel):
    """Description of a served model and of its operations."""

    name: str = Field(description="Its name in paths; `NAME@ALIAS` and `NAME@VERSION` name a version of it.")
    version: str = Field(description="The version that its name alone stands for, a hash of architecture and weights.")
    versions: list[str] = Field(description="All versions that are there.")
    aliases: dict[str, str] = Field(description="The version of each alias.")
    family: str
    operations: list[str] = Field(
        description="The operations that may be asked of it, such as sample or translate: each is a route."
    )
    options: dict[str, dict[str, Any]] = Field(
        description="By operation, the options of the model's own by name, each as a JSON schema."
    )
    image: ImageForm = Field(description="The images it was trained on; translate takes any height and width.")
    directions: list[str] = Field(description="Of translate, the default first; empty if it does not translate.")
    label_names: list[str] = Field(description="Names of the labels 0, 1, ...; empty if its images have none.")
    classes: list[str] = Field(description="Names of the classes it is told, number 0 first; empty if it is told none.")
    latent_dim: int = Field(description="Length of the latent vectors that decode takes; 0 if it takes none.")
    value_ranges: dict[str, tuple[float, float]] = Field(
        description="By domain, the values that become 0 and 255 in a picture of more than 8 bits; empty if the model "
        "was trained on images that were ingested without a range."
    )
    step: int = Field(description="Training steps.")
    images: int = Field(description="Images seen in training.")
    metrics: dict[str, float | None] = Field(description="Its last measured values; null where not finite.")
    weights: str = Field(default="", description="SHA-256 of its weights.")
    edits: Edits | None = Field(
        default=None, description="How its pictures can be edited; null where no directions were found for it."
    )
    generator: str = Field(
        default="", description="Of an encoder of a StyleGAN: SHA-256 of the weights of the generator; else empty."
    )
    quality: list[Quality] = Field(
        default_factory=list,
        description="What `genlab evaluate` measured of these very weights; empty if they were not evaluated.",
    )


class Health(BaseModel):
    """Response of a server that works."""

    status: str = Field(description='"ok".')


class JobStatus(BaseModel):
    """How far a job is."""

    id: str
    state: JobState
    model: str
    version: str = Field(description="The version that the model's name stood for when the job was submitted.")
    operation: str
    parameters: dict[str, Any] = Field(description="Those that were given; of a sample with its seed.")
    pictures: int = Field(description="Pictures that the result will have.")
    done: int = Field(description="Pictures that are there.")
    failures: dict[str, str] = Field(description="Why pictures cannot be had, by their numbers, when the job is done.")
    error: str | None = Field(description="Why the job failed.")
    created: datetime.datetime
    expires: datetime.datetime = Field(description="When the job and its result are deleted.")


class ProblemDetails(BaseModel):
    """Response to a request that is refused, as RFC 9457 has it."""

    type: str = Field(description="The kind of the problem, `/problems/KIND`; it never changes.")
    title: str = Field(description="The kind in words.")
    status: int
    detail: str = Field(description="One sentence that says what to change.")
    request_id: str = Field(description="The id of the request, for the server's log.")
