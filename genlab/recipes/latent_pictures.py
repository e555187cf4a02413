"""Arrays and tables that show a latent model: posterior means, and images decoded from chosen latent vectors.

The pictures of training and of the report are made of them.
"""

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
"""Number of images in a row, and of rows, of sheets and of decoded planes."""
CLASS_PICTURES = 10
"""Number of classes, the first ones, that have a picture of their own."""
CLASS_ROWS = 50
"""Number of classes, the first ones, that have a row or a column in a picture."""
CHUNK_BYTES = 2**20
"""Bytes of pixels that are encoded at a time; their features take up to a hundred times as much memory."""


def posterior_means(model: LatentModel, pixels: Tensor, label: Tensor | None) -> Points:
    """Return the means of q(z|x, y), float32 [N, latent_dim], of uint8 [N, H, W, C] and int64 [N], by parts."""
    chunk = max(1, CHUNK_BYTES // math.prod(pixels.shape[1:]))
    labels = [None] * len(pixels) if label is None else label.split(chunk)
    means = [model.encode(part, classes)[0] for part, classes in zip(pixels.split(chunk), labels, strict=False)]
    return torch.cat(means).float().cpu().numpy()


def decoded_plane(model: LatentModel, axes: tuple[int, int], class_: int = 0) -> Pixels:
    """Decode latent vectors at the prior's quantiles in two dimensions, 0 in the others; for one class, if any.

    Returns:
        uint8 [SIDE², H, W, C], in the order of :func:`genlab.imaging.latent_plane.prior_plane`.
    """
    return _decoded(model, prior_plane(SHEET_SIDE, model.architecture.latent_dim, axes), np.full(SHEET_SIDE**2, class_))


def class_planes(model: LatentModel, axes: tuple[int, int], names: Sequence[str]) -> dict[str, Pixels]:
    """Return a sheet of :func:`decoded_plane` for each of the first :data:`CLASS_PICTURES` classes, by class name."""
    return {
        name: sheet(decoded_plane(model, axes, number), SHEET_SIDE)
        for number, name in enumerate(names[:CLASS_PICTURES])
    }


def decoded_classes(model: LatentModel, axis: int) -> Pixels:
    """Decode latent vectors at the prior's quantiles in one dimension, 0 in the others, for each class.

    Returns:
        uint8 [min(classes, CLASS_ROWS) * SHEET_SIDE, H, W, C], class by class.
    """
    points = prior_line(SHEET_SIDE, model.architecture.latent_dim, axis)
    label = np.arange(min(model.classes, CLASS_ROWS))
    return _decoded(model, np.tile(points, (len(label), 1)), np.repeat(label, SHEET_SIDE))


def posterior_spread(means: Points, label: NDArray[np.int64] | None, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Tabulate range and standard deviation of posterior means, in the two dimensions in which they vary most.

    Args:
        means: posterior means, [N, latent_dim].
        label: class of each, [N]; ``None`` for one row for all images.
        names: names of the classes.

    Returns:
        Rows of a table: first its head, then one for each class, then one for all images. Columns: class, number of
        images, and minimum, maximum and SD of each dimension.
    """
    axes = most_varied_axes(means, min(2, means.shape[1]))
    groups = {"all": means}
    if label is not None:
        present = {name: means[label == number] for number, name in enumerate(names)}
        groups = {name: points for name, points in present.items() if len(points)} | groups
    head = ("class", "images", *(f"{axis_name(axis)} {what}" for axis in axes for what in ("min", "max", "SD")))
    rows = [head]
    for name, points in groups.items():
        ranges = (value for axis in axes for value in _range(points[:, axis]))
        rows.append((name, f"{len(points):,}", *(f"{value:.2f}".replace("-", "−") for value in ranges)))
    return rows


def class_names(model: LatentModel, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a model's classes: those of the data set, and numbers for classes that it does not have."""
    return (*names, *map(str, range(len(names), model.classes)))


def _range(values: Points) -> tuple[float, float, float]:
    return float(values.min()), float(values.max()), float(values.std())


def _decoded(model: LatentModel, latents: Points, label: NDArray[np.int64]) -> Pixels:
    classes = torch.from_numpy(label) if model.classes else None
    images: Pixels = model.decode(full_precision(torch.from_numpy(latents)), classes).cpu().numpy()
    return images
