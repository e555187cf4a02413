"""Paths, URLs and files: what a reader sees is the old file, the new one, or one clear message."""

import errno
import multiprocessing
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from genlab.core.errors import ConfigError, GenlabError
from genlab.core.storage import (
    JOB_ENV,
    AtomicFile,
    create_exclusive,
    delete,
    delete_folder,
    is_folder,
    is_remote,
    json_bytes,
    list_folder,
    locate,
    names,
    read_bytes,
    read_json,
    read_range,
    require_absolute,
    write_atomic,
    write_json,
)
from tests.s3 import hurry

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


def test_folders_are_listed_and_deleted_whatever_their_names_are(storage_folder: UPath) -> None:
    """``[``, ``*`` and ``?`` in the name of a run are no pattern, which others would match."""
    for run in ("run[1]", "run*", "run1"):
        for file in ("a.json", "step-1/a.png", "step-2/deep/b.png"):
            write_atomic(storage_folder / run / file, b"x")
    assert names(storage_folder) == ["run*", "run1", "run[1]"]
    assert list_folder(storage_folder / "run[1]") == {"a.json": False, "step-1": True, "step-2": True}
    assert names(storage_folder / "run[1]", "step-") == ["step-1", "step-2"]
    assert names(storage_folder / "run[1]", "other") == names(storage_folder / "none") == []
    with pytest.raises(FileNotFoundError, match="none"):
        list_folder(storage_folder / "none")
    assert is_folder(storage_folder / "run[1]" / "step-2")
    assert not is_folder(storage_folder / "run[1]" / "a.json")
    assert not is_folder(storage_folder / "run")
    delete(storage_folder / "run[1]" / "a.json")
    delete(storage_folder / "run[1]" / "a.json")
    assert names(storage_folder / "run[1]") == ["step-1", "step-2"]
    for _ in range(2):
        delete_folder(storage_folder / "run[1]")
        delete_folder(storage_folder / "run*")
    assert names(storage_folder) == ["run1"]
    assert names(storage_folder / "run1") == ["a.json", "step-1", "step-2"]


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
def storage_folder(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    """An empty folder on each kind of file system."""
    if request.param == "s3":
        return locate(request.getfixturevalue("s3").url)
    return locate(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")


def test_ranges_are_exactly_what_was_asked_for(storage_folder: UPath) -> None:
    data = noise(1000)
    write_atomic(storage_folder / "file", data)
    assert read_bytes(storage_folder / "file") == data
    for offset, length in ((0, 1000), (0, 1), (1, 998), (999, 1), (500, 0), (1000, 0)):
        assert read_range(storage_folder / "file", offset, length) == data[offset : offset + length]
    for offset, length in ((0, 1001), (999, 2), (1000, 1), (5000, 10)):
        with pytest.raises(EOFError, match="file: ends before byte"):
            read_range(storage_folder / "file", offset, length)
    for missing in (lambda: read_range(storage_folder / "no", 0, 1), lambda: read_bytes(storage_folder / "no")):
        with pytest.raises(FileNotFoundError, match="no"):
            missing()
    write_atomic(storage_folder / "empty", b"")
    assert read_bytes(storage_folder / "empty") == b""


def test_of_two_who_create_a_file_the_first_wins(storage_folder: UPath) -> None:
    assert create_exclusive(storage_folder / "claim", b"first")
    assert not create_exclusive(storage_folder / "claim", b"second")
    assert not create_exclusive(storage_folder / "claim", b"first"), "the same content is not the same claim"
    assert read_bytes(storage_folder / "claim") == b"first"
    assert [path.name for path in storage_folder.iterdir()] == ["claim"]


def claim(url: str, number: int, start: "multiprocessing.synchronize.Barrier", won: "multiprocessing.Queue") -> None:
    path = locate(url)
    with suppress(FileNotFoundError):
        read_bytes(path / "nothing")  # The client is made before the race.
    start.wait()
    won.put([number if create_exclusive(path / str(i), str(number).encode()) else None for i in range(10)])


@pytest.mark.slow
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


def test_credentials_in_a_url_are_refused() -> None:
    for url in ("s3://key:secret@bucket/x", "s3://key:se/secret@bucket/x", "https://user:secret@host/x"):
        with pytest.raises(ConfigError, match="credentials") as error:
            locate(url)
        assert "secret" not in str(error.value)
    assert locate("s3://bucket/me@home").name == "me@home"
