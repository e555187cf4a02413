"""Where the time of a run goes: waiting for data, computing, talking to the other workers, writing checkpoints."""

import time
from collections.abc import Iterable
from typing import Literal, Protocol

import torch

Part = Literal["storage", "decode", "compute", "all_reduce", "optimiser", "checkpoint", "other"]
Lap = Literal["data", "compute", "all_reduce", "optimiser", "checkpoint", "other"]

PARTS: dict[Part, tuple[str, str]] = {
    "storage": (
        "reading from storage",
        "keep the data nearer, cache it on a local disk, or read further ahead over more bandwidth",
    ),
    "decode": ("decoding and augmenting", "give it more CPUs (run.threads), or ingest at the size trained on"),
    "compute": ("forward and backward passes", "as it should be; faster or more workers shorten it"),
    "all_reduce": (
        "adding up gradients, which includes waiting for the slowest worker",
        "use fewer or larger workers, a bigger batch, or a faster network",
    ),
    "optimiser": ("the optimiser and weight averages", "use a bigger batch, so that it steps less often"),
    "checkpoint": ("waiting for checkpoints", "write them less often (run.checkpoint_every), or to faster storage"),
    "other": ("tests, pictures and logging", "do these less often (run.figures_every, run.log_every)"),
}
"""Each part's name in words, and the way out for a run that it holds up."""

SAMPLE_EVERY = 16
"""On a GPU, one step in so many is timed: that takes a synchronisation after each of its parts."""


class Waiting(Protocol):
    """A source of batches that knows how long it kept the loop waiting, in seconds since it was made."""

    waited: float
    waited_on_storage: float


class Stopwatch:
    """One worker's time, divided into :data:`PARTS`.

    The loop calls :meth:`lap` at the end of each part of a step. On a CPU every step is timed. On a GPU, where kernels
    run behind the host's back, only one step in :data:`SAMPLE_EVERY` is, with the device synchronised at each lap;
    its parts stand for those of the steps around it. What happens seldom (checkpoints, tests) is timed always.

    Args:
        device: where the worker computes.
        streams: where its batches come from.
    """

    def __init__(self, device: torch.device, streams: Iterable[Waiting]) -> None:
        self._synchronises = device.type == "cuda"
        self._device = device
        self._streams = list(streams)
        self._sampled: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._seldom: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._totals: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._timing = False
        self._last = self._began = time.perf_counter()
        self._storage = 0.0

    def begin(self, step: int) -> None:
        """Step number ``step`` begins."""
        self._timing = not self._synchronises or step % SAMPLE_EVERY == SAMPLE_EVERY // 2
        self._last = self._now()
        self._storage = sum(stream.waited_on_storage for stream in self._streams)

    def lap(self, lap: Lap) -> None:
        """All that was done since the last lap of this step was ``lap``."""
        now = self._now()
        seconds, self._last = now - self._last, now
        match lap:
            case "checkpoint" | "other":
                self._seldom[lap] += seconds
            case _ if not self._timing:
                pass
            case "data":
                waited = sum(stream.waited_on_storage for stream in self._streams) - self._storage
                storage = min(seconds, waited)
                self._sampled["storage"] += storage
                self._sampled["decode"] += seconds - storage
            case _:
                self._sampled[lap] += seconds

    def settle(self) -> None:
        """Let the device finish the step, so that what follows is not charged with its kernels."""
        if self._synchronises:
            torch.cuda.synchronize(self._device)
        self._last = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Each part's share of the time since the last reading, 0..1; empty when no step was sampled since."""
        sampled = sum(self._sampled.values())
        if not sampled:
            return {}
        now = time.perf_counter()
        elapsed, self._began = now - self._began, now
        common = max(0.0, elapsed - sum(self._seldom.values()))
        seconds = {part: self._seldom[part] + common * self._sampled[part] / sampled for part in PARTS}
        self._sampled = dict.fromkeys(PARTS, 0.0)
        self._seldom = dict.fromkeys(PARTS, 0.0)
        self._totals = {part: self._totals[part] + seconds[part] for part in PARTS}
        return {f"{part}_share": seconds[part] / elapsed for part in PARTS}

    def verdict(self) -> str:
        """One sentence on what held the run up, from all readings; empty before the first."""
        total = sum(self._totals.values())
        if not total:
            return ""
        shares = sorted(((seconds / total, part) for part, seconds in self._totals.items()), reverse=True)
        share, bound = shares[0]
        words, way_out = PARTS[bound]
        rest = ", ".join(f"{PARTS[part][0].split(',')[0]} {share:.0%}" for share, part in shares[1:] if share >= 0.01)
        return f"bound by {words}: {share:.0%} of the time ({rest or 'nothing else to speak of'}); {way_out}"

    def _now(self) -> float:
        if self._synchronises and self._timing:
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
