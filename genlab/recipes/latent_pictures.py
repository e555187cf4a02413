"""What a model with a Gaussian latent shows of itself, as arrays for the pictures of its training and its report."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genlab.imaging.images import Pixels
from genlab.imaging.latent_plane import Points, axis_name, most_varied_axes, prior_line, prior_plane
from genlab.imaging.sheets import sheet
from genlab.models.latent_model import LatentModel
from genlab.models.precision import full_precision

SHEET_SIDE = 10
"""Images in a row, and rows, of sheets and of decoded planes."""
CLASS_PICTURES = 10
"""Classes that have a picture of their own, at most: the first ones."""
CLASS_ROWS = 50
"""Classes that have a row, or a column, of a picture."""
CHUNK_BYTES = 2**20
"""Pixels that are encoded at a time, whose features take up to a hundred times as much."""


def posterior_means(model: LatentModel, pixels: Tensor, label: Tensor | None) -> Points:
    """Means of q(z|x, y), a few images at a time: uint8 [N, H, W, C] and int64 [N] → float32 [N, latent_dim]."""
    chunk = max(1, CHUNK_BYTES // math.prod(pixels.shape[1:]))
    labels = [None] * len(pixels) if label is None else label.split(chunk)
    means = [model.encode(part, known)[0] for part, known in zip(pixels.split(chunk), labels, strict=False)]
    return torch.cat(means).float().cpu().numpy()


def decoded_plane(model: LatentModel, axes: tuple[int, int], class_: int = 0) -> Pixels:
    """Images at the prior's quantiles in two dimensions, the others at 0; of one class, where there are any.

    Returns:
        uint8 [SIDE², H, W, C], row by row as :func:`genlab.imaging.latent_plane.prior_plane` has them.
    """
    return _decoded(model, prior_plane(SHEET_SIDE, model.architecture.latent_dim, axes), np.full(SHEET_SIDE**2, class_))


def class_planes(model: LatentModel, axes: tuple[int, int], names: Sequence[str]) -> dict[str, Pixels]:
    """A sheet of :func:`decoded_plane` for each class, at most :data:`CLASS_PICTURES`, by its name."""
    return {
        name: sheet(decoded_plane(model, axes, number), SHEET_SIDE)
        for number, name in enumerate(names[:CLASS_PICTURES])
    }


def decoded_classes(model: LatentModel, axis: int) -> Pixels:
    """Images of each class at the prior's quantiles in one dimension, the others at 0.

    Returns:
        uint8 [min(classes, CLASS_ROWS) * SHEET_SIDE, H, W, C], class by class.
    """
    points = prior_line(SHEET_SIDE, model.architecture.latent_dim, axis)
    label = np.arange(min(model.classes, CLASS_ROWS))
    return _decoded(model, np.tile(points, (len(label), 1)), np.repeat(label, SHEET_SIDE))


def posterior_spread(means: Points, label: NDArray[np.int64] | None, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Range and standard deviation of posterior means in their two widest dimensions: by class, then of all.

    Args:
        means: [N, latent_dim].
        label: the class of each, [N]; without, there is the row of all alone.
        names: of the classes.

    Returns:
        Rows of a table, the first being its head: class, images, and minimum, maximum and SD of either dimension.
    """
    axes = most_varied_axes(means, min(2, means.shape[1]))
    groups = {"all": means}
    if label is not None:
        present = {name: means[label == number] for number, name in enumerate(names)}
        groups = {name: points for name, points in present.items() if len(points)} | groups
    head = ("class", "images", *(f"{axis_name(axis)} {what}" for axis in axes for what in ("min", "max", "SD")))
    rows = [head]
    for name, points in groups.items():
        figures = (value for axis in axes for value in _range(points[:, axis]))
        rows.append((name, f"{len(points):,}", *(f"{value:.2f}".replace("-", "−") for value in figures)))
    return rows


def class_names(model: LatentModel, names: Sequence[str]) -> tuple[str, ...]:
    """The data set's names of the classes; those that a model has besides are called by their number."""
    return (*names, *map(str, range(len(names), model.classes)))


def _range(values: Points) -> tuple[float, float, float]:
    return float(values.min()), float(values.max()), float(values.std())


def _decoded(model: LatentModel, latents: Points, label: NDArray[np.int64]) -> Pixels:
    known = torch.from_numpy(label) if model.classes else None
    images: Pixels = model.decode(full_precision(torch.from_numpy(latents)), known).cpu().numpy()
    return images
