"""Tracking: the lines and events that are kept when a run goes on from a checkpoint."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from upath import UPath

from genlab.core.storage import locate, read_bytes
from genlab.training.attempts import Attempt, SupersededError, begin_attempt
from genlab.training.tracking import Tracker, read_metrics
from tests.s3 import Bucket, FaultProxy, hurry
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


def log(tracker: Tracker, *steps: int) -> None:
    for step in steps:
        tracker.log("train", step, 8 * step, step / 10, {"loss": float(step)})


def steps_of(run: UPath) -> list[int]:
    return [line["step"] for line in read_metrics(run / "metrics.jsonl")]


def names(folder: UPath) -> list[str]:
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def copied(run: UPath, to: Path) -> Path:
    """A copy of a run on an object store."""
    run.fs.get(run.path, str(to), recursive=True)
    return to


def test_on_s3_each_flush_writes_what_is_new_and_the_end_joins_it(s3: Bucket, tmp_path: Path) -> None:
    run = locate(f"{s3.url}/run")
    with Tracker(run, 0, begin_attempt(run, None)) as tracker:
        log(tracker, 1, 2, 3)
        tracker.picture(3, "samples", np.zeros((4, 6, 3), np.uint8))
        tracker.flush().result()
        log(tracker, 4)
        tracker.flush().result()
        assert steps_of(run) == [1, 2, 3, 4]
        last = read_bytes(run / "metrics" / names(run / "metrics")[-1])
        assert last.count(b"\n") == 1
        log(tracker, 5)
    assert names(run / "metrics") == []
    assert read_bytes(run / "metrics.jsonl").count(b"\n") == 5
    assert steps_of(run) == [1, 2, 3, 4, 5]
    copy = copied(run, tmp_path / "copy")
    assert scalars(copy) == {"train/loss": [(step, float(step)) for step in range(1, 6)]}
    assert (copy / "figures" / "step-00000003" / "samples.png").exists()


@pytest.mark.slow
def test_on_s3_what_lies_past_the_checkpoint_is_dropped(s3: Bucket, tmp_path: Path) -> None:
    run = locate(f"{s3.url}/run")
    for first, last in ((0, 6), (4, 8), (2, 5)):
        killed = Tracker(run, first, begin_attempt(run, None))
        log(killed, *range(first + 1, last + 1))
        killed.flush().result()
        assert steps_of(run) == [*range(1, last + 1)]
        assert killed.latest == {"train/loss": last}
    with Tracker(run, 5, begin_attempt(run, None)) as tracker:
        log(tracker, 6)
    with Tracker(run, 6, begin_attempt(run, None)) as tracker:  # a longer stop
        assert names(run / "metrics") == ["00005-000000.jsonl"]
        log(tracker, 7)
        tracker.flush().result()
        copy = copied(run, tmp_path / "copy")
    assert steps_of(run) == [1, 2, 3, 4, 5, 6, 7]
    with Tracker(locate(copy), 7) as tracker:  # it goes on where it was copied to
        log(tracker, 8)
    assert steps_of(locate(copy)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert scalars(copy) == {"train/loss": [(step, float(step)) for step in range(1, 9)]}


@contextlib.contextmanager
def stopped_after_looking(then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let an attempt that is over look for a later one before that has begun, and write after ``then``."""
    look, looks = Attempt.require_last, 0

    def too_early(attempt: Attempt) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            then()
        else:
            look(attempt)

    with mock.patch.object(Attempt, "require_last", too_early):
        yield


def test_metrics_that_an_attempt_that_is_over_put_in_place_of_later_ones_are_put_back(tmp_path: Path) -> None:
    run = locate(tmp_path)
    attempt(tmp_path, 0, 2)
    old = begin_attempt(run, None)
    later = contextlib.ExitStack()
    trackers = []

    def another_goes_on() -> None:
        trackers.append(later.enter_context(Tracker(run, 2, begin_attempt(run, None))))
        log(trackers[0], 3, 4)

    with stopped_after_looking(another_goes_on), contextlib.suppress(SupersededError):
        Tracker(run, 2, old)
    assert steps_of(run) == [1, 2]
    trackers[0].flush().result()
    assert steps_of(run) == [1, 2, 3, 4]
    log(trackers[0], 5)
    later.close()
    assert steps_of(run) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_lines_of_an_attempt_that_is_over_do_not_count(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = locate(tmp_path / "run" if place == "disk" else f"{request.getfixturevalue('s3').url}/run")
    old = Tracker(run, 0, begin_attempt(run, None))
    log(old, 1, 2, 3, 4)
    old.flush().result()
    with Tracker(run, 2, begin_attempt(run, None)) as tracker:
        log(tracker, 3)
        tracker.flush().result()
        log(old, 5)
        with stopped_after_looking(), contextlib.suppress(SupersededError):
            old.flush().result()
        assert steps_of(run) == [1, 2, 3]
        log(old, 6)
        with pytest.raises(SupersededError):
            old.flush().result()
        log(tracker, 4)
    assert steps_of(run) == [1, 2, 3, 4]
    if place == "disk":
        assert scalars(tmp_path / "run") == {"train/loss": [(step, float(step)) for step in range(1, 5)]}


def test_on_s3_an_attempt_that_ends_late_leaves_the_parts_of_a_later_one(s3: Bucket) -> None:
    run = locate(f"{s3.url}/run")
    old = Tracker(run, 0, begin_attempt(run, None))
    log(old, 1, 2)
    old.flush().result()
    with Tracker(run, 1, begin_attempt(run, None)) as tracker:
        log(tracker, 2)
        tracker.flush().result()
        with stopped_after_looking(), contextlib.suppress(SupersededError):
            old.__exit__(None, None, None)
        assert steps_of(run) == [1, 2]
        log(tracker, 3)
    assert steps_of(run) == [1, 2, 3]


@pytest.mark.slow
def test_a_store_that_is_away_does_not_hold_up_a_step(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    run = locate(f"{s3.url}/run")
    with Tracker(run, 0, begin_attempt(run, None)) as tracker:
        fault_proxy.away()
        log(tracker, 1)
        flushed = tracker.flush()
        log(tracker, 2)
        assert not flushed.done()
        fault_proxy.back()
        flushed.result()
        assert steps_of(run) == [1]
    assert steps_of(run) == [1, 2]
