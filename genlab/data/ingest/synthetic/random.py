"""Random numbers for the drawings: a pure function of purpose, seed and index."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """The purpose of random numbers; each has numbers of its own, so that one drawing never changes another."""

    SCENE = 0
    DIGIT = 1
    LABEL = 2
    BRISTLES = 3


def generator(purpose: Purpose, seed: int, index: int) -> np.random.Generator:
    """Return the random generator of one drawing."""
    key = np.array([seed, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, int(purpose)]))
