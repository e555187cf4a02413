"""What may be asked of a served model over HTTP: for each operation its parameters, pictures, task and answer."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genlab.core.errors import ConfigError
from genlab.core.option_text import with_options
from genlab.editing.edit_tasks import Amount, edit_task
from genlab.imaging.images import Pixels
from genlab.inference.engine import Engine, Task
from genlab.serving.answers import FILM, LATENTS, PICTURE, PICTURES
from genlab.serving.limits import Limits
from genlab.serving.problems import Problem
from genlab.serving.schema import EditMethod

MAX_SEED = 2**31 - 1
MAX_MIXED = 8
"""Largest number of rows, and of columns, of one request that mixes styles."""
MAX_LATENT = 1e6
"""Largest coordinate of a latent vector; the prior is N(0, 1), and networks overflow somewhere."""

MOST_EDITS = 16
"""Largest number of directions that one picture is changed along."""
MOST_NAMES = 1000
"""Most names in the parameters of a request: each that is unknown takes time, and the server's one thread."""
FAULTS_SHOWN = 20
"""Most faults that an answer names."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Latent = Annotated[
    list[Annotated[float, Field(ge=-MAX_LATENT, le=MAX_LATENT, allow_inf_nan=False)]],
    Field(fail_fast=True),  # Of thousands of wrong numbers one is told.
]
Label = Annotated[str | int | None, Field(union_mode="left_to_right")]


class Parameters(BaseModel):
    """The parameters of an operation; those of a model have the options of its own as well."""

    model_config = ConfigDict(extra="forbid")


class SampleParameters(Parameters):
    """Pictures to draw."""

    count: Annotated[int, Field(ge=1, description="How many.")] = 1
    seed: Annotated[
        Seed | None, Field(description="Picture i of a seed is the same for any count; by default a random one.")
    ] = None
    label: Annotated[
        Label,
        Field(
            description="Class of all pictures, by name or number, if the model has classes; by default all in turn."
        ),
    ] = None


class TranslateParameters(Parameters):
    """A picture to translate."""

    direction: Annotated[str | None, Field(description="One of the model's directions; by default the first.")] = None


class ReconstructParameters(Parameters):
    """A picture to encode and decode."""

    label: Annotated[
        Label, Field(description="The picture's class, by name or number; needed if the model has classes.")
    ] = None


class FilmParameters(Parameters):
    """A film between two pictures."""

    label: Annotated[
        Label, Field(description="Class of all pictures, by name or number; needed if the model has classes.")
    ] = None
    frames_per_second: Annotated[
        float, Field(ge=1, le=50, description="Speed of the film, if the answer is a GIF or a WebP.")
    ] = 10.0


class FilmOfDrawsParameters(FilmParameters):
    """A film between the first pictures of two seeds."""

    seeds: Annotated[tuple[Seed, Seed], Field(description="Seeds of the two ends.")]


class MixParameters(Parameters):
    """Pictures of seeds, with styles of others."""

    rows: Annotated[
        list[Seed],
        Field(
            fail_fast=True,
            min_length=1,
            max_length=MAX_MIXED,
            description="Seeds of the pictures that are changed, each a row.",
        ),
    ]
    columns: Annotated[
        list[Seed],
        Field(
            fail_fast=True,
            min_length=1,
            max_length=MAX_MIXED,
            description="Seeds of the pictures whose styles they get, each a column.",
        ),
    ]
    label: Annotated[
        Label, Field(description="Class of all pictures, by name or number; needed if the model has classes.")
    ] = None


class DecodeParameters(Parameters):
    """Latent vectors to decode."""

    latents: Annotated[
        list[Latent],
        Field(
            fail_fast=True,
            min_length=1,
            description="Latent vectors, each of as many numbers as the card's `latent_dim`.",
        ),
    ]
    label: Annotated[
        Label, Field(description="Class of all pictures, by name or number; needed if the model has classes.")
    ] = None


class EncodeParameters(Parameters):
    """A picture to encode."""

    label: Annotated[
        Label, Field(description="The picture's class, by name or number; needed if the model has classes.")
    ] = None


class EditStep(BaseModel):
    """A change of a picture along a direction."""

    model_config = ConfigDict(extra="forbid")

    direction: Annotated[str, Field(description="Name of the direction, from the card's `edits`.")]
    amount: Annotated[
        float, Field(allow_inf_nan=False, description="How far, in its unit, from `low` to `high` of the card.")
    ]
    method: Annotated[
        EditMethod | None,
        Field(description="How the direction was found; by default as the first of its name in the card."),
    ] = None


class EditParameters(Parameters):
    """A picture to change along directions."""

    edits: Annotated[
        list[EditStep],
        Field(max_length=MOST_EDITS, description="The changes, all together; none leaves the picture as it is."),
    ] = []
    seed: Annotated[
        Seed | None, Field(description="The seed whose first picture is changed; by default a random one.")
    ] = None
    latents: Annotated[
        Latent | None,
        Field(
            description="In place of a seed, styles w+, as `encode` of an encoder of this model gives them; their "
            "picture has no noise."
        ),
    ] = None
    label: Annotated[
        Label, Field(description="Class of a seed's picture, by name or number; needed if the model has classes.")
    ] = None


@dataclass(frozen=True)
class Asked:
    """What a request asks for, ready to be computed."""

    task: Task
    count: int
    """Pictures of the answer."""
    columns: int | None = None
    """Pictures in a row of a sheet; by default it is square, or a film's one row."""
    frames_per_second: float | None = None
    """Set for a film."""
    seed: int | None = None
    """The seed that was drawn or given, for :class:`SampleParameters` and :class:`EditParameters`."""
    note: Mapping[str, Any] | None = None
    """What the file of the picture says of its origin, for an edit."""


@dataclass(frozen=True)
class Operation:
    """An operation as requests know it."""

    parameters: type[Parameters]
    ask: Callable[[Engine, Any, Mapping[str, Any], Sequence[Pixels]], Asked]
    """Makes the task of an engine, parameters, options of the model's own by name, and pictures.

    It raises ConfigError for a class, a direction or an option that the model does not have.
    """
    title: str
    """What it does, in the imperative, before the name of a model."""
    answer: str
    """What the answer shows."""
    offers: tuple[str, ...]
    """The media types of its answers, see :mod:`genlab.serving.answers`."""
    pictures: int = 0
    """Pictures that it takes."""
    picture_names: tuple[str, ...] = ()
    """Fields that hold them, where there are several."""
    any_size: bool = False
    """Whether pictures may have another size than the model's images."""


def _sample(engine: Engine, asked: SampleParameters, options: Mapping[str, Any], _: Sequence[Pixels]) -> Asked:
    seed = secrets.randbelow(MAX_SEED + 1) if asked.seed is None else asked.seed
    return Asked(engine.sample_task(asked.count, seed, asked.label, options), asked.count, seed=seed)


def _translate(
    engine: Engine, asked: TranslateParameters, options: Mapping[str, Any], pictures: Sequence[Pixels]
) -> Asked:
    return Asked(engine.translate_task(pictures[0], asked.direction, options), 1)


def _reconstruct(
    engine: Engine, asked: ReconstructParameters, options: Mapping[str, Any], pictures: Sequence[Pixels]
) -> Asked:
    return Asked(engine.reconstruct_task(pictures, asked.label, options), 1)


def _interpolate(
    engine: Engine, asked: FilmParameters, options: Mapping[str, Any], pictures: Sequence[Pixels]
) -> Asked:
    task = engine.interpolate_task((pictures[0], pictures[1]), asked.label, options)
    return Asked(task, options["steps"], frames_per_second=asked.frames_per_second)


def _interpolate_draws(
    engine: Engine, asked: FilmOfDrawsParameters, options: Mapping[str, Any], _: Sequence[Pixels]
) -> Asked:
    task = engine.interpolate_draws_task(asked.seeds, asked.label, options)
    return Asked(task, options["steps"], frames_per_second=asked.frames_per_second)


def _decode(engine: Engine, asked: DecodeParameters, options: Mapping[str, Any], _: Sequence[Pixels]) -> Asked:
    return Asked(engine.decode_task(asked.latents, asked.label, options), len(asked.latents))


def _encode(engine: Engine, asked: EncodeParameters, options: Mapping[str, Any], pictures: Sequence[Pixels]) -> Asked:
    return Asked(engine.encode_task(pictures, asked.label, options), 1)


def _mix_styles(engine: Engine, asked: MixParameters, options: Mapping[str, Any], _: Sequence[Pixels]) -> Asked:
    task = engine.mix_styles_task(asked.rows, asked.columns, asked.label, options)
    columns = len(asked.columns) + 1
    return Asked(task, (len(asked.rows) + 1) * columns, columns=columns)


def _edit(engine: Engine, asked: EditParameters, options: Mapping[str, Any], _: Sequence[Pixels]) -> Asked:
    if asked.seed is not None and asked.latents is not None:
        raise ConfigError("seed and latents: give one of them")
    if engine.directions is None:
        raise ConfigError("edits: the directions of this model have just gone")
    seed = asked.seed
    if seed is None and asked.latents is None:
        seed = secrets.randbelow(MAX_SEED + 1)
    amounts = [Amount(one.direction, one.amount, one.method) for one in asked.edits]
    made = edit_task(engine, engine.directions, amounts, seed=seed, styles=asked.latents, label=asked.label)
    return Asked(made.task, 1, seed=seed, note=made.note)


OPERATIONS: Mapping[str, Operation] = {
    "sample": Operation(
        SampleParameters, _sample, "Draw pictures from", "The pictures; several are a sheet, row by row.", PICTURES
    ),
    "translate": Operation(
        TranslateParameters,
        _translate,
        "Translate a picture by",
        "The translated picture, of the same size.",
        PICTURE,
        pictures=1,
        any_size=True,
    ),
    "reconstruct": Operation(
        ReconstructParameters,
        _reconstruct,
        "Reconstruct a picture by",
        "What the model makes of the picture, which must have the size of the model's images.",
        PICTURE,
        pictures=1,
    ),
    "interpolate": Operation(
        FilmParameters,
        _interpolate,
        "Go from one picture to another by",
        "The pictures on the way, both ends included: a film, or a strip.",
        FILM,
        pictures=2,
        picture_names=("begin", "end"),
    ),
    "interpolate_draws": Operation(
        FilmOfDrawsParameters,
        _interpolate_draws,
        "Go from the picture of one seed to that of another by",
        "The pictures on the way, both ends included: a film, or a strip.",
        FILM,
    ),
    "decode": Operation(
        DecodeParameters,
        _decode,
        "Decode latent vectors by",
        "The pictures; several are a sheet, row by row.",
        PICTURES,
    ),
    "encode": Operation(
        EncodeParameters,
        _encode,
        "Encode a picture by",
        "The latent vector of the picture, which must have the size of the model's images: the mean of q(z|x), or "
        "styles w+ by the encoder of a StyleGAN.",
        LATENTS,
        pictures=1,
    ),
    "mix_styles": Operation(
        MixParameters,
        _mix_styles,
        "Mix the styles of pictures that are drawn by",
        "The pictures of the rows' seeds in the first column, those of the columns' in the first row, and where they "
        "meet the row's picture with some styles of the column's.",
        PICTURES,
    ),
    "edit": Operation(
        EditParameters,
        _edit,
        "Change attributes of a picture that is drawn by",
        "The picture after the changes. Its file says where it is from: by which weights, of which seed or latents, "
        "and by which changes.",
        PICTURE,
    ),
}
"""The operations of models that have a route, by name."""


class Form:
    """The parameters of an operation of one model, with the options of its own.

    Args:
        operation: name of the operation.
        model: the model's name.
        options: the dataclass of the model's own options of it.
        limits: of pictures.
    """

    def __init__(self, operation: str, model: str, options: type, limits: Limits) -> None:
        self.operation = OPERATIONS[operation]
        self._limits = limits
        self._model = with_options(f"{operation}_{model}", self.operation.parameters, options)
        self._own = frozenset(self._model.model_fields) - frozenset(self.operation.parameters.model_fields)

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of all parameters."""
        return self._model.model_json_schema()

    def read_texts(self, fields: Mapping[str, str | list[str]]) -> Parameters:
        """Read parameters that are texts, from a query or a form.

        Raises:
            Problem: 422, one of them is unknown, is no value of its type, or out of range.
        """
        _require_few(len(fields))
        try:
            return self._model.model_validate_strings(fields)
        except ValidationError as error:
            raise _invalid(error) from None

    def read_json(self, body: bytes) -> Parameters:
        """Read parameters from a JSON object.

        Raises:
            Problem: 422, one of them is unknown, of another type, or out of range; 400 for what is not JSON.
        """
        _require_few(body.count(b":"))
        try:
            return self._model.model_validate_json(body, strict=True)
        except ValidationError as error:
            if not any(fault["type"] == "int_type" and _is_whole(fault["input"]) for fault in error.errors()):
                raise _invalid(error) from None
        return self.read_values(json.loads(body, parse_float=_number))

    def read_values(self, fields: Mapping[str, Any]) -> Parameters:
        """Read parameters that are values of JSON, see :meth:`read_json`."""
        return self.read_json(json.dumps(fields).encode())

    def ask(self, engine: Engine, parameters: Parameters, pictures: Sequence[Pixels]) -> Asked:
        """Make the task of what a request asks for.

        Raises:
            Problem: 422 for more pictures than the limits allow, 413 for more pixels.
            ConfigError: the model has no such class, direction or option.
        """
        options = {name: getattr(parameters, name) for name in self._own}
        # Before the task is made, which has a row for each picture.
        if isinstance(parameters, DecodeParameters):
            self._check_count(len(parameters.latents))
        self._check_count(getattr(parameters, "count", options.get("steps", 1)))
        asked = self.operation.ask(engine, parameters, options, pictures)
        # Of a sheet of mixed styles those of its margins, which are of the seeds themselves, do not count.
        of_margins = len(parameters.rows) + len(parameters.columns) + 1 if isinstance(parameters, MixParameters) else 0
        self._check_count(asked.count - of_margins)
        pixels = len(asked.task.rows) * engine.pixels(asked.task.kind)
        if pixels > self._limits.pixels:
            detail = f"the answer would have {pixels:,} pixels; at most {self._limits.pixels:,} are allowed"
            raise Problem(413, "too-many-pixels", detail)
        return asked

    def _check_count(self, count: int) -> None:
        if count > self._limits.images:
            detail = f"{count:,} pictures were asked for; at most {self._limits.images} are allowed"
            raise Problem(422, "too-many-pictures", detail)


def _is_whole(value: Any) -> bool:
    """Return whether a value is an integer by JSON Schema that is written as ``3.0``, as some programs do."""
    return isinstance(value, float) and value.is_integer()


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if _is_whole(value) else value


def _require_few(names: int) -> None:
    """Refuse parameters of too many names, before each is looked at."""
    if names > MOST_NAMES:
        raise Problem(422, "invalid", f"{names:,} parameters; at most {MOST_NAMES:,} are looked at")


def _invalid(error: ValidationError) -> Problem:
    faults = error.errors(include_url=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return Problem(400, "bad-request", f"the body is not JSON: {faults[0]['msg']}")
    texts = [f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in faults[:FAULTS_SHOWN]]
    if len(faults) > FAULTS_SHOWN:
        texts.append(f"and {len(faults) - FAULTS_SHOWN:,} more")
    return Problem(422, "invalid", "; ".join(texts))
