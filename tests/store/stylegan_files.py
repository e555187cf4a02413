"""Small StyleGAN2 networks, their formulas written down a second time, and files of them in the published layouts.

Weights have the names of NVIDIA's PyTorch networks. Files are written here; no program of others is run or copied.
"""

import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT_2 = 2**0.5
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
SOURCE = "import pathlib\n\npathlib.Path({!r}).touch()\n"
"""The text of a program, as NVIDIA's pickles hold one; it leaves a trace where it is run."""


@dataclass(frozen=True)
class Published:
    """What the networks are."""

    size: int = 16
    colours: int = 3
    latent: int = 6
    classes: int = 0
    layers: int = 2
    form: str = "skip"
    judged: str = "resnet"
    clamp: float | None = None
    rate: float = 0.01
    joint: bool = False
    """A class is embedded and judged as in StyleGAN2, and not as in StyleGAN2-ADA."""

    def sides(self) -> list[int]:
        return [2**level for level in range(2, self.size.bit_length())]

    def width(self, side: int) -> int:
        return min(64 // side, 8)

    def generator(self) -> dict[str, Tensor]:
        """Random weights of the generator by name."""
        random = torch.Generator().manual_seed(0)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(*shape, generator=random)

        found: dict[str, Tensor] = {"mapping.w_avg": draw(self.latent, scale=0.3)}
        if self.classes:
            found["mapping.embed.weight"] = draw(self.latent, self.classes)
            if not self.joint:
                found["mapping.embed.bias"] = draw(self.latent, scale=0.3)
        for number in range(self.layers):
            inputs = self.latent * (2 if self.classes and number == 0 else 1)
            found[f"mapping.fc{number}.weight"] = draw(self.latent, inputs, scale=1 / self.rate)
            found[f"mapping.fc{number}.bias"] = draw(self.latent, scale=0.3 / self.rate)

        def styled(name: str, inputs: int, outputs: int, kernel: int) -> None:
            found[f"{name}.weight"] = draw(outputs, inputs, kernel, kernel)
            found[f"{name}.bias"] = draw(outputs, scale=0.3)
            found[f"{name}.affine.weight"] = draw(inputs, self.latent)
            found[f"{name}.affine.bias"] = 1 + draw(inputs, scale=0.3)

        found["synthesis.b4.const"] = draw(self.width(4), 4, 4)
        for side in self.sides():
            block, width = f"synthesis.b{side}", self.width(side)
            for number in (0, 1) if side > 4 else (1,):
                name = f"{block}.conv{number}"
                styled(name, width if number else self.width(side // 2), width, 3)
                found[f"{name}.noise_strength"] = draw(1, scale=0.3)[0]
                found[f"{name}.noise_const"] = draw(side, side)
            if self.form == "skip" or side == self.size:
                styled(f"{block}.torgb", width, self.colours, 1)
            if self.form == "resnet" and side > 4:
                found[f"{block}.skip.weight"] = draw(width, self.width(side // 2), 1, 1)
        return found

    def discriminator(self) -> dict[str, Tensor]:
        """Random weights of the discriminator by name."""
        random = torch.Generator().manual_seed(1)
        found: dict[str, Tensor] = {}

        def layer(name: str, *shape: int, scale: float = 1.0, bias: bool = True) -> None:
            found[f"{name}.weight"] = scale * torch.randn(*shape, generator=random)
            if bias:
                found[f"{name}.bias"] = 0.3 * scale * torch.randn(shape[0], generator=random)

        for side in self.sides()[:0:-1]:
            width, next_width = self.width(side), self.width(side // 2)
            if side == self.size or self.judged == "skip":
                layer(f"b{side}.fromrgb", width, self.colours, 1, 1)
            layer(f"b{side}.conv0", width, width, 3, 3)
            layer(f"b{side}.conv1", next_width, width, 3, 3)
            if self.judged == "resnet":
                layer(f"b{side}.skip", next_width, width, 1, 1, bias=False)
        width = self.width(4)
        if self.judged == "skip":
            layer("b4.fromrgb", width, self.colours, 1, 1)
        layer("b4.conv", width, width + 1, 3, 3)
        layer("b4.fc", width, width * 16)
        projected = bool(self.classes) and not self.joint
        layer("b4.out", width if projected else max(1, self.classes), width)
        if projected:
            layer("mapping.embed", width, self.classes)
            for number in range(2):
                layer(f"mapping.fc{number}", width, width, scale=1 / self.rate)
        return found


def normalised(vectors: Tensor) -> Tensor:
    return vectors / (vectors.square().mean(1, keepdim=True) + 1e-8).sqrt()


def dense(weights: Mapping[str, Tensor], name: str, inputs: Tensor, rate: float = 1.0) -> Tensor:
    weight = weights[f"{name}.weight"]
    outputs = inputs @ weight.t() * rate / weight.shape[1] ** 0.5
    return outputs + rate * weights[f"{name}.bias"] if f"{name}.bias" in weights else outputs


def filtered(images: Tensor, before: int, after: int) -> Tensor:
    padded = F.pad(images, (before, after, before, after))
    return F.conv2d(padded, TAPS.expand(images.shape[1], 1, 4, 4), groups=images.shape[1])


def spread(images: Tensor) -> Tensor:
    """Put a zero after each pixel of a row and of a column."""
    count, channels, height, width = images.shape
    out = images.new_zeros(count, channels, 2 * height, 2 * width)
    out[:, :, ::2, ::2] = 4 * images
    return out


def active(features: Tensor, bias: Tensor, clamp: float | None, gain: float = ROOT_2) -> Tensor:
    features = F.leaky_relu(features + bias[:, None, None], 0.2) * gain
    return features if clamp is None else features.clamp(-clamp * gain / ROOT_2, clamp * gain / ROOT_2)


def mapped(what: Published, weights: Mapping[str, Tensor], z: Tensor, one_hot: Tensor) -> Tensor:
    if what.joint and what.classes:
        features = normalised(torch.cat([z, one_hot @ weights["mapping.embed.weight"].t()], 1))
    elif what.classes:
        features = torch.cat([normalised(z), normalised(dense(weights, "mapping.embed", one_hot))], 1)
    else:
        features = normalised(z)
    for number in range(what.layers):
        features = F.leaky_relu(dense(weights, f"mapping.fc{number}", features, what.rate), 0.2) * ROOT_2
    return features


def drawn(what: Published, weights: Mapping[str, Tensor], w: Tensor) -> Tensor:
    """Draw images of styles with the noise of the file: equations 1 to 3 of StyleGAN2, an image at a time."""

    def modulated(name: str, features: Tensor, style: Tensor, up: bool, demodulate: bool) -> Tensor:
        weight = weights[f"{name}.weight"]
        weight = weight / weight[0].numel() ** 0.5 * dense(weights, f"{name}.affine", style[None])[0][:, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            return F.conv2d(filtered(spread(features), 3, 2), weight.flip(2, 3))
        return F.conv2d(features, weight, padding=weight.shape[2] // 2)

    images = []
    for style in w:
        features, image = weights["synthesis.b4.const"][None], None
        for side in what.sides():
            block, before = f"synthesis.b{side}", features
            for number in (0, 1) if side > 4 else (1,):
                name = f"{block}.conv{number}"
                features = modulated(name, features, style, up=number == 0, demodulate=True)
                features = features + weights[f"{name}.noise_const"] * weights[f"{name}.noise_strength"]
                features = active(features, weights[f"{name}.bias"], what.clamp)
            if f"{block}.skip.weight" in weights:
                weight = weights[f"{block}.skip.weight"]
                shortcut = F.conv2d(filtered(spread(before), 2, 1), weight / weight.shape[1] ** 0.5)
                features = (features + shortcut) / ROOT_2
            image = None if image is None else filtered(spread(image), 2, 1)
            if f"{block}.torgb.weight" in weights:
                colours = modulated(f"{block}.torgb", features, style, up=False, demodulate=False)
                colours = colours + weights[f"{block}.torgb.bias"][:, None, None]
                colours = colours if what.clamp is None else colours.clamp(-what.clamp, what.clamp)
                image = colours if image is None else image + colours
        assert image is not None
        images.append(image)
    return torch.cat(images)


def judged(what: Published, weights: Mapping[str, Tensor], images: Tensor, one_hot: Tensor) -> Tensor:
    """Judge images that are one group."""

    def convolved(name: str, features: Tensor, down: bool = False, gain: float = ROOT_2) -> Tensor:
        weight = weights[f"{name}.weight"] / weights[f"{name}.weight"][0].numel() ** 0.5
        border = weight.shape[2] // 2
        if down:
            features = F.conv2d(filtered(features, 1 + border, 1 + border), weight, stride=2)
        else:
            features = F.conv2d(features, weight, padding=border)
        if f"{name}.bias" not in weights:
            return features * gain
        return active(features, weights[f"{name}.bias"], what.clamp, gain)

    features, small = convolved(f"b{what.size}.fromrgb", images), images
    for side in what.sides()[:0:-1]:
        residual = what.judged == "resnet"
        gain = 1.0 if residual else ROOT_2
        deep = convolved(f"b{side}.conv1", convolved(f"b{side}.conv0", features), down=True, gain=gain)
        features = deep + convolved(f"b{side}.skip", features, down=True, gain=1 / ROOT_2) if residual else deep
        if not residual:
            small = filtered(small, 1, 1)[:, :, ::2, ::2]
            features = features + convolved(f"b{side // 2}.fromrgb", small)
    deviation = (features.var(0, correction=0) + 1e-8).sqrt().mean()
    features = convolved("b4.conv", torch.cat([features, deviation.expand(len(features), 1, 4, 4)], 1))
    features = F.leaky_relu(dense(weights, "b4.fc", features.flatten(1)), 0.2) * ROOT_2
    scores = dense(weights, "b4.out", features)
    if not what.classes:
        return scores[:, 0]
    if what.joint:
        return (scores * one_hot).sum(1)
    vectors = normalised(dense(weights, "mapping.embed", one_hot))
    for number in range(2):
        vectors = F.leaky_relu(dense(weights, f"mapping.fc{number}", vectors, what.rate), 0.2) * ROOT_2
    return (scores * vectors).sum(1) / scores.shape[1] ** 0.5


# Files.


@contextmanager
def named(*names: str) -> Iterator[dict[str, Any]]:
    """Let there be classes of these dotted names, or functions where they begin with ``_``, for pickles to name."""
    made: dict[str, Any] = {}
    kept = dict(sys.modules)
    for dotted in names:
        module, _, name = dotted.rpartition(".")
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            sys.modules.setdefault(path, types.ModuleType(path))
        kind: Any = (lambda *arguments: None) if name.startswith("_") else type(name, (dict,), {})
        kind.__module__, kind.__qualname__, kind.__name__ = module, name, name
        setattr(sys.modules[module], name, kind)
        made[dotted] = kind
    try:
        yield made
    finally:
        for path in sys.modules.keys() - kept.keys():
            del sys.modules[path]


PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"


class Reduced:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def torch_pickle(
    what: Published,
    source: str = SOURCE,
    changes: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    **entries: Any,
) -> bytes:
    """A pickle as NVlabs/stylegan2-ada-pytorch writes it: each module a call with its state and its program's text."""

    with named(PERSISTENT, "dnnlib.util.EasyDict") as names:

        def module(weights: Mapping[str, Any], path: str = "") -> Reduced:
            children = sorted(
                {
                    name[len(path) :].split(".")[0]
                    for name in weights
                    if name.startswith(path) and "." in name[len(path) :]
                }
            )
            own = {
                name[len(path) :]: one
                for name, one in weights.items()
                if name.startswith(path) and "." not in name[len(path) :]
            }
            buffers = {name: one for name, one in own.items() if name.endswith(("w_avg", "noise_const"))}
            kind = path.split(".")[-2] if path else ""
            if kind.startswith("conv") or kind == "skip":
                buffers["resample_filter"] = TAPS
            state: dict[str, Any] = {
                "training": False,
                "_parameters": OrderedDict(
                    (name, torch.nn.Parameter(one) if isinstance(one, Tensor) else one)
                    for name, one in own.items()
                    if name not in buffers
                ),
                "_buffers": OrderedDict(buffers),
                "_non_persistent_buffers_set": set(),
                "_modules": OrderedDict((name, module(weights, f"{path}{name}.")) for name in children),
                "_init_kwargs": names["dnnlib.util.EasyDict"](channel_max=np.float64(8.0)),
            }
            if kind.startswith("fc") or kind in ("affine", "embed", "out"):
                state["bias_gain"] = what.rate if path.startswith("mapping.fc") else 1
                state["activation"] = "lrelu" if kind.startswith("fc") else "linear"
            if kind.startswith("conv") or kind in ("torgb", "fromrgb", "skip"):
                state["conv_clamp"] = None if kind == "skip" else what.clamp
            state |= attributes or {}
            meta = {"type": "class", "version": 6, "module_src": source, "class_name": "Anything", "state": state}
            return Reduced(names[PERSISTENT], meta)

        generator: dict[str, Any] = what.generator() | dict(changes or {})
        kept = {name: one for name, one in generator.items() if one is not None}
        data = {"G": None, "D": module(what.discriminator()), "G_ema": module(kept), "augment_pipe": None} | entries
        return pickle.dumps(data)


def tensorflow_variables(what: Published) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The same weights as variables of NVIDIA's TensorFlow networks: of the generator's parts, of the discriminator."""

    def laid(tensor: Tensor, turned: bool = False) -> np.ndarray:
        tensor = tensor.flip(2, 3) if turned else tensor
        return (tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor.t()).contiguous().numpy()

    parts: dict[str, dict[str, Any]] = {"": {}, "mapping": {}, "synthesis": {}}
    layer = 0
    for name, tensor in what.generator().items():
        match name.split("."):
            case ["mapping", "w_avg"]:
                parts[""]["dlatent_avg"] = tensor.numpy()
            case ["mapping", "embed", kind]:
                scope = "LabelConcat" if what.joint else "LabelEmbed"
                parts["mapping"][f"{scope}/{kind}"] = laid(tensor) if kind == "weight" else tensor.numpy()
            case ["mapping", fc, kind]:
                parts["mapping"][f"Dense{fc[2:]}/{kind}"] = laid(tensor) if kind == "weight" else tensor.numpy()
            case ["synthesis", "b4", "const"]:
                parts["synthesis"]["4x4/Const/const"] = tensor[None].numpy()
            case ["synthesis", block, part, *kind]:
                side = block[1:]
                scopes = {
                    "conv0": "Conv0_up",
                    "conv1": "Conv" if side == "4" else "Conv1",
                    "torgb": "ToRGB",
                    "skip": "Skip",
                }
                prefix = f"{side}x{side}/{scopes[part]}"
                match kind:
                    case ["weight"]:
                        parts["synthesis"][f"{prefix}/weight"] = laid(tensor, turned=part in ("conv0", "skip"))
                    case ["affine", "weight"]:
                        parts["synthesis"][f"{prefix}/mod_weight"] = laid(tensor)
                    case ["affine", "bias"]:
                        parts["synthesis"][f"{prefix}/mod_bias"] = tensor.numpy() - 1
                    case ["noise_const"]:
                        parts["synthesis"][f"noise{layer}"] = tensor[None, None].numpy()
                        layer += 1
                    case [last]:
                        parts["synthesis"][f"{prefix}/{last}"] = tensor.numpy()[()]
    judge: dict[str, np.ndarray] = {}
    for name, tensor in what.discriminator().items():
        *path, kind = name.split(".")
        match path:
            case ["mapping", part]:
                scope_of = "LabelEmbed" if part == "embed" else f"Mapping{part[2:]}"
            case ["b4", "out"]:
                scope_of = "Output"
            case ["b4", "conv" | "fc" as part]:
                scope_of = {"conv": "4x4/Conv", "fc": "4x4/Dense0"}[part]
            case [block, part]:
                kinds = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip"}
                scope_of = f"{block[1:]}x{block[1:]}/{kinds[part]}"
        judge[f"{scope_of}/{kind}"] = laid(tensor) if kind == "weight" else tensor.numpy()
    return parts, judge


def tensorflow_pickle(what: Published, source: str = SOURCE, **options: Any) -> bytes:
    """A pickle as NVlabs/stylegan2 and stylegan2-ada write it: (G, D, Gs), of named arrays and the program's text."""
    parts, judge = tensorflow_variables(what)
    given = {"resolution": what.size, "mapping_lrmul": what.rate, "conv_clamp": what.clamp} | options
    with named("dnnlib.tflib.network.Network", "dnnlib.util.EasyDict") as names:

        def network(variables: Mapping[str, Any], **components: Any) -> Any:
            state = {
                "version": 4,
                "name": "N",
                "static_kwargs": given,
                "components": components,
                "build_module_src": source,
                "build_func_name": "build",
                "variables": list(variables.items()),
            }
            made = names["dnnlib.tflib.network.Network"]()
            made.__dict__.update(state)
            return made

        generator = network(parts[""], mapping=network(parts["mapping"]), synthesis=network(parts["synthesis"]))
        return pickle.dumps((generator, network(judge), generator), protocol=4)


def rosinality_checkpoint(what: Published, mean: bool = True, zipped: bool = True, **entries: Any) -> bytes:
    """A checkpoint as rosinality/stylegan2-pytorch writes it, of its training or, with ``mean``, of its converter."""
    weights: dict[str, Tensor] = {}
    layer = 0
    for name, tensor in what.generator().items():
        match name.split("."):
            case ["mapping", fc, kind] if fc != "w_avg":
                weights[f"style.{int(fc[2:]) + 1}.{kind}"] = tensor
            case ["synthesis", "b4", "const"]:
                weights["input.input"] = tensor[None]
            case ["synthesis", block, part, *kind]:
                level = int(block[1:]).bit_length() - 3
                number = 2 * level - 2 + int(part[-1]) if part.startswith("conv") else 0
                place = "conv1" if number < 0 or level == 0 else f"convs.{number}"
                colours = "to_rgb1" if level == 0 else f"to_rgbs.{level - 1}"
                prefix = colours if part == "torgb" else place
                match kind:
                    case ["weight"]:
                        weights[f"{prefix}.conv.weight"] = tensor[None]
                        if part == "conv0":
                            weights[f"{prefix}.conv.blur.kernel"] = 4 * TAPS
                        if part == "torgb" and level:
                            weights[f"{prefix}.upsample.kernel"] = 4 * TAPS
                    case ["affine", last]:
                        weights[f"{prefix}.conv.modulation.{last}"] = tensor
                    case ["bias"]:
                        weights[f"{prefix}.bias" if part == "torgb" else f"{prefix}.activate.bias"] = (
                            tensor[None, :, None, None] if part == "torgb" else tensor
                        )
                    case ["noise_strength"]:
                        weights[f"{prefix}.noise.weight"] = tensor[None]
                    case ["noise_const"]:
                        weights[f"noises.noise_{layer}"] = tensor[None, None]
                        layer += 1
    judge: dict[str, Tensor] = {}
    blocks = len(what.sides()) - 1
    for name, tensor in what.discriminator().items():
        block, part, kind = name.split(".")
        number = blocks + 3 - int(block[1:]).bit_length() + 1
        after = int(kind == "bias")
        judge[
            {
                "fromrgb": f"convs.0.{after}.{kind}",
                "conv0": f"convs.{number}.conv1.{after}.{kind}",
                "conv1": f"convs.{number}.conv2.{1 + after}.{kind}",
                "skip": f"convs.{number}.skip.1.{kind}",
                "conv": f"final_conv.{after}.{kind}",
                "fc": f"final_linear.0.{kind}",
                "out": f"final_linear.1.{kind}",
            }[part]
        ] = tensor
    if mean:
        entries["latent_avg"] = what.generator()["mapping.w_avg"]
    file = io.BytesIO()
    torch.save({"g_ema": weights, "d": judge} | entries, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()
