"""Helpers of ``genlab verify-resume`` and ``genlab verify-ddp``: processes that train, and the comparison of runs."""

import json
import math
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor
from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import locate, require_absolute
from genlab.training.checkpoints import Checkpoints
from genlab.training.tracking import CLOCK_FIELDS, METRICS, read_metrics

PROCESSES = multiprocessing.get_context("forkserver")
"""A server that has imported the loop and forks the processes, which so start fast and inherit no threads."""

LOG_LINES = 30
"""Number of lines of a failed process's log that are shown."""


@contextmanager
def storage_for(option: str | None) -> Iterator[str]:
    """Yield the folder for the runs of a proof: ``option``, or without it a temporary one."""
    if option is not None:
        require_absolute("storage", option)
        yield str(locate(option))
        return
    with tempfile.TemporaryDirectory(prefix="genlab-verify-") as folder:
        yield folder


@dataclass(frozen=True)
class Difference:
    """The largest difference between two sets of numbers, and where it is."""

    size: float
    """|x − y| / max(1, |x|) for numbers x and y."""
    place: str
    """The name of the number."""

    def __str__(self) -> str:
        """Return size and place for the command's output."""
        return f"{self.size:.2g}" + (f" ({self.place})" if self.size else "")


def first_difference(one: UPath, other: UPath) -> tuple[str | None, str]:
    """Compare every line of ``metrics.jsonl``, clock fields aside, and every bit of the last checkpoints of two runs.

    Returns:
        The first difference, ``None`` when there is none; and what was compared, empty when there is a difference.
    """
    lines, their_lines = _lines(one), _lines(other)
    first, second = one.name, other.name
    for line, their_line in zip_longest(lines, their_lines):
        if line is None or their_line is None:
            return f"{METRICS}: {first} has {len(lines)} lines, {second} has {len(their_lines)}", ""
        for name in line | their_line:
            value, their_value = line.get(name), their_line.get(name)
            if value != their_value and not (value != value and their_value != their_value):  # NaN equals NaN here
                where = f"{line['kind']} line of step {line['step']}"
                return f"{METRICS}: {where}: {name} is {value!r} in {first} and {their_value!r} in {second}", ""
    step, tensors = last_checkpoint(one)
    their_step, their_tensors = last_checkpoint(other)
    if (step, tensors.keys()) != (their_step, their_tensors.keys()):
        return f"the last checkpoints: step {step} in {first} and {their_step} in {second}, or of other tensors", ""
    for name, tensor in sorted(tensors.items()):
        their_tensor = their_tensors[name]
        if tensor.shape != their_tensor.shape or digest({name: tensor}) != digest({name: their_tensor}):
            return f"checkpoint of step {step}: {name}: {_describe(tensor, their_tensor)}", ""
    kinds = sorted(name.partition(".")[0] for name in tensors)
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return None, (
        f"{len(lines)} lines of {METRICS} and {len(tensors)} tensors ({counts}) of the checkpoint of step {step}, "
        f"all of hash {digest(tensors)}"
    )


def largest_metric_difference(one: UPath, other: UPath) -> Difference:
    """Return the largest difference between the metrics of two runs of the same number of steps."""
    largest = Difference(0.0, "")
    for line, their_line in zip(_lines(one), _lines(other), strict=True):
        for name in (line | their_line).keys() - {"kind"}:
            size = _relative_difference(line.get(name, math.nan), their_line.get(name, math.inf))
            found = Difference(size, f"{line['kind']}/{name}, step {line['step']}")
            largest = max(largest, found, key=lambda difference: difference.size)
    return largest


def largest_tensor_difference(one: UPath, other: UPath) -> Difference:
    """Return the largest difference between the tensors of the last checkpoints of two runs."""
    (_, tensors), (_, their_tensors) = last_checkpoint(one), last_checkpoint(other)
    largest = Difference(0.0, "")
    for name, tensor in tensors.items():
        x, y = tensor.double(), their_tensors[name].double()
        difference = ((x - y).abs() / x.abs().clamp(min=1)).nan_to_num(nan=math.inf)
        size = float(difference.max()) if difference.numel() else 0.0
        largest = max(largest, Difference(size, name), key=lambda difference: difference.size)
    return largest


def last_checkpoint(run: UPath) -> tuple[int, dict[str, Tensor]]:
    """Return step and tensors of a run's newest checkpoint.

    Raises:
        RunError: when the run has no checkpoint.
    """
    with Checkpoints(run / "checkpoints", keep=1) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise RunError(f"{run}: no checkpoint was written")
        return steps[-1], checkpoints.read(steps[-1])


def digest(tensors: dict[str, Tensor]) -> str:
    """Return a hash of the names and bits of ``tensors``."""
    hashed = xxhash.xxh3_128()
    for name, tensor in sorted(tensors.items()):
        bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        hashed.update(name.encode())
        hashed.update(bits.numpy().data)
    return hashed.hexdigest()


class LoggedProcess:
    """A process of a proof, whose output goes to a file.

    Args:
        log: the file.
        target: the function that the process calls.
        arguments: arguments of that function.
    """

    def __init__(self, log: Path, target: Callable[..., object], *arguments: Any) -> None:
        self._log = log
        try:
            Path.cwd()
        except FileNotFoundError:
            # The folder of a Ray job can be deleted while the job runs, when two Ray nodes of one machine share it.
            os.chdir(log.parent)
        PROCESSES.set_forkserver_preload(["genlab.training.loop"])
        self.process: BaseProcess = PROCESSES.Process(target=_logged, args=(str(log), target, *arguments), daemon=True)
        self.process.start()

    def kill(self) -> None:
        """End the process with SIGKILL."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def failure(self) -> RunError:
        """Return the error for a process that has failed, with the end of its log."""
        text = self._log.read_text() if self._log.exists() else ""
        end = "\n".join(text.splitlines()[-LOG_LINES:])
        status = self.process.exitcode
        return RunError(f"a process of the verification ended with status {status}; its last lines:\n{end}")


def _logged(log: str, target: Callable[..., object], *arguments: Any) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    target(*arguments)


def _lines(run: UPath) -> list[dict[str, Any]]:
    lines = read_metrics(run / METRICS)
    return [{name: value for name, value in line.items() if name not in CLOCK_FIELDS} for line in lines]


def _relative_difference(one: float, other: float) -> float:
    if json.dumps(one) == json.dumps(other):  # also NaN and NaN
        return 0.0
    difference = abs(one - other) / max(1.0, abs(one))
    return math.inf if math.isnan(difference) else difference


def _describe(one: Tensor, other: Tensor) -> str:
    """Say in which elements two tensors differ, and by how much."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{one.dtype} {tuple(one.shape)} and {other.dtype} {tuple(other.shape)}"
    size = one.element_size()
    bits = [tensor.contiguous().reshape(-1, 1).view(torch.uint8).reshape(-1, size) for tensor in (one, other)]
    differing = int((bits[0] != bits[1]).any(1).sum())
    largest = float((one.double() - other.double()).abs().max())
    return f"{differing:,} of {one.numel():,} elements differ, by {largest:.3g} at most"
