"""``genlab project``: what it reads, says and writes, and how it goes on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from genlab.cli.project import main
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.editing import projection_files
from genlab.imaging.images import read_note
from genlab.models.encoder import Encoder
from genlab.store import model_directory
from genlab.store.model_store import ModelStore
from tests.conftest import save_run
from tests.models.test_encoder import SMALL, generator

FAST = ("--steps", "1", "--perceptual", "0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a generator of 8x8x3, ``faces``, of its ``encoder``, and of the encoder of an ``other`` one."""
    root = tmp_path_factory.mktemp("runs")
    made = generator()
    save_run(root / "faces", made, contrast=1)
    weights = model_directory.describe(root / "faces" / "model")["weights"]["sha256"]
    save_run(root / "encoder", Encoder.of(made, weights, SMALL), contrast=1)
    save_run(root / "other", Encoder.of(made, "ab" * 32, SMALL), contrast=1)
    return root


def draw(file: Path, height: int, width: int, channels: int = 3, most: int = 256) -> Path:
    pixels = np.random.default_rng(0).integers(0, most, (height, width, channels), np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(file)
    return file


def project(*arguments: object, fast: Sequence[str] = FAST) -> None:
    main([*map(str, arguments), *fast])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, fast: Sequence[str] = FAST) -> str:
    with pytest.raises(SystemExit) as ended:
        project(*arguments, fast=fast)
    assert ended.value.code == 2
    return capsys.readouterr().err


def figures(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def test_a_photo_of_another_shape(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, out = draw(tmp_path / "photo.jpg", 20, 30), tmp_path / "out"
    project(runs / "faces", photo, out, "--encoder", runs / "encoder")
    said = capsys.readouterr().out
    assert "photo.jpg: has 30x20 pixels: cropped to the middle 20x20 and scaled to 8x8" in said
    assert "1 picture projected: PSNR" in said
    found = figures(out / "photo.json")
    assert found["projection"].keys() == found["encoded"].keys() == {"psnr", "ssim", "perceptual"}
    assert found["model"] == model_directory.describe(runs / "faces" / "model")["weights"]["sha256"]
    tensors = load_file(out / "photo.safetensors")
    made = model_directory.load(runs / "faces" / "model")
    noise = [tensors[f"noise.{layer}"][None] for layer in range(len(tensors) - 1)]
    drawn = made.synthesise(tensors["w"][None], noise)  # type: ignore[operator]
    pixels = torch.from_numpy(np.array(Image.open(out / "photo-projection.png"))).permute(2, 0, 1)
    assert ((drawn[0].clamp(-1, 1) + 1) * 127.5 - pixels).abs().max() < 0.6
    for what in ("original", "projection"):
        note = read_note((out / f"photo-{what}.png").read_bytes())
        assert note is not None
        assert (note["made"], note["model"], note["source"]) == (what, found["model"], found["sha256"])


def test_a_folder_goes_on_where_it_stopped(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "deep/b.png"):
        draw(tmp_path / "in" / name, 8, 8)
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    project(runs / "faces", tmp_path / "in", out)
    assert "skipped: c.png: not an image" in capsys.readouterr().err
    assert (out / "deep" / "b-projection.png").exists()
    times = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    (out / "deep" / "b.json").unlink()  # as if it had been killed before this picture was done
    project(runs / "faces", tmp_path / "in", out)
    again = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    assert [file.name for file in times if times[file] != again[file]] == ["b.safetensors"]
    assert figures(out / "summary.json")["pictures"] == 2
    draw(tmp_path / "in" / "a.png", 9, 9)  # another picture under its name
    project(runs / "faces", tmp_path / "in", out)
    assert (out / "a.safetensors").stat().st_mtime_ns != times[out / "a.safetensors"]
    assert "holds the pictures of another projection" in refused(
        capsys, runs / "faces", tmp_path / "in", out, fast=("--steps", "2")
    )


def test_identity_is_measured_of_pictures_that_were_projected_before(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "in" / "a.png", 8, 8)
    draw(tmp_path / "in" / "b.png", 8, 8, most=100)
    out = tmp_path / "out"
    project(runs / "faces", tmp_path / "in", out)
    assert "identity distance" not in capsys.readouterr().out
    times = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    project(runs / "faces", tmp_path / "in", out, "--identity")
    assert "identity distance 0." in capsys.readouterr().out
    assert times == {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    found = figures(out / "summary.json")["identity"]
    assert found.keys() == {"projection", "mirrored", "others"}
    each = [figures(out / f"{name}.json")["identity"] for name in "ab"]
    assert found["projection"] == pytest.approx(sum(each) / 2)


def test_the_part_of_a_photo_that_is_asked_for(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = draw(tmp_path / "photo.png", 20, 30)
    project(runs / "faces", photo, tmp_path / "out", "--box", 5, 2, 8)
    assert "cropped to --box 5 2 8" in capsys.readouterr().out
    original = np.asarray(Image.open(tmp_path / "out" / "photo-original.png"))
    assert np.array_equal(original, np.asarray(Image.open(photo))[2:10, 5:13])
    assert "--box 25 2 8 goes beyond" in refused(capsys, runs / "faces", photo, tmp_path / "beyond", "--box", 25, 2, 8)
    assert "the side at least 1" in refused(capsys, runs / "faces", photo, tmp_path / "none", "--box", 1, 2, 0)


def test_the_part_of_a_photo_that_has_the_models_size(runs: Path, tmp_path: Path) -> None:
    photo = draw(tmp_path / "photo.png", 8, 8)
    project(runs / "faces", photo, tmp_path / "out", "--box", 2, 2, 4)
    assert "cropped to --box 2 2 4 and scaled to 8x8" in figures(tmp_path / "out" / "photo.json")["remarks"][0]


def test_pictures_called_as_files_of_the_results_are_skipped(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "project.png", "summary.png", "deep/project.png"):
        draw(tmp_path / "in" / name, 8, 8)
    for _ in range(2):
        project(runs / "faces", tmp_path / "in", tmp_path / "out")
        said = capsys.readouterr().err
        assert "skipped: project.png: its figures would take the place of project.json" in said
        assert "skipped: summary.png" in said
        assert figures(tmp_path / "out" / "summary.json")["pictures"] == 2
    assert (tmp_path / "out" / "deep" / "project.json").exists()


def test_a_folder_where_nothing_was_done_yet_names_the_record(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "in" / "a.png", 8, 8)
    project(runs / "faces", tmp_path / "in", tmp_path / "out")
    for file in (tmp_path / "out").iterdir():  # as if it had been killed before the first picture
        if file.name != "project.json":
            file.unlink()
    said = refused(capsys, runs / "faces", tmp_path / "in", tmp_path / "out", fast=("--steps", "2"))
    assert f"{tmp_path / 'out' / 'project.json'}: of another projection that was begun here" in " ".join(said.split())


def test_a_grey_photo_for_a_colour_model(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(runs / "faces", draw(tmp_path / "grey.png", 8, 8, 1), tmp_path / "out")
    assert "grey.png: is grey, and the model's pictures are in colour" in capsys.readouterr().out


def test_a_picture_further_than_held_out_ones_is_warned_of(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    for number in range(12):
        draw(tmp_path / "pictures" / f"{number}.png", 8, 8, most=20 + number)
    ingest(IngestConfig(str(tmp_path / "pictures"), str(data), test_fraction=0.5))
    monkeypatch.setattr(projection_files, "FEWEST", 3)
    photo = draw(tmp_path / "photo.png", 8, 8)
    project(runs / "faces", photo, tmp_path / "before")
    assert "no warnings; see --calibrate" in capsys.readouterr().out
    project(runs / "faces", data, tmp_path / "held-out", "--split", "test", "--images", 3, "--calibrate")
    limit = figures(tmp_path / "held-out" / "summary.json")["perceptual_99"]
    assert f"distance of at most {limit:.3g}" in capsys.readouterr().out
    project(runs / "faces", photo, tmp_path / "after")
    assert "warning: photo.png: perceptual distance" in capsys.readouterr().err
    assert figures(tmp_path / "after" / "photo.json")["perceptual_99"] == limit
    version, _ = ModelStore(tmp_path / "models").add("faces", runs / "faces" / "model")
    project(version.directory, photo, tmp_path / "promoted")
    assert "warning: photo.png: perceptual distance" in capsys.readouterr().err
    project(runs / "faces", photo, tmp_path / "otherwise", fast=("--steps", "2", "--perceptual", "0"))
    assert capsys.readouterr().err == "", "it holds for the options that it was measured with"
    assert "needs a data set" in refused(capsys, runs / "faces", photo, tmp_path / "x", "--calibrate")
    for half in ("train:reporting", "train:validation"):
        options = ("--split", half, "--calibrate")
        monkeypatch.setattr(projection_files, "FEWEST", 1)
        project(runs / "faces", data, tmp_path / half, *options)
    assert len(figures(runs / "faces" / "model" / "projection.json")["calibrations"]) == 1, "of the same settings"
    monkeypatch.setattr(projection_files, "FEWEST", 100)
    arguments = ("--split", "test", "--calibrate")
    assert "is taken of 100 at least" in refused(capsys, runs / "faces", data, tmp_path / "y", *arguments)
    (version.directory / "projection.json").write_text('{"version": 1, "calibrations": [{}]}')
    assert "projection.json: damaged" in refused(capsys, version.directory, photo, tmp_path / "z")


def test_what_does_not_fit_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, faces, out = draw(tmp_path / "photo.png", 8, 8), runs / "faces", tmp_path / "out"
    assert "an encoder of another generator" in refused(capsys, faces, photo, out, "--encoder", runs / "other")
    assert "not an encoder" in refused(capsys, faces, photo, out, "--encoder", faces)
    assert "a stylegan is needed" in refused(capsys, runs / "encoder", photo, out)
    assert "give --encoder" in refused(capsys, faces, photo, out, fast=("--steps", "0"))
    assert "no such file or folder" in refused(capsys, faces, tmp_path / "none.png", out)
    assert "is no data set" in refused(capsys, faces, photo, out, "--split", "test")
    assert "a folder is needed" in refused(capsys, faces, photo, tmp_path / "out.png")
    data = tmp_path / "data"
    ingest(IngestConfig("synthetic:digits", str(data), count=3))
    assert "images of 28x28x1, and the model draws 8x8x3" in refused(capsys, faces, data, out)
    assert not out.exists()
