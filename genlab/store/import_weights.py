"""Import of generators that CycleGAN's reference implementation trained, as a genlab model.

The reference is junyanz/pytorch-CycleGAN-and-pix2pix, which saves the state dict of each generator as
``latest_net_G_A.pth`` and ``latest_net_G_B.pth``.
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate, read_bytes, require_empty, writing
from genlab.models.cyclegan import BLOCKS, CycleGAN, CycleGANArchitecture, Direction
from genlab.store import model_directory
from genlab.store.safe_pickle import UnsafeError, read_torch

DATA_PARALLEL = "module."
"""Prefix of the keys of a state dict that was saved from ``nn.DataParallel``."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Tensors that an instance norm of PyTorch before 0.4 saved, and the reference never uses."""
WANTED = "only a resnet_6blocks or resnet_9blocks generator, with --norm instance and --no_dropout, can be imported"


def import_weights(dest: str, files: Mapping[Direction, str], size: int, license: str = "") -> str:
    """Write the model of one or two generators, and return what it is in a few words.

    Args:
        dest: folder or URL of the model directory to write; empty or not there.
        files: file of the generator of each direction that the model is to have.
        size: height and width of the images that they were trained on, in pixels.
        license: name of the licence of these weights, for the model's card; may be empty.

    Raises:
        ConfigError: no file, or a size that the networks do not take.
        RunError: a file that is missing or holds something else; the message names the first key that does not fit.
        DataError: the destination is not empty, or cannot be written.
    """
    if not files:
        raise ConfigError("give the file of a generator: --a-to-b FILE, --b-to-a FILE, or both, or --stylegan FILE")
    weights = {direction: _read(file) for direction, file in files.items()}
    found = {file: _architecture(file, weights[direction]) for direction, file in files.items()}
    (first, (channels, architecture)), *others = found.items()
    for file, other in others:
        if other != (channels, architecture):
            raise RunError(
                f"{file}: {_say(*other)}, and {first} {_say(channels, architecture)}; "
                "a model's two generators are of one architecture"
            )
    try:
        architecture = replace(architecture, directions=tuple(files))
        model = CycleGAN((size, size, channels), architecture)
    except ValueError as error:
        raise ConfigError(f"size = {size}: {error}") from None
    for direction, file in files.items():
        generator = model.generator(direction)
        _require_fit(file, weights[direction], generator.state_dict())
        generator.load_state_dict(weights[direction])
    folder = locate(dest)
    imported = model_directory.Provenance(
        run=", ".join(files.values()), step=0, images=0, data={}, config={}, metrics={}, license=license
    )
    with writing(folder):
        require_empty(folder)
        model_directory.save(folder, model, imported)
    directions = "both directions" if len(files) > 1 else f"{', '.join(files)} alone"
    return f"{_say(channels, architecture)}, {directions}"


def _read(file: str) -> dict[str, Tensor]:
    """Read the tensors of a state dict by their keys, less those that the reference never uses."""
    try:
        found = read_torch(read_bytes(locate(file)))
    except OSError as error:
        raise RunError(f"{file}: {error.strerror or error}") from None
    except UnsafeError as error:
        raise RunError(f"{file}: {error}") from None
    if not isinstance(found, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise RunError(f"{file}: not a state dict; give the file of a generator, such as latest_net_G_A.pth")
    prefix = DATA_PARALLEL if all(key.startswith(DATA_PARALLEL) for key in found) else ""
    return {key.removeprefix(prefix): value for key, value in found.items() if not key.endswith(STATISTICS)}


def _architecture(file: str, weights: Mapping[str, Tensor]) -> tuple[int, CycleGANArchitecture]:
    """Return the channels and the architecture of the ResNet generator that ``weights`` seem to be of."""
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
        if weights[key].dtype != tensor.dtype:
            raise RunError(
                f"{file}: {key} is {_dtype(weights[key])}, where {_dtype(tensor)} is needed; cast the weights and save "
                "them again"
            )
    for key in weights:
        if key not in wanted:
            raise RunError(f"{file}: {key} has no place; {WANTED}")


def _form(tensor: Tensor | None) -> str:
    return "is missing" if tensor is None else f"is {_sides(tensor)}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _sides(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _say(channels: int, architecture: CycleGANArchitecture) -> str:
    return f"{architecture.generator} of width {architecture.width} for {channels} channels"
