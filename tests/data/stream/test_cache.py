"""The disk cache: what comes out is what went in, and the bound holds whoever is killed."""

import fcntl
import hashlib
import logging
import multiprocessing
import os
import random
import resource
import signal
from pathlib import Path

import pytest

from genlab.data.stream.cache import ENTRIES, LOCK, BlockCache

PAGE = 4096


def content(name: str) -> bytes:
    """What is kept under ``name`` in these tests: 1 B to 40 KB."""
    dice = random.Random(name)
    return dice.randbytes(dice.randint(1, 40_000))


def held(directory: Path) -> int:
    """The bytes, in whole pages, of all entries of a cache, those being written among them."""
    with (directory / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sizes = [file.stat().st_size for file in (directory / ENTRIES).glob("*/*")]
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "new" / "cache", 10 * PAGE)
    assert cache.get("abc") is None
    cache.put("abc", b"one")
    cache.put("abd", memoryview(b"two"))
    cache.put("empty-0_", b"")
    assert [cache.get(name) for name in ("abc", "abd", "empty-0_")] == [b"one", b"two", b""]
    assert BlockCache(tmp_path / "new" / "cache", 10 * PAGE).get("abc") == b"one", "it outlives its process"
    for name in ("", "../../etc/passwd", "a/b", "a.partial"):
        with pytest.raises(ValueError, match="not a name"):
            cache.get(name)


def test_the_least_recently_used_gives_way(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 3 * PAGE)
    for name in ("aaa", "bbb", "ccc"):
        cache.put(name, b"x" * PAGE)
        cache.get(name)
    cache.get("aaa")
    cache.put("ddd", b"x" * PAGE)
    assert [name for name in ("aaa", "bbb", "ccc", "ddd") if cache.get(name)] == ["aaa", "ddd"]
    cache.put("big", b"x" * (3 * PAGE + 1))
    assert [name for name in ("aaa", "ddd", "big") if cache.get(name)] == ["aaa", "ddd"], "what never fits does no harm"


def test_passes_hit_what_is_held_and_what_other_work_left_gives_way(tmp_path: Path) -> None:
    """Half of 40 blocks fit. The cache is full of another data set at first."""
    before = BlockCache(tmp_path, 20 * PAGE)
    for number in range(20):
        before.put(f"other-{number}", b"x" * PAGE)
    cache, dice = BlockCache(tmp_path, 20 * PAGE), random.Random(0)
    hits = []
    for _ in range(8):
        cache.next_pass()
        names = [f"block-{number}" for number in range(40)]
        dice.shuffle(names)
        hits.append(0)
        for name in names:
            if cache.get(name) is None:
                cache.put(name, b"x" * PAGE)
            else:
                hits[-1] += 1
        assert held(tmp_path) <= 20 * PAGE
    assert hits[:3] == [0, 0, 0]
    assert min(hits[3:]) >= 18, "nine tenths of the cache, as it frees a tenth at a time"
    resumed = BlockCache(tmp_path, 20 * PAGE)
    resumed.next_pass()
    for name in ("block-40", "block-41", "block-42"):
        resumed.put(name, b"x" * PAGE)
    assert sum(resumed.get(f"block-{number}") is not None for number in range(40)) >= hits[-1]


def test_a_damaged_entry_is_replaced(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 10 * PAGE)
    cache.put("abc", b"right")
    (file,) = (tmp_path / ENTRIES).glob("*/*")
    file.write_bytes(b"wro")
    assert cache.get("abc") == b"wro", "its reader compares checksums"
    cache.discard("abc")
    cache.discard("abc")
    assert cache.get("abc") is None
    cache.put("abc", b"right")
    assert cache.get("abc") == b"right"


def test_a_cache_made_smaller_or_left_untidy(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 10 * PAGE)
    for i in range(10):
        cache.put(f"name-{i}", b"x" * PAGE)
    (tmp_path / ENTRIES / "na" / "name-x.0.partial").write_bytes(b"half of what a killed process wrote")
    (tmp_path / LOCK).write_bytes(b"")
    cache.put("another", b"x" * PAGE)
    assert cache.get("another")
    assert held(tmp_path) <= 10 * PAGE
    (tmp_path / ENTRIES / "na" / "name-x.0.partial").write_bytes(b"half of what a killed process wrote")
    BlockCache(tmp_path, 4 * PAGE)
    assert 0 < held(tmp_path) <= 4 * PAGE
    assert not list(tmp_path.glob("**/*.partial"))


def test_a_cache_that_cannot_be_made_is_as_good_as_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = BlockCache(tmp_path / "file" / "cache", 10 * PAGE)
    for _ in range(2):
        cache.put("abc", b"data")
        assert cache.get("abc") is None
    (warning,) = caplog.records
    assert "cannot be used (" in warning.message


def fill_a_full_disk(directory: Path) -> None:
    cache = BlockCache(directory, 1000 * PAGE)
    cache.put("before", b"x" * PAGE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PAGE, resource.RLIM_INFINITY))
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[assignment]
    logging.getLogger("genlab.data.stream.cache").addHandler(handler)
    for i in range(3):
        cache.put(f"name-{i}", b"x" * 3 * PAGE)
        assert cache.get(f"name-{i}") is None
    assert cache.get("before") == b"x" * PAGE
    assert len(said) == 1


def test_a_full_disk_fails_no_read(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=fill_a_full_disk, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert not list(tmp_path.glob("**/*.partial"))


def hammer(directory: Path, bound: int, seed: int, steps: int) -> None:
    cache, dice = BlockCache(directory, bound), random.Random(seed)
    for _ in range(steps):
        name = hashlib.sha256(b"%d" % dice.randrange(60)).hexdigest()
        found = cache.get(name)
        assert found in (None, content(name))
        if found is None:
            cache.put(name, content(name))
        elif dice.random() < 0.05:
            cache.discard(name)


@pytest.mark.slow
def test_several_processes_share_a_cache_and_some_are_killed(tmp_path: Path) -> None:
    bound, dice, fork = 600_000, random.Random(0), multiprocessing.get_context("fork")
    BlockCache(tmp_path, bound)

    def start(seed: int, steps: int) -> multiprocessing.process.BaseProcess:
        process = fork.Process(target=hammer, args=(tmp_path, bound, seed, steps))
        process.start()
        return process

    finishing = [start(seed, 400) for seed in range(3)]
    fullest = 0
    for seed in range(10, 22):
        doomed = start(seed, 10**9)
        for _ in range(dice.randrange(10)):
            fullest = max(fullest, held(tmp_path))
        assert doomed.pid is not None
        os.kill(doomed.pid, signal.SIGKILL)
        doomed.join()
    for process in finishing:
        process.join()
        assert process.exitcode == 0
    assert fullest <= bound
    assert bound / 2 < held(tmp_path) <= bound
    BlockCache(tmp_path, bound)
    assert not list(tmp_path.glob("**/*.partial"))
    assert held(tmp_path) <= bound
    left = list((tmp_path / ENTRIES).glob("*/*"))
    assert all(file.read_bytes() == content(file.name) for file in left)
