"""genlab sample, reconstruct, encode, decode and interpolate: what is written is what the model makes."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genlab.cli import decode, encode, interpolate, mix, reconstruct, sample
from genlab.core.errors import ConfigError
from genlab.core.storage import locate, read_bytes
from genlab.inference.operations import class_number
from genlab.models.model import InterpolationOptions
from genlab.models.stylegan import MixingOptions
from genlab.store import model_directory
from tests.s3 import Bucket


def model_of(run: Path) -> Any:
    return model_directory.load(run / "model")


def picture(file: Path, *, seed: int = 0, size: tuple[int, int] = (8, 12)) -> Tensor:
    """Write a picture of height and width ``size`` and say what is in it: uint8 [1, H, W, 1]."""
    pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return torch.tensor(pixels)[None, :, :, None]


def written(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def cut(file: Path, columns: int, size: tuple[int, int]) -> np.ndarray:
    """The pictures of a sheet, row by row."""
    sheet, (height, width) = written(file), size
    rows = (sheet.shape[0] - 2) // (height + 2)
    assert sheet.shape[:2] == (rows * (height + 2) + 2, columns * (width + 2) + 2)
    corners = [(2 + row * (height + 2), 2 + column * (width + 2)) for row in range(rows) for column in range(columns)]
    return np.stack([sheet[top : top + height, left : left + width] for top, left in corners])


def names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.*"))


def fails(command: Any, *arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that ends with status 2."""
    with pytest.raises(SystemExit) as end:
        command.main([str(argument) for argument in arguments])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_samples_are_what_the_model_draws_as_a_sheet_one_picture_or_files(model_runs: Path, tmp_path: Path) -> None:
    run, model = str(model_runs / "digits"), model_of(model_runs / "digits")
    images = model.sample(7, 5)[:, :, :, 0].numpy()
    sample.main([run, str(tmp_path / "new" / "sheet.png"), "--count", "7", "--seed", "5"])
    sheet = cut(tmp_path / "new" / "sheet.png", 3, (8, 12))
    np.testing.assert_array_equal(sheet[:7], images)
    assert (sheet[7:] == 255).all(), "and the rest is blank"
    sample.main([run + "/model", str(tmp_path / "files"), "--count", "7", "--seed", "5"])
    assert names(tmp_path / "files") == [f"0000{number}.png" for number in range(7)]
    np.testing.assert_array_equal(written(tmp_path / "files" / "00006.png"), images[6])
    sample.main([run, str(tmp_path / "one.png"), "--count", "1"])
    np.testing.assert_array_equal(written(tmp_path / "one.png"), model.sample(1, 0)[0, :, :, 0])


def test_samples_of_a_conditional_model_are_of_the_class_asked_for_or_a_class_a_column(
    model_runs: Path, tmp_path: Path
) -> None:
    run, model = str(model_runs / "classes"), model_of(model_runs / "classes")
    sample.main([run, str(tmp_path / "turns.png"), "--count", "6"])
    np.testing.assert_array_equal(cut(tmp_path / "turns.png", 3, (8, 8)), model.sample(6, 0))
    sample.main([run, str(tmp_path / "turns"), "--count", "4"])
    assert names(tmp_path / "turns") == ["00000-cat.png", "00001-2.png", "00002-a_dog_puppy.png", "00003-cat.png"]
    # "2" is the name of class 1, and names come first; "0" is nothing but a number.
    for label, number in (("cat", 0), ("0", 0), ("2", 1), ("a dog/puppy", 2)):
        sample.main([run, str(tmp_path / "one.png"), "--count", "4", "--label", label])
        expected = model.sample(4, 0, torch.full((4,), number))
        np.testing.assert_array_equal(cut(tmp_path / "one.png", 2, (8, 8)), expected)


def test_a_class_is_a_number_or_in_text_a_name_before_it_is_a_number() -> None:
    names = ("cat", "2", "1")
    assert [class_number(names, label) for label in ("2", "1", "0", "cat", 2, 1)] == [1, 2, 0, 0, 2, 1]
    assert class_number(names, None) is None
    with pytest.raises(ConfigError, match=r"choose from 0, 1, .*, 19, \.\.\. \(1000 in all\)"):
        class_number([str(number) for number in range(1000)], "cat")


def test_a_picture_or_a_folder_goes_through_the_model(
    model_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model = str(model_runs / "digits"), model_of(model_runs / "digits")
    first = picture(tmp_path / "in" / "one.png")
    second = picture(tmp_path / "in" / "more" / "two.bmp", seed=1)
    picture(tmp_path / "in" / "large.png", size=(9, 12))
    (tmp_path / "in" / "bad.png").write_bytes((tmp_path / "in" / "one.png").read_bytes()[:60])
    reconstruct.main([run, str(tmp_path / "in" / "one.png"), str(tmp_path / "out.png")])
    np.testing.assert_array_equal(written(tmp_path / "out.png"), model.reconstruct(first)[0, :, :, 0])
    reconstruct.main([run, str(tmp_path / "in"), str(tmp_path / "out")])
    assert names(tmp_path / "out") == ["more/two.png", "one.png"]
    both = model.reconstruct(torch.cat([second, first]))[:, :, :, 0]
    np.testing.assert_allclose(written(tmp_path / "out" / "one.png").astype(int), both[1], atol=1)
    np.testing.assert_allclose(written(tmp_path / "out" / "more" / "two.png").astype(int), both[0], atol=1)
    printed = capsys.readouterr()
    assert "2 of 4 images reconstructed" in printed.out
    assert "large.png: is 12x9 pixels; the model takes 12x8" in printed.err
    assert "bad.png: cannot be decoded" in printed.err


def test_a_picture_or_a_folder_is_encoded_and_what_was_written_decoded(
    model_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model = str(model_runs / "digits"), model_of(model_runs / "digits")
    first = picture(tmp_path / "in" / "one.png")
    second = picture(tmp_path / "in" / "more" / "two.bmp", seed=1)
    picture(tmp_path / "in" / "large.png", size=(9, 12))
    encode.main([run, str(tmp_path / "in"), str(tmp_path / "z" / "all.json")])
    printed = capsys.readouterr()
    assert "all.json: 2 latent vectors of 3 numbers" in printed.out
    assert "large.png: is 12x9 pixels; the model takes 12x8" in printed.err
    found = json.loads((tmp_path / "z" / "all.json").read_text())
    assert found["pictures"] == ["more/two.bmp", "one.png"]
    mean = model.encode(torch.cat([second, first]))[0]
    np.testing.assert_allclose(found["latents"], mean, rtol=1e-5, atol=1e-6)

    decode.main([run, str(tmp_path / "z" / "all.json"), str(tmp_path / "files")])
    assert names(tmp_path / "files") == ["more/two.png", "one.png"]
    expected = model.decode(torch.tensor(found["latents"]))[:, :, :, 0].numpy()
    np.testing.assert_allclose(written(tmp_path / "files" / "one.png").astype(int), expected[1], atol=1)
    decode.main([run, str(tmp_path / "z" / "all.json"), str(tmp_path / "sheet.png")])
    np.testing.assert_allclose(cut(tmp_path / "sheet.png", 2, (8, 12)).astype(int), expected, atol=1)

    encode.main([run, str(tmp_path / "in" / "one.png"), str(tmp_path / "one.json")])
    assert json.loads((tmp_path / "one.json").read_text())["pictures"] == ["one.png"]
    (tmp_path / "own.json").write_text('{"latents": [[0, 0.5, -1], [1, 2, 3]]}')
    decode.main([run, str(tmp_path / "own.json"), str(tmp_path / "own")])
    assert names(tmp_path / "own") == ["00000.png", "00001.png"]
    expected = model.decode(torch.tensor([[0, 0.5, -1.0]]))[0, :, :, 0].numpy()
    np.testing.assert_allclose(written(tmp_path / "own" / "00000.png").astype(int), expected, atol=1)


def test_a_conditional_model_is_told_the_class_of_what_it_encodes_and_decodes(model_runs: Path, tmp_path: Path) -> None:
    run, model = str(model_runs / "classes"), model_of(model_runs / "classes")
    colour = picture(tmp_path / "in.png", size=(8, 8)).expand(-1, -1, -1, 3)
    encode.main([run, str(tmp_path / "in.png"), str(tmp_path / "z.json"), "--label", "2"])
    mean = model.encode(colour, torch.tensor([1]))[0]
    found = json.loads((tmp_path / "z.json").read_text())["latents"]
    np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)
    decode.main([run, str(tmp_path / "z.json"), str(tmp_path / "out.png"), "--label", "cat"])
    expected = model.decode(torch.tensor(found), torch.tensor([0]))[0].numpy().astype(int)
    np.testing.assert_allclose(written(tmp_path / "out.png"), expected, atol=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a file of latent vectors"),
        ("[" * 100_000, "not a file of latent vectors"),
        ('{"latents": []}', "not a file of latent vectors"),
        ('{"latents": [[0, 0, NaN]]}', "not a file of latent vectors"),
        ('{"latents": [[0, 0, 1e39]]}', "not a file of latent vectors"),
        ('{"latents": [[0, 0, "1"]]}', "not a file of latent vectors"),
        ('{"latents": [[0, 0]]}', "latents: the model takes 3 numbers each, not 2"),
        ('{"latents": [[0, 0, 0]], "pictures": ["a", "b"]}', "1 latent vectors and the names of 2 pictures"),
        ('{"latents": [[0, 0, 0]], "pictures": ["../a.png"]}', "'../a.png' of its pictures is no path"),
        ('{"latents": [[0, 0, 0]], "pictures": ["/tmp/a.png"]}', "'/tmp/a.png' of its pictures is no path"),
        ('{"latents": [[0, 0, 0], [0, 0, 0]], "pictures": ["a.png", "a.jpg"]}', "'a.jpg' of its pictures"),
        ('{"latents": [[0, 0, 0]], "pictures": [""]}', "'' of its pictures"),
    ],
)
def test_files_that_cannot_be_decoded_are_named(
    content: str, message: str, model_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "z.json").write_text(content)
    printed = fails(decode, model_runs / "digits", tmp_path / "z.json", tmp_path / "out", capsys=capsys)
    assert message in printed
    assert not (tmp_path / "out").exists()


def test_a_conditional_model_is_told_the_class_of_a_picture(model_runs: Path, tmp_path: Path) -> None:
    grey = picture(tmp_path / "in.png", size=(8, 8)).expand(-1, -1, -1, 3)
    for number, label in enumerate(("cat", "2")):
        out = tmp_path / f"{label}.png"
        reconstruct.main([str(model_runs / "classes"), str(tmp_path / "in.png"), str(out), "--label", label])
        expected = model_of(model_runs / "classes").reconstruct(grey, torch.tensor([number]))[0]
        np.testing.assert_array_equal(written(out), expected)
    assert not np.array_equal(written(tmp_path / "cat.png"), written(tmp_path / "2.png"))


def test_an_interpolation_is_a_strip_or_frames_or_an_animation(model_runs: Path, tmp_path: Path) -> None:
    run, model = str(model_runs / "digits"), model_of(model_runs / "digits")
    ends = torch.cat([picture(tmp_path / "a.png"), picture(tmp_path / "b.png", seed=1)])
    places = [run, str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    line = model.interpolate(ends, options=InterpolationOptions(steps=5))[:, :, :, 0].numpy()
    interpolate.main([*places, str(tmp_path / "strip.png"), "--steps", "5"])
    np.testing.assert_array_equal(cut(tmp_path / "strip.png", 5, (8, 12)), line)
    interpolate.main([*places, str(tmp_path / "frames"), "--steps", "5"])
    assert names(tmp_path / "frames") == [f"0000{number}.png" for number in range(5)]
    np.testing.assert_array_equal(written(tmp_path / "frames" / "00004.png"), line[4])
    interpolate.main([*places, str(tmp_path / "film.gif"), "--steps", "5"])
    with Image.open(tmp_path / "film.gif") as film:
        assert getattr(film, "n_frames", 1) == 5
        for frame in range(5):
            film.seek(frame)
            np.testing.assert_array_equal(np.asarray(film.convert("L")), line[frame])


def test_an_interpolation_between_draws_runs_from_one_sample_to_the_other(model_runs: Path, tmp_path: Path) -> None:
    interpolate.main([str(model_runs / "classes"), str(tmp_path / "strip.png"), "--seeds", "1", "2", "--label", "cat"])
    strip, model = cut(tmp_path / "strip.png", 10, (8, 8)).astype(int), model_of(model_runs / "classes")
    for seed, image in ((1, strip[0]), (2, strip[-1])):
        np.testing.assert_allclose(image, model.sample(1, seed, torch.tensor([0]))[0], atol=1)


def test_the_line_between_draws_stays_where_the_prior_has_its_mass(
    model_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(model_runs / "digits")
    monkeypatch.setattr(model, "draw_latents", lambda noise: noise.normal("z", 10_000))
    monkeypatch.setattr(model, "decode", lambda latents, label: latents)
    line = model.interpolate_draws((0, 1), options=InterpolationOptions(steps=5))
    torch.testing.assert_close(line.std(1), torch.ones(5), atol=0.05, rtol=0)


def test_styles_are_mixed_into_a_sheet_or_a_file_each(model_runs: Path, tmp_path: Path) -> None:
    run, model = str(model_runs / "faces"), model_of(model_runs / "faces")
    seeds = ["--rows", "1", "2", "--columns", "4", "5", "6"]
    grid = model.mix_styles((1, 2), (4, 5, 6), None, MixingOptions(0.7, styles="fine"))[..., 0].numpy()
    mix.main([run, str(tmp_path / "sheet.png"), *seeds, "--styles", "fine", "--truncation", "0.7"])
    np.testing.assert_array_equal(cut(tmp_path / "sheet.png", 4, (8, 8)), grid.reshape(-1, 8, 8))
    mix.main([run, str(tmp_path / "files"), *seeds, "--styles", "fine", "--truncation", "0.7"])
    mixed = [f"{row}-{column}.png" for row in (1, 2) for column in (4, 5, 6)]
    sources = [f"column-{column}.png" for column in (4, 5, 6)] + ["row-1.png", "row-2.png"]
    assert names(tmp_path / "files") == mixed + sources
    for name, picture in (("2-5", grid[2, 2]), ("row-2", grid[2, 0]), ("column-5", grid[0, 2])):
        np.testing.assert_array_equal(written(tmp_path / "files" / f"{name}.png"), picture)


@pytest.mark.slow
def test_models_and_pictures_may_lie_in_an_object_store(model_runs: Path, tmp_path: Path, s3: Bucket) -> None:
    root = f"s3://{s3.name}/model_runs/digits/model"
    for file in (model_runs / "digits" / "model").iterdir():
        (locate(root) / file.name).write_bytes(file.read_bytes())
    sample.main([root.removesuffix("/model"), f"s3://{s3.name}/out.png", "--count", "1"])
    drawn = np.asarray(Image.open(io.BytesIO(read_bytes(locate(f"s3://{s3.name}/out.png")))))
    np.testing.assert_array_equal(drawn, model_of(model_runs / "digits").sample(1, 0)[0, :, :, 0])
    reconstruct.main([root, f"s3://{s3.name}/out.png", str(tmp_path / "again.png")])
    assert written(tmp_path / "again.png").shape == (8, 12)


def test_what_cannot_be_done_is_said_in_one_message(
    model_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits, classes, monet, out = (
        model_runs / "digits",
        model_runs / "classes",
        model_runs / "monet",
        tmp_path / "out.png",
    )
    picture(one := tmp_path / "one.png")
    picture(large := tmp_path / "large" / "large.png", size=(9, 12))

    def said(command: Any, *arguments: str | Path) -> str:
        return fails(command, *arguments, capsys=capsys)

    assert "this cyclegan model does not sample; its operations are: translate" in said(sample, monet, out)
    assert "does not reconstruct" in said(reconstruct, monet, one, out)
    assert "does not interpolate" in said(interpolate, monet, one, one, out)
    assert "does not encode" in said(encode, monet, one, tmp_path / "z.json")
    assert "does not decode" in said(decode, monet, tmp_path / "z.json", out)
    assert "z.json: No such file" in said(decode, digits, tmp_path / "z.json", out)
    assert "latent vectors are written as JSON; name it out.json" in said(encode, digits, one, out)
    assert "absent.png: no such file or folder" in said(encode, digits, tmp_path / "absent.png", tmp_path / "z.json")
    assert "label: this model must be told the class" in said(encode, classes, one, tmp_path / "z.json")
    assert "does not interpolate" in said(interpolate, monet, out, "--seeds", "1", "2")
    pair = ("--rows", "1", "--columns", "2")
    assert "this vae model does not mix styles" in said(mix, digits, out, *pair)
    assert "rows" in said(mix, model_runs / "faces", out, "--rows", "--columns", "2")
    assert "rows" in said(mix, model_runs / "faces", out, "--rows", "-1", "--columns", "2")
    assert "--styles" in said(mix, model_runs / "faces", out, *pair, "--styles", "other")
    assert "truncation = nan" in said(mix, model_runs / "faces", out, *pair, "--truncation", "nan")
    assert "label: this model knows no classes" in said(mix, model_runs / "faces", out, *pair, "--label", "a")
    assert "label: this model knows no classes" in said(sample, digits, out, "--label", "a")
    assert "label: no class 'bird'; choose from cat, 2, a dog/puppy" in said(sample, classes, out, "--label", "bird")
    assert "label: no class '3'" in said(sample, classes, out, "--label", "3")
    assert "label: this model must be told the class" in said(reconstruct, classes, one, out)
    assert "label: this model must be told the class" in said(interpolate, classes, out, "--seeds", "1", "2")
    assert "large.png: is 12x9 pixels; the model takes 12x8" in said(reconstruct, digits, large, out)
    assert "none of its 1 images could be used; the model takes 12x8" in said(
        reconstruct, digits, large.parent, tmp_path / "out"
    )
    assert "large.png: is 12x9 pixels" in said(interpolate, digits, one, large, out)
    assert "absent.png: no such file or folder" in said(reconstruct, digits, tmp_path / "absent.png", out)
    assert "absent.png: No such file" in said(interpolate, digits, one, tmp_path / "absent.png", out)
    assert "give two pictures and OUT" in said(interpolate, digits, one, out)
    assert "give two pictures and OUT" in said(interpolate, digits, one, one, out, "--seeds", "1", "2")
    assert "out.jpg" in said(sample, digits, tmp_path / "out.jpg")
    assert "the same as the source" in said(reconstruct, digits, one, one)
    assert "a folder of pictures needs a folder to go to" in said(reconstruct, digits, large.parent, out)
    within = large.parent / "out"
    assert "the same as the source, or in it" in said(reconstruct, digits, large.parent, within)
    assert not within.exists()
    assert "count" in said(sample, digits, out, "--count", "0")
    assert "not a model directory" in said(sample, tmp_path, out)
    assert not out.exists()
