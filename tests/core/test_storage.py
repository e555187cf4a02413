"""Paths, URLs and files: what a reader sees is the old file, the new one, or one clear message."""

import asyncio
import errno
import gc
import multiprocessing
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3fs import S3FileSystem
from upath import UPath

from genlab.core import storage
from genlab.core.errors import ConfigError, GenlabError, StorageError
from genlab.core.storage import (
    JOB_ENV,
    AtomicFile,
    create_exclusive,
    is_remote,
    json_bytes,
    locate,
    read_bytes,
    read_json,
    read_range,
    require_absolute,
    write_atomic,
    write_json,
)
from tests.s3 import CREDENTIALS, READ_FAULTS, WRITE_FAULTS, Bucket, FaultProxy, hurry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(locate("data/monet")) == str(tmp_path / "data" / "monet")
    assert str(locate("~/runs")) == "/home/someone/runs"
    assert str(locate("file:///data/monet")) == str(locate(Path("/data/monet"))) == "/data/monet"
    assert locate(locate("data")) == locate("data")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert str(locate("link/../data")) == str(tmp_path / "far" / "data"), "where the file system would find it"


def test_urls_stay_urls() -> None:
    for url in ("s3://bucket/runs", "memory://runs"):
        assert str(locate(url)) == url
        assert is_remote(url)
        assert is_remote(locate(url))
    for path in ("/data", "data", "file:///data", "local:///data", locate("data")):
        assert not is_remote(path)


def test_only_a_job_refuses_a_relative_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB_ENV, raising=False)
    require_absolute("data.a", "monet")
    monkeypatch.setenv(JOB_ENV, "{}")
    for url in ("/data/monet", "~/monet", "s3://bucket/monet"):
        require_absolute("data.a", url)
    with pytest.raises(ConfigError, match=r"data\.a='monet' is a relative path.*data\.a=\"\$PWD/monet\""):
        require_absolute("data.a", "monet")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = locate(tmp_path / "new" / "folder" / "file")
    write_atomic(file, b"old")
    write_atomic(file, memoryview(b"newer"))
    assert file.read_bytes() == b"newer"
    assert [path.name for path in file.parent.iterdir()] == ["file"]

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(file, b"half of it")
    assert file.read_bytes() == b"newer"


@pytest.mark.parametrize("url", ["{}", "memory://test-storage"])
def test_a_file_is_created_once(tmp_path: Path, url: str) -> None:
    file = locate(url.format(tmp_path)) / "new" / f"claim-{tmp_path.name}"
    assert create_exclusive(file, b"first")
    assert not create_exclusive(file, b"second")
    assert file.read_bytes() == b"first"


@pytest.mark.parametrize("url", ["{}", "memory://test-storage"])
def test_a_file_written_in_parts_comes_whole_or_not_at_all(tmp_path: Path, url: str) -> None:
    directory = locate(url.format(tmp_path)) / f"parts-{tmp_path.name}"
    for name, end in (("whole", AtomicFile.commit), ("dropped", AtomicFile.drop)):
        file = AtomicFile(directory / name)
        file.write(b"one ")
        file.write(memoryview(b"two"))
        assert not (directory / name).exists()
        end(file)
        file.drop()
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {"whole": b"one two"}


def test_files_of_an_object_store() -> None:
    file = locate("memory://test-storage/deep/file.json")
    write_json(file, {"a": 1})
    assert read_json(file) == {"a": 1}
    assert [path.name for path in UPath("memory://test-storage/deep").iterdir()] == ["file.json"]


@given(JSON)
@settings(max_examples=20)  # each is synced to the disk
def test_json_survives_the_way_to_a_file_and_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    file = locate(tmp_path_factory.getbasetemp() / "value.json")
    write_json(file, value)
    assert read_json(file) == value
    assert file.read_bytes() == json_bytes(value)


def test_a_json_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match=r"config\.json: no such file"):
        read_json(locate(tmp_path / "config.json"))
    for number, damaged in enumerate((b'{"half": ', b"\x80 not UTF-8", b"")):
        file = locate(tmp_path / f"{number}.json")
        file.write_bytes(damaged)
        with pytest.raises(GenlabError, match=rf"{number}\.json: not valid JSON"):
            read_json(file)


def noise(size: int) -> bytes:
    """Bytes of which no two stretches are alike."""
    return np.random.default_rng(0).bytes(size)


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    """An empty folder on each kind of file system."""
    if request.param == "s3":
        return locate(request.getfixturevalue("s3").url)
    return locate(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")


def test_ranges_are_exactly_what_was_asked_for(folder: UPath) -> None:
    data = noise(1000)
    write_atomic(folder / "file", data)
    assert read_bytes(folder / "file") == data
    for offset, length in ((0, 1000), (0, 1), (1, 998), (999, 1), (500, 0), (1000, 0)):
        assert read_range(folder / "file", offset, length) == data[offset : offset + length]
    for offset, length in ((0, 1001), (999, 2), (1000, 1), (5000, 10)):
        with pytest.raises(EOFError, match="file: ends before byte"):
            read_range(folder / "file", offset, length)
    for missing in (lambda: read_range(folder / "no", 0, 1), lambda: read_bytes(folder / "no")):
        with pytest.raises(FileNotFoundError, match="no"):
            missing()
    write_atomic(folder / "empty", b"")
    assert read_bytes(folder / "empty") == b""


def test_of_two_who_create_a_file_the_first_wins(folder: UPath) -> None:
    assert create_exclusive(folder / "claim", b"first")
    assert not create_exclusive(folder / "claim", b"second")
    assert not create_exclusive(folder / "claim", b"first"), "the same content is not the same claim"
    assert read_bytes(folder / "claim") == b"first"
    assert [path.name for path in folder.iterdir()] == ["claim"]


def claim(url: str, number: int, start: "multiprocessing.synchronize.Barrier", won: "multiprocessing.Queue") -> None:
    path = locate(url)
    with suppress(FileNotFoundError):
        read_bytes(path / "nothing")  # The client is made before the race.
    start.wait()
    won.put([number if create_exclusive(path / str(i), str(number).encode()) else None for i in range(10)])


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_of_several_processes_that_create_a_file_one_wins(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = request.getfixturevalue("s3").url if kind == "s3" else str(tmp_path)
    hurry(monkeypatch)  # the forked processes inherit it
    fork = multiprocessing.get_context("fork")
    start, won = fork.Barrier(3), fork.Queue()
    racers = [fork.Process(target=claim, args=(url, number, start, won)) for number in range(3)]
    for racer in racers:
        racer.start()
    results = [won.get(timeout=240) for _ in racers]
    for racer in racers:
        racer.join()
    for i, winners in enumerate(zip(*results, strict=True)):
        (winner,) = [number for number in winners if number is not None]
        assert read_bytes(locate(url) / str(i)) == str(winner).encode()


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert create_exclusive(locate(tmp_path / "claim"), b"first")
    assert not create_exclusive(locate(tmp_path / "claim"), b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["claim"]


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


def test_ranges_are_right_whatever_the_store_does(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    file, size = locate(s3.url) / "file", 4096
    data = noise(200 * size)
    write_atomic(file, data)
    fault_proxy.plan(rate=0.5, kinds=READ_FAULTS, seed=1)
    with ThreadPoolExecutor(16) as pool:
        for i, part in enumerate(pool.map(lambda i: read_range(file, i * size, size), range(200))):
            assert part == data[i * size : (i + 1) * size]
    faults = fault_proxy.traffic().faults
    assert sum(faults.values()) >= 100
    assert set(faults) == set(READ_FAULTS)


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


def test_a_long_upload_survives_faults_in_every_part(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(storage, "PART_BYTES", 5 * 2**20)  # S3 takes no shorter ones.
    file, data = locate(s3.url) / "file", noise(16 * 2**20 + 1)
    steps = {"begin": ("POST", "?uploads"), "a part": ("PUT", "partNumber=2"), "end": ("POST", "?uploadId")}
    for method, path in steps.values():
        for kind in WRITE_FAULTS:
            fault_proxy.fail(kind, method=method, path=path)
    write_atomic(file, memoryview(data))
    assert read_bytes(file) == data
    faults = fault_proxy.traffic().faults
    # When the answer to the end is lost, the object is found to be there, and there is nothing more to break.
    assert faults == {**dict.fromkeys(WRITE_FAULTS, 3), "stall": 2}
    assert fault_proxy.traffic().count("DELETE") == 0


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


def test_patience_ends_with_one_message(s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, patience=0.2)
    file = locate(s3.url) / "file"
    write_atomic(file, b"data")
    fault_proxy.plan(rate=1, kinds=["slow_down"], seed=0)
    calls: list[Callable[[], object]] = [
        lambda: read_range(file, 0, 4),
        lambda: read_bytes(file),
        lambda: write_atomic(file, b"new"),
        lambda: create_exclusive(file, b"new"),
    ]
    for call in calls:
        with pytest.raises(
            StorageError, match=rf"{file}: gave up after \d+ tries in 0\.2 s; the last time: .*SlowDown"
        ):
            call()
    fault_proxy.away()
    with pytest.raises(StorageError, match=rf"{file}: gave up .*Could not connect") as error:
        read_range(file, 0, 4)
    assert not any(secret in str(error.value) for secret in CREDENTIALS.values())


def test_what_will_not_pass_is_said_at_once(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault_proxy.plan(rate=1, kinds=["denied"], seed=0)
    file = locate(s3.url) / "file"
    for call in (lambda: read_range(file, 0, 4), lambda: write_atomic(file, b"new")):
        with pytest.raises(StorageError, match=rf"{file}: access denied") as error:
            call()
        assert not any(secret in str(error.value) for secret in CREDENTIALS.values())
    assert fault_proxy.traffic().count() == 2
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=rf"{file}: .*credentials.*AWS_ACCESS_KEY_ID"):
        read_range(file, 0, 4)
    S3FileSystem.clear_instance_cache()


def test_credentials_in_a_url_are_refused() -> None:
    for url in ("s3://key:secret@bucket/x", "s3://key:se/secret@bucket/x", "https://user:secret@host/x"):
        with pytest.raises(ConfigError, match="credentials") as error:
            locate(url)
        assert "secret" not in str(error.value)
    assert locate("s3://bucket/me@home").name == "me@home"


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
