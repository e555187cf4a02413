"""Updates of one file by several at once: none is lost, on a disk, on S3 and in a store without either's means."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genlab.core import updates
from genlab.core.claims import ClaimError, claimed
from genlab.core.storage import locate, read_bytes
from genlab.core.updates import update
from tests.s3 import Bucket, FaultProxy, hurry


@pytest.fixture(params=["disk", "memory", "s3"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("s3")
        return f"{bucket.url}/folder/file"
    if request.param == "memory":
        return f"memory://bucket-{secrets.token_hex(8)}/folder/file"
    return str(tmp_path / "folder" / "file")


def more(content: bytes | None) -> bytes:
    return (content or b"") + b"x"


@pytest.mark.slow
def test_of_many_updates_at_once_none_is_lost(file: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: update(locate(file), "counting", more), range(6)))
    assert read_bytes(locate(file)) == b"x" * 6
    assert [path.name for path in locate(file).parent.iterdir()] == ["file"]


def test_a_change_to_none_or_that_fails_leaves_the_file_as_it_is(file: str) -> None:
    def fail(content: bytes | None) -> bytes:
        raise ValueError(str(content))

    with pytest.raises(ValueError, match="None"):
        update(locate(file), "counting", fail)
    update(locate(file), "counting", lambda _: None)
    assert not locate(file).exists()
    update(locate(file), "counting", more)
    update(locate(file), "counting", lambda _: None)
    with pytest.raises(ValueError, match="b'x'"):
        update(locate(file), "counting", fail)
    assert read_bytes(locate(file)) == b"x"


def test_an_update_whose_answer_is_lost_is_made_once(
    s3: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    file = locate(s3.url) / "file"
    for expected in (b"x", b"xx", b"xxx"):
        fault_proxy.fail("lost", method="PUT")
        update(file, "counting", more)
        assert read_bytes(file) == expected
    fault_proxy.reset()
    update(file, "counting", more)
    assert (fault_proxy.traffic().count("GET"), fault_proxy.traffic().count()) == (1, 2)


def test_an_object_that_is_deleted_meanwhile_is_made_anew(s3: Bucket) -> None:
    file, seen = locate(s3.url) / "file", list[bytes | None]()

    def change(content: bytes | None) -> bytes:
        seen.append(content)
        if content is not None:
            file.unlink()
        return more(content)

    update(file, "counting", change)
    update(file, "counting", change)
    assert seen == [None, b"x", None]
    assert read_bytes(file) == b"x"


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_others_who_never_end_are_not_waited_for_for_ever(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "WAIT_SECONDS", 0.2)
    if place == "disk":
        with claimed(locate(tmp_path), "counting", "x"), pytest.raises(ClaimError, match="another counting is at work"):
            update(locate(tmp_path / "file"), "counting", more)
        return
    file = locate(request.getfixturevalue("s3").url) / "file"
    number = iter(range(10_000))

    def overtaken(content: bytes | None) -> bytes:
        file.write_bytes(b"other %d" % next(number))
        return b"mine"

    file.write_bytes(b"first")
    with pytest.raises(ClaimError, match="other processes change it all the time"):
        update(file, "counting", overtaken)
    assert read_bytes(file).startswith(b"other")
