"""``genlab promote``: a model goes under an alias only with probes that it keeps, and an alias goes back."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from genlab.cli.promote import main
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from genlab.store.model_store import ModelStore
from genlab.store.probes import Probes, make


def save(run: Path, seed: int = 0, probes: bool = True) -> str:
    torch.manual_seed(seed)
    model = VAE((8, 8, 1), VAEArchitecture(latent_dim=2, channels=(2,), hidden=4))
    provenance = model_directory.Provenance(run=str(run), step=1, images=1, data={}, config={}, metrics={})
    model_directory.save(run / "model", model, provenance, make(model) if probes else None)
    return str(run)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "models")


def version(root: str, reference: str) -> str:
    return ModelStore(root).resolve(reference).version


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_models_are_promoted_and_rolled_back(tmp_path: Path, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = save(tmp_path / "digits")
    main([run, root])
    first = version(root, "digits@prod")
    said = capsys.readouterr().out
    assert "5 probes: the same bytes" in said
    assert f"digits: version {first} copied to {root}/digits/{first}" in said
    assert f"digits@prod: {first}\n" in said
    main([run, root])
    assert f"digits@prod: {first}, as before" in capsys.readouterr().out

    save(tmp_path / "digits", 1)
    main([run, root, "--as", "next"])
    second = version(root, "digits@next")
    assert second != first == version(root, "digits")
    main(["digits@next", root])
    assert f"digits@prod: {second}, before {first}\n" in capsys.readouterr().out
    assert version(root, "digits") == second
    main(["digits", root, "--back"])
    said = capsys.readouterr().out
    assert f"digits@prod: {first}, before {second}\n" in said
    assert f"{root}/digits/{first}: 5 probes: the same bytes\n" in said
    assert (version(root, "digits"), version(root, "digits@next")) == (first, second)
    assert "digits@prod: is version" in refused(capsys, "digits", root, "--back")
    main([f"digits@{second[:6]}", root, "--as", "prod"])
    assert version(root, "digits") == second


def test_an_alias_goes_back_only_to_a_version_that_keeps_its_probes(
    tmp_path: Path, root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        main([save(tmp_path / "digits", seed), root])
    current = version(root, "digits@prod")
    [before] = {path.name for path in (Path(root) / "digits").iterdir()} - {current}
    file = Path(root) / "digits" / before / "genlab.json"
    description = json.loads(file.read_text())
    description["probes"]["cases"][0]["arguments"]["seed"] = 7
    file.write_text(json.dumps(description))
    assert "differs from what training" in refused(capsys, "digits", root, "--back")
    assert version(root, "digits@prod") == current
    shutil.rmtree(file.parent)
    assert f"digits@{before}: no such alias or version" in refused(capsys, "digits", root, "--back")
    assert version(root, "digits@prod") == current


def test_a_model_may_have_another_name_there(tmp_path: Path, root: str) -> None:
    main([save(tmp_path / "try-7"), root, "--name", "digits"])
    assert list(ModelStore(root).catalogue().models) == ["digits"]


def test_a_folder_of_runs_is_a_folder_of_models(tmp_path: Path) -> None:
    save(tmp_path / "digits")
    main([str(tmp_path / "digits"), str(tmp_path)])
    first = version(str(tmp_path), "digits")
    save(tmp_path / "digits", 1)
    assert version(str(tmp_path), "digits") == first, "a run that goes on does not change what is promoted"


def test_a_model_that_makes_other_pictures_than_it_did_is_refused(
    tmp_path: Path, root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path / "digits")
    file = tmp_path / "digits" / "model" / "genlab.json"
    description = json.loads(file.read_text())
    description["probes"]["cases"][0]["arguments"]["seed"] = 7
    file.write_text(json.dumps(description))
    assert "its probe sample-0 (sample of count 4, seed 7, label None) differs from what training" in refused(
        capsys, run, root
    )
    assert not Path(root).exists()


def test_a_model_without_probes_is_refused_unless_they_are_to_be_made(
    tmp_path: Path, root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path / "digits", probes=False)
    assert "has no probes" in refused(capsys, run, root)
    main([run, root, "--add-probes"])
    assert "5 probes made, on this machine" in capsys.readouterr().out
    assert Probes.read(ModelStore(root).resolve("digits").directory) is not None
    assert Probes.read(tmp_path / "digits" / "model") is None
    main(["digits@prod", root, "--as", "next"])
    assert "5 probes: the same bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "ROOT", "--as", "facade"], "as = 'facade': looks like the digits of a version"),
        (["RUN", "ROOT", "--as", "a@b"], "as = 'a@b': an alias is of letters"),
        (["RUN", "ROOT", "--name", "a@b"], "name = 'a@b': is no name of a model"),
        (["none", "ROOT"], "none: not a model directory"),
        (["digits@next", "ROOT"], "no such folder of models"),
        (["digits@next", "ROOT", "--name", "x"], "--name x: digits@next is a model in"),
        (["digits", "ROOT", "--back"], "there is no alias digits@prod"),
        (["digits@next", "ROOT", "--back"], "name = 'digits@next': is no name of a model"),
        (["digits", "ROOT", "--back", "--add-probes"], "--back goes with NAME, ROOT and --as alone"),
    ],
)
def test_what_cannot_be_promoted_is_said(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    root: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = save(tmp_path / "digits")
    words = [{"RUN": run, "ROOT": root}.get(word, word) for word in arguments]
    assert message in refused(capsys, *words)
    assert not Path(root).exists()
