"""Generators trained by the reference implementation as a genlab model: ``genlab import-weights OUT``.

The reference is junyanz/pytorch-CycleGAN-and-pix2pix, which saves the state dict of each generator as
``latest_net_G_A.pth`` and ``latest_net_G_B.pth``.
"""

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import tyro
from annotated_types import Gt
from torch import Tensor

from genlab import modelstore
from genlab.config import parse
from genlab.errors import ConfigError, DataError, RunError, run_command
from genlab.models.cyclegan import BLOCKS, CycleGAN, CycleGANArchitecture
from genlab.storage import locate, read_bytes, require_empty

DATA_PARALLEL = "module."
"""What the keys of a state dict that was saved from ``nn.DataParallel`` begin with."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What an instance norm of PyTorch before 0.4 saved, and the reference never uses."""
WANTED = "only a resnet_6blocks or resnet_9blocks generator, with --norm instance and --no_dropout, can be imported"


@dataclass(frozen=True)
class ImportWeightsConfig:
    """Make a genlab model of two ResNet generators that junyanz/pytorch-CycleGAN-and-pix2pix has trained."""

    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder or s3:// URL of the model directory to write; it must be empty or not there."""
    a_to_b: str
    """State dict of the generator from domain A to B, such as checkpoints/NAME/latest_net_G_A.pth. Width, channels and
    the number of blocks, 6 or 9, are those of the file. No code in it is run."""
    b_to_a: str
    """State dict of the generator from B to A, such as checkpoints/NAME/latest_net_G_B.pth."""
    size: Annotated[int, Gt(0)] = 256
    """Height and width of the images they were trained on (crop_size). The model translates any size."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``genlab import-weights``."""
    run_command(lambda: import_weights(parse(ImportWeightsConfig, arguments, prog="genlab import-weights")))


def import_weights(config: ImportWeightsConfig) -> None:
    """Write the model that ``config`` names and say what it is.

    Raises:
        ConfigError: a size that the networks do not take.
        RunError: a file that is missing or holds something else; the message names the first key that does not fit.
        DataError: the destination is not empty, or cannot be written.
    """
    files = {"a_to_b": config.a_to_b, "b_to_a": config.b_to_a}
    weights = {direction: _read(file) for direction, file in files.items()}
    (channels, architecture), other = (_architecture(files[direction], weights[direction]) for direction in files)
    if other != (channels, architecture):
        raise RunError(
            f"{config.b_to_a}: {_say(*other)}, and {config.a_to_b} {_say(channels, architecture)}; "
            "a model's two generators are of one architecture"
        )
    try:
        model = CycleGAN((config.size, config.size, channels), architecture)
    except ValueError as error:
        raise ConfigError(f"size = {config.size}: {error}") from None
    for direction, generator in (("a_to_b", model.a_to_b), ("b_to_a", model.b_to_a)):
        _require_fit(files[direction], weights[direction], generator.state_dict())
        generator.load_state_dict(weights[direction])
    folder = locate(config.dest)
    imported = modelstore.Provenance(run=", ".join(files.values()), step=0, images=0, data={}, config={}, metrics={})
    try:
        require_empty(folder)
        modelstore.save(folder, model, imported)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from None
    print(f"{folder}: {_say(channels, architecture)}, both directions")


def _read(file: str) -> dict[str, Tensor]:
    """The tensors of a state dict by their keys, less those that mean nothing."""
    try:
        found: Any = torch.load(io.BytesIO(read_bytes(locate(file))), map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"{file}: {error.strerror or error}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{file}: not a file of weights alone, as torch.save writes a state dict ({reason})") from None
    if not isinstance(found, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise RunError(f"{file}: not a state dict; give the file of a generator, such as latest_net_G_A.pth")
    prefix = DATA_PARALLEL if all(key.startswith(DATA_PARALLEL) for key in found) else ""
    return {key.removeprefix(prefix): value for key, value in found.items() if not key.endswith(STATISTICS)}


def _architecture(file: str, weights: Mapping[str, Tensor]) -> tuple[int, CycleGANArchitecture]:
    """The channels and the architecture of the ResNet generator that ``weights`` seem to be of."""
    first = weights.get("model.1.weight")
    if first is None or first.ndim != 4:
        raise RunError(f"{file}: model.1.weight, of a first convolution, {_form(first)}; {WANTED}")
    blocks = sum(key.endswith(".conv_block.1.weight") for key in weights)
    name = next((name for name, count in BLOCKS.items() if count == blocks), None)
    if name is None:
        raise RunError(f"{file}: has {blocks} residual blocks (model.10.conv_block and on); {WANTED}")
    width, channels = first.shape[:2]
    return channels, CycleGANArchitecture(name, width)


def _require_fit(file: str, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for key, tensor in wanted.items():
        if key not in weights or weights[key].shape != tensor.shape:
            raise RunError(f"{file}: {key} {_form(weights.get(key))}, where {_sides(tensor)} is needed; {WANTED}")
    for key in weights:
        if key not in wanted:
            raise RunError(f"{file}: {key} has no place; {WANTED}")


def _form(tensor: Tensor | None) -> str:
    return "is missing" if tensor is None else f"is {_sides(tensor)}"


def _sides(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _say(channels: int, architecture: CycleGANArchitecture) -> str:
    return f"{architecture.generator} of width {architecture.width} for {channels} channels"
