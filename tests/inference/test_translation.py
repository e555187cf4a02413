"""Translation of a picture, a folder or a data set: what is written, what is left out, and how it goes on."""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import pytest
import torch
from annotated_types import Interval
from PIL import Image

from genlab.cli.translate import main
from genlab.core.storage import JOB_ENV, locate
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.inference.engine import Engine
from genlab.inference.sources import Picture
from genlab.inference.translation import RECORD, Job, Outcome, Worker
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from tests.imaging.support import tiff
from tests.inference.support import PROVENANCE, expected, with_ranges, written
from tests.s3 import Bucket


def batch(pictures: Sequence[Picture]) -> dict[str, np.ndarray]:
    """Pictures as Ray Data hands them to a worker."""
    return {field: np.array([getattr(picture, field) for picture in pictures]) for field in Picture._fields}


def here(pictures: Sequence[Picture], job: Job) -> Iterator[Outcome]:
    """Runs a worker in this process, two pictures at a time."""
    worker = Worker(job)
    for begin in range(0, len(pictures), 2):
        columns = worker(batch(pictures[begin : begin + 2]))
        yield from (Outcome(*values) for values in zip(*columns.values(), strict=True))


def nothing(pictures: Sequence[Picture], job: Job) -> Iterator[Outcome]:
    """Stands where nothing must be left to translate."""
    raise AssertionError(f"{pictures} translated by {job}")


def names(folder: Path) -> set[str]:
    """The pictures below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that ends with status 2."""
    with pytest.raises(SystemExit) as end:
        main(arguments, here)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_picture_becomes_what_the_model_makes_of_it(run: Path, pictures: Path, tmp_path: Path) -> None:
    source = pictures / "one.jpg"
    main([str(run), str(source), str(tmp_path / "new" / "out.png")])
    np.testing.assert_array_equal(written(tmp_path / "new" / "out.png"), expected(run, source))
    main([str(run / "model"), str(source), str(tmp_path / "out"), "--direction", "b_to_a"])
    np.testing.assert_array_equal(written(tmp_path / "out" / "one.png"), expected(run, source, "b_to_a"))


def test_what_cannot_be_done_is_said_in_one_message(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, source, dest = str(run), str(pictures / "one.jpg"), str(tmp_path / "out.png")
    assert "direction = 'sideways': choose from a_to_b, b_to_a" in fails(
        [model, source, dest, "--direction", "sideways"], capsys
    )
    assert "out.jpg" in fails([model, source, str(tmp_path / "out.jpg")], capsys)
    assert "the same as the source" in fails([model, str(pictures), str(pictures)], capsys)
    assert "absent.png: no such file or folder" in fails([model, str(tmp_path / "absent.png"), dest], capsys)
    assert "bad.jpg: cannot be decoded" in fails([model, str(pictures / "more" / "bad.jpg"), dest], capsys)
    assert "notes.txt: not an image" in fails([model, str(pictures / "notes.txt"), dest], capsys)
    assert "not a model directory" in fails([str(pictures), source, dest], capsys)
    assert not (tmp_path / "out.png").exists()


def test_a_model_that_does_not_translate_says_what_it_does(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_directory.save(str(tmp_path / "vae"), VAE((28, 28, 1), VAEArchitecture(channels=(4, 4))), PROVENANCE)
    message = fails([str(tmp_path / "vae"), str(pictures / "one.jpg"), str(tmp_path / "out.png")], capsys)
    assert "does not translate; its operations are: sample, reconstruct" in message


def test_pictures_that_would_get_one_name_are_refused(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "one.png").write_bytes((pictures / "more" / "two.png").read_bytes())
    message = fails([str(run), str(pictures), str(tmp_path / "out")], capsys)
    assert "one.jpg and one.png would both be written as one.png" in message


def test_a_worker_translates_a_batch_and_says_what_it_left_out(run: Path, pictures: Path, tmp_path: Path) -> None:
    worker = Worker(Job(str(run / "model"), str(pictures), None, str(tmp_path / "out"), "a_to_b"))
    keys = ["one.jpg", "more/bad.jpg", "absent.jpg"]
    done = worker(batch([Picture(key, 0, f"{Path(key).stem}.png") for key in keys]))
    assert done["key"] == keys
    assert done["why"][0] == ""
    assert "cannot be decoded" in done["why"][1]
    assert "No such file" in done["why"][2]
    assert not any(done["stop"])
    assert names(tmp_path / "out") == {"one.png"}


def test_a_picture_for_which_the_gpu_is_too_small_is_left_out(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "compute", mock.Mock(side_effect=torch.OutOfMemoryError("the GPU is full")))
    worker = Worker(Job(str(run / "model"), str(pictures), None, str(tmp_path / "out"), "a_to_b"))
    done = worker(batch([Picture("one.jpg", 0, "one.png")]))
    assert (done["why"], done["stop"]) == (["the GPU has too little memory for a picture of its size"], [False])


def test_a_folder_goes_on_where_it_stopped(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [str(run), str(pictures), str(out)]
    main(arguments, here)
    assert names(out) == {"one.png", "more/two.png", "more/three.png"}
    np.testing.assert_array_equal(written(out / "more" / "two.png"), expected(run, pictures / "more" / "two.png"))
    printed = capsys.readouterr()
    assert printed.out.endswith(f"{out}: 3 of 4 images a_to_b\n")
    assert "more/bad.jpg: cannot be decoded" in printed.err

    (out / "more" / "two.png").unlink()
    (out / "one.png").write_bytes(b"kept")
    main(arguments, here)
    assert (out / "one.png").read_bytes() == b"kept", "a picture that is done is left alone"
    assert names(out) == {"one.png", "more/two.png", "more/three.png"}
    assert capsys.readouterr().out == f"{out}: 3 of 4 images a_to_b, 2 of them done before\n"

    (pictures / "more" / "bad.jpg").unlink()
    main(arguments, nothing)
    assert capsys.readouterr().out == f"{out}: 3 of 3 images a_to_b, 3 of them done before\n"


@dataclass(frozen=True)
class Brightness:
    """Options of a translator that can make its pictures brighter."""

    levels: Annotated[int, Interval(ge=0, le=255)] = 0
    """Levels that are added to each value."""


def test_options_of_the_model_reach_every_picture_and_stand_in_the_record(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = CycleGAN.translate

    def brighter(model: CycleGAN, pixels: torch.Tensor, direction: str, options: Brightness) -> torch.Tensor:
        return (plain(model, pixels, direction).int() + options.levels).clamp(max=255).to(torch.uint8)

    source, out = pictures / "one.jpg", tmp_path / "out"
    wanted = np.minimum(expected(run, source).astype(int) + 40, 255)
    monkeypatch.setattr(CycleGAN, "operations", {"translate": Brightness})
    monkeypatch.setattr(CycleGAN, "translate", brighter)
    main([str(run), str(source), str(tmp_path / "one.png"), "--levels", "40"])
    np.testing.assert_array_equal(written(tmp_path / "one.png"), wanted)
    main([str(run), str(pictures), str(out), "--levels", "40"], here)
    np.testing.assert_array_equal(written(out / "one.png"), wanted)
    assert json.loads((out / RECORD).read_text())["options"] == {"levels": 40}
    message = fails([str(run), str(pictures), str(out)], capsys)
    assert "another translation (options {'levels': 40} then, {'levels': 0} now)" in message
    assert "levels = 300: should be less than or equal to 255" in fails(
        [str(run), str(pictures), str(out), "--levels", "300"], capsys
    )


def test_pictures_of_another_translation_do_not_pass_for_done(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main([str(run), str(pictures), str(out)], here)
    before = {name: (out / name).read_bytes() for name in names(out)}
    capsys.readouterr()

    message = fails([str(run), str(pictures), str(out), "--direction", "b_to_a"], capsys)
    assert "out: holds the pictures of another translation (direction 'a_to_b' then, 'b_to_a' now); choose" in message
    other = tmp_path / "other"
    torch.manual_seed(1)
    model_directory.save(str(other), CycleGAN((32, 32, 3), CycleGANArchitecture(width=4)), PROVENANCE)
    assert "another translation (model '" in fails([str(other), str(pictures), str(out)], capsys)
    assert "another translation (source '" in fails([str(run), str(pictures / "more"), str(out)], capsys)
    one = [str(other), str(pictures / "one.jpg"), str(out)]
    assert f"its folder holds the pictures of {RECORD}" in fails(one, capsys)
    assert {name: (out / name).read_bytes() for name in names(out)} == before

    (out / RECORD).unlink()
    assert f"holds more/three.png already, and no {RECORD}" in fails([str(run), str(pictures), str(out)], capsys)


def test_what_would_be_translated_again_is_refused(
    run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails([str(run), str(pictures), str(pictures / "translated")], capsys)
    assert "the same as the source, or in it; write to another place" in message


def test_a_full_disk_stops_the_command(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def full(path: object, data: bytes) -> None:
        tries.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("genlab.inference.translation.write_atomic", full)
    message = fails([str(run), str(pictures), str(tmp_path / "out")], capsys)
    assert "cannot be written (No space left on device)" in message
    assert len(tries) == 1, "the others would not fare better"


@pytest.mark.parametrize("encoded", [True, False])
def test_a_data_set_keeps_its_keys(
    encoded: bool, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data, out = tmp_path / "folder", tmp_path / "data", tmp_path / "out"
    rng = np.random.default_rng(0)
    for name in ("train/one.jpg", "train/deep/two.png", "train/deep/two.webp", "test/three.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / name, lossless=True)
    ingest(IngestConfig(str(folder), str(data), size=None if encoded else 16, fit="auto" if encoded else "resize"))
    main([str(run), str(data), str(out)], here)
    assert names(out) == {"train/one.png", "train/deep/two.png", "unnamed/00000001.png", "test/three.png"}
    if encoded:
        twos = [expected(run, folder / "train" / "deep" / name) for name in ("two.png", "two.webp")]
        found = [written(out / name) for name in ("train/deep/two.png", "unnamed/00000001.png")]
        assert {array.tobytes() for array in found} == {array.tobytes() for array in twos}
        np.testing.assert_array_equal(written(out / "train" / "one.png"), expected(run, folder / "train" / "one.jpg"))
    else:
        assert written(out / "train" / "one.png").shape == (16, 16, 3)

    main([str(run), str(data), str(tmp_path / "part"), "--split", "test"], here)
    assert names(tmp_path / "part") == {"test/three.png"}
    capsys.readouterr()
    assert "another translation (split None then, 'test' now)" in fails(
        [str(run), str(data), str(out), "--split", "test"], capsys
    )
    assert "no split 'dev'; choose one of: train, test" in fails(
        [str(run), str(data), str(tmp_path / "new"), "--split", "dev"], capsys
    )
    assert "split = 'test': " in fails([str(run), str(folder), str(tmp_path / "new"), "--split", "test"], capsys)


@pytest.mark.slow
def test_everything_may_lie_on_s3(run: Path, pictures: Path, s3: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    for file in pictures.rglob("*.*"):
        (locate(f"{s3.url}/in") / file.relative_to(pictures).as_posix()).write_bytes(file.read_bytes())
    for file in (run / "model").iterdir():
        (locate(f"{s3.url}/model") / file.name).write_bytes(file.read_bytes())
    arguments = [f"{s3.url}/model", f"{s3.url}/in", f"{s3.url}/out"]
    main(arguments, here)
    main(arguments, here)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{s3.url}/out: 3 of 4 images a_to_b",
        f"{s3.url}/out: 3 of 4 images a_to_b, 3 of them done before",
    ]
    result = locate(f"{s3.url}/out/more/two.png").read_bytes()
    (pictures / "result.png").write_bytes(result)
    np.testing.assert_array_equal(written(pictures / "result.png"), expected(run, pictures / "more" / "two.png"))


def test_the_smallest_picture_is_translated_and_one_too_large_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (1, 1), "teal").save(tmp_path / "dot.png")
    main([str(run), str(tmp_path / "dot.png"), str(tmp_path / "out.png")])
    assert written(tmp_path / "out.png").shape == (1, 1, 3)
    head = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (tmp_path / "huge.png").write_bytes(huge + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    message = fails([str(run), str(tmp_path / "huge.png"), str(tmp_path / "out.png")], capsys)
    assert "huge.png: too large: more than 178,956,970 pixels; scale it down or cut it up" in message


def test_weights_of_another_architecture_are_one_message_before_anything_is_written(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    model_directory.save(str(mixed), CycleGAN((32, 32, 3), CycleGANArchitecture("resnet-6", width=4)), PROVENANCE)
    description = json.loads((mixed / "genlab.json").read_text())
    description["architecture"]["generator"] = "unet"
    (mixed / "genlab.json").write_text(json.dumps(description))
    message = fails([str(mixed), str(pictures), str(tmp_path / "out")], capsys)
    assert "weights are of another architecture than genlab.json says: a_to_b.downs.0.0.weight is not there" in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_job_refuses_relative_paths(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB_ENV, "{}")
    assert 'source="$PWD/pictures"' in fails([str(run), "pictures", "/out"], capsys)


def test_a_folder_of_float_pictures_is_read_by_the_range_of_training(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranged = with_ranges(run, tmp_path / "ranged", a=(0, 2))
    (tmp_path / "scans").mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)
    for number, pixels in enumerate(grey):
        (tmp_path / "scans" / f"{number}.tif").write_bytes(tiff((pixels / 127.5).astype("<f4")))
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    main([str(ranged), str(tmp_path / "scans"), str(tmp_path / "out")], here)
    for number in range(2):
        np.testing.assert_array_equal(
            written(tmp_path / "out" / f"{number}.png"), expected(run, tmp_path / f"{number}.png")
        )
    said = fails([str(ranged), str(tmp_path / "scans"), str(tmp_path / "back"), "--direction", "b_to_a"], capsys)
    assert "0.tif: has signed, 32-bit or float values and no range of them" in said


def test_a_data_set_of_another_range_is_warned_of(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "0.tif").write_bytes(tiff(np.full((32, 32), 500, "<u2")))
    ingest(IngestConfig(str(tmp_path / "scans"), str(tmp_path / "data"), range="0:1000"))
    for name, domain in (("same", (0, 1000)), ("other", (0, 4095))):
        ranged = with_ranges(run, tmp_path / name, a=domain)
        main([str(ranged), str(tmp_path / "data"), str(tmp_path / f"{name}-out")], here)
        warned = f"warning: {tmp_path / 'data'}: was ingested with --range 0:1000, the model's images with 0:4095"
        assert (warned in capsys.readouterr().err) == (name == "other")
