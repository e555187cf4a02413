"""Edits as tasks of an engine: pictures of seeds or of given styles, changed along directions, in batches of many."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.core.storage import sha256
from genlab.editing.moves import Move, shifted
from genlab.editing.provenance import provenance
from genlab.imaging.images import Pixels
from genlab.inference.engine import Engine, Task
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.stylegan import StyleGAN
from genlab.store.directions import Directions, Method

Channel = tuple[str, int]
"""A layer of styles, and the number of a channel of it."""


@dataclass(frozen=True)
class Amount:
    """How far along a direction."""

    direction: str
    """Name of the direction."""
    amount: float
    """In the units of its axis."""
    method: Method | None = None
    """How it was found; by default as the first of its name was."""


class Edited(NamedTuple):
    """A picture to draw, and how it is changed."""

    seed: int
    """The seed whose first picture is changed; 0 for given styles."""
    label: int | None
    """The picture's class, for the seed of a model with classes."""
    styles: Tensor | None
    """Given styles w+, float32 [places, style_dim], which are drawn without noise; ``None`` for a seed."""
    shift: Tensor
    """What is added to w, float32 [style_dim]."""
    channel_shifts: tuple[float, ...]
    """What is added to each channel of its kind."""


@dataclass(frozen=True)
class Edit:
    """Pictures of a StyleGAN that are changed; rows are :class:`Edited`, each gives uint8 [H, W, C]."""

    given: bool
    """Whether styles are given; otherwise seeds are."""
    channels: tuple[Channel, ...]
    """The channels of styles that are shifted, besides w."""

    @property
    def operation(self) -> str:
        """Return its operation."""
        return "edit"

    @property
    def trial(self) -> tuple[Any, ...]:
        """All edits take the same networks."""
        return ("edit", self.given)

    def pixels(self, image_shape: tuple[int, int, int]) -> int:
        """Return the pixels of the model's images."""
        return image_shape[0] * image_shape[1]

    def example(self, model: StyleGAN) -> Edited:
        """Return the first picture of seed 0, or styles that are nowhere zero."""
        styles = torch.full((model.synthesis.styles, model.style_dim), 0.5) if self.given else None
        shift, label = torch.full((model.style_dim,), 0.25), 0 if model.classes and not self.given else None
        return Edited(0, label, styles, shift, (0.25,) * len(self.channels))

    def compute(self, model: StyleGAN, rows: Sequence[Edited]) -> Pixels:
        """Draw: uint8 [rows, H, W, C]."""
        with torch.inference_mode(), ExitStack() as shifts:
            shift = torch.stack([row.shift for row in rows]).to(model.device)
            noise: Noise | None = None
            if self.given:
                w = torch.stack([row.styles for row in rows if row.styles is not None]).to(model.device)
                w = w + shift[:, None]
            else:
                noise = Noise.of([(row.seed, 0) for row in rows], model.device)
                labels = [row.label for row in rows if row.label is not None]
                classes = torch.tensor(labels, device=model.device) if labels else None
                w = model.map_latents(noise.normal("z", model.latent_dim), classes) + shift
            for place, (layer, channel) in enumerate(self.channels):
                amounts = torch.tensor([row.channel_shifts[place] for row in rows])
                shifts.enter_context(shifted(model.style_layers()[layer], channel, amounts))
            return from_signed(model.synthesise(w, noise)).cpu().numpy()


@dataclass(frozen=True)
class EditTask:
    """A task, and what its picture is to say of its origin."""

    task: Task
    note: dict[str, Any]
    """See :mod:`genlab.editing.provenance`."""


def edit_task(
    engine: Engine,
    directions: Directions,
    amounts: Sequence[Amount],
    *,
    seed: int | None,
    styles: Sequence[float] | None,
    label: str | int | None,
) -> EditTask:
    """Make the task of a picture that is changed, all changes together: pixels, uint8 [1, H, W, C].

    Args:
        engine: a StyleGAN.
        directions: those of its very weights.
        amounts: how far along which of them; none leaves the picture as it is.
        seed: the seed whose first picture, ``sample(1, seed)``, is changed; ``None`` where styles are given.
        styles: w+, the places one after the other, as the encoder gives them; the picture has no noise.
        label: class of a seed's picture, for a model with classes.

    Raises:
        ConfigError: there is no such direction, it does not reach as far, or is there twice; there are too many or too
            few styles; or the model has no such class, or needs one.
    """
    made = [directions.find(one.direction, one.method) for one in amounts]
    taken = [(direction.axis.name, direction.method) for direction in made]
    for name, method in taken:
        if taken.count((name, method)) > 1:
            raise ConfigError(f"edits: {name!r} is there twice; give the sum of its amounts")
    number = None if seed is None else engine.info.class_number(label, needed=True)
    places, size = engine.style_shape
    given = None
    origin: dict[str, Any] = {"seed": seed} if number is None else {"seed": seed, "label": number}
    if styles is not None:
        if len(styles) != places * size:
            raise ConfigError(f"latents: this model takes {places * size:,} numbers, not {len(styles):,}")
        values: NDArray[np.float32] = np.asarray(styles, np.float32)
        given, origin = torch.from_numpy(values).view(places, size), {"latents": sha256(values.data)}
    shift, channels = torch.zeros(size), dict[Channel, float]()
    for direction, one in zip(made, amounts, strict=True):
        steps, move = direction.steps_for(one.amount), Move.of(direction)
        if move.vector is None:
            place = (move.layer, move.channel)
            channels[place] = channels.get(place, 0.0) + steps * move.channel_step
        else:
            shift = shift + torch.tensor(steps) * move.vector
    row = Edited(seed or 0, number, given, shift, tuple(channels.values()))
    said = [
        {"direction": one.direction, "method": found.method, "amount": one.amount}
        for one, found in zip(amounts, made, strict=True)
    ]
    note = provenance("edit", engine.info.weights, **origin, edits=said)
    return EditTask(Task(Edit(styles is not None, tuple(channels)), [row], np.stack), note)
