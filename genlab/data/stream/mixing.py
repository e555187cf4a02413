"""A hash of integers."""

import numpy as np
from numpy.typing import NDArray


def mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each state, so that every bit of the result depends on every bit of the state.

    This is the output function of SplitMix64 (Steele et al. 2014).
    """
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return state ^ state >> np.uint64(31)
