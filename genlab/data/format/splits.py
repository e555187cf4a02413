"""Names of splits and of their halves.

A split that is divided by a hash of the keys has the halves ``SPLIT:validation``, on which a choice is made, and
``SPLIT:reporting``, on which results are reported; see :meth:`genlab.data.format.shards.ShardSet.part`.
"""

from typing import Literal, get_args

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
"""The splits that ingest makes, in the order of their shards."""

Half = Literal["validation", "reporting"]


def half_name(split: str, half: Half) -> str:
    """Return the name of a half of ``split``."""
    return f"{split}:{half}"


def whole_split(name: str) -> str:
    """Return the split of which ``name`` is a half; ``name`` itself if it is no name of a half."""
    split, colon, half = name.rpartition(":")
    return split if colon and half in get_args(Half) else name


def is_half(name: str) -> bool:
    """Tell whether this is the name of half of a split."""
    return whole_split(name) != name


def overlap(one: str, other: str) -> bool:
    """Tell whether two splits, or halves of one, share rows."""
    return one == other or (whole_split(one) == whole_split(other) and not (is_half(one) and is_half(other)))
