"""Moves: changes of styles, and images of styles after them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genlab.models.style_model import StyleModel
from genlab.store.directions import Direction


@dataclass(frozen=True)
class Move:
    """A change of styles: of w, or of one channel."""

    vector: Tensor | None
    """What one step adds to w, float [D]; ``None`` for a channel."""
    layer: str = ""
    """The layer of styles that the channel is of."""
    channel: int = 0
    channel_step: float = 0.0
    """What one step adds to the channel."""

    @staticmethod
    def of(direction: Direction) -> "Move":
        """Return the move of a direction."""
        if direction.method == "channel":
            return Move(None, direction.layer, direction.channel, direction.channel_step)
        return Move(torch.tensor(direction.vector))

    @property
    def reverse(self) -> "Move":
        """The same move the other way."""
        if self.vector is None:
            return Move(None, self.layer, self.channel, -self.channel_step)
        return Move(-self.vector)


def synthesise(model: StyleModel, w: Tensor, noise: Any, moves: Sequence[Move], steps: Tensor) -> Tensor:
    """Draw images of styles after moves, all together.

    Args:
        model: the generator.
        w: as ``model.synthesise`` takes it, [N, D] or with a style for each place, [N, places, D].
        noise: as ``model.synthesise`` takes it: a :class:`Noise`, or of a StyleGAN the noise of its layers.
        moves: K moves.
        steps: how many steps of each, float [K] or [N, K].

    Returns:
        float [N, C, H, W], black at -1 and white at 1, not clipped.
    """
    with ExitStack() as shifts:
        for move, amount in zip(moves, steps.to(w).expand(len(w), -1).unbind(1), strict=True):
            if move.vector is not None:
                w = w + amount.view(-1, *[1] * (w.dim() - 1)) * move.vector.to(w)
            else:
                layer = model.style_layers()[move.layer]
                shifts.enter_context(shifted(layer, move.channel, amount * move.channel_step))
        return model.synthesise(w, noise)


@contextmanager
def shifted(layer: nn.Module, channel: int, shift: Tensor) -> Iterator[None]:
    """Add float [N] to one channel of what a layer makes of [N, D], until the context ends."""

    def add(module: nn.Module, inputs: Any, styles: Tensor) -> Tensor:
        shifted = styles.clone()
        shifted[:, channel] += shift.to(styles)
        return shifted

    handle = layer.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
