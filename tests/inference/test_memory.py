"""How much memory work takes, and how much there is."""

import mmap
from pathlib import Path

import pytest
import torch

from genlab.inference import memory
from genlab.inference.memory import free_bytes, peak_bytes

CPU = torch.device("cpu")
MIB = 2**20


def test_the_peak_of_work_is_measured_and_not_what_was_taken_before() -> None:
    def take(size: int) -> None:
        """Take memory of the system's, which gets it back: the allocator may keep what it had of earlier tests."""
        with mmap.mmap(-1, size) as memory:
            memory[::4096] = b"x" * len(range(0, size, 4096))

    kept = torch.ones(64 * MIB, dtype=torch.uint8)
    for size in (200 * MIB, 100 * MIB):
        taken = peak_bytes(lambda size=size: take(size), CPU)  # type: ignore[misc]
        if taken is None:
            pytest.skip("this system does not tell")
        assert 0.9 * size < taken < 1.5 * size
    assert len(kept) == 64 * MIB


def groups(folder: Path, own: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "own").write_text(own)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(memory, "GROUPS", folder)
    monkeypatch.setattr(memory, "OWN_GROUPS", folder / "own")


@pytest.mark.parametrize("at", ["", "pod/box/"])
def test_a_limit_of_a_control_group_holds(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        f"{at}memory.max": f"{30 * MIB}\n",
        f"{at}memory.current": f"{25 * MIB}\n",
        f"{at}memory.stat": f"anon {20 * MIB}\ninactive_file {2 * MIB}\n",
    }
    groups(tmp_path, "0::/pod/box\n", files, monkeypatch)
    assert free_bytes(CPU) == 7 * MIB


def test_a_limit_of_the_first_version_holds_and_a_parent_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "memory/box/memory.limit_in_bytes": f"{30 * MIB}\n",
        "memory/box/memory.usage_in_bytes": f"{40 * MIB}\n",
        "memory/box/memory.stat": f"cache 0\ntotal_inactive_file {15 * MIB}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory.max": "max\n",
    }
    groups(tmp_path, "4:memory:/box\n3:cpuset:/\n0::/\n", files, monkeypatch)
    assert free_bytes(CPU) == 5 * MIB


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(tmp_path, "0::/\n", {"memory.max": "max\n"}, monkeypatch)
    free = free_bytes(CPU)
    assert free is None or free > MIB
