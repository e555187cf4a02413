"""Paths, URLs and files: what a reader sees is the old file, the new one, or one clear message."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from genlab.errors import ConfigError, GenlabError
from genlab.storage import (
    JOB_ENV,
    AtomicFile,
    create_exclusive,
    is_remote,
    json_bytes,
    locate,
    read_json,
    require_absolute,
    write_atomic,
    write_json,
)

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
