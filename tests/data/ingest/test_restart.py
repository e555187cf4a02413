"""What a killed, refused or failed ingest leaves behind, and how the next one goes on."""

import contextlib
import dataclasses
import multiprocessing
import random
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.core import claims
from genlab.core.claims import ClaimError
from genlab.core.errors import DataError
from genlab.core.storage import locate, write_atomic
from genlab.data.format.manifest import Manifest
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from tests.data.ingest.children import ingest_and_die, ingest_and_wait, ingest_little, ingest_with_others

KILLS = 20

# Children are forked from a clean process that has imported all they need: no second of imports for each.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["tests.data.ingest.children"])


@pytest.fixture
def ingest_config(tmp_path: Path) -> IngestConfig:
    """Twenty-four pictures in a folder, to be seven shards of two splits."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "photos" / f"{number:02d}.png")
    size = sum(file.stat().st_size for file in (tmp_path / "photos").iterdir()) / 5.5
    return IngestConfig(str(tmp_path / "photos"), str(tmp_path / "data"), shard_size=size / 2**20, test_fraction=0.2)


def files(directory: str | Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(directory).iterdir()}


def records(directory: str | Path) -> dict[str, tuple[int, int]]:
    """The shards with a record, and what changes if they are written again."""
    shards = [file.with_suffix(".arrow") for file in Path(directory).glob("shard-*.json")]
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in shards}


def killed(ingest_config: IngestConfig, moment: int) -> tuple[int, int]:
    """Exit code of such a process, and how often it touched DEST."""
    counted = SPAWN.Value("i", 0)
    process = SPAWN.Process(target=ingest_and_die, args=(ingest_config, moment, counted))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, counted.value


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_no_lie_and_goes_on_with_what_is_missing(ingest_config: IngestConfig) -> None:
    code, moments = killed(ingest_config, 0)
    assert code == 0
    unbroken = files(ingest_config.dest)
    assert len(unbroken) > 6
    kept = 0
    for number, moment in enumerate(random.Random(4).sample(range(1, moments + 1), KILLS)):
        again = dataclasses.replace(ingest_config, dest=f"{ingest_config.dest}-{number}")
        assert killed(again, moment)[0] == -signal.SIGKILL
        if Path(again.dest, "manifest.json").exists():
            ShardSet.open(again.dest).verify()
        before = records(again.dest) if Path(again.dest).exists() else {}
        done = Path(again.dest, "manifest.json").exists() and not Path(again.dest, "ingest.json").exists()
        with pytest.raises(DataError, match="holds a data set already") if done else contextlib.nullcontext():
            ingest(again)
        for shard, identity in before.items():
            file = Path(again.dest, shard)
            assert (file.stat().st_ino, file.stat().st_mtime_ns) == identity, f"{shard} was made again"
        kept += len(before)
        assert files(again.dest) == unbroken, f"after a kill at moment {moment}"
    assert kept > KILLS // 2


@pytest.mark.slow
def test_killed_again_and_again_it_comes_to_its_end(ingest_config: IngestConfig) -> None:
    deaths = 0
    while not Path(ingest_config.dest, "manifest.json").exists():
        killed(ingest_config, 12 * (deaths + 1))
        deaths += 1
    assert 2 < deaths < 20
    ShardSet.open(ingest_config.dest).verify()


def test_a_shard_that_was_damaged_meanwhile_is_made_again(ingest_config: IngestConfig) -> None:
    _, moments = killed(dataclasses.replace(ingest_config, dest=f"{ingest_config.dest}-whole"), 0)
    killed(ingest_config, moments * 2 // 3)
    shard = Path(ingest_config.dest, "shard-00001.arrow")
    assert shard.name in records(ingest_config.dest)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    ingest(ingest_config)
    assert files(ingest_config.dest) == files(f"{ingest_config.dest}-whole")


def unfinished(ingest_config: IngestConfig) -> None:
    killed(ingest_config, 26)
    assert Path(ingest_config.dest, "ingest.json").exists()
    assert records(ingest_config.dest)


def test_other_options_for_an_unfinished_data_set_are_refused_or_start_over(ingest_config: IngestConfig) -> None:
    unfinished(ingest_config)
    other = dataclasses.replace(ingest_config, size=8)
    with pytest.raises(DataError, match=r"unfinished ingest.*--size None then, 8 now.*--start-over"):
        ingest(other)
    assert ingest(dataclasses.replace(other, start_over=True)).shape == (8, 8, 3)
    ShardSet.open(ingest_config.dest).verify()
    shards = [shard.file for shard in Manifest.load(ingest_config.dest).shards]
    assert set(files(ingest_config.dest)) == {"manifest.json", "index.arrow", *shards}


@pytest.mark.slow
def test_another_source_for_an_unfinished_data_set_is_refused(ingest_config: IngestConfig) -> None:
    unfinished(ingest_config)
    Path(ingest_config.source, "07.png").unlink()
    with pytest.raises(DataError, match=r"unfinished ingest.*images 24 then, 23 now.*--start-over"):
        ingest(ingest_config)


def test_after_an_error_the_shards_that_it_does_not_concern_are_kept(ingest_config: IngestConfig) -> None:
    whole = ingest(dataclasses.replace(ingest_config, dest=f"{ingest_config.dest}-whole"))
    bad = Path(ingest_config.source, "23.png")
    good = bad.read_bytes()
    bad.write_bytes(bytes(len(good)))
    with pytest.raises(DataError, match=r"23\.png.*--skip-bad"):
        ingest(ingest_config)
    before = records(ingest_config.dest)
    assert len(before) > 1
    skipping = ingest(dataclasses.replace(ingest_config, skip_bad=True))
    assert [skipped.key for skipped in skipping.skipped] == ["23.png"]
    for shard, identity in before.items():
        file = Path(ingest_config.dest, shard)
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == identity
    assert len({shard.sha256 for shard in whole.shards} - {shard.sha256 for shard in skipping.shards}) == 1


def test_a_second_ingest_is_refused_while_the_first_is_at_work(ingest_config: IngestConfig) -> None:
    there, go = SPAWN.Event(), SPAWN.Event()
    first = SPAWN.Process(target=ingest_and_wait, args=(ingest_config, there, go))
    first.start()
    there.wait()
    with pytest.raises(ClaimError, match=rf"another ingest is at work there \(process {first.pid} on "):
        ingest(ingest_config)
    go.set()
    first.join()
    assert first.exitcode == 0
    ShardSet.open(ingest_config.dest).verify()


def test_of_several_at_once_exactly_one_goes_on(ingest_config: IngestConfig) -> None:
    count = 4
    barrier, results = SPAWN.Barrier(count), SPAWN.Queue()
    processes = [SPAWN.Process(target=ingest_with_others, args=(ingest_config, barrier, results)) for _ in range(count)]
    for process in processes:
        process.start()
    said = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert said.count("made") == 1
    others = [text for text in said if text != "made"]
    assert all("another ingest is at work" in text or "holds a data set already" in text for text in others)
    ShardSet.open(ingest_config.dest).verify()


def test_a_file_that_cannot_grow_ends_it_with_one_message_and_nothing_half_done(ingest_config: IngestConfig) -> None:
    big = dataclasses.replace(ingest_config, shard_size=64, test_fraction=None)
    results = SPAWN.Queue()
    process = SPAWN.Process(target=ingest_little, args=(big, 8192, results))
    process.start()
    message = results.get()
    process.join()
    assert "shard-00000.arrow: cannot be written (File too large)" in message
    assert "\n" not in message
    assert not list(Path(big.dest).glob("*.arrow"))
    assert not list(Path(big.dest).glob(".*"))
    ingest(big)
    ShardSet.open(big.dest).verify()


def test_where_the_list_of_images_has_no_room_the_folder_is_named(tmp_path: Path) -> None:
    results = SPAWN.Queue()
    config = IngestConfig("synthetic:digits", str(tmp_path / "data"), count=1000)
    process = SPAWN.Process(target=ingest_little, args=(config, 8192, results))
    process.start()
    message = results.get()
    process.join()
    assert f"{tempfile.gettempdir()}: cannot be written (File too large)" in message
    assert "set TMPDIR" in message
    assert not (tmp_path / "data").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_on_a_full_disk_finished_shards_are_kept(ingest_config: IngestConfig, small_disk: Path) -> None:
    full = dataclasses.replace(ingest_config, dest=str(small_disk / "data"))
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\).*finished shards are kept"):
        ingest(full)
    assert not (small_disk / "data" / "manifest.json").exists()
    before = records(full.dest)
    assert before
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    ingest(full)
    assert {name: records_of(small_disk / "data" / name) for name in before} == before
    ShardSet.open(full.dest).verify()


def records_of(file: Path) -> tuple[int, int]:
    return file.stat().st_ino, file.stat().st_mtime_ns


@pytest.fixture
def bucket() -> str:
    """A place without locks, as on an object store."""
    url = f"memory://bucket-{random.randrange(10**9)}/data"
    write_atomic(locate(url) / "neighbour", b"")
    return url


def test_who_lost_the_claim_leaves_the_plan_of_who_took_over(ingest_config: IngestConfig, bucket: str) -> None:
    there = dataclasses.replace(ingest_config, dest=bucket)

    def lose(tasks: Any) -> Iterator[Any]:
        from genlab.data.ingest.shard_task import make_shard

        write_atomic(locate(bucket) / "ingest-00001.lease", b"{}")
        yield make_shard(tasks[0])

    with pytest.raises(ClaimError, match="another ingest took over"):
        ingest(there, lose)
    assert (locate(bucket) / "ingest.json").exists()
    assert (locate(bucket) / "ingest-00001.lease").exists()
    assert not (locate(bucket) / "manifest.json").exists()


def test_a_killed_ingest_on_an_object_store_is_gone_on_with(
    ingest_config: IngestConfig, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
    monkeypatch.setattr(claims, "LEASE_TIMEOUT", 0.2)
    unbroken = ingest(ingest_config)
    there = dataclasses.replace(ingest_config, dest=bucket)

    class PowerCutError(BaseException):
        pass

    def die(tasks: Any) -> Iterator[Any]:
        from genlab.data.ingest.shard_task import make_shard

        for task in tasks[:3]:
            yield make_shard(task)
        raise PowerCutError

    with contextlib.suppress(PowerCutError):
        ingest(there, die)
    # What a process that dies does not do.
    write_atomic(locate(bucket) / "ingest-00000.lease", b'{"holder": "process 1 on another machine", "sign": 3}')
    before = {file.name: file.stat().st_mtime for file in locate(bucket).glob("shard-*.arrow")}
    assert len(before) == 3
    assert ingest(there) == unbroken
    assert {name: (locate(bucket) / name).stat().st_mtime for name in before} == before
    ShardSet.open(bucket).verify()
    left = {file.name for file in locate(bucket).iterdir()} - {"neighbour"}
    assert left == {"manifest.json", "index.arrow", *(shard.file for shard in unbroken.shards)}
