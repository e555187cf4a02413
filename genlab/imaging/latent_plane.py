"""Points of a latent space with the prior N(0, I): grids to decode images at, and dimensions to show."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
"""Points, float32 [N, dimensions]."""


def prior_quantiles(count: int) -> Points:
    """Return the quantiles (i + 0.5) / count of the standard normal distribution, float32 [count]."""
    return np.array([NormalDist().inv_cdf((number + 0.5) / count) for number in range(count)], np.float32)


def prior_plane(side: int, size: int, axes: tuple[int, int]) -> Points:
    """Return a square grid of points at the prior's quantiles in two dimensions, with 0 in the others.

    The order is row by row: dimension ``axes[0]`` grows from left to right, ``axes[1]`` from bottom to top.

    Args:
        side: number of points in a row, and of rows.
        size: number of dimensions of the latent space.
        axes: the two dimensions, numbered from 0.

    Returns:
        float32 [side², size].
    """
    quantiles = prior_quantiles(side)
    points = np.zeros((side, side, size), np.float32)
    points[:, :, axes[0]] = quantiles
    points[:, :, axes[1]] = quantiles[::-1, None]
    return points.reshape(-1, size)


def prior_line(count: int, size: int, axis: int) -> Points:
    """Return points at the prior's quantiles in one dimension, with 0 in the others: float32 [count, size]."""
    points = np.zeros((count, size), np.float32)
    points[:, axis] = prior_quantiles(count)
    return points


def most_varied_axes(means: Points, count: int) -> tuple[int, ...]:
    """Return the dimensions in which posterior means vary most, in ascending order.

    Args:
        means: posterior means, [N, D].
        count: number of dimensions wanted; all if there are no more.
    """
    return tuple(sorted(np.argsort(-means.var(axis=0), kind="stable")[:count].tolist()))


def axis_name(axis: int) -> str:
    """Return the name of a dimension that is numbered from 0: ``z₁``, ``z₂``, ..."""
    return "z" + "".join(chr(ord("₀") + int(digit)) for digit in str(axis + 1))
