"""A rung: a moment of a run at which what started it may stop it. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """What a run has reached, and how good it is there."""

    step: int
    """Steps done."""
    images: int
    """Images seen."""
    metrics: Mapping[str, float]
    """Metrics of held-out rows, as ``val/NAME``."""
