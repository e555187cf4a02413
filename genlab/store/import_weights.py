"""Generators trained by the reference implementation, imported as a genlab model.

The reference is junyanz/pytorch-CycleGAN-and-pix2pix, which saves the state dict of each generator as
``latest_net_G_A.pth`` and ``latest_net_G_B.pth``.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genlab.core.errors import ConfigError, DataError, RunError
from genlab.core.storage import locate, read_bytes, require_empty
from genlab.models.cyclegan import BLOCKS, CycleGAN, CycleGANArchitecture
from genlab.store import model_directory

DATA_PARALLEL = "module."
"""What the keys of a state dict that was saved from ``nn.DataParallel`` begin with."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What an instance norm of PyTorch before 0.4 saved, and the reference never uses."""
WANTED = "only a resnet_6blocks or resnet_9blocks generator, with --norm instance and --no_dropout, can be imported"


def import_weights(dest: str, a_to_b: str, b_to_a: str, size: int) -> str:
    """Write the model of two generators, and return what it is in a few words.

    Args:
        dest: folder or URL of the model directory to write; empty or not there.
        a_to_b: file of the generator from domain A to B.
        b_to_a: file of the generator from B to A.
        size: height and width of the images that they were trained on, in pixels.

    Raises:
        ConfigError: a size that the networks do not take.
        RunError: a file that is missing or holds something else; the message names the first key that does not fit.
        DataError: the destination is not empty, or cannot be written.
    """
    files = {"a_to_b": a_to_b, "b_to_a": b_to_a}
    weights = {direction: _read(file) for direction, file in files.items()}
    (channels, architecture), other = (_architecture(files[direction], weights[direction]) for direction in files)
    if other != (channels, architecture):
        raise RunError(
            f"{b_to_a}: {_say(*other)}, and {a_to_b} {_say(channels, architecture)}; "
            "a model's two generators are of one architecture"
        )
    try:
        model = CycleGAN((size, size, channels), architecture)
    except ValueError as error:
        raise ConfigError(f"size = {size}: {error}") from None
    for direction, generator in (("a_to_b", model.a_to_b), ("b_to_a", model.b_to_a)):
        _require_fit(files[direction], weights[direction], generator.state_dict())
        generator.load_state_dict(weights[direction])
    folder = locate(dest)
    imported = model_directory.Provenance(
        run=", ".join(files.values()), step=0, images=0, data={}, config={}, metrics={}
    )
    try:
        require_empty(folder)
        model_directory.save(folder, model, imported)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from None
    return f"{_say(channels, architecture)}, both directions"


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
