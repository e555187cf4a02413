"""Memory: how much a piece of work takes at its peak, and how much there is to take."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""The control groups, and which of them this process is in."""
_UNLIMITED = 2**60
"""Bytes from which on a limit of a control group is none."""


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Do a piece of work, and measure the bytes that it took besides what was taken before.

    On a GPU these are of PyTorch's allocator; on a CPU of the whole process, of which other threads are a part. What
    the process kept of earlier work, and this work uses again, is not counted.

    Returns:
        ``None`` where this system does not tell.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return max(0, torch.cuda.max_memory_allocated(device) - before)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
        taken = _process("VmRSS")
        work()
        return max(0, _process("VmHWM") - taken)
    except OSError:  # not Linux, or not allowed
        work()
        return None


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that this process could still take on a device; ``None`` where this system does not tell.

    On a CPU this is the least of what the machine has and what the control groups of this process allow.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        machine = _fields(Path("/proc/meminfo"))["MemAvailable"] * 1024
    except (OSError, KeyError):
        return None
    return max(0, min([machine, *_group_bytes()]))


def _group_bytes() -> list[int]:
    """Return what is left of the limits of the control groups that this process is in, of both versions."""
    left = []
    with contextlib.suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                root, limit, usage, cache = GROUPS, "memory.max", "memory.current", "inactive_file"
            elif "memory" in controllers.split(","):
                root, limit, usage = GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
                cache = "total_inactive_file"
            else:
                continue
            own = root / path.lstrip("/")
            # Within a container the own group may be the root of what is there.
            for group in (own, *(parent for parent in own.parents if parent.is_relative_to(root))):
                with contextlib.suppress(OSError, ValueError, KeyError):
                    most = int((group / limit).read_text())  # without a limit "max", or a very large number
                    if most < _UNLIMITED:
                        taken = int((group / usage).read_text())
                        left.append(most - taken + _fields(group / "memory.stat", " ")[cache])
    return left


def _process(name: str) -> int:
    return _fields(Path("/proc/self/status"))[name] * 1024


def _fields(file: Path, divider: str = ":") -> dict[str, int]:
    """Read the numbers of lines of a name and a number."""
    fields = {}
    for line in file.read_text().splitlines():
        name, _, value = line.partition(divider)
        number = value.split()[:1]
        if number and number[0].isdecimal():
            fields[name] = int(number[0])
    return fields
