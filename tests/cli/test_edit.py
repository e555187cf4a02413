"""``genlab edit``: pictures before and after, what is read of them, and what they say of their origin."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.cli.edit import main
from genlab.core.storage import locate
from genlab.imaging.images import prepare, read_note
from genlab.models.classifier import Classifier, ClassifierArchitecture, Target
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture
from genlab.store import model_directory
from genlab.store.directions import Directions, Reader
from tests.conftest import save_run
from tests.editing.test_edits import age, gender


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``gan`` is a model with directions, ``bare`` one without, ``reader`` reads them."""
    root = tmp_path_factory.mktemp("edits")
    torch.manual_seed(0)
    small = StyleGANArchitecture(channel_base=32, channel_max=8, latent_dim=8, mapping_layers=2)
    for name in ("gan", "bare"):
        save_run(root / name, StyleGAN((8, 8, 1), small))
    reads = ClassifierArchitecture(width=2, features=4, classes=2, targets=(Target("age", (), 30.0, 20.0),))
    reader, data = Classifier((8, 8, 1), reads), {"images": {"path": "", "checksum": ""}}
    provenance = model_directory.Provenance(
        "reader", 1, 1, data, {"data": {"split": "train"}}, {}, label_names=("man", "woman")
    )
    model_directory.save(root / "reader", reader, provenance)
    weights = [model_directory.describe(root / name)["weights"]["sha256"] for name in ("gan/model", "reader")]
    columns = {"age": "age", "gender": "label"}
    read_by = Reader(str(root / "reader"), weights[1], "0" * 64, "test", 10, columns, {"age": 6.0, "gender": 0.1})
    Directions(weights[0], read_by, 100, 0, (age(), gender())).save(locate(root / "gan" / "model"))
    return root


def test_pictures_stand_side_by_side_and_say_how_they_were_made(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(folder / "gan"), "7", str(tmp_path / "out.png"), "--younger", "15"])
    assert "age: -15 (the column's units); read as " in capsys.readouterr().out
    png = (tmp_path / "out.png").read_bytes()
    shown = prepare(png, channels=1).image
    assert isinstance(shown, np.ndarray)
    assert shown.shape[1] >= 16
    note = read_note(png)
    assert note is not None
    assert note["model"] == model_directory.describe(folder / "gan" / "model")["weights"]["sha256"]
    assert (note["seed"], note["edit"]) == (7, {"direction": "age", "method": "linear", "amount": -15.0})

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


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("gan", [], "give one of --younger, --older, --gender, --direction; given: none"),
        ("gan", ["--younger", "3", "--gender"], "given: --younger, --gender"),
        ("gan", ["--direction", "age"], "--direction and --amount: give both"),
        ("gan", ["--younger", "500"], "amount = -500 of age: this direction goes from -30 to 20"),
        ("gan", ["--direction", "age", "--amount", "nan"], "amount = nan"),
        ("gan", ["--direction", "pose", "--amount", "1"], "no direction 'pose' by the method linear"),
        ("gan", ["--gender", "child"], "no such class; there are: man, woman"),
        ("gan", ["--older", "5", "--method", "sefa"], "no direction 'age' by the method sefa; there are: none"),
        ("bare", ["--older", "5"], "no directions of these weights"),
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
