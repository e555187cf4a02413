"""A folder of models: what is in it, which version a name stands for, and copies that are whole or not seen."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
import torch

from genlab.core.claims import ClaimError
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from genlab.store.aliases import set_alias
from genlab.store.model_store import ModelStore, version_of
from genlab.store.probes import check, make
from tests.s3 import Bucket, FaultProxy


def save(directory: object, seed: int = 0, probes: bool = True) -> str:
    """Save a model whose weights are those of ``seed``, and return its version."""
    torch.manual_seed(seed)
    model = VAE((8, 8, 1), VAEArchitecture(latent_dim=2, channels=(2,), hidden=4))
    provenance = model_directory.Provenance(run=str(directory), step=1, images=1, data={}, config={}, metrics={})
    model_directory.save(str(directory), model, provenance, make(model) if probes else None)
    return version_of(model_directory.describe(str(directory)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of a model directory ``plain``, a run ``run``, ``digits`` of two versions, and other things."""
    root = tmp_path / "models"
    save(root / "plain", 1)
    save(root / "run" / "model", 2)
    for seed in (3, 4):
        save(tmp_path / f"made-{seed}", seed)
        ModelStore(root).add("digits", tmp_path / f"made-{seed}")
    (root / "data").mkdir()
    (root / "data" / "manifest.json").write_text("{}")
    (root / "unfinished" / "checkpoints").mkdir(parents=True)
    (root / ".trash" / "old").mkdir(parents=True)
    (root / "notes.txt").write_text("")
    return root


def test_a_copy_is_without_the_networks_of_training(tmp_path: Path) -> None:
    save(tmp_path / "made", 0)
    model = model_directory.load(tmp_path / "made")
    provenance = model_directory.Provenance(run="r", step=1, images=1, data={}, config={}, metrics={})
    beside = {"discriminator.bias": torch.ones(2)}
    model_directory.save(tmp_path / "made", model, provenance, training=beside)
    made = model_directory.describe(tmp_path / "made")
    assert torch.equal(
        model_directory.read_training_weights(tmp_path / "made", made)["discriminator.bias"], torch.ones(2)
    )
    version, _ = ModelStore(tmp_path / "models").add("digits", tmp_path / "made")
    assert version.version == version_of(made)
    assert model_directory.read_training_weights(version.directory, version.description) == {}
    (tmp_path / "made" / "training.safetensors").unlink()
    with pytest.raises(RunError, match=r"training\.safetensors: cannot be read"):
        model_directory.read_training_weights(tmp_path / "made", made)


def test_every_model_of_a_folder_is_listed_with_its_versions(root: Path) -> None:
    catalogue = ModelStore(root).catalogue()
    assert list(catalogue.models) == ["digits", "plain", "run"]
    assert [len(model.versions) for model in catalogue.models.values()] == [2, 1, 1]
    assert not catalogue.faults
    for model in catalogue.models.values():
        assert list(model.versions) == sorted(model.versions)
        for version, one in model.versions.items():
            assert version == version_of(model_directory.describe(one.directory)) == one.version
            assert one.name == model.name
            assert model_directory.load(one.directory).family == "vae"
    for name, directory in (("plain", "plain"), ("run", "run/model")):
        assert ModelStore(root).resolve(name).directory == locate(root / directory)


def test_a_version_is_a_hash_of_what_the_model_is(tmp_path: Path) -> None:
    first, again, other = (save(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first == again != other
    description = model_directory.describe(tmp_path / "a")
    for part in ("family", "architecture", "image"):
        assert version_of(description | {part: "another"}) != first
    assert version_of(description | {"probes": None, "provenance": None}) == first


def test_a_copy_is_the_model_with_its_probes_and_copying_again_changes_nothing(tmp_path: Path) -> None:
    version = save(tmp_path / "run" / "model")
    store = ModelStore(tmp_path / "models")
    copied, new = store.add("digits", tmp_path / "run" / "model")
    assert (copied.version, new, copied.directory) == (version, True, locate(tmp_path / "models" / "digits" / version))

    def files(folder: Path) -> dict[str, bytes]:
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    before = files(tmp_path / "models")
    assert {f"digits/{version}/{name}" for name in files(tmp_path / "run" / "model")} == before.keys()
    report = check(copied.directory, model_directory.load(copied.directory))
    assert report is not None
    assert report.same
    assert store.add("digits", tmp_path / "run" / "model") == (copied, False)
    assert files(tmp_path / "models") == before


def test_probes_are_added_to_a_version_that_has_none(tmp_path: Path) -> None:
    save(tmp_path / "model", probes=False)
    store = ModelStore(tmp_path / "models")
    copied, _ = store.add("digits", tmp_path / "model")
    assert "probes" not in store.resolve("digits").description
    model = model_directory.load(tmp_path / "model")
    assert not store.add("digits", tmp_path / "model", make(model))[1]
    assert check(copied.directory, model) is not None
    assert "probes" not in model_directory.describe(tmp_path / "model")


def test_a_copy_that_was_cut_short_is_not_seen_and_is_completed(tmp_path: Path) -> None:
    version = save(tmp_path / "model")
    store = ModelStore(tmp_path / "models")
    with (
        mock.patch("genlab.store.model_store.write_json", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        store.add("digits", tmp_path / "model")
    assert (tmp_path / "models" / "digits" / version / "model.safetensors").exists()
    assert not store.catalogue().models
    assert not store.catalogue().faults
    with pytest.raises(RunError, match="no model 'digits'; there are: none"):
        store.resolve("digits")
    assert store.add("digits", tmp_path / "model")[1]
    assert list(store.catalogue().models) == ["digits"]


def test_a_damaged_source_is_not_copied(tmp_path: Path) -> None:
    save(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match=r"model\.safetensors: damaged"):
        ModelStore(tmp_path / "models").add("digits", tmp_path / "model")
    assert not ModelStore(tmp_path / "models").catalogue().models


@pytest.mark.parametrize("name", ["", "a/b", "a@b", ".a"])
def test_names_that_no_model_may_have_are_refused(name: str, tmp_path: Path) -> None:
    save(tmp_path / "model")
    with pytest.raises(ConfigError, match="is no name of a model"):
        ModelStore(tmp_path / "models").add(name, tmp_path / "model")


def test_a_name_an_alias_and_the_digits_of_a_version_stand_for_a_version(root: Path) -> None:
    store = ModelStore(root)
    one, two = store.catalogue().models["digits"].versions
    set_alias(store.root, "digits", "prod", one)
    set_alias(store.root, "digits", "next", two)
    catalogue = store.catalogue()
    for resolve in (store.resolve, catalogue.resolve):
        for reference, version in {
            "digits": one,
            "digits@prod": one,
            "digits@next": two,
            f"digits@{two}": two,
            f"digits@{one[:6]}": one,
        }.items():
            assert resolve(reference).version == version
        for reference, message in {
            "digit": r"no model 'digit'; there are: digits, plain, run",
            "digits@other": rf"no such alias or version; versions of digits: {one}, {two}; "
            rf"aliases: next \({two}\), prod \({one}\)",
            f"digits@{one[:5]}": "no such alias or version",
            "plain@prod": r"no such alias or version; versions of plain: \w{12}; aliases: none",
        }.items():
            with pytest.raises(RunError, match=message):
                resolve(reference)


def test_a_name_of_several_versions_without_prod_is_not_guessed(root: Path) -> None:
    with pytest.raises(RunError, match=r"digits@prod: no such alias or version; versions of digits: \w{12}, \w{12}"):
        ModelStore(root).resolve("digits")


def test_an_alias_of_a_version_that_is_gone_is_said(root: Path) -> None:
    store = ModelStore(root)
    one, two = store.catalogue().models["digits"].versions
    set_alias(store.root, "digits", "prod", one)
    shutil.rmtree(root / "digits" / one)
    with pytest.raises(
        RunError, match=f"digits@prod: stands for version {one}, which is not there; versions of digits: {two}"
    ):
        store.resolve("digits")


@pytest.mark.parametrize("reference", ["", "@prod", "../models/digits", "/etc", "..", ".trash"])
def test_no_reference_leads_out_of_the_folder(reference: str, root: Path) -> None:
    with pytest.raises(RunError, match="no name of a model"):
        ModelStore(root).resolve(reference)
    with pytest.raises(RunError, match="no model"):
        ModelStore(root).catalogue().resolve(reference)


def test_what_cannot_be_used_is_named_and_the_rest_is_there(root: Path) -> None:
    (root / "plain" / "genlab.json").write_text("{")
    version = next(iter((root / "digits").iterdir()))
    other = version.with_name("0" * 12)
    version.rename(other)
    save(root / "a@b")
    catalogue = ModelStore(root).catalogue()
    assert {name: len(model.versions) for name, model in catalogue.models.items()} == {"digits": 1, "run": 1}
    assert list(catalogue.faults) == ["a@b", f"digits/{other.name}", "plain"]
    assert "not valid JSON" in catalogue.faults["plain"]
    assert catalogue.faults[f"digits/{other.name}"] == f"its content is that of version {version.name}"
    with pytest.raises(RunError, match="not valid JSON"):
        ModelStore(root).resolve("plain")


def test_the_fingerprint_changes_with_what_there_is_and_only_then(root: Path, tmp_path: Path) -> None:
    store = ModelStore(root)
    seen = [store.catalogue().fingerprint]

    def changed() -> bool:
        seen.append(store.catalogue().fingerprint)
        assert ModelStore(root).catalogue().fingerprint == seen[-1]
        return seen[-1] not in seen[:-1]

    assert not changed()
    save(root / "run" / "model", 20)
    assert changed(), "a run goes on"
    save(tmp_path / "made-5", 5)
    added, _ = store.add("digits", tmp_path / "made-5")
    assert changed(), "a version"
    set_alias(store.root, "digits", "prod", added.version)
    assert changed(), "an alias"
    (root / "notes.txt").write_text("more")
    (root / "data" / "more").write_text("")
    assert not changed()
    shutil.rmtree(root / "plain")
    assert changed(), "a model is gone"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder of models"):
        ModelStore(tmp_path / "none").catalogue()


def test_a_model_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "run").rename(tmp_path / "elsewhere" / "run")
    (root / "linked").symlink_to(tmp_path / "elsewhere" / "run")
    assert list(ModelStore(root).catalogue().models) == ["digits", "linked", "plain"]


@pytest.mark.slow
def test_an_object_store_is_listed_by_few_requests(root: Path, s3: Bucket, fault_proxy: FaultProxy) -> None:
    store = ModelStore(f"{s3.url}/models")
    for file in root.rglob("*"):
        if file.is_file():
            (store.root / str(file.relative_to(root))).write_bytes(file.read_bytes())
    for number in range(30):
        (store.root / "run" / "checkpoints" / f"{number}" / "state").write_bytes(b"")
    local = ModelStore(root).catalogue()
    version = next(iter(local.models["digits"].versions))
    set_alias(store.root, "digits", "prod", version)
    fault_proxy.reset()
    found = store.catalogue()
    assert {name: list(model.versions) for name, model in found.models.items()} == {
        name: list(model.versions) for name, model in local.models.items()
    }
    # The root and the aliases; five folders; two descriptions that may change; two versions.
    assert fault_proxy.traffic().count() <= 2 + 5 + 2 + 2
    fault_proxy.reset()
    assert store.catalogue().fingerprint == found.fingerprint
    assert fault_proxy.traffic().count() <= 2 + 5 + 2
    fault_proxy.reset()
    assert store.resolve("digits").version == version
    assert fault_proxy.traffic().count() <= 2
    assert model_directory.load(found.resolve("digits").directory).family == "vae"


@pytest.mark.slow
def test_copies_of_one_model_at_once_make_one_version(tmp_path: Path, s3: Bucket) -> None:
    version = save(tmp_path / "model")

    def add(_: int) -> bool:
        try:
            return ModelStore(s3.url).add("digits", tmp_path / "model")[1]
        except ClaimError:
            return False

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(add, range(3))) == 1
    store = ModelStore(s3.url)
    assert list(store.catalogue().models["digits"].versions) == [version]
    assert check(store.resolve("digits").directory, model_directory.load(tmp_path / "model")) is not None
    description = json.loads((locate(s3.url) / "digits" / version / "genlab.json").read_text())
    assert description["weights"] == model_directory.describe(tmp_path / "model")["weights"]
