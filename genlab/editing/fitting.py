"""Fits an edit to the picture that is edited, by what is read of it after tries."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genlab.editing.attributes import Read
from genlab.editing.edits import Start, edit_by_steps
from genlab.models.style_model import StyleModel
from genlab.store.directions import Direction

BEYOND = 4 / 3
"""How many times as far as a direction was calibrated a picture may be moved along it: some move less than the mean."""
TRIED, LARGEST = 0.05, 0.25
"""What is tried to find slopes, and the largest change in a round, as shares of the way along a direction."""
DAMPING = 1.0
"""What keeps a round's change small where slopes are."""
ROUNDS = 8
NEAR = 0.04
"""How near to what is asked for is near enough, in typical differences of samples."""


def fit(
    model: StyleModel,
    start: Start,
    directions: Sequence[Direction],
    read: Read,
    places: Sequence[int],
    amounts: Sequence[float],
    typical: Sequence[float],
) -> Tensor:
    """Find the steps after which what is read of this picture has changed by given amounts.

    Amounts of a direction are means over pictures; here the picture itself is drawn and read, after a few steps more or
    less along each direction, until what is read has changed as asked: by least squares, with a fixed damping
    (Levenberg 1944).

    Args:
        model: the generator.
        start: what is edited.
        directions: K directions of this model, along which it may be moved.
        read: what reads pictures.
        places: which of the axes that are read is that of each direction.
        amounts: how much is to change on each of these axes, in its units: 0 where it is to stay. More than a
            direction was calibrated for is tried, too.
        typical: a typical difference of samples on each of these axes, by which axes are weighed against each other.

    Returns:
        The steps along each direction, float64 [K]: the best that were found, which may fall short where the picture
        cannot be moved as far.
    """
    low, high = (BEYOND * torch.tensor([one.steps[end] for one in directions]).double() for end in (0, -1))
    ways = torch.maximum(high, -low)
    scales = torch.tensor(typical).double()

    def readings(steps: Tensor) -> Tensor:
        return read(edit_by_steps(model, start, directions, steps))[:, list(places)] / scales

    [before] = readings(torch.zeros(1, len(directions)))
    wanted = torch.tensor(amounts).double() / scales
    steps = torch.tensor([_first(one, amount) for one, amount in zip(directions, amounts, strict=True)]).double()
    best, least = steps, math.inf
    for _ in range(ROUNDS):
        changes = readings(torch.cat([steps[None], steps + torch.diag(TRIED * ways)])) - before
        missing = wanted - changes[0]
        error = float(missing.square().sum())
        if error < least:
            best, least = steps, error
        if missing.abs().max() < NEAR:
            break
        slopes = (changes[1:] - changes[0]).T / TRIED
        damped = slopes.T @ slopes + DAMPING * torch.eye(len(directions)).double()
        change = torch.linalg.solve(damped, slopes.T @ missing)
        steps = (steps + change.clamp(-LARGEST, LARGEST) * ways).clamp(low, high)
    return best


def _first(direction: Direction, amount: float) -> float:
    """Return the steps that change what is read by an amount on average, or by as much as they do at most."""
    low, high = direction.reach
    return direction.steps_for(min(max(amount, low), high))
