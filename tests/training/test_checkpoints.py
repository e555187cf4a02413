"""Checkpoints: exactly what was saved, and only what can be trusted."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import safetensors.torch
import torch
from torch import Tensor
from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import locate
from genlab.store.tensor_file import DTYPES
from genlab.training.checkpoints import Checkpoints
from tests.s3 import Bucket, FaultProxy

STATE = "state-00000.safetensors"


def state(value: float) -> dict[str, Tensor]:
    """A state of every dtype and of odd shapes; values up to 100 are exact in all of them."""
    tensors = {
        f"network.{name}": torch.full((3, 5), value).to(dtype) for dtype, name in DTYPES.items() if name != "BOOL"
    }
    image = torch.full((2, 3, 4, 4), value).to(memory_format=torch.channels_last)
    return tensors | {
        "flag": torch.tensor([True, False]),
        "step": torch.tensor(value),
        "none": torch.zeros(0, 4),
        "a": image,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 1, 2 and 3, whose states hold their step."""
    with Checkpoints(locate(tmp_path / "checkpoints"), keep=5) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {})
    return tmp_path / "checkpoints"


def newest(folder: Path) -> tuple[int, list[str]]:
    """Step and messages of the newest checkpoint, whose state must be that of its step."""
    with Checkpoints(locate(folder), keep=5) as checkpoints:
        step, tensors, said = checkpoints.newest()
    expected = state(step) if step else {}
    assert tensors.keys() == expected.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], expected[name])] == []
    return step, said


def test_what_was_saved_is_read_by_anyone_who_knows_the_format(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "step-00000002" / STATE)
    expected = state(2)
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {n: t.dtype for n, t in expected.items()}
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in expected.items()}
    assert [name for name in tensors if not torch.equal(tensors[name], expected[name])] == []


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    tensors = state(7)
    with Checkpoints(locate(tmp_path), keep=5) as checkpoints:
        checkpoints.save(7, tensors, {})
        for tensor in tensors.values():
            tensor.zero_()
        checkpoints.save(8, {"of other": torch.ones(2)}, {})
    with Checkpoints(locate(tmp_path), keep=5) as checkpoints:
        assert all(torch.equal(tensor, state(7)[name]) for name, tensor in checkpoints.read(7).items())
        assert checkpoints.read(8)["of other"].tolist() == [1, 1]


def test_a_flipped_byte_anywhere_is_found(folder: Path) -> None:
    file = folder / "step-00000003" / STATE
    whole = file.read_bytes()
    with Checkpoints(locate(folder), keep=5) as checkpoints:
        for position in range(0, len(whole), max(1, len(whole) // 97)):
            data = bytearray(whole)
            data[position] ^= 1 << position % 8
            file.write_bytes(data)
            with pytest.raises(RunError, match=rf"{STATE}: damaged"):
                checkpoints.read(3)
    file.write_bytes(whole)
    assert newest(folder) == (3, [])


@pytest.mark.parametrize(
    "damage",
    [
        "truncated state",
        "empty state",
        "no state",
        "truncated index",
        "flipped index",
        "newer format",
        "another's index",
    ],
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(damage: str, folder: Path) -> None:
    broken = folder / "step-00000003"
    index, tensors = broken / "index.json", broken / STATE
    match damage:
        case "truncated state":
            tensors.write_bytes(tensors.read_bytes()[:-1])
        case "empty state":
            tensors.write_bytes(b"")
        case "no state":
            tensors.unlink()
        case "truncated index":
            index.write_bytes(index.read_bytes()[:-20])
        case "flipped index":
            digest = json.loads(index.read_text())["files"][STATE]["xxh3"]
            index.write_text(index.read_text().replace(digest, digest[::-1]))
        case "newer format":
            index.write_text(index.read_text().replace('"version": 2', '"version": 3'))
        case "another's index":
            shutil.copy(folder / "step-00000002" / "index.json", index)
    step, said = newest(folder)
    assert step == 2
    assert len(said) == 1
    assert "set aside a damaged checkpoint" in said[0]
    assert str(broken) in said[0]
    assert (folder / "damaged-step-00000003").is_dir()
    assert newest(folder) == (2, []), "it is set aside for good"


def test_what_a_crash_left_is_swept_and_what_is_not_ours_is_left_alone(folder: Path) -> None:
    torn = folder / "step-00000004"
    torn.mkdir()
    (torn / f".{STATE}.0123abcd.partial").write_bytes(b"half")
    shutil.rmtree(folder / "step-00000003")
    for name in ("step-best", "notes"):
        (folder / name).mkdir()
    assert newest(folder) == (2, [f"swept {torn}: a checkpoint whose write was cut short"])
    assert sorted(path.name for path in folder.iterdir()) == ["notes", "step-00000001", "step-00000002", "step-best"]


def test_none_of_them_good(folder: Path) -> None:
    for file in folder.glob(f"*/{STATE}"):
        file.write_bytes(b"")
    step, said = newest(folder)
    assert (step, len(said)) == (0, 3)
    assert newest(folder) == (0, [])


def test_on_s3_uploads_that_never_ended_are_aborted_and_torn_folders_swept(s3: Bucket) -> None:
    run = locate(f"{s3.url}/runs/one")
    with Checkpoints(run / "checkpoints", keep=5) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {})
        checkpoints.wait()
        key = f"checkpoints/step-00000004/{STATE}"
        others = ["runs/one-more/model/model.safetensors", "runs/one/report.html", f"runs/other/{key}"]
        for upload in (f"runs/one/{key}", "runs/one/model/model.safetensors", *others):
            run.fs.call_s3("create_multipart_upload", Bucket=s3.name, Key=upload)
        (run / "checkpoints" / "step-00000004" / STATE).write_bytes(b"no index follows")
        (run / "checkpoints" / "step-00000003" / STATE).write_bytes(b"damaged")
        step, tensors, said = checkpoints.newest()
        assert step == 2
        assert torch.equal(tensors["step"], torch.tensor(2.0))
        assert [message.split(" ")[0] for message in said] == ["swept", "swept", "swept", "set"]
        assert checkpoints.steps() == [1, 2]
    left = [upload["Key"] for upload in run.fs.list_multipart_uploads(s3.name)]
    assert sorted(left) == others, "uploads of other runs, and of who draws the report, are their own affair"


def begin_uploads(run: UPath, bucket: str, count: int) -> None:
    for step in range(count):
        key = f"runs/one/checkpoints/step-{step:08d}/{STATE}"
        run.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)


def test_all_pages_of_the_uploads_of_this_run_are_aborted(s3: Bucket) -> None:
    run = locate(f"{s3.url}/runs/one")
    begin_uploads(run, s3.name, 3)
    call = run.fs.call_s3

    def by_pages_of_one(method: str, **arguments: Any) -> Any:
        if method != "list_multipart_uploads":
            return call(method, **arguments)
        assert arguments["Prefix"] == "runs/one/"
        marker = arguments.pop("KeyMarker", ""), arguments.pop("UploadIdMarker", "")
        uploads = call(method, **arguments)["Uploads"]
        uploads = sorted(uploads, key=lambda upload: (upload["Key"], upload["UploadId"]))
        rest = [upload for upload in uploads if (upload["Key"], upload["UploadId"]) > marker]
        page: dict[str, Any] = {"Uploads": rest[:1], "IsTruncated": len(rest) > 1}
        return page | {"NextKeyMarker": rest[0]["Key"], "NextUploadIdMarker": rest[0]["UploadId"]}

    with (
        mock.patch.object(run.fs, "call_s3", by_pages_of_one),
        Checkpoints(run / "checkpoints", keep=5) as checkpoints,
    ):
        step, _, said = checkpoints.newest()
    assert (step, len(said)) == (0, 3)
    assert not run.fs.list_multipart_uploads(s3.name)


@pytest.mark.parametrize(("method", "path"), [("GET", "uploads"), ("DELETE", "uploadId")])
def test_a_store_that_denies_looking_for_uploads_or_aborting_them_holds_up_nothing(
    method: str, path: str, s3: Bucket, fault_proxy: FaultProxy
) -> None:
    run = locate(f"{s3.url}/runs/one")
    begin_uploads(run, s3.name, 2)
    with Checkpoints(run / "checkpoints", keep=5) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        fault_proxy.plan(rate=1, kinds=["denied"], seed=0, method=method, path=path)
        step, _, said = checkpoints.newest()
    assert step == 1
    assert [message for message in said if "access denied" in message]
    fault_proxy.reset()
    assert len(run.fs.list_multipart_uploads(s3.name)) == 2


def test_a_run_whose_tensors_were_deleted_says_how_far_it_came_and_starts_anew(folder: Path) -> None:
    for _ in range(2):
        Checkpoints(locate(folder), keep=5).release()
        assert Checkpoints(locate(folder), keep=5).steps() == [3]
    assert [file.name for file in folder.rglob("*") if file.is_file()] == ["index.json"]
    with pytest.raises(RunError, match="its tensors were deleted"):
        Checkpoints(locate(folder), keep=5).read(3)
    assert newest(folder) == (0, ["the run starts anew: the tensors of its checkpoint of step 3 were deleted"])
    assert Checkpoints(locate(folder), keep=5).steps() == []
