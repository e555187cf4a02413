"""Tracking: the lines and events that are kept when a run goes on from a checkpoint."""

import os
from pathlib import Path

import pytest

from genlab.core.storage import locate
from genlab.training.tracking import Tracker, read_metrics
from tests.training.support import scalars


class KilledError(BaseException):
    """Ends an attempt where it stands."""


def attempt(run: Path, first: int, last: int) -> None:
    """Go on after step ``first`` and log steps up to ``last``."""
    with Tracker(locate(run), first) as tracker:
        for step in range(first + 1, last + 1):
            tracker.log("train", step, 8 * step, step / 10, {"loss": float(step)})


def kill_at_sync(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Make the file synced after ``count`` others the last thing that happens, as a kill at that moment would."""
    sync, synced = os.fsync, 0

    def killing(descriptor: int) -> None:
        nonlocal synced
        if synced == count:
            raise KilledError
        synced += 1
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", killing)


@pytest.mark.parametrize("synced", [0, 1], ids=["metrics.jsonl", "TensorBoard's events"])
def test_a_kill_while_files_are_rewound_neither_loses_nor_doubles_a_step(
    synced: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(tmp_path, 0, 4)
    with monkeypatch.context() as patch:
        kill_at_sync(patch, synced)
        with pytest.raises(KilledError):
            attempt(tmp_path, 2, 4)
    monkeypatch.setattr(os, "getpid", lambda: 1)  # the next attempt is another process
    attempt(tmp_path, 2, 5)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert scalars(tmp_path) == {"train/loss": [(step, float(step)) for step in range(1, 6)]}


def test_what_lies_past_the_checkpoint_is_dropped(tmp_path: Path) -> None:
    attempt(tmp_path, 0, 6)
    attempt(tmp_path, 4, 4)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [step for step, _ in scalars(tmp_path)["train/loss"]] == [1, 2, 3, 4]
