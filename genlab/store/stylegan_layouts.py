"""The networks of StyleGAN2 and StyleGAN2-ADA as other programs write them, by genlab's names.

Files are pickles of NVlabs/stylegan2 and NVlabs/stylegan2-ada (TensorFlow's arrays and the text of their program), of
NVlabs/stylegan2-ada-pytorch (PyTorch's tensors and the text of theirs), and ``torch.save`` files of
rosinality/stylegan2-pytorch. Nothing of their programs is run.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genlab.models.stylegan_layers import MAPPING_RATE
from genlab.store.safe_pickle import Call, UnsafeError, as_mapping, as_tensor, read_pickle, read_torch

NETWORK = "dnnlib.tflib.network.Network"
MODULE = "torch_utils.persistence._reconstruct_persistent_obj"
NAMES = (NETWORK, MODULE, "dnnlib.util.EasyDict")
"""What NVIDIA's pickles name, beside arrays and tensors."""
TORCH_SAVE = (b"PK", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
"""How a file of ``torch.save`` begins, of today's form and of the one before."""
MODULES = 10_000
"""The most modules of a network that are read; the largest published one has some 200."""
WANTED = "only generators of StyleGAN2 and StyleGAN2-ADA (skip or resnet, lrelu, filter [1, 3, 3, 1]) can be imported"


@dataclass
class Network:
    """What a file has of one network, by genlab's names."""

    most: int
    """The most numbers that it may have: the file's bytes, since a small file can name one array many times."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Weights as the file has them, laid out as genlab does."""
    names: dict[str, str] = field(default_factory=dict)
    """What the file calls each."""
    clamp: float | None = None
    """Largest absolute value of what convolutions give."""
    rates: dict[str, float] = field(default_factory=dict)
    """Factors of the learning rates of dense layers, by the layer's name, where they are not those of genlab."""

    def add(self, name: str, of_file: str, tensor: Tensor) -> None:
        """Add a tensor, which the file calls ``of_file``.

        Raises:
            UnsafeError: it has more numbers than there can be.
            ForeignError: it has none, some are not finite, or it is no matrix of weights.
        """
        self.most -= tensor.numel()
        if self.most < 0:
            raise UnsafeError("it unpacks to more numbers than it has bytes")
        if not tensor.numel() or not tensor.isfinite().all():
            raise ForeignError(f"{of_file} is empty, or not all of it are finite numbers")
        if name.endswith("weight") and tensor.ndim < 2:
            raise ForeignError(f"{of_file} is {shape_text(tensor)}, which weights are not")
        self.tensors[name], self.names[name] = tensor, of_file


class ForeignError(UnsafeError):
    """Weights of another architecture than genlab's."""


class _Options:
    """Stands in for the options of training in a file, which are not read."""


Reader = Callable[[], Network]


def read_networks(data: bytes) -> tuple[Network, Reader | None]:
    """Read the averaged generator of a file, and return what reads its discriminator, if it has one."""
    most = len(data)
    if data.startswith(TORCH_SAVE):
        found = read_torch(data, ignored={"argparse.Namespace": _Options})
        if not isinstance(found, Mapping) or not isinstance(found.get("g_ema"), Mapping):
            raise ForeignError("has no g_ema, an averaged generator, as checkpoints of rosinality/stylegan2-pytorch do")
        generator = _rosinality(found["g_ema"], _rosinality_generator, most)
        if isinstance(found.get("latent_avg"), Tensor):
            generator.add("mean_style", "latent_avg", _number(found["latent_avg"], "latent_avg").flatten())
        judge = found.get("d")
        reader = partial(_rosinality, judge, _rosinality_discriminator, most) if isinstance(judge, Mapping) else None
        return generator, reader
    found = read_pickle(data, NAMES)
    if isinstance(found, tuple) and len(found) == 3 and all(_is(one, NETWORK) for one in found):
        _, judge, averaged = found
        reader = partial(_tensorflow, judge, _tensorflow_discriminator, most)
        return _tensorflow(averaged, _tensorflow_generator, most), reader
    entries = as_mapping(found) or {}
    averaged, judge = entries.get("G_ema"), entries.get("D")
    if isinstance(averaged, Call):
        reader = partial(_torch, judge, _torch_discriminator, most) if isinstance(judge, Call) else None
        return _torch(averaged, _torch_generator, most), reader
    raise ForeignError(f"holds neither (G, D, Gs) of TensorFlow nor G_ema of PyTorch; {WANTED}")


def _is(value: Any, name: str) -> bool:
    return isinstance(value, Call) and value.name == name


Placed = tuple[str, Callable[[Tensor], Tensor]]
"""genlab's name of a tensor, and what lays it out as genlab does."""


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _flipped(tensor: Tensor) -> Tensor:
    """Turn the kernel of a convolution that doubles the size; genlab's is applied as it is written."""
    return tensor.flip(-2, -1)


def layer_number(resolution: int, number: int) -> int:
    """Return the place of a layer of the synthesis network: ``number`` is 0 for one that doubles, 1 for the next."""
    return 2 * (resolution.bit_length() - 1) - 5 + number


# PyTorch: a tree of modules, each a dictionary of its tensors, modules and attributes.


def _torch(network: Call, place: Callable[[str], Placed | None], most: int) -> Network:
    found = Network(most)
    clamps: set[float | None] = set()
    for path, state in _modules(network):
        prefix = path + "." if path else ""
        _require_activation(path, state.get("activation", "lrelu"))
        if "conv_clamp" in state and not path.endswith("skip") and path != "b4.fromrgb":
            clamps.add(_limit(state["conv_clamp"]))
        if "bias_gain" in state:
            rate = _scalar(state["bias_gain"], f"{prefix}bias_gain")
            if rate != 1 or path.startswith("mapping.fc"):
                found.rates[path] = rate
        for kind in ("_parameters", "_buffers"):
            for key, value in (as_mapping(state.get(kind)) or {}).items():
                if value is not None:
                    _place(found, f"{prefix}{key}", value, place)
    if len(clamps) > 1:
        raise ForeignError(f"its layers clamp at {', '.join(sorted(map(str, clamps)))}; {WANTED}")
    found.clamp = next(iter(clamps), None)
    return found


def _modules(network: Call) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path of each module and what the file has of it."""
    waiting = [("", network)]
    count = 0
    while waiting:
        path, module = waiting.pop()
        count += 1
        meta = as_mapping(module.arguments[0]) if module.arguments else None
        state = as_mapping((meta or {}).get("state"))
        if state is None or count > MODULES:
            raise ForeignError(f"{path or 'its network'} is not a module of StyleGAN2; {WANTED}")
        yield path, state
        for key, child in (as_mapping(state.get("_modules")) or {}).items():
            if _is(child, MODULE):
                waiting.append((f"{path}.{key}" if path else str(key), child))
            elif child is not None:
                raise ForeignError(f"{path}.{key} is not a module of StyleGAN2; {WANTED}")


def _torch_generator(key: str) -> Placed | None:
    match key.split("."):
        case ["mapping", "w_avg"]:
            return "mean_style", _same
        case ["mapping", "embed", kind]:
            return f"mapping.embedding.{kind}", _same
        case ["mapping", dense, kind] if number := re.fullmatch(r"fc(\d+)", dense):
            return f"mapping.layers.{number[1]}.{kind}", _same
        case ["synthesis", "b4", "const"]:
            return "synthesis.input.constant", lambda constant: constant[None]
        case ["synthesis", block, part, *kind] if resolution := _block(block):
            if part == "torgb":
                of_style = kind[0] == "affine"
                return (
                    f"synthesis.to_colours.{resolution}.{_style(kind) if of_style else 'convolution.' + kind[0]}",
                    _same,
                )
            if part == "skip" and kind == ["weight"]:
                return f"synthesis.shortcuts.{resolution}.weight", _same
            if part in ("conv0", "conv1"):
                second = part == "conv1"
                layer = f"synthesis.layers.{layer_number(resolution, int(second))}"
                match kind:
                    case ["weight"]:
                        return f"{layer}.convolution.weight", _same if second else _flipped
                    case ["bias"]:
                        return f"{layer}.bias", _same
                    case ["noise_strength"]:
                        return f"{layer}.noise.strength", lambda strength: strength.reshape(1)
                    case ["noise_const"]:
                        return "", _same
                    case ["affine", _]:
                        return f"{layer}.{_style(kind)}", _same
    return None


def _block(name: str) -> int:
    """Return the resolution of a block, such as b16, and 0 for any other name."""
    found = re.fullmatch(r"b(\d{1,5})", name)
    return int(found[1]) if found else 0


def _style(kind: Sequence[str]) -> str:
    return f"style.{kind[1]}"


def _torch_discriminator(key: str) -> Placed | None:
    match key.split("."):
        case ["mapping", "embed", kind]:
            return f"mapping.embedding.{kind}", _same
        case ["mapping", dense, kind] if number := re.fullmatch(r"fc(\d+)", dense):
            return f"mapping.layers.{number[1]}.{kind}", _same
        case ["b4", "conv" | "fc" | "out" as part, kind]:
            name = {"conv": "convolution", "fc": "dense", "out": "logits"}[part]
            return f"head.{name}.{kind}", _same
        case [block, part, kind] if resolution := _block(block):
            if part == "fromrgb":
                return f"from_colours.{resolution}.{kind}", _same
            if part in PARTS_OF_BLOCK:
                return f"blocks.{resolution}.{PARTS_OF_BLOCK[part]}.{kind}", _same
    return None


PARTS_OF_BLOCK = {
    "conv0": "first",
    "conv1": "second",
    "skip": "shortcut",
    "Conv0": "first",
    "Conv1_down": "second",
    "Skip": "shortcut",
}
"""Layers of a block of the discriminator, by NVIDIA's names."""


# TensorFlow: variables by scope, in a network and its two parts.


def _tensorflow(network: Call, place: Callable[[str], Placed | None], most: int) -> Network:
    found = Network(most)
    options: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    state = as_mapping(network.state)
    parts = as_mapping(state.get("components")) if state else None
    for prefix, part in (("", network), *((f"{name}/", part) for name, part in (parts or {}).items())):
        state = as_mapping(part.state) if _is(part, NETWORK) else None
        if state is None or not isinstance(state.get("variables"), list):
            raise ForeignError(f"{prefix or 'its network'} is not a network of TensorFlow; {WANTED}")
        options |= as_mapping(state.get("static_kwargs")) or {}
        for entry in state["variables"]:
            if not isinstance(entry, tuple) or len(entry) != 2 or not isinstance(entry[0], str):
                raise ForeignError(f"{prefix or 'its network'} has a variable without a name")
            variables[prefix + entry[0]] = entry[1]
    for option in ("nonlinearity", "mapping_nonlinearity"):
        _require_activation(option, options.get(option, "lrelu"))
    if options.get("resample_kernel", [1, 3, 3, 1]) not in ([1, 3, 3, 1], (1, 3, 3, 1)):
        raise ForeignError(f"resample_kernel is not [1, 3, 3, 1]; {WANTED}")
    if options.get("normalize_latents", True) is not True:
        raise ForeignError(f"normalize_latents is not True; {WANTED}")
    found.clamp = _limit(options.get("conv_clamp"))
    for key, value in variables.items():
        _place(found, key, value, place)
    usual = MAPPING_RATE if place is _tensorflow_generator else 0.1
    rate = _scalar(options.get("mapping_lrmul", usual), "mapping_lrmul")
    found.rates = {
        name.removesuffix(".weight"): rate
        for name in found.tensors
        if re.fullmatch(r"mapping\.layers\.\d+\.weight", name)
    }
    return found


def _transposed(tensor: Tensor) -> Tensor:
    """Lay out weights as PyTorch does: [outputs, inputs, height, width], or [outputs, inputs] of a dense layer."""
    return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.t()


def _kind(name: str) -> Placed:
    """Return what a variable is in its layer."""
    return name, _transposed if name == "weight" else _same


def _tensorflow_generator(key: str) -> Placed | None:
    match key.split("/"):
        case ["dlatent_avg"]:
            return "mean_style", _same
        case ["lod"]:
            return "", _same
        case ["mapping", "LabelConcat" | "LabelEmbed", "weight" | "bias" as name]:
            kind, laid = _kind(name)
            return f"mapping.embedding.{kind}", laid
        case ["mapping", dense, "weight" | "bias" as name] if number := re.fullmatch(r"Dense(\d+)", dense):
            kind, laid = _kind(name)
            return f"mapping.layers.{number[1]}.{kind}", laid
        case ["synthesis", noise] if re.fullmatch(r"noise\d+", noise):
            return "", _same
        case ["synthesis", "4x4", "Const", "const"]:
            return "synthesis.input.constant", _same
        case ["synthesis", sides, part, name] if resolution := _sides(sides):
            if part == "Skip" and name == "weight":
                return f"synthesis.shortcuts.{resolution}.weight", _transposed
            if part == "ToRGB":
                colours = f"synthesis.to_colours.{resolution}"
                return _modulated(colours, name, f"{colours}.convolution.bias")
            if part in ("Conv", "Conv0_up", "Conv1"):
                layer = f"synthesis.layers.{layer_number(resolution, int(part != 'Conv0_up'))}"
                if name == "noise_strength":
                    return f"{layer}.noise.strength", lambda strength: strength.reshape(1)
                return _modulated(layer, name, f"{layer}.bias")
    return None


def _modulated(layer: str, name: str, bias: str) -> Placed | None:
    """Place a variable of a convolution that is steered by a style."""
    match name:
        case "weight":
            return f"{layer}.convolution.weight", _transposed
        case "bias":
            return bias, _same
        case "mod_weight":
            return f"{layer}.style.weight", _transposed
        case "mod_bias":
            return f"{layer}.style.bias", lambda bias: bias + 1
    return None


def _sides(name: str) -> int:
    """Return the resolution of a scope, such as 16x16, and 0 for any other name."""
    found = re.fullmatch(r"(\d{1,5})x\1", name)
    return int(found[1]) if found else 0


def _tensorflow_discriminator(key: str) -> Placed | None:
    *scope, name = key.split("/")
    if name not in ("weight", "bias"):
        return ("", _same) if key == "lod" else None
    kind, laid = _kind(name)
    match scope:
        case ["LabelEmbed"]:
            return f"mapping.embedding.{kind}", laid
        case [dense] if number := re.fullmatch(r"Mapping(\d+)", dense):
            return f"mapping.layers.{number[1]}.{kind}", laid
        case ["Output"]:
            return f"head.logits.{kind}", laid
        case ["4x4", "Conv"]:
            return f"head.convolution.{kind}", laid
        case ["4x4", "Dense0"]:
            return f"head.dense.{kind}", laid
        case [sides, part] if resolution := _sides(sides):
            if part == "FromRGB":
                return f"from_colours.{resolution}.{kind}", laid
            if part in PARTS_OF_BLOCK:
                return f"blocks.{resolution}.{PARTS_OF_BLOCK[part]}.{kind}", laid
    return None


# rosinality: state dicts.


def _rosinality(weights: Mapping[Any, Any], place: Callable[[str, int], Placed | None], most: int) -> Network:
    found = Network(most)
    blocks = max((int(match[1]) for key in weights if (match := re.match(r"convs\.(\d{1,2})\.", str(key)))), default=0)
    for key, value in weights.items():
        _place(found, str(key), value, lambda key: place(key, blocks))
    return found


def _rosinality_generator(key: str, blocks: int) -> Placed | None:
    match key.split("."):
        case ["input", "input"]:
            return "synthesis.input.constant", _same
        case ["style", number, "weight" | "bias" as kind] if _index(number):
            return f"mapping.layers.{_index(number) - 1}.{kind}", _same
        case ["noises", _]:
            return "", _same
        case ["conv1", *kind]:
            return _styled("synthesis.layers.0", kind, up=False)
        case ["convs", number, *kind] if (index := _index(number)) >= 0:
            return _styled(f"synthesis.layers.{index + 1}", kind, up=index % 2 == 0)
        case ["to_rgb1", *kind]:
            return _coloured(4, kind)
        case ["to_rgbs", number, *kind] if (index := _index(number)) >= 0:
            return _coloured(8 << index, kind)
    return None


def _index(text: str) -> int:
    """Return the number of a module in a list, and -1 for any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,2}", text) else -1


def _styled(layer: str, kind: Sequence[str], up: bool) -> Placed | None:
    match kind:
        case ["conv", "weight"]:
            return f"{layer}.convolution.weight", lambda weight: _flipped(weight[0]) if up else weight[0]
        case ["conv", "modulation", name]:
            return f"{layer}.style.{name}", _same
        case ["noise", "weight"]:
            return f"{layer}.noise.strength", _same
        case ["activate", "bias"]:
            return f"{layer}.bias", _same
    return None


def _coloured(resolution: int, kind: Sequence[str]) -> Placed | None:
    colours = f"synthesis.to_colours.{resolution}"
    match kind:
        case ["conv", "weight"]:
            return f"{colours}.convolution.weight", lambda weight: weight[0]
        case ["conv", "modulation", name]:
            return f"{colours}.style.{name}", _same
        case ["bias"]:
            return f"{colours}.convolution.bias", torch.Tensor.flatten
    return None


def _rosinality_discriminator(key: str, blocks: int) -> Placed | None:
    kind = key.rpartition(".")[2]
    match key.split(".")[:-1]:
        case ["convs", "0", "0" | "1"]:
            return f"from_colours.{4 << blocks}.{kind}", _same
        case ["convs", number, "conv1" | "conv2" | "skip" as part, _] if _index(number) > 0:
            name = {"conv1": "first", "conv2": "second", "skip": "shortcut"}[part]
            return f"blocks.{8 << (blocks - _index(number))}.{name}.{kind}", _same
        case ["final_conv", "0" | "1"]:
            return f"head.convolution.{kind}", _same
        case ["final_linear", "0"]:
            return f"head.dense.{kind}", _same
        case ["final_linear", "1"]:
            return f"head.logits.{kind}", _same
    return None


# What they have in common.


def _place(found: Network, key: str, value: Any, place: Callable[[str], Placed | None]) -> None:
    """Put a tensor of a file where genlab has it; fixed noise is left out, and the filter's taps are looked at."""
    placed, key = place(key), ascii(key)[1:-1][:100]
    tensor = _number(value, key)
    if key.rpartition(".")[2] in ("resample_filter", "kernel"):
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        if tensor.shape != (4, 4) or not torch.allclose(tensor / tensor.sum(), taps.outer(taps) / 64, atol=1e-6):
            raise ForeignError(f"{key} is another filter than [1, 3, 3, 1]; {WANTED}")
        return
    if placed is None:
        raise ForeignError(f"{key} has no place in genlab's networks; {WANTED}")
    name, laid = placed
    if name:
        try:
            found.add(name, key, laid(tensor))
        except (RuntimeError, IndexError) as error:
            raise ForeignError(f"{key} is {shape_text(tensor)}, which it cannot be ({error})") from None


def _number(value: Any, key: str) -> Tensor:
    tensor = as_tensor(value)
    if tensor is None:
        raise ForeignError(f"{key} is no array of numbers")
    return tensor


def _scalar(value: Any, key: str) -> float:
    try:
        number = float(value) if isinstance(value, int | float) else float(_number(value, key).reshape(()))
    except (OverflowError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise ForeignError(f"{key} is no finite number")
    return number


def _require_activation(path: str, activation: Any) -> None:
    if activation not in ("lrelu", "linear"):
        raise ForeignError(f"{path}: its activation is not lrelu; {WANTED}")


def _limit(clamp: Any) -> float | None:
    """Return at what the outputs of a layer are clamped."""
    limit = None if clamp is None else _scalar(clamp, "conv_clamp")
    if limit is not None and limit <= 0:
        raise ForeignError(f"conv_clamp = {limit:g}; {WANTED}")
    return limit


def shape_text(tensor: Tensor) -> str:
    """Return the sides of a tensor for a message."""
    return "x".join(map(str, tensor.shape)) or "one number"
