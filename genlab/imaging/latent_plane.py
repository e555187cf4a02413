"""Points of a latent space with the prior N(0, I), at which its decoder is shown."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]


def prior_quantiles(count: int) -> Points:
    """The quantiles (i + 0.5) / count of the standard normal, float32 [count]."""
    return np.array([NormalDist().inv_cdf((number + 0.5) / count) for number in range(count)], np.float32)


def prior_plane(side: int, size: int, axes: tuple[int, int]) -> Points:
    """Points at the prior's quantiles in two dimensions, the others at 0.

    Row by row: dimension ``axes[0]`` grows from left to right, ``axes[1]`` from bottom to top.

    Args:
        side: points in a row, and rows.
        size: dimensions of the latent space.
        axes: the two, numbered from 0.

    Returns:
        float32 [side², size].
    """
    quantiles = prior_quantiles(side)
    points = np.zeros((side, side, size), np.float32)
    points[:, :, axes[0]] = quantiles
    points[:, :, axes[1]] = quantiles[::-1, None]
    return points.reshape(-1, size)


def prior_line(count: int, size: int, axis: int) -> Points:
    """Points at the prior's quantiles in one dimension, the others at 0: float32 [count, size]."""
    points = np.zeros((count, size), np.float32)
    points[:, axis] = prior_quantiles(count)
    return points


def most_varied_axes(means: Points, count: int) -> tuple[int, ...]:
    """The dimensions in which posterior means vary most, in their own order.

    Args:
        means: [N, D].
        count: how many; all where there are no more.
    """
    return tuple(sorted(np.argsort(-means.var(axis=0), kind="stable")[:count].tolist()))


def axis_name(axis: int) -> str:
    """What a dimension, numbered from 0, is called: ``z₁``, ``z₂``, ..."""
    return "z" + "".join(chr(ord("₀") + int(digit)) for digit in str(axis + 1))
