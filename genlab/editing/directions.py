"""Finds directions along which attributes of a generator's pictures change, calibrates them, and measures what they do.

Samples are labelled by something that reads attributes of pictures; four methods find a direction for each axis
(:mod:`genlab.editing.latent_fits`). Each is calibrated in the units of what is read, on pictures that it was not fitted
on, and then measured on others: how far it moves its own axis, and how far all others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.core.progress import progress
from genlab.editing.attributes import Read
from genlab.editing.latent_fits import (
    Whitening,
    affine_weights,
    channel_relevance,
    fit_linear,
    fitted_without,
    project_out,
    sefa_directions,
    undisturbing,
)
from genlab.editing.moves import Move, synthesise
from genlab.metrics.identity import FaceNetwork, identity_distance
from genlab.models.model import images_per_pass
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.style_model import StyleModel
from genlab.store.directions import Axis, Change, Direction, Effect, Method

SCREENED, CALIBRATED, MEASURED = 64, 400, 400
"""Pictures on which candidates are compared, on which directions are calibrated, and on which they are measured."""
EXEMPLARS = 0.05
"""Share of the samples that show an attribute most, by which channels are found."""
CHANNELS, COMPONENTS = 8, 16
"""How many channels of an axis, and how many directions of SeFa, are tried."""
GRADIENTS, GRADIENT_BATCH = 2000, 32
"""Samples at which gradients are taken, at most, and how many at a time."""
TRIED_STEPS = {"gradient": 2.0, "linear": 2.0, "sefa": 2.0, "channel": 5.0}
"""Steps in either direction by which candidates are compared."""
CALIBRATED_STEPS = {"gradient": 6.0, "linear": 4.0, "sefa": 4.0, "channel": 20.0}
"""The most steps in either direction: beyond 4 deviations in W there are hardly any samples; gradients lead along axes
that change other attributes little, where an attribute of its own needs more of them; a channel is moved far beyond its
own distribution, as in the paper."""
POINTS = 8
"""Points of a calibration in either direction, denser near 0."""


class _Pictures:
    """Pictures of a seed, drawn with or without a move and read."""

    def __init__(
        self, model: StyleModel, read: Read, seed: int, numbers: range, drawn: Callable[[int], object]
    ) -> None:
        self.model, self.read, self.seed, self.numbers = model, read, seed, numbers
        parts = []
        for part in self._parts(numbers, None, 0.0):
            parts.append(part)
            drawn(len(part[0]))
        self.w = torch.cat([w for w, _ in parts]).double().cpu()
        """float64 [N, D]"""
        self.values = torch.cat([values for _, values in parts])
        """What is read of them, float64 [N, A]."""

    def changes(self, places: Tensor, move: Move, steps: float) -> Tensor:
        """Return how much is read otherwise after a move; the noise is the same.

        Args:
            places: which of the pictures, ascending, int64 [n].
            move: the move.
            steps: how far.

        Returns:
            float64 [n, A]
        """
        parts = self._parts(self._at(places), move, steps)
        return torch.cat([values for _, values in parts]) - self.values[places]

    def faces(self, places: Tensor, network: FaceNetwork, move: Move | None, steps: float) -> Tensor:
        """Return where a face network puts the pictures at some places after a move, float32 [n, 128]."""
        return torch.cat([network.embed(images) for _, images in self._drawn(self._at(places), move, steps)])

    def gradients(self, read_images: Read, count: int) -> Tensor:
        """Return the gradients by w of what is read of the first ``count`` images: float64 [count, A, D]."""
        model, parts = self.model, []
        for first in range(0, count, GRADIENT_BATCH):
            rows = range(first, min(first + GRADIENT_BATCH, count))
            w = self.w[rows.start : rows.stop].to(next(model.parameters())).requires_grad_()
            noise = Noise(
                self.seed, range(self.numbers.start + rows.start, self.numbers.start + rows.stop), model.device
            )
            values = read_images(model.synthesise(w, noise))
            sums = values.sum(0)
            found = [torch.autograd.grad(one, w, retain_graph=True)[0] for one in sums]
            parts.append(torch.stack(found, 1).double().cpu())
        return torch.cat(parts)

    def _at(self, places: Tensor) -> list[int]:
        """Return the numbers of the pictures at these places."""
        return [self.numbers[place] for place in places.tolist()]

    @torch.inference_mode()
    def _parts(self, numbers: Sequence[int], move: Move | None, steps: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield w and what is read, of a few pictures at a time."""
        for w, images in self._drawn(numbers, move, steps):
            yield w, self.read(images)

    @torch.inference_mode()
    def _drawn(self, numbers: Sequence[int], move: Move | None, steps: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield w and pictures, uint8 [n, H, W, C], a few at a time."""
        model = self.model
        size = images_per_pass(model.image_shape)
        for first in range(0, len(numbers), size):
            noise = Noise(self.seed, numbers[first : first + size], model.device)
            label = None
            if model.classes:
                label = torch.tensor([number % model.classes for _, number in noise.drawn], device=model.device)
            w = model.map_latents(noise.normal("z", model.latent_dim), label)
            moves = [] if move is None else [move]
            images = synthesise(model, w, noise, moves, torch.tensor([steps] * len(moves)))
            yield w, from_signed(images)


def find_directions(
    model: StyleModel,
    read: Read,
    read_images: Read,
    axes: Sequence[Axis],
    samples: int,
    seed: int,
    network: FaceNetwork | None = None,
) -> tuple[Direction, ...]:
    """Find a direction of each axis by each method.

    Args:
        model: the generator; if it has classes, they are drawn in turn.
        read: what reads pictures.
        read_images: the same of images that ``model.synthesise`` returns, with gradients.
        axes: what is read, in its order.
        samples: the number of samples that directions are fitted on; others are drawn beside them.
        seed: seed of all pictures.
        network: a face network, by which identity distances are measured, too.

    Returns:
        The directions, axis by axis. A method that finds none has none: where candidates do not change what is read, or
        the model has no layers of styles.

    Raises:
        ConfigError: the samples do not vary on an axis, or nothing tells it from other attributes.
    """
    counts = (samples, SCREENED, CALIBRATED, MEASURED)
    starts = [sum(counts[:place]) for place in range(len(counts))]
    with progress("samples", sum(counts), "pictures") as advance:
        fitted, screened, calibrated, measured = (
            _Pictures(model, read, seed, range(start, start + count), advance)
            for start, count in zip(starts, counts, strict=True)
        )
    _require_variety(axes, fitted.values)
    whitening = Whitening.of(fitted.w)
    inputs = whitening.whiten(fitted.w)
    coefficients, _ = fit_linear(inputs, fitted.values)
    accuracies = _accuracies(axes, fitted.values, fitted_without(inputs, fitted.values))
    gradients = fitted.gradients(read_images, min(samples, GRADIENTS)) @ whitening.root
    scaled = gradients / fitted.values.std(0)[:, None]
    layers = model.style_layers()
    like = next(model.parameters())
    weights = {name: affine_weights([layer], fitted.w.shape[1], like) for name, layer in layers.items()}
    joined = torch.cat(list(weights.values()), dim=1) if weights else None
    components: list[Move] = []
    if joined is not None:
        vectors = sefa_directions(joined, COMPONENTS)
        components = [Move(one / whitening.length(one)) for one in vectors]

    faces = None if network is None else _Faces(network, measured.faces(torch.arange(MEASURED), network, None, 0.0))
    rooms = [_room(axis, column) for axis, column in zip(axes, fitted.values.T, strict=True)]
    tried: list[tuple[int, Method, list[Move]]] = []
    for number, axis in enumerate(axes):
        others = [place for place, other in enumerate(axes) if other.attribute != axis.attribute]
        direction = project_out(coefficients[:, number], coefficients[:, others])
        if direction is None:
            names = ", ".join(dict.fromkeys(axes[place].attribute for place in others))
            raise ConfigError(
                f"attributes: what is read as {axis.name} changes with {names} alone in these samples; leave one out"
            )
        if (vector := undisturbing(gradients[:, number], scaled[:, others])) is not None:
            tried.append((number, "gradient", [Move(whitening.root @ vector)]))
        tried.append((number, "linear", [Move(whitening.root @ direction)]))
        if joined is not None:
            exemplars = fitted.values[:, number].argsort(descending=True)[: max(2, int(EXEMPLARS * samples))]
            tried.append((number, "channel", _channels(weights, fitted.w, exemplars)))
            tried.append((number, "sefa", components))

    found = []
    with progress("calibration", len(tried), "directions") as advance:
        for number, method, moves in tried:
            move = _strongest(moves, screened, number, TRIED_STEPS[method])
            steps, amounts = _calibrate(move, calibrated, number, rooms[number], CALIBRATED_STEPS[method])
            if len(steps) > 1:
                numbers = () if move.vector is None else tuple(move.vector.tolist())
                accuracy = accuracies[number] if method == "linear" else None
                place = (move.layer, move.channel, move.channel_step)
                one = Direction(axes[number], method, numbers, *place, steps, amounts, accuracy, ())
                found.append(_measured(one, axes, number, measured, rooms[number], fitted.values[:, number], faces))
            advance(1)
    return tuple(found)


def _require_variety(axes: Sequence[Axis], values: Tensor) -> None:
    """Raise a ConfigError where samples do not vary on an axis, or are all of one class."""
    for axis, column in zip(axes, values.T, strict=True):
        if not column.isfinite().all():
            raise ConfigError(f"{axis.name}: what is read of the samples is not finite")
        if axis.towards:
            shown = int((column > 0).sum())
            if not 0 < shown < len(column):
                seen = axis.towards if shown else (axis.away or f"other than {axis.towards}")
                raise ConfigError(
                    f"{axis.attribute}: all {len(column):,} samples are read as {seen}; there is no direction to others"
                )
        elif not float(column.std()) > 0:
            raise ConfigError(f"{axis.name}: all samples are read as {float(column[0]):g}; there is no direction")


def _accuracies(axes: Sequence[Axis], values: Tensor, told: Tensor) -> list[float]:
    """Return for each axis how well ``told``, [N, A], tells ``values``: R², or for a class the share of right ones."""
    found = []
    for number, axis in enumerate(axes):
        truth, guess = values[:, number], told[:, number]
        if axis.towards:
            found.append(float(((guess > 0) == (truth > 0)).double().mean()))
        else:
            found.append(1 - float((truth - guess).square().sum() / (truth - truth.mean()).square().sum()))
    return found


def _channels(weights: dict[str, Tensor], w: Tensor, exemplars: Tensor) -> list[Move]:
    """Return moves of the channels that are most characteristic of exemplars among the samples ``w``."""
    ranked = []
    for layer, matrix in weights.items():
        styles = w @ matrix  # but for constants
        deviations = styles.std(0)
        relevance, channels = channel_relevance(styles, exemplars).topk(min(CHANNELS, styles.shape[1]))
        for score, channel in zip(relevance.tolist(), channels.tolist(), strict=True):
            ranked.append((score, Move(None, layer, channel, float(deviations[channel]))))
    ranked.sort(key=lambda one: one[0], reverse=True)
    return [move for _, move in ranked[:CHANNELS]]


def _strongest(moves: Sequence[Move], pictures: _Pictures, number: int, steps: float) -> Move:
    """Return the move that changes an axis most, turned so that more steps mean more."""
    everywhere = torch.arange(len(pictures.values))
    spans = []
    for move in moves:
        up, down = (pictures.changes(everywhere, move, size)[:, number] for size in (steps, -steps))
        spans.append(float((up - down).mean()))
    best = max(range(len(moves)), key=lambda place: abs(spans[place]))
    return moves[best] if spans[best] >= 0 else moves[best].reverse


@dataclass(frozen=True)
class _Room:
    """Which pictures have room for a change, by what is read of them: it is bounded, and moves less near its bounds.

    Nobody is made much older who is old, nor of a class whose class is read already.
    """

    below: float
    """The most that is read of those that can be moved up."""
    above: float
    """What more is read than of those that can be moved down."""

    def has(self, values: Tensor, sign: int) -> Tensor:
        """Tell which of the values, [N], can move in the direction of ``sign``: bool [N]."""
        return values <= self.below if sign > 0 else values > self.above


def _room(axis: Axis, values: Tensor) -> _Room:
    """Return the room of an axis, of whose samples ``values`` are read, float64 [N].

    Of a number, the outer third of the samples has room: those whom one would make younger are not of average age.
    """
    if axis.towards:
        return _Room(0.0, 0.0)
    low, high = torch.quantile(values, torch.tensor([1 / 3, 2 / 3], dtype=values.dtype)).tolist()
    return _Room(low, high)


def _calibrate(
    move: Move, pictures: _Pictures, number: int, room: _Room, most: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return numbers of steps, and the mean change of an axis that each makes, both ascending, from 0 on both sides.

    Means are over the pictures that have room for the change. Points that change no more than one with fewer steps are
    left out.
    """
    sides: list[list[tuple[float, float]]] = []
    for sign in (-1, 1):
        side: list[tuple[float, float]] = []
        places = room.has(pictures.values[:, number], sign).nonzero()[:, 0]
        for point in range(1, POINTS + 1 if len(places) else 1):
            steps = sign * most * (point / POINTS) ** 2
            amount = float(pictures.changes(places, move, steps)[:, number].mean())
            if sign * amount > sign * (side[-1][1] if side else 0.0):
                side.append((steps, amount))
        sides.append(side)
    points = [*reversed(sides[0]), (0.0, 0.0), *sides[1]]
    return tuple(steps for steps, _ in points), tuple(amount for _, amount in points)


@dataclass(frozen=True)
class _Faces:
    """A face network, and where it puts the pictures that directions are measured on."""

    network: FaceNetwork
    before: Tensor
    """float32 [N, 128]."""


def _measured(
    direction: Direction,
    axes: Sequence[Axis],
    number: int,
    pictures: _Pictures,
    room: _Room,
    values: Tensor,
    faces: _Faces | None,
) -> Direction:
    """Return the direction with its effects: of a standard deviation of a number, or from one class to another; on the
    pictures that have room for it.

    ``values`` are those of the samples on its axis, float64 [N].
    """
    axis, before = axes[number], pictures.values[:, number]
    size = float(values[values > 0].mean() - values[values <= 0].mean() if axis.towards else values.std())
    effects = []
    low, high = direction.reach
    for sign in (-1, 1) if axis.away or not axis.towards else (1,):
        amount = min(max(sign * size, low), high)
        places = room.has(before, sign).nonzero()[:, 0]
        if amount and len(places):
            move, steps = Move.of(direction), direction.steps_for(amount)
            found = _changes(axes, pictures.values[places], pictures.changes(places, move, steps))
            identity = None
            if faces is not None:
                after = pictures.faces(places, faces.network, move, steps)
                identity = float(identity_distance(faces.before[places], after).mean())
            effects.append(Effect(amount, len(places), found, identity))
    return replace(direction, effects=tuple(effects))


def _changes(axes: Sequence[Axis], before: Tensor, changes: Tensor) -> dict[str, Change]:
    """Summarise changes, float64 [N, A], of what was read, [N, A], by axis."""
    after = before + changes
    found = {}
    for number, axis in enumerate(axes):
        same = None
        if axis.towards:
            places = [place for place, other in enumerate(axes) if other.attribute == axis.attribute]
            first, then = (_classes(one[:, places]) for one in (before, after))
            same = float((first == then).double().mean())
        mean, size = float(changes[:, number].mean()), float(changes[:, number].abs().mean())
        found[axis.name] = Change(mean, size, same)
    return found


def _classes(values: Tensor) -> Tensor:
    """Return the class that is read of the log-odds of an attribute's axes, [N, axes]: [N]."""
    return values[:, 0] > 0 if values.shape[1] == 1 else values.argmax(1)
