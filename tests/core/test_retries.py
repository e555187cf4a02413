"""Requests to a store that fails, stalls, refuses or is away: the right bytes, or one clear message."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from s3fs import S3FileSystem

from genlab.core.errors import StorageError, StorageTimeoutError
from genlab.core.storage import (
    create_exclusive,
    delete,
    delete_folder,
    exists,
    is_folder,
    locate,
    names,
    read_bytes,
    read_range,
    write_atomic,
)
from tests.s3 import CREDENTIALS, READ_FAULTS, WRITE_FAULTS, Bucket, FaultProxy, hurry


@pytest.mark.slow
def test_ranges_are_right_whatever_the_store_does(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    file, size = locate(s3.url) / "file", 4096
    data = np.random.default_rng(0).bytes(200 * size)
    write_atomic(file, data)
    fault_proxy.plan(rate=0.5, kinds=READ_FAULTS, seed=1)
    with ThreadPoolExecutor(16) as pool:
        for i, part in enumerate(pool.map(lambda i: read_range(file, i * size, size), range(200))):
            assert part == data[i * size : (i + 1) * size]
    faults = fault_proxy.traffic().faults
    assert sum(faults.values()) >= 100
    assert set(faults) == set(READ_FAULTS)


@pytest.mark.slow
def test_whole_files_are_right_whatever_the_store_does(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    file = locate(s3.url) / "file"
    for kind in WRITE_FAULTS:
        fault_proxy.fail(kind, method="PUT")
        write_atomic(file, data := kind.encode() * 1000)
        for broken in READ_FAULTS:  # One cut to the length that it claims is found by the checksum that S3 keeps.
            fault_proxy.fail(broken, method="GET")
            assert read_bytes(file) == data
    assert sum(fault_proxy.traffic().faults.values()) == len(WRITE_FAULTS) * (1 + len(READ_FAULTS))


@pytest.mark.slow
def test_a_store_that_is_away_for_a_while(s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    file = locate(s3.url) / "file"
    write_atomic(file, b"old")
    fault_proxy.away(2)
    write_atomic(file, b"new")
    fault_proxy.away(0.3)
    assert read_bytes(file) == b"new"
    fault_proxy.away(0.3)
    assert create_exclusive(locate(s3.url) / "claim", b"mine")


def test_retries_end_with_one_message(s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, retry_seconds=0.2)
    file = locate(s3.url) / "file"
    write_atomic(file, b"data")
    fault_proxy.plan(rate=1, kinds=["slow_down"], seed=0)
    calls: list[Callable[[], object]] = [
        lambda: read_range(file, 0, 4),
        lambda: read_bytes(file),
        lambda: write_atomic(file, b"new"),
        lambda: create_exclusive(file, b"new"),
        lambda: exists(file),
        lambda: is_folder(file),
        lambda: names(file),
        lambda: delete(file),
        lambda: delete_folder(file),
    ]
    for call in calls:
        with pytest.raises(
            StorageTimeoutError, match=rf"{file}: gave up after \d+ tries in 0\.2 s; the last time: .*SlowDown"
        ):
            call()
    fault_proxy.away()
    for call in (lambda: read_range(file, 0, 4), lambda: names(file)):
        with pytest.raises(StorageTimeoutError, match=rf"{file}: gave up .*Could not connect") as error:
            call()
    assert not any(secret in str(error.value) for secret in CREDENTIALS.values())


def test_what_will_not_pass_is_said_at_once(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault_proxy.plan(rate=1, kinds=["denied"], seed=0)
    file = locate(s3.url) / "file"
    for call in (lambda: read_range(file, 0, 4), lambda: write_atomic(file, b"new"), lambda: names(file)):
        with pytest.raises(StorageError, match=rf"{file}: access denied") as error:
            call()
        assert not any(secret in str(error.value) for secret in CREDENTIALS.values())
    assert fault_proxy.traffic().count() == 3
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    S3FileSystem.clear_instance_cache()
    asks: list[Callable[[], object]] = [lambda: read_bytes(file), lambda: exists(file), lambda: names(file)]
    for ask in asks:
        with pytest.raises(StorageError, match=rf"{file}: .*credentials.*AWS_ACCESS_KEY_ID"):
            ask()
    S3FileSystem.clear_instance_cache()
