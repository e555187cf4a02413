"""Random numbers of the drawings: a pure function of purpose, seed and index."""

import enum

import numpy as np


class Stream(enum.IntEnum):
    """What random numbers are for; each purpose has its own, so one drawing never disturbs another."""

    SCENE = 0
    DIGIT = 1
    LABEL = 2
    BRISTLES = 3


def generator(stream: Stream, seed: int, index: int) -> np.random.Generator:
    """The generator of one drawing."""
    key = np.array([seed, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, int(stream)]))
