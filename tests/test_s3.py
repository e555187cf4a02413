"""The S3 server and proxy of the tests: the seed decides which requests fail; a remembered object is never stale."""

import pytest

from genlab.core.errors import StorageError
from genlab.core.storage import locate, read_bytes, read_range, write_atomic
from tests.s3 import READ_FAULTS, Bucket, FaultProxy, hurry


@pytest.mark.slow
def test_faults_do_not_depend_on_the_order_of_requests(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    file = locate(s3.url) / "file"
    write_atomic(file, bytes(40))

    def faults(order: range) -> dict[str, int]:
        fault_proxy.reset()
        fault_proxy.plan(rate=0.4, kinds=[kind for kind in READ_FAULTS if kind != "stall"], seed=3)
        for i in order:
            read_range(file, i, 1)
        return fault_proxy.traffic().faults

    assert sum(faults(range(40)).values()) > 5
    assert faults(range(40)) == faults(range(39, -1, -1))


def test_a_plan_breaks_only_what_it_names(s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, retry_seconds=0.2)
    for name in ("one", "two"):
        write_atomic(locate(s3.url) / name, b"data")
    fault_proxy.plan(rate=1, kinds=["error"], seed=0, method="GET", path="/one")
    write_atomic(locate(s3.url) / "one", b"data")
    assert read_bytes(locate(s3.url) / "two") == b"data"
    with pytest.raises(StorageError):
        read_bytes(locate(s3.url) / "one")
    traffic = fault_proxy.traffic()
    assert traffic.faults == {"error": traffic.count("GET", "/one")}
    assert traffic.sent("GET", "/two") == 4


def test_what_is_remembered_is_answered_like_the_server_does(s3: Bucket, fault_proxy: FaultProxy) -> None:
    file = locate(s3.url) / "file"
    fault_proxy.remember()
    for data in (b"0123456789", b"abcdef"):
        write_atomic(file, data)
        for _ in range(2):
            assert read_range(file, 2, 3) == data[2:5]
            assert read_bytes(file) == data
            with pytest.raises(EOFError):
                read_range(file, 8, 3)
            with pytest.raises(EOFError):
                read_range(file, 10, 1)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read_bytes(file)


def test_away_until_it_is_back(s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, retry_seconds=0.2)
    file = locate(s3.url) / "file"
    fault_proxy.away()
    with pytest.raises(StorageError, match="gave up"):
        write_atomic(file, b"data")
    fault_proxy.back()
    write_atomic(file, b"data")
    assert read_bytes(file) == b"data"
