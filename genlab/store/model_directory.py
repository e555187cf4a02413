"""Model directories: how they are written, described, checked, found and loaded. Loading runs no pickled code."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import safetensors.torch
import torch
from safetensors import SafetensorError
from upath import UPath

from genlab import __version__
from genlab.core.config import from_dict, to_dict
from genlab.core.errors import ConfigError, RunError
from genlab.core.option_text import field_texts, options_schema, values_text
from genlab.core.storage import exists, locate, read_bytes, sha256, write_atomic, write_json
from genlab.core.text import counted
from genlab.data.format.manifest import LABEL, Attribute
from genlab.data.format.splits import overlap
from genlab.imaging.value_range import range_text
from genlab.models.model import Model, Translator, model_type
from genlab.store.tensor_file import tensor_file

if TYPE_CHECKING:
    from genlab.store.probes import Probes

Location = str | os.PathLike[str] | UPath

FORMAT = "genlab-model"
VERSION = 1
DESCRIPTION = "genlab.json"
WEIGHTS = "model.safetensors"
TRAINING_WEIGHTS = "training.safetensors"
"""Networks that training has beside the model, such as an imported generator's discriminator; it may be missing."""
CARD = "README.md"


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The origin of a model, in plain values that go into ``genlab.json``."""

    run: str
    """URL of the run directory; for an imported model, the files of its weights."""
    step: int
    """Steps of training; 0 for an imported model."""
    images: int
    """Number of images seen in training; a pair counts once."""
    data: dict[str, dict[str, Any]]
    """For each data set by name: its ``path``, its manifest's ``checksum``, and ``value_range``, LO and HI, if it was
    ingested with a range of values for images of more than 8 bits."""
    config: dict[str, Any]
    """Whole config of the run."""
    metrics: dict[str, float]
    """The last values of the run's metrics, by name."""
    chosen_on: str = ""
    """The split, or half of one, on which it is chosen from other checkpoints of its run, or runs of its sweep; empty:
    on none."""
    reported_on: str = ""
    """The split, or half of one, that the results of such a model are of."""
    label_names: tuple[str, ...] = ()
    label_column: str = LABEL
    """Name that the label's column had in the source of the images."""
    attributes: tuple[Attribute, ...] = ()
    """The further columns of the images."""
    init: dict[str, Any] | None = None
    """The run or model whose weights training began with: its ``path`` and its ``step``; ``None`` for new weights."""
    branch: dict[str, Any] | None = None
    """The ``path`` of the run, and the ``step`` of its checkpoint, that this run branched off: ``config`` holds for the
    steps since."""
    license: str = ""
    """Name of the licence of imported weights, or of those that training began with."""
    genlab: str = __version__


def save(
    directory: Location,
    model: Model,
    provenance: Provenance,
    probes: "Probes | None" = None,
    training: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a model directory; the description, which makes it one, comes last.

    Args:
        directory: folder or URL, which is created if it is not there.
        model: the model.
        provenance: its origin.
        probes: what :func:`genlab.store.probes.make` had the model make, by which copies of it are checked.
        training: weights that a run that begins with the model takes beside it, by the name of the network in the
            recipe and their own, such as ``discriminator.head.logits.bias``.
    """
    root = locate(directory)
    weights = tensor_file(model.state_dict())
    write_atomic(root / WEIGHTS, weights)
    write_atomic(root / CARD, _card(model, provenance).encode())
    height, width, channels = model.image_shape
    more: dict[str, Any] = {} if probes is None else {"probes": probes.write(root)}
    if training:
        others = tensor_file(training)
        write_atomic(root / TRAINING_WEIGHTS, others)
        more["training"] = _file_entry(TRAINING_WEIGHTS, others)
    write_json(
        root / DESCRIPTION,
        {
            "format": FORMAT,
            "version": VERSION,
            "family": model.family,
            "architecture": to_dict(model.architecture),
            "operations": list(model.operations),
            "options": {name: options_schema(options) for name, options in model.operations.items()},
            "image": {"height": height, "width": width, "channels": channels, "dtype": "uint8", "range": [0, 255]},
            "weights": _file_entry(WEIGHTS, weights),
            "provenance": dataclasses.asdict(provenance),
            **more,
        },
    )


def _file_entry(name: str, content: memoryview) -> dict[str, Any]:
    """Return what the description says of a file, by which it is checked when it is read."""
    return {"file": name, "bytes": len(content), "sha256": sha256(content)}


def describe(directory: Location) -> dict[str, Any]:
    """Read the ``genlab.json`` of a model directory.

    Raises:
        RunError: ``directory`` is not a model directory, or its format is newer.
        StorageError: the storage cannot be reached.
    """
    description = describe_if_there(directory)
    if description is None:
        raise RunError(f"{directory}: not a model directory ({locate(directory) / DESCRIPTION}: no such file)")
    return description


def describe_if_there(directory: Location) -> dict[str, Any] | None:
    """Read the ``genlab.json`` of a model directory as :func:`describe` does; ``None`` when there is no such file."""
    file = locate(directory) / DESCRIPTION
    try:
        description = json.loads(read_bytes(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise RunError(f"{directory}: not a model directory ({file}: not valid JSON: {error})") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise RunError(f"{directory}: not a model directory ({DESCRIPTION} is of another kind)")
    if description.get("version") != VERSION:
        raise RunError(f"{file}: model format {description.get('version')!r}; this genlab reads format {VERSION}")
    return description


def load(directory: Location, device: str | torch.device = "cpu") -> Model:
    """Load the model in ``directory`` onto ``device``, in evaluation mode.

    Raises:
        RunError: it is not a model directory, or its weights are damaged or of another architecture.
    """
    description = describe(directory)
    try:
        weights = read_weights(directory, description)
        model = build(description)
        tensors = safetensors.torch.load(weights)
        _require_fit(tensors, model.state_dict())
        model.load_state_dict(tensors)
    except (OSError, KeyError, ConfigError, SafetensorError, ValueError, RuntimeError) as error:
        raise RunError(f"{directory}: cannot be loaded: {error}") from None
    return model.to(device).eval().requires_grad_(False)


def build(description: Mapping[str, Any]) -> Model:
    """Build the model that a ``genlab.json`` describes, with new weights.

    Raises:
        RunError, ConfigError, KeyError, ValueError: the description is damaged.
    """
    kind, image = model_type(description["family"]), description["image"]
    shape = (image["height"], image["width"], image["channels"])
    return kind(shape, from_dict(kind.Architecture, description["architecture"]))


def read_weights(directory: Location, description: Mapping[str, Any]) -> bytes:
    """Read the file of weights of the model directory that ``description`` describes.

    Raises:
        RunError: it is damaged.
        FileNotFoundError: it is not there.
    """
    return _read_checked(locate(directory) / WEIGHTS, description["weights"])


def read_training_weights(directory: Location, description: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Read the networks that training has beside the model, see :func:`save`; none where the directory has none.

    Raises:
        RunError: the file is damaged, or not there.
    """
    if "training" not in description:
        return {}
    file = locate(directory) / TRAINING_WEIGHTS
    try:
        return safetensors.torch.load(_read_checked(file, description["training"]))
    except (FileNotFoundError, SafetensorError) as error:
        raise RunError(f"{file}: cannot be read ({error}); import the weights again") from None


def _read_checked(file: UPath, entry: Mapping[str, Any]) -> bytes:
    content = read_bytes(file)
    if sha256(content) != entry["sha256"]:
        raise RunError(f"{file}: damaged (its checksum differs from the one in {DESCRIPTION})")
    return content


def find(directories: Sequence[str]) -> dict[str, UPath]:
    """Find model directories and name them: ``RUN/model`` is named after ``RUN``, others after themselves.

    Args:
        directories: model directories, or run directories that hold one as ``model``.

    Raises:
        RunError: one of them is neither, or two have the same name.
    """
    found: dict[str, UPath] = {}
    for directory in directories:
        root = locate(directory)
        if not exists(root / DESCRIPTION) and exists(root / "model" / DESCRIPTION):
            root = root / "model"
        describe(root)
        name = root.parent.name if root.name == "model" else root.name
        if name in found:
            raise RunError(f"{directory} and {found[name]} would both be served as {name!r}; rename one directory")
        found[name] = root
    return found


def find_one(url: str) -> UPath:
    """Find the model directory that is ``url``, or that the run directory ``url`` holds; see :func:`find`."""
    [directory] = find([url]).values()
    return directory


def _require_fit(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    """Check names, shapes and dtypes of weights; the error names the first that does not fit.

    PyTorch would list all, and cast other dtypes without a word.
    """
    for name in [*wanted, *found]:
        sides = [list(tensors[name].shape) if name in tensors else "not there" for tensors in (found, wanted)]
        if sides[0] != sides[1]:
            raise ValueError(
                f"its weights are of another architecture than {DESCRIPTION} says: {name} is {sides[0]} in {WEIGHTS}, "
                f"and {sides[1]} in that architecture; take both files from one model directory"
            )
        if found[name].dtype != wanted[name].dtype:
            raise ValueError(
                f"{name} is {_name(found[name].dtype)} in {WEIGHTS}, and {_name(wanted[name].dtype)} in the model that "
                "genlab makes; save it again with weights of that dtype"
            )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _card(model: Model, provenance: Provenance) -> str:
    height, width, channels = model.image_shape
    parameters = sum(parameter.numel() for parameter in model.parameters())
    made = f"imported by genlab {provenance.genlab} from `{provenance.run}`"
    if provenance.step:
        made = (
            f"trained by genlab {provenance.genlab} for {counted(provenance.step, 'step')} "
            f"({counted(provenance.images, 'image')}) in `{provenance.run}`"
        )
    lines = [
        f"# {model.family} {height}x{width}x{channels}",
        "",
        f"{parameters:,} parameters, {made}.",
        "",
        "| | |",
        "| --- | --- |",
        f"| operations | {', '.join(model.operations)} |",
        *(row for operation in model.operations for row in _option_rows(operation, model.operations[operation])),
        *([f"| directions | {', '.join(model.directions)} |"] if isinstance(model, Translator) else []),
        *(
            f"| data `{name}` | {data['path']} (manifest {data['checksum'][:12]}{_range_text(data)}) |"
            for name, data in provenance.data.items()
        ),
        *([f"| began with | step {init['step']:,} of {init['path']} |"] if (init := provenance.init) else []),
        *([f"| branched off | step {it['step']:,} of {it['path']} |"] if (it := provenance.branch) else []),
        *([f"| license | {provenance.license} |"] if provenance.license else []),
        *_choice(provenance),
        *(f"| {name} | {value:.6g} |" for name, value in provenance.metrics.items()),
        "",
        f"`{WEIGHTS}` holds the weights, `{DESCRIPTION}` all that is needed to build the model again.",
        "Pixels in and out are uint8 [N, H, W, C].",
        "",
    ]
    return "\n".join(lines)


def _choice(provenance: Provenance) -> list[str]:
    """Say in a row of the card on which images the model was chosen, if it was."""
    if not provenance.chosen_on:
        return []
    place = f"on the split `{provenance.chosen_on}`"
    if overlap(provenance.chosen_on, provenance.reported_on):
        return [f"| chosen | {place}; results on that split are chosen on these images |"]
    return [f"| chosen | {place}; results are of `{provenance.reported_on}` |"]


def _option_rows(operation: str, options: type) -> list[str]:
    """Describe the options of an operation, a row for each."""
    hints, texts = get_type_hints(options, include_extras=True), field_texts(options)
    return [
        f"| {operation}, `{field.name}` | {values_text(hints[field.name])}, by default {field.default}. "
        f"{texts.get(field.name, '')} |"
        for field in dataclasses.fields(cast("Any", options))
    ]


def _range_text(data: Mapping[str, Any]) -> str:
    return f", values {range_text(data['value_range'])}" if "value_range" in data else ""
