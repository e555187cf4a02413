"""Data of a run's domains: from any storage, in the shuffle window that the run began with, with their attributes."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from upath import UPath

from genlab.core.config import override
from genlab.core.errors import RunError
from genlab.core.storage import locate, read_json, write_json
from genlab.data.ingest.attributes import AttributesConfig
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.stream import readahead
from genlab.data.stream.readahead import order_constants
from genlab.training.domain_data import open_batches
from genlab.training.launch import launch
from genlab.training.plan import REMOTE_WINDOW, earlier_config, make_plan, remote_window, start_or_resume
from tests.s3 import Bucket
from tests.training.support import QuietSession, assert_same_run, vae_config


def copy(source: Path, target: UPath) -> str:
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return str(target)


@pytest.mark.slow
def test_a_run_on_s3_trains_as_one_on_local_files(digits: Path, s3: Bucket, tmp_path: Path) -> None:
    remote = copy(digits, locate(f"{s3.url}/digits"))
    changes = {"run.storage": str(tmp_path), "data.window": 1.0, "data.flip": True, "data.jitter": 3}
    local = override(vae_config(digits), changes | {"run.name": "local"})
    launch("vae", local)
    launch("vae", override(local, {"run.name": "remote", "data.images": remote, "data.cache": str(tmp_path / "cache")}))
    assert_same_run(tmp_path / "local", tmp_path / "remote")
    assert list((tmp_path / "cache").rglob("*-*")), "the cache was used"


def test_a_run_keeps_the_window_it_began_with(digits: Path, s3: Bucket, tmp_path: Path) -> None:
    remote = copy(digits, locate(f"{s3.url}/digits"))
    config = override(vae_config(digits), {"run.storage": str(tmp_path), "run.name": "run"})
    assert make_plan("vae", override(config, {"data.images": remote})).domains["images"].window == REMOTE_WINDOW
    launch("vae", config)
    assert read_json(locate(tmp_path / "run" / "config.json"))["data"]["images"]["window"] == 0
    launch("vae", override(config, {"data.images": remote}))
    with pytest.raises(RunError, match=r"data\.window of images was 0 MiB, now 1"):
        launch("vae", override(config, {"data.window": 1.0}))


def test_a_run_keeps_the_order_and_the_noise_it_began_with(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = override(vae_config(digits), {"run.storage": str(tmp_path), "run.name": "run", "data.window": 1.0})
    plan, file = make_plan("vae", config), locate(tmp_path / "run" / "config.json")
    start_or_resume(plan)
    recorded = read_json(file)
    assert recorded["data"]["images"]["order"] == order_constants(True)
    assert recorded["noise"] == {"numbers_at_once": make_plan("vae", config).numbers_at_once}
    assert earlier_config(plan) == recorded
    with monkeypatch.context() as changed:
        changed.setattr(readahead, "GROUPS_PER_WINDOW", 5)
        with pytest.raises(
            RunError, match=r"order of data\.images: .*groups_per_window 4.*, now .*groups_per_window 5"
        ):
            start_or_resume(plan)
    # Runs of earlier versions have the constants of their rule, or none.
    recorded["data"]["images"]["order"] = order_constants(True, rule=1)
    del recorded["noise"]
    write_json(file, recorded)
    before = make_plan("vae", config)
    assert before.domains["images"].order == 1
    assert before.numbers_at_once is None
    start_or_resume(before)
    assert read_json(file)["data"]["images"]["order"] == order_constants(True, rule=1)
    del recorded["data"]["images"]["order"]
    write_json(file, recorded)
    start_or_resume(make_plan("vae", config))
    assert make_plan("vae", config).domains["images"].order == 1


def test_the_window_of_remote_data_has_a_block_for_each_row_of_a_batch() -> None:
    assert [remote_window(batch) >> 20 for batch in (1, 256, 1000, 1024, 4096)] == [256, 256, 1000, 1024, 1024]


def test_attributes_reach_the_recipe(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    for number in range(12):
        Image.new("L", (28, 28), number).save(faces / f"{20 + number}_{'fm'[number % 2]}.png")
    pattern = AttributesConfig(pattern=r"(?P<age>\d+)_(?P<sex>[fm])")
    ingest(IngestConfig(f"folder:{faces}", str(tmp_path / "data"), channels=1, encoding="raw", attributes=pattern))
    plan = make_plan("vae", vae_config(tmp_path / "data", storage=str(tmp_path), name="run"))
    with open_batches(plan, "images", QuietSession(), start=0) as batches:
        batch = next(batches)
    assert batch.label is None
    age, sex = batch.attributes["age"], batch.attributes["sex"]
    assert age.dtype == sex.dtype == torch.int64
    assert torch.equal(age, batch.image[:, 0, 0, 0] + 20)
    assert torch.equal(sex, age % 2)
