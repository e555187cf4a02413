"""How often a run should write a checkpoint: simulated interruptions against the cost of checkpoints.

Training waits ``cost`` seconds for each checkpoint; an interruption loses the work since the last one and takes
``restart`` seconds until training goes on. Interruptions come at random, independently of each other (exponentially
distributed times), also while the run restarts. Of some a notice comes in time to write a checkpoint first.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

SPAN = 8.0
"""The intervals tried are those from Young's divided by this to Young's times this."""
INTERVALS = 49


@dataclass(frozen=True)
class Costs:
    """What checkpoints and interruptions cost a run."""

    cost: float
    """Seconds that training waits for a checkpoint."""
    restart: float
    """Seconds from an interruption to the first step after it."""
    between: float
    """Mean seconds between two interruptions of the run."""
    noticed: float = 0.0
    """The share of interruptions before which a checkpoint is written, 0..1."""

    def young(self) -> float:
        """Return the interval of Young (1974), in seconds of work: ``sqrt(2 C M)``."""
        return math.sqrt(2 * self.cost * self.between)

    def daly(self) -> float:
        """Return the interval of Daly (2006), eq. 37, in seconds of work: of a higher order than Young's."""
        if self.cost >= 2 * self.between:
            return self.between
        ratio = math.sqrt(self.cost / (2 * self.between))
        return self.young() * (1 + ratio / 3 + ratio**2 / 9) - self.cost


def simulate(costs: Costs, intervals: Sequence[float], interruptions: int = 4000, seed: int = 0) -> list[float]:
    """Return the share of time that is lost with each interval, 0..1, from the same random interruptions.

    Args:
        costs: what checkpoints and interruptions cost.
        intervals: seconds of work between checkpoints.
        interruptions: how many are simulated.
        seed: of their times.
    """
    dice = random.Random(seed)
    drawn = [(dice.expovariate(1 / costs.between), dice.random() < costs.noticed) for _ in range(interruptions)]
    return [_lost(costs, interval, drawn) for interval in intervals]


def best_interval(costs: Costs, seed: int = 0) -> tuple[float, list[tuple[float, float]]]:
    """Return the interval that loses least, and all that were tried, each with the share of time that it loses."""
    young = costs.young()
    intervals = [young * SPAN ** (2 * number / (INTERVALS - 1) - 1) for number in range(INTERVALS)]
    tried = list(zip(intervals, simulate(costs, intervals, seed=seed), strict=True))
    return min(tried, key=lambda one: one[1])[0], tried


def _lost(costs: Costs, interval: float, interruptions: Sequence[tuple[float, bool]]) -> float:
    elapsed = kept = 0.0
    for seconds, noticed in interruptions:
        elapsed += seconds
        worked = seconds - costs.restart
        if worked <= 0:
            continue
        whole, rest = divmod(worked, interval + costs.cost)
        kept += whole * interval
        if noticed:
            kept += min(rest, interval)
            elapsed += costs.cost
    return 1 - kept / elapsed
