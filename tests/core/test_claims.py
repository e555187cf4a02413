"""Claims: one process at a time, until it ends or gives no sign of life; on locks and on leases."""

import multiprocessing
import os
import pickle
import secrets
import signal
import threading
from pathlib import Path

import pytest
from upath import UPath

from genlab.core import claims
from genlab.core.claims import ClaimError, ClaimLostError, claimed, is_claimed
from genlab.core.storage import locate, read_bytes, write_atomic
from tests.s3 import Bucket, FaultProxy, hurry

FORK = multiprocessing.get_context("fork")
PLACES = {"disk": "{}/place", "memory": "memory://{}/place", "a pattern": "memory://{}/place[1]*?"}


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder with a file in it: on a disk, which has locks, or in a store that has none, under either name."""
    url = PLACES[request.param].format(tmp_path if request.param == "disk" else f"bucket-{secrets.token_hex(8)}")
    write_atomic(locate(url) / "neighbour", b"")
    return url


def names(place: str) -> list[str]:
    return [file.name for file in locate(place).iterdir()]


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_a_claim_keeps_others_out_and_ends_with_its_holder(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
    with claimed(locate(place), "work", "choose another place") as claim:
        at_work = rf"another work is at work there \(process {os.getpid()} on .*\); wait for it, or go elsewhere"
        with pytest.raises(ClaimError, match=at_work), claimed(locate(place), "work", "go elsewhere"):
            pass
        with claimed(locate(place), "other", "go elsewhere"):
            pass
        assert is_claimed(locate(place), "work")
        pickle.loads(pickle.dumps(claim)).require()
        claim.require()
    with claimed(locate(place), "work", "go elsewhere") as later:
        later.require()
        with pytest.raises(ClaimLostError):
            claim.require()
    assert names(place) == ["neighbour"]


def test_a_dead_lease_is_taken_over_and_its_holder_knows_when_it_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"memory://bucket-{secrets.token_hex(8)}/place"
    write_atomic(locate(place) / "neighbour", b"")
    monkeypatch.setattr(claims, "LEASE_TIMEOUT", 0.2)
    monkeypatch.setattr(claims, "HEARTBEAT", 0.5)
    with claimed(locate(place), "work", "go elsewhere") as sleeper:  # for the other it is dead: its signs are rare
        monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
        with claimed(locate(place), "work", "go elsewhere") as claim:
            claim.require()
            with pytest.raises(ClaimLostError, match="another work took over"):
                pickle.loads(pickle.dumps(sleeper)).require()
            assert sleeper.lost.wait(30)
            assert not claim.lost.is_set()
    assert names(place) == ["neighbour"]


def hold(place: str, there: "multiprocessing.synchronize.Event") -> None:
    with claimed(locate(place), "work", "go elsewhere"):
        there.set()
        threading.Event().wait()


def test_a_stopped_process_keeps_its_lock_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    there = FORK.Event()
    holder = FORK.Process(target=hold, args=(str(tmp_path), there))
    holder.start()
    there.wait()
    os.kill(holder.pid or 0, signal.SIGSTOP)
    with (
        pytest.raises(ClaimError, match=rf"process {holder.pid} on"),
        claimed(locate(tmp_path), "work", "go elsewhere"),
    ):
        pass
    holder.kill()
    holder.join()
    with claimed(locate(tmp_path), "work", "go elsewhere"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_store_that_goes_away_for_a_while_does_not_end_a_lease(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, retry_seconds=0.1)
    monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
    folder = locate(s3.url) / "run"
    with claimed(folder, "work", "go elsewhere") as claim:
        lease = folder / "work-00000.lease"
        fault_proxy.plan(rate=1, kinds=["error"], seed=0, method="PUT", most=8)
        before = read_bytes(lease)
        deadline = threading.Event()
        for _ in range(600):
            if fault_proxy.traffic().faults.get("error", 0) == 8 and read_bytes(lease) != before:
                break
            deadline.wait(0.05)
        assert read_bytes(lease) != before
        claim.require()


def test_a_lease_that_ends_leaves_the_place_to_who_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its watcher looks again, for another may have begun with the first number meanwhile."""
    place = f"memory://bucket-{secrets.token_hex(8)}/place"
    write_atomic(locate(place) / "work-00005.lease", b"{}")
    watched = []

    def ends(directory: object, lease: UPath, *more: object) -> bool:
        watched.append(lease.name)
        if len(watched) > 1:
            raise ClaimError("another is at work")
        lease.unlink()
        write_atomic(locate(place) / "work-00000.lease", b"{}")
        return False

    monkeypatch.setattr(claims, "_watch", ends)
    with pytest.raises(ClaimError), claimed(locate(place), "work", "go elsewhere"):
        pass
    assert watched == ["work-00005.lease", "work-00000.lease"]
    assert names(place) == ["work-00000.lease"]
