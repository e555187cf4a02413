"""Measurement of where a run's time goes: waiting for data, computing, all-reduce, writing checkpoints."""

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
"""Each part's description, and advice for a run where this part dominates."""

SAMPLE_EVERY = 16
"""On a GPU one step in this many is timed, with a synchronisation of the device after each part."""


class Waiting(Protocol):
    """A source of batches that counts the seconds for which the loop waited for it."""

    waited: float
    """Seconds waited in all."""
    waited_on_storage: float
    """The part of them in which the storage had not yet sent the bytes."""


class Stopwatch:
    """Divides one worker's time into :data:`PARTS`.

    The loop calls :meth:`lap` at the end of each part of a step. On a CPU every step is timed. On a GPU, where kernels
    run behind the host's back, only one step in :data:`SAMPLE_EVERY` is, with the device synchronised at each lap;
    its parts stand for those of the steps around it. Checkpoints, tests and pictures, which are rare, are always timed.

    Args:
        device: the device that the worker computes on.
        streams: the sources of its batches.
    """

    def __init__(self, device: torch.device, streams: Iterable[Waiting]) -> None:
        self._synchronises = device.type == "cuda"
        self._device = device
        self._streams = list(streams)
        self._sampled: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._rare: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._totals: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._timing = False
        self._last = self._began = time.perf_counter()
        self._storage = 0.0

    def begin(self, step: int) -> None:
        """Start the first lap of step number ``step``."""
        self._timing = not self._synchronises or step % SAMPLE_EVERY == SAMPLE_EVERY // 2
        self._last = self._now()
        self._storage = sum(stream.waited_on_storage for stream in self._streams)

    def lap(self, lap: Lap) -> float:
        """Count the time since the last call as time of ``lap``, and return it in seconds."""
        now = self._now()
        seconds, self._last = now - self._last, now
        match lap:
            case "checkpoint" | "other":
                self._rare[lap] += seconds
            case _ if not self._timing:
                pass
            case "data":
                waited = sum(stream.waited_on_storage for stream in self._streams) - self._storage
                storage = min(seconds, waited)
                self._sampled["storage"] += storage
                self._sampled["decode"] += seconds - storage
            case _:
                self._sampled[lap] += seconds
        return seconds

    def settle(self) -> None:
        """Wait until the device has finished the step, so that its kernels are not counted in the next lap."""
        if self._synchronises:
            torch.cuda.synchronize(self._device)
        self._last = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return each part's fraction of the time since the last reading, 0..1, as ``{part}_share``.

        The dictionary is empty when no step was timed since then.
        """
        sampled = sum(self._sampled.values())
        if not sampled:
            return {}
        now = time.perf_counter()
        elapsed, self._began = now - self._began, now
        common = max(0.0, elapsed - sum(self._rare.values()))
        seconds = {part: self._rare[part] + common * self._sampled[part] / sampled for part in PARTS}
        self._sampled = dict.fromkeys(PARTS, 0.0)
        self._rare = dict.fromkeys(PARTS, 0.0)
        self._totals = {part: self._totals[part] + seconds[part] for part in PARTS}
        return {f"{part}_share": seconds[part] / elapsed for part in PARTS}

    def bottleneck(self) -> str:
        """Return a sentence that names the part that took most time in all readings; empty before the first."""
        total = sum(self._totals.values())
        if not total:
            return ""
        fractions = sorted(((seconds / total, part) for part, seconds in self._totals.items()), reverse=True)
        largest, bottleneck = fractions[0]
        words, way_out = PARTS[bottleneck]
        others = [
            f"{PARTS[part][0].split(',')[0]} {fraction:.0%}" for fraction, part in fractions[1:] if fraction >= 0.01
        ]
        return f"bound by {words}: {largest:.0%} of the time ({', '.join(others) or 'all else under 1%'}); {way_out}"

    def _now(self) -> float:
        if self._synchronises and self._timing:
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
