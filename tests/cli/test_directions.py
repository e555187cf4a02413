"""``genlab directions``: from a generator and a data set to a file in the model's directory."""

import json
from pathlib import Path

import pytest
import torch

from genlab.cli.directions import main
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.models.classifier import Classifier, ClassifierArchitecture, Target
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from genlab.store.directions import load_directions
from genlab.store.model_store import ModelStore, version_of
from tests.conftest import save_run
from tests.evaluation.support import save


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` are scenes, ``reader`` reads horizon and sun, untrained, ``gan`` draws such pictures, ``vae`` others."""
    root = tmp_path_factory.mktemp("directions")
    ingest(IngestConfig("synthetic:scenes-a", str(root / "data"), count=24, size=32, test_fraction=0.25))
    torch.manual_seed(0)
    targets = (Target("horizon", mean=0.56, deviation=0.05), Target("sun_x", mean=0.5, deviation=0.2))
    reader = Classifier((32, 32, 3), ClassifierArchitecture(width=2, features=8, targets=targets))
    save(root / "reader", reader, root / "data", label_names=())
    small = StyleGANArchitecture(channel_base=64, channel_max=8, latent_dim=8, mapping_layers=2)
    save_run(root / "gan", StyleGAN((32, 32, 3), small))
    save_run(root / "small", StyleGAN((8, 8, 3), small))
    save_run(root / "vae", VAE((32, 32, 3), VAEArchitecture(channels=(4,))))
    return root


@pytest.mark.slow
def test_directions_are_kept_with_the_model_and_go_where_it_goes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for constant in ("SCREENED", "CALIBRATED", "MEASURED"):
        monkeypatch.setattr(f"genlab.editing.directions.{constant}", 8)
    options = ["--data", str(folder / "data"), "--classifier", str(folder / "reader"), "--samples", "100"]
    model = locate(folder / "gan" / "model")
    description = model_directory.describe(model)
    main([str(folder / "gan"), "--attributes", "horizon,sun_x", *options, "--identity"])
    printed = capsys.readouterr().out
    assert "identity distance of 5 held-out faces: from its mirror image 0." in printed
    assert "horizon with a mean absolute error of 0." in printed
    assert "horizon: a linear function of w tells it with R²" in printed
    assert f"directions: {model / 'directions.json'}" in printed

    assert model_directory.describe(model) == description
    found = load_directions(model, description)
    assert found.weights == description["weights"]["sha256"]
    assert found.reader.rows == 5
    assert {one.axis.name for one in found.directions} == {"horizon", "sun_x"}
    direction = found.find("horizon")
    assert len(direction.vector) == 8
    assert direction.effects[0].changes.keys() == {"horizon", "sun_x"}
    assert found.identity is not None
    assert direction.effects[0].identity is not None
    assert "| identity distance |" in (card := (folder / "gan" / "model" / "README.md").read_text())
    assert f"| {direction.effects[0].identity:.2f} |" in card
    assert f"{found.identity.others:.2f} from another face" in card
    with pytest.raises(ConfigError, match="no direction 'age'; there are: horizon, sun_x"):
        found.find("age")

    version, _ = ModelStore(tmp_path / "models").add("faces", folder / "gan" / "model")
    assert version.version == version_of(description)
    assert load_directions(version.directory, version.description) == found

    other = description | {"weights": description["weights"] | {"sha256": "0" * 64}}
    with pytest.raises(RunError, match=r"no directions of these weights .* find some with genlab directions"):
        load_directions(model, other)
    file = folder / "gan" / "model" / "directions.json"
    file.write_text(file.read_text().replace('"method": "linear"', '"method": "magic"'))
    with pytest.raises(RunError, match=r"directions\.json: damaged .*find directions again"):
        load_directions(model, description)
    file.write_text(json.dumps({"format": "genlab-directions", "version": 9}))
    with pytest.raises(RunError, match="directions of format 9; this genlab reads format 1"):
        load_directions(model, description)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("vae", ["--attributes", "horizon"], "a vae, which has no styles"),
        ("small", ["--attributes", "horizon"], "data: images of 32x32x3, and the model draws 8x8x3"),
        ("gan", ["--attributes", "horizon,age"], "no column 'age'; there are: season, horizon, sun_x, lake, houses"),
        ("gan", ["--attributes", "horizon,horizon"], "names a column twice"),
        ("gan", ["--attributes", "lake"], "classifier: it does not predict 'lake'; it does: horizon, sun_x"),
        ("gan", ["--attributes", "horizon", "--split", "train"], "the classifier was trained on these rows"),
        ("gan", ["--attributes", "horizon", "--split", "val"], "no split 'val'; choose one of: train, test"),
    ],
)
def test_what_has_no_directions_is_said(
    model: str, options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(folder / model), "--data", str(folder / "data"), "--classifier", str(folder / "reader"), *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (folder / model / "model" / "directions.json").exists() or model == "gan"
