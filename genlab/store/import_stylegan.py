"""Import of generators that other programs trained by StyleGAN2 and StyleGAN2-ADA, as a genlab model.

Weights as ``stylegan_layouts`` reads them get the gains of genlab's layers.
"""

import re
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.core.config import to_dict
from genlab.core.errors import RunError
from genlab.core.storage import locate, read_bytes, require_empty, writing
from genlab.models.equalized import ROOT_2, SLOPE
from genlab.models.noise import Noise
from genlab.models.stylegan import (
    Channels,
    Form,
    StyleGAN,
    StyleGANArchitecture,
    StyleGANNetworks,
    resolutions,
)
from genlab.models.stylegan_discriminator import Discriminator
from genlab.models.stylegan_layers import MAPPING_RATE, normalise_pixels
from genlab.store import model_directory
from genlab.store.safe_pickle import LARGEST, UnsafeError
from genlab.store.stylegan_layouts import WANTED, ForeignError, Network, Reader, layer_number, read_networks, shape_text

MEAN_STYLES = 10_000
"""Latents whose mean style a model gets where its file has none."""


def import_stylegan(dest: str, file: str, license: str) -> str:
    """Write the model of a generator, with the discriminator that was trained beside it if the file has one.

    The weights are the averaged ones. A discriminator of a form that genlab lacks is left out.

    Args:
        dest: folder or URL of the model directory to write; empty or not there.
        file: the file.
        license: name of the licence of these weights, for the model's card.

    Returns:
        What the model is, and the options of ``genlab train stylegan`` for the same networks, in some lines.

    Raises:
        RunError: a file that is missing, too large, damaged, of another architecture, or that would run code.
        DataError: the destination is not empty, or cannot be written.
    """
    data = _read(file)
    try:
        generator, discriminator = read_networks(data)
        model = _generator(generator)
        judge, reason = _discriminator(discriminator, model)
    except UnsafeError as error:
        raise RunError(f"{file}: {error}") from None
    folder = locate(dest)
    imported = model_directory.Provenance(run=file, step=0, images=0, data={}, config={}, metrics={}, license=license)
    more = {} if judge is None else {f"discriminator.{name}": one for name, one in judge.state_dict().items()}
    with writing(folder):
        require_empty(folder)
        model_directory.save(folder, model, imported, training=more)
    height, width, channels = model.image_shape
    beside = "with its discriminator" if judge else f"without a discriminator, as the file {reason}"
    options = " ".join(_options(model.architecture, judge))
    return (
        f"a generator of {height}x{width}x{channels}, {beside}\n"
        f"to train it further: genlab train stylegan --run.init {folder} {options}".rstrip()
    )


def _read(file: str) -> bytes:
    try:
        path = locate(file)
        size = path.stat().st_size
        if size > LARGEST:
            raise RunError(f"{file}: {size:,} bytes; files of more than {LARGEST:,} are not read")
        return read_bytes(path)
    except OSError as error:
        raise RunError(f"{file}: {error.strerror or error}") from None


def _generator(found: Network) -> StyleGAN:
    """Build the generator."""
    tensors = found.tensors
    sides = sorted(
        int(match[1]) for name in tensors if (match := re.search(r"to_colours\.(\d+)\.convolution\.w", name))
    )
    constant, style = tensors.get("synthesis.input.constant"), tensors.get("synthesis.layers.0.style.weight")
    if not sides or constant is None or style is None or constant.ndim != 4 or style.ndim != 2:
        raise ForeignError(f"has no layers of StyleGAN2's synthesis network; {WANTED}")
    size = sides[-1]
    form: Form = "residual" if any("shortcuts" in name for name in tensors) else "skip"
    if form == "skip" and sides != resolutions(size):
        raise ForeignError(f"its generator is of the architecture orig; {WANTED}")
    embedding = tensors.get("mapping.embedding.weight")
    widths = {4: constant.shape[1]}
    for side in resolutions(size)[1:]:
        weight = tensors.get(f"synthesis.layers.{layer_number(side, 1)}.convolution.weight")
        if weight is None:
            raise ForeignError(f"has no second convolution of {side}x{side}; {WANTED}")
        widths[side] = len(weight)
    base, most = _channels(widths)
    architecture = StyleGANArchitecture(
        channel_base=base,
        channel_max=most,
        latent_dim=style.shape[1],
        mapping_layers=sum(bool(re.fullmatch(r"mapping\.layers\.\d+\.weight", name)) for name in tensors),
        noise=any(name.endswith("noise.strength") for name in tensors),
        form=form,
        clamp=found.clamp,
        embedding="separate" if "mapping.embedding.bias" in tensors else "joint",
        classes=0 if embedding is None else embedding.shape[-1],
    )
    colours = len(tensors[f"synthesis.to_colours.{size}.convolution.weight"])
    try:
        with torch.device("meta"):
            model = StyleGAN((size, size, colours), architecture)
    except ValueError as error:
        raise ForeignError(str(error)) from None
    values = dict(tensors)
    for name, rate in found.rates.items():
        if layer := re.fullmatch(r"mapping\.(fc|layers\.)(\d+)", name):
            for kind in ("weight", "bias"):
                key = f"mapping.layers.{layer[2]}.{kind}"
                if key in values:
                    values[key] = values[key] * (rate / MAPPING_RATE)
        else:
            raise ForeignError(f"{name} has a learning rate of its own; {WANTED}")
    for name in values:
        if re.fullmatch(r"mapping\.layers\.\d+\.bias", name):
            values[name] = values[name] * ROOT_2
    missing = "mean_style" not in values
    if missing:
        values["mean_style"] = torch.zeros(architecture.latent_dim)
    _fill(model, values, found.names)
    if missing:
        model.mean_style.copy_(_mean_style(model))
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def _mean_style(model: StyleGAN) -> Tensor:
    """Return the mean style of latents that are always the same."""
    latents = Noise(0, range(MEAN_STYLES)).normal("z", model.latent_dim)
    classes = model.architecture.classes
    label = torch.arange(MEAN_STYLES) % classes if classes else None
    return model.map_latents(latents, label).mean(0)


def _channels(widths: Mapping[int, int]) -> tuple[int, int]:
    """Return the smallest base, and the maximum, by which layers have so many channels; see :class:`Channels`."""
    most = max(widths.values())
    # 2 · base // side is at least the width, and less than one more where it is not cut at the maximum.
    base = max(1, *(-(-width * side // 2) for side, width in widths.items() if width > 1 or most == 1))
    channels = Channels(base, most)
    for side, width in widths.items():
        if channels.at(side) != width:
            raise ForeignError(f"has {width} channels at {side}x{side}, and up to {most} at others; {WANTED}")
    return base, most


def _discriminator(read: Reader | None, model: StyleGAN) -> tuple[Discriminator | None, str]:
    """Build the discriminator, or return why it is left out."""
    if read is None:
        return None, "has none"
    try:
        return _judge(read(), model), ""
    except ForeignError as error:
        return None, f"has another one than genlab's: {error}"


def _judge(found: Network, model: StyleGAN) -> Discriminator:
    tensors = dict(found.tensors)
    classes = model.architecture.classes
    form: Form = "residual" if any("shortcut" in name for name in tensors) else "skip"
    if form == "skip" and "from_colours.4.weight" not in tensors:
        raise ForeignError("it is of the architecture orig")
    if found.clamp != model.architecture.clamp:
        raise ForeignError(f"it clamps at {found.clamp}, and the generator at {model.architecture.clamp}")
    head = tensors.get("head.convolution.weight")
    if head is None or head.ndim != 4:
        raise ForeignError("it has no convolution of 4x4")
    group = 4 if head.shape[1] > len(head) else 1
    with torch.device("meta"):
        judge = Discriminator(
            model.image_shape, model.architecture, form, "bilinear", group, classes, model.architecture.clamp
        )
    if any(name.startswith("mapping.") for name in tensors):
        tensors = _projected(tensors, found.rates)
    for name, tensor in tensors.items():
        gained = r"from_colours\..*|blocks\.\d+\.first|head\.(convolution|dense)"
        if form == "skip":
            gained += r"|blocks\.\d+\.second"
        if re.fullmatch(rf"({gained})\.bias", name):
            tensors[name] = tensor * ROOT_2
    _fill(judge, tensors, found.names)
    return judge


def _projected(tensors: Mapping[str, Tensor], rates: Mapping[str, float]) -> dict[str, Tensor]:
    """Return a discriminator that is told classes by projection as one with a logit for each class; they are equal.

    Its score is the inner product of its features with the vector that a mapping network makes of the class, which is
    the same for all images of a class (Karras et al. 2020, arXiv:2006.06676, after Miyato & Koyama 2018).
    """
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("mapping.")}
    try:
        weight = tensors["mapping.embedding.weight"]
        vectors = normalise_pixels((weight / weight.shape[1] ** 0.5 + tensors["mapping.embedding.bias"][:, None]).t())
        number = 0
        while f"mapping.layers.{number}.weight" in tensors:
            layer = tensors[f"mapping.layers.{number}.weight"], tensors[f"mapping.layers.{number}.bias"]
            rate = rates.get(f"mapping.fc{number}", rates.get(f"mapping.layers.{number}", 1.0))
            vectors = F.linear(vectors, layer[0] * (rate / layer[0].shape[1] ** 0.5), layer[1] * rate)
            vectors = F.leaky_relu(vectors, SLOPE) * ROOT_2
            number += 1
        vectors = vectors / vectors.shape[1] ** 0.5
        kept["head.logits.weight"] = vectors @ tensors["head.logits.weight"]
        kept["head.logits.bias"] = vectors @ tensors["head.logits.bias"]
    except (KeyError, RuntimeError, IndexError):
        raise ForeignError(f"its discriminator is told classes in a way of its own; {WANTED}") from None
    return kept


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Move a network from the meta device and fill it with weights.

    Raises:
        ForeignError: naming the first of the file's tensors that does not fit.
    """
    wanted = network.state_dict()
    for name in [*wanted, *tensors]:
        of_file = names.get(name, name)
        if name not in tensors:
            raise ForeignError(f"{of_file} is missing; {WANTED}")
        if name not in wanted:
            raise ForeignError(f"{of_file} has no place; {WANTED}")
        if tensors[name].shape != wanted[name].shape:
            shapes = shape_text(tensors[name]), shape_text(wanted[name])
            raise ForeignError(f"{of_file} is {shapes[0]} ({name}), where {shapes[1]} is needed; {WANTED}")
    network.to_empty(device="cpu")
    network.load_state_dict(dict(tensors))


def _options(architecture: StyleGANArchitecture, judge: Discriminator | None) -> Iterator[str]:
    """Return the options of ``genlab train stylegan`` that make these networks."""
    usual = to_dict(StyleGANNetworks())
    for name, value in to_dict(architecture).items():
        option = name.replace("_", "-")
        if name in usual and value != usual[name]:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            yield f"--model.no-{option}" if value is False else f"--model.{option} {text}"
    if architecture.classes:
        yield "--model.conditional"
    if judge is not None and judge.form != "residual":
        yield f"--model.discriminator {judge.form}"
    if judge is not None and judge.head.group == 1:
        yield "--model.group 1"
