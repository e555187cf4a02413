"""Edits: a picture of a seed, or a projected one, as a generator draws it before and after steps along a direction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from upath import UPath

from genlab.core.errors import ConfigError, DataError
from genlab.core.storage import read_bytes, read_json
from genlab.editing.moves import Move, synthesise
from genlab.imaging.images import Pixels, prepare
from genlab.models.model import images_per_pass
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.style_model import StyleModel
from genlab.models.stylegan import StyleGAN
from genlab.store.directions import Direction

CLEAR = 0.9
"""How clearly a picture is to be read as its new class, as a share of how clearly samples are read as theirs on
average. Where it is larger other attributes move more, too."""


@dataclass(frozen=True)
class Start:
    """What is edited."""

    w: Tensor
    """The style, float [1, D], or one for each place, [1, places, D]."""
    noise: Sequence[Tensor]
    """The noise of each layer, float [1, 1, S, S]; none for a model without, and for styles of the encoder alone."""
    origin: Mapping[str, Any]
    """What provenance notes say of it."""
    original: Pixels | None = None
    """The picture that was projected, uint8 [H, W, C]; ``None`` for a seed."""


@torch.inference_mode()
def start_of_seed(model: StyleGAN, seed: int, label: int | None) -> Start:
    """Return the first picture of a seed, ``model.sample(1, seed)``; ``label`` is its class, if the model has any."""
    noise = Noise(seed, range(1), model.device)
    classes = None if label is None else torch.tensor([label], device=model.device)
    w = model.map_latents(noise.normal("z", model.latent_dim), classes)
    return Start(w, model.draw_noise(noise), {"seed": seed})


def start_of_projection(model: StyleGAN, weights: str, file: UPath) -> Start:
    """Return a picture that was projected: what ``genlab project`` wrote as ``NAME.safetensors``.

    Args:
        model: the generator.
        weights: SHA-256 of its weights.
        file: the file, beside which ``NAME.json`` and ``NAME-original.png`` lie.

    Raises:
        ConfigError: it was projected by another generator.
        GenlabError: one of the files is missing or damaged.
    """
    try:
        figures = read_json(file.with_suffix(".json"))
        tensors = safetensors.torch.load(read_bytes(file))
        original = read_bytes(file.with_name(f"{file.stem}-original.png"))
        if figures["model"] != weights:
            raise ConfigError(f"{file}: projected by another generator; project the picture by this one")
        noise = [tensors[f"noise.{layer}"][None].to(model.device) for layer in range(len(tensors) - 1)]
        w, origin = tensors["w"][None].to(model.device), {"source": figures["sha256"]}
    except OSError as error:
        raise DataError(f"{error.filename or file}: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not a projection that genlab project wrote ({error})") from None
    pixels = prepare(original, channels=3 if model.image_shape[2] == 3 else 1).image
    assert isinstance(pixels, np.ndarray)
    return Start(w, noise, origin, pixels)


def edit(model: StyleGAN, start: Start, direction: Direction, amounts: Sequence[float]) -> Tensor:
    """Draw what is edited after each amount, uint8 [N, H, W, C] on the CPU; an amount of 0 leaves it as it is.

    Args:
        model: the generator.
        start: what is edited.
        direction: a direction of this model.
        amounts: how far, each in the units of the direction's axis: means over pictures.

    Raises:
        ConfigError: an amount is beyond what the direction was calibrated for.
    """
    steps = torch.tensor([[direction.steps_for(amount)] for amount in amounts])
    return edit_by_steps(model, start, [direction], steps)


@torch.inference_mode()
def edit_by_steps(model: StyleModel, start: Start, directions: Sequence[Direction], steps: Tensor) -> Tensor:
    """Draw what is edited after steps along directions, uint8 [N, H, W, C] on the CPU.

    Args:
        model: the generator.
        start: what is edited.
        directions: K directions of this model.
        steps: how many along each, float [N, K].
    """
    moves, parts = [Move.of(direction) for direction in directions], []
    for some in steps.split(images_per_pass(model.image_shape)):
        w = start.w.expand(len(some), *start.w.shape[1:])
        noise = [layer.expand(len(some), -1, -1, -1) for layer in start.noise]
        parts.append(from_signed(synthesise(model, w, noise or None, moves, some)).cpu())
    return torch.cat(parts)


def amount_to_class(direction: Direction, before: float, class_name: str | None) -> float:
    """Return the amount after which a picture is read as another class, 0.9 times as clearly as samples are on average.

    It is 0 for a picture that is read as the class that is named, and more clearly than that.

    Args:
        direction: the direction of one class of two.
        before: the log-odds that are read of the picture.
        class_name: the class that it shall be; ``None`` for the one that is not read.

    Raises:
        ConfigError: there is no such class, or the direction is not that of a class.
    """
    axis = direction.axis
    if not axis.away or not direction.effects:
        raise ConfigError(f"{axis.name}: not one of two classes; give --direction {axis.name} and --amount")
    if class_name not in (None, axis.towards, axis.away):
        raise ConfigError(f"{axis.name} = {class_name!r}: no such class; there are: {axis.away}, {axis.towards}")
    up = before <= 0 if class_name is None else class_name == axis.towards
    clear = CLEAR * max(abs(effect.amount) for effect in direction.effects) / 2
    change = (clear if up else -clear) - before
    return max(change, 0.0) if up else min(change, 0.0)
