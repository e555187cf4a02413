"""Requests to S3: how many, by which client, and what a long upload and a claim survive."""

import asyncio
import gc
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.fs
import pytest
from s3fs import S3FileSystem
from upath import UPath

from genlab.core import s3 as s3_requests
from genlab.core.storage import (
    AtomicFile,
    create_exclusive,
    is_folder,
    json_bytes,
    list_folder,
    locate,
    names,
    read_bytes,
    read_json,
    read_range,
    walk_remote,
    write_atomic,
    write_json,
)
from tests.s3 import CREDENTIALS, WRITE_FAULTS, Bucket, FaultProxy, hurry


def test_reads_and_writes_are_one_request_each(s3: Bucket, fault_proxy: FaultProxy) -> None:
    file = locate(s3.url) / "file"
    write_json(file, [1, 2, 3])
    read_range(file, 2, 4)
    assert read_json(file) == [1, 2, 3]
    create_exclusive(locate(s3.url) / "claim", b"")
    traffic = fault_proxy.traffic()
    assert traffic.count("GET", "/file") == 2
    assert traffic.sent("GET", "/file") == 4 + len(json_bytes([1, 2, 3]))
    assert traffic.count() == 4


def test_a_file_written_in_parts_survives_faults_of_its_upload(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    fault_proxy.fail("cut", times=2, method="PUT")
    file = AtomicFile(locate(s3.url) / "file")
    file.write(b"one ")
    file.write(b"two")
    file.commit()
    assert read_bytes(locate(s3.url) / "file") == b"one two"
    assert fault_proxy.traffic().faults == {"cut": 2}


@pytest.mark.parametrize(("keys", "ranges"), [(1000, 4), (3, 1), (3, 4), (1, 100)])
def test_a_list_has_each_object_once_however_it_is_divided(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, keys: int, ranges: int
) -> None:
    folders = ("b/", "c/d/", "c/e/f/", "é ü/")
    names = ["a.jpg", "z.jpg", *(f"{folder}{number}.jpg" for folder in folders for number in "123")]
    for number, name in enumerate(names):
        write_atomic(locate(f"{s3.url}/photos/{name}"), bytes(number))
    for other in ("photos.txt", "photos2/x.jpg"):
        write_atomic(locate(f"{s3.url}/{other}"), b"")
    locate(s3.url).fs.call_s3("put_object", Bucket=s3.name, Key="photos/c/")  # a folder, as consoles make it
    monkeypatch.setattr(s3_requests, "LISTED_AT_ONCE", keys)
    monkeypatch.setattr(s3_requests, "LISTED_RANGES", ranges)
    before = fault_proxy.traffic().count("GET")
    assert sorted(walk_remote(locate(f"{s3.url}/photos"))) == sorted((name, size) for size, name in enumerate(names))
    assert keys < len(names) or fault_proxy.traffic().count("GET") == before + 1
    assert len(list(walk_remote(locate(s3.url)))) == len(names) + 2


def test_a_folder_of_more_names_than_one_request_lists(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_requests, "LISTED_AT_ONCE", 2)
    for name in ("a", "b/1", "b/2", "b/3", "c/d/1", "e"):
        write_atomic(locate(f"{s3.url}/runs/{name}"), b"")
    locate(s3.url).fs.call_s3("put_object", Bucket=s3.name, Key="runs/")  # a folder, as consoles make it
    assert list_folder(locate(f"{s3.url}/runs")) == {"a": False, "b": True, "c": True, "e": False}
    assert names(locate("s3://no-such-bucket/runs")) == []
    assert not is_folder(locate("s3://no-such-bucket/runs"))


@pytest.mark.slow
def test_a_list_outlasts_a_failing_store(s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(s3_requests, "LISTED_AT_ONCE", 2)
    names = [f"{number % 3}/{number:02d}.jpg" for number in range(20)]
    for name in names:
        write_atomic(locate(f"{s3.url}/photos/{name}"), b"x")
    fault_proxy.plan(rate=0.3, kinds=("error", "slow_down", "cut", "stall"), seed=7, method="GET")
    assert sorted(name for name, _ in walk_remote(locate(f"{s3.url}/photos"))) == sorted(names)
    assert fault_proxy.traffic().faults


@pytest.mark.slow
def test_a_long_upload_survives_faults_in_every_part(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(s3_requests, "PART_BYTES", 5 * 2**20)  # S3 takes no shorter ones.
    file, data = locate(s3.url) / "file", np.random.default_rng(0).bytes(16 * 2**20 + 1)
    steps = {"begin": ("POST", "?uploads"), "a part": ("PUT", "partNumber=2"), "end": ("POST", "?uploadId")}
    for step, (method, path) in steps.items():
        for kind in WRITE_FAULTS:
            # Once the answer to the end is lost, the object is found to be there: no further request could stall.
            if (step, kind) != ("end", "stall"):
                fault_proxy.fail(kind, method=method, path=path)
    write_atomic(file, memoryview(data))
    assert read_bytes(file) == data
    assert fault_proxy.traffic().faults == {**dict.fromkeys(WRITE_FAULTS, 3), "stall": 2}
    assert fault_proxy.traffic().count("DELETE") == 0


def test_a_lost_answer_does_not_lose_a_claim(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    claim = locate(s3.url) / "claim"
    fault_proxy.fail("lost", method="PUT")
    assert create_exclusive(claim, b"mine")
    assert not create_exclusive(claim, b"mine")
    fault_proxy.fail("lost", method="PUT")
    assert not create_exclusive(claim, b"other")
    assert read_bytes(claim) == b"mine"


@pytest.mark.slow
def test_other_operations_outlast_a_failing_store_too(s3: Bucket, fault_proxy: FaultProxy) -> None:
    folder = locate(s3.url) / "folder"
    write_atomic(folder / "file", b"data")
    for kind in ("error", "slow_down", "cut"):
        fault_proxy.fail(kind)
        assert [path.name for path in folder.iterdir()] == ["file"]
    ray_sees = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(pickle.loads(pickle.dumps(folder.fs))))
    fault_proxy.fail("error")
    with ray_sees.open_input_stream(f"{folder.path}/file") as stream:
        assert stream.read() == b"data"


def test_one_client_serves_all_paths_and_threads(s3: Bucket) -> None:
    file = locate(s3.url) / "file"
    write_atomic(file, b"data")
    made = S3FileSystem._cache.copy()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda i: read_range(locate(f"{s3.url}/file"), 0, 4), range(64))) == {b"data"}
    assert S3FileSystem._cache == made
    assert not any(secret in repr((file, file.storage_options)) for secret in CREDENTIALS.values())


def read_and_collect(file: UPath) -> None:
    """Collect garbage where s3fs would close what it finds: in the thread of its event loop."""
    assert read_range(file, 0, 4) == b"data"

    async def collect() -> None:
        gc.collect()
        await asyncio.sleep(0.2)  # it would only begin to close them

    asyncio.run_coroutine_threadsafe(collect(), file.fs.loop).result()


def test_a_forked_process_reads_on_and_leaves_its_parent_in_peace(s3: Bucket, fault_proxy: FaultProxy) -> None:
    file = locate(s3.url) / "file"
    write_atomic(file, b"data")
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=read_and_collect, args=(locate(s3.url) / "file",))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert read_range(file, 0, 4) == b"data"
    assert fault_proxy.traffic().count("GET", "/file") == 2, "the parent had to ask twice"
