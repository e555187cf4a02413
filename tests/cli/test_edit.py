"""``genlab edit``: pictures before and after, what is read of them, and what they say of their origin."""

import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.cli.edit import FRAMES, main
from genlab.core.storage import locate
from genlab.editing.attributes import AttributeReader
from genlab.imaging.images import prepare, read_note
from genlab.models.classifier import Classifier, ClassifierArchitecture, Target
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture
from genlab.store import model_directory
from genlab.store.directions import Directions, Reader
from tests.conftest import save_run
from tests.editing.test_edits import age, gender


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``gan`` is a model with directions, ``bare`` one without, ``other`` one with those of ``gan``."""
    root = tmp_path_factory.mktemp("edits")
    torch.manual_seed(0)
    small = StyleGANArchitecture(channel_base=32, channel_max=8, latent_dim=8, mapping_layers=2)
    for name in ("gan", "bare", "other"):
        save_run(root / name, StyleGAN((8, 8, 1), small))
    reads = ClassifierArchitecture(width=2, features=4, classes=2, targets=(Target("age", (), 30.0, 20.0),))
    reader, data = Classifier((8, 8, 1), reads), {"images": {"path": "", "checksum": ""}}
    provenance = model_directory.Provenance(
        "reader", 1, 1, data, {"data": {"split": "train", "flip": True}}, {}, label_names=("man", "woman")
    )
    model_directory.save(root / "reader", reader, provenance)
    weights = [model_directory.describe(root / name)["weights"]["sha256"] for name in ("gan/model", "reader")]
    columns = {"age": "age", "gender": "label"}
    read_by = Reader(str(root / "reader"), weights[1], "0" * 64, "test", 10, columns, {"age": 6.0, "gender": 0.1})
    Directions(weights[0], read_by, 100, 0, (age(), gender())).save(locate(root / "gan" / "model"))
    shutil.copy(root / "gan" / "model" / "directions.json", root / "other" / "model")
    return root


def test_pictures_stand_side_by_side_and_say_how_they_were_made(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(folder / "gan"), "7", str(tmp_path / "out.png"), "--younger", "15"])
    classifier = cast("Classifier", model_directory.load(folder / "reader"))
    picture = cast("StyleGAN", model_directory.load(folder / "gan" / "model")).sample(1, 7)
    age_before = AttributeReader(classifier, {"age": "age"}, (), mirrored=True)(picture).item()
    assert f"age: -15 (the column's units); read as {age_before:.3g} before" in capsys.readouterr().out
    png = (tmp_path / "out.png").read_bytes()
    shown = prepare(png, channels=1).image
    assert isinstance(shown, np.ndarray)
    assert shown.shape[1] >= 16
    note = read_note(png)
    assert note is not None
    assert note["model"] == model_directory.describe(folder / "gan" / "model")["weights"]["sha256"]
    assert note["seed"] == 7
    assert note["edit"].pop("steps").keys() == {"age", "gender"}
    assert note["edit"] == {"direction": "age", "method": "linear", "amount": -15.0}

    main([str(folder / "gan"), "7", str(tmp_path / "files"), "--direction", "age", "--amount", "10"])
    assert sorted(file.name for file in (tmp_path / "files").iterdir()) == ["edit.png", "picture.png"]
    edited = read_note((tmp_path / "files" / "edit.png").read_bytes())
    assert edited is not None
    assert edited["edit"]["amount"] == 10
    plain = prepare((tmp_path / "files" / "picture.png").read_bytes(), channels=1).image
    assert np.array_equal(plain, model_directory.load(folder / "gan" / "model").sample(1, 7)[0].numpy())  # type: ignore[operator]


def test_the_other_class_needs_no_name(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder / "gan"), "7", str(tmp_path / "a.png"), "--gender"])
    before, named = capsys.readouterr().out.splitlines()[0].split(" before")[0].split("read as ")
    other = {"man": "woman", "woman": "man"}[named]
    main([str(folder / "gan"), "7", str(tmp_path / "b.png"), "--gender", other])
    assert capsys.readouterr().out.splitlines()[0].startswith(before)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


FAST = ("--projection.steps", "1", "--projection.perceptual", "0")


def draw(file: Path, height: int, width: int) -> Path:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width), np.uint8)
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


def test_a_photo_is_projected_once_and_edited(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = draw(tmp_path / "photos" / "me.png", 12, 20)
    main([str(folder / "gan"), str(photo), str(tmp_path / "younger"), "--younger", "15", *FAST])
    said = capsys.readouterr().out
    assert "me.png: has 20x12 pixels: cropped to the middle 12x12 and scaled to 8x8" in said
    assert "1 picture projected: PSNR" in said
    names = ["edit.png", "original.png", "projection.png"]
    assert sorted(file.name for file in (tmp_path / "younger").iterdir()) == names
    [made] = tmp_path.glob("projections/*/me.safetensors")
    [kept] = tmp_path.glob("projections/*/me-projection.png")
    drawn = tmp_path / "younger" / "projection.png"
    assert np.array_equal(np.asarray(Image.open(kept)), np.asarray(Image.open(drawn)))

    before = made.stat().st_mtime_ns
    main([str(folder / "gan"), str(photo), str(tmp_path / "film.gif"), "--older", "10", *FAST])
    assert made.stat().st_mtime_ns == before, "it was found again"
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 2 * FRAMES - 2  # type: ignore[attr-defined]
    note = read_note((tmp_path / "film.gif").read_bytes())
    assert note is not None
    assert (note["made"], note["edit"]["amount"], len(note["source"])) == ("film", 10, 64)
    assert capsys.readouterr().out.endswith("film.gif: film\n")

    main([str(folder / "gan"), str(made.parent), str(tmp_path / "again"), "--younger", "15"])
    edits = [tmp_path / "younger" / "edit.png", tmp_path / "again" / "me-edit.png"]
    assert edits[0].read_bytes() == edits[1].read_bytes(), "of the folder of projections"


def test_a_folder_of_pictures_is_a_sheet(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("a", "b")):
        draw(tmp_path / "photos" / f"{name}.png", 8 + number, 8)
    main([str(folder / "gan"), str(tmp_path / "photos"), str(tmp_path / "sheet.png"), "--gender", *FAST])
    assert "a: gender: " in capsys.readouterr().out
    png = (tmp_path / "sheet.png").read_bytes()
    pixels = prepare(png, channels=1).image
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (2 + 2 * 10, 2 + 3 * 10, 1)
    original = prepare((tmp_path / "photos" / "a.png").read_bytes(), channels=1).image
    assert np.array_equal(pixels[2:10, 2:10], original)
    note = read_note(png)
    assert note is not None
    assert [one["edit"]["direction"] for one in note["pictures"]] == ["gender", "gender"]
    with pytest.raises(SystemExit):
        main([str(folder / "gan"), str(tmp_path / "photos"), str(tmp_path / "film.gif"), "--older", "5", *FAST])
    assert "a film is of one picture" in capsys.readouterr().err


def test_what_cannot_be_projected_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, out = draw(tmp_path / "photos" / "me.png", 8, 8), str(tmp_path / "out.png")
    for source, options, message in (
        (str(tmp_path / "none.png"), [], "no such file or folder"),
        (str(photo), ["--younger", "500"], "amount = -500 of age: this direction goes from -30 to 20"),
        (str(photo), ["--older", "5", "--box", "4", "0", "8"], "goes beyond"),
        ("7", ["--older", "5", "--box", "0", "0", "8"], "--box: only for a picture that is projected; 7 is not"),
        ("7", ["--older", "5"], "--projection: only for a picture that is projected; 7 is not"),
        (str(photo), ["--older", "5", "--label", "man"], "--label: only for the picture of a seed"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([str(folder / "gan"), source, out, *(options or ["--older", "5"]), *FAST])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("projections/*/*.safetensors"))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("gan", [], "give one of --younger, --older, --gender, --direction; given: none"),
        ("gan", ["--younger", "3", "--gender"], "given: --younger, --gender"),
        ("gan", ["--direction", "age"], "--direction and --amount: give both"),
        ("gan", ["--younger", "500"], "amount = -500 of age: this direction goes from -30 to 20"),
        ("gan", ["--direction", "age", "--amount", "nan"], "amount = nan"),
        ("gan", ["--direction", "pose", "--amount", "1"], "no direction 'pose'; there are: age"),
        ("gan", ["--direction", "Age", "--amount", "1"], "did you mean 'age'?"),
        ("gan", ["--gender", "child"], "no such class; there are: man, woman"),
        ("gan", ["--older", "5", "--method", "sefa"], "no direction 'age' by the method sefa; there are: none"),
        ("bare", ["--older", "5"], "directions.json: no such file); find some"),
        ("other", ["--older", "5"], "directions.json is of other weights); find some"),
    ],
)
def test_what_cannot_be_edited_is_said(
    model: str, options: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(folder / model), "7", str(tmp_path / "out.png"), *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
