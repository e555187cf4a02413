"""A run that begins with the weights of another run or of a model: ``run.init``."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genlab.cli.import_weights import main as import_weights
from genlab.cli.train import main as train
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import JOB_ENV
from genlab.models.vae import VAEArchitecture
from genlab.recipes.options import Optimization
from genlab.recipes.vae import VAEConfig
from genlab.store import model_directory
from genlab.training.launch import launch
from genlab.training.plan import make_plan, start_or_resume
from tests.store.stylegan_files import Published, torch_pickle
from tests.training.support import (
    assert_same_state,
    checkpoint_steps,
    cyclegan_config,
    state,
    train_until_killed,
    vae_config,
)


@pytest.fixture(scope="module")
def first_vae(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("runs")
    launch("vae", vae_config(digits, name="first", storage=str(storage)))
    return storage / "first"


@pytest.fixture(scope="module")
def first_cyclegan(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("runs")
    launch("cyclegan", cyclegan_config(scenes, name="first", storage=str(storage), steps=3))
    return storage / "first"


def newest(run: Path) -> dict[str, Tensor]:
    return state(run, checkpoint_steps(run)[-1])


def weights(run: Path, beginning: str) -> dict[str, Tensor]:
    return {name.removeprefix(beginning): one for name, one in newest(run).items() if name.startswith(beginning)}


def test_it_begins_with_the_networks_and_averages_of_a_run_and_with_new_optimisers(
    digits: Path, first_vae: Path, tmp_path: Path
) -> None:
    # So slow that the weights after a step are those that it began with.
    slow = Optimization(learning_rate=1e-12, ema_images=1e9)
    config = vae_config(digits, name="second", storage=str(tmp_path), init=str(first_vae), log_every=1, steps=1)
    launch("vae", dataclasses.replace(config, optimization=slow))
    run = tmp_path / "second"
    for part in ("network.", "ema."):
        torch.testing.assert_close(weights(run, part), weights(first_vae, part), rtol=0, atol=1e-6)
    assert all(value == 1 for name, value in newest(run).items() if name.endswith(".step")), "new optimisers"
    networks, averages = (weights(first_vae, part)["vae.encoder.mean.weight"] for part in ("network.", "ema."))
    assert not torch.equal(networks, averages)


def test_what_it_began_with_stands_in_config_model_and_card(digits: Path, first_vae: Path, tmp_path: Path) -> None:
    launch("vae", vae_config(digits, name="second", storage=str(tmp_path), init=str(first_vae), steps=1))
    run = tmp_path / "second"
    expected = {"path": str(first_vae), "step": 12, "weights": "", "license": ""}
    assert json.loads((run / "config.json").read_text())["init"] == expected
    assert model_directory.describe(run / "model")["provenance"]["init"] == expected
    assert f"| began with | step 12 of {first_vae} |" in (run / "model" / "README.md").read_text()


@pytest.mark.slow
def test_a_run_that_goes_on_takes_the_weights_once(digits: Path, first_vae: Path, tmp_path: Path) -> None:
    def config(name: str) -> VAEConfig:
        return vae_config(digits, name=name, storage=str(tmp_path), init=str(first_vae))

    launch("vae", config("unbroken"))
    plan = make_plan("vae", config("killed"))
    start_or_resume(plan)
    train_until_killed(plan, "step", 7)
    launch("vae", config("killed"))
    assert_same_state(newest(tmp_path / "killed"), newest(tmp_path / "unbroken"))


def test_a_model_has_no_discriminators_which_is_said(
    scenes: Path, first_cyclegan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = first_cyclegan / "model"
    launch("cyclegan", cyclegan_config(scenes, name="second", storage=str(tmp_path), init=str(model), steps=1))
    assert f"{model} has no discriminators: it begins anew" in capsys.readouterr().out
    init = json.loads((tmp_path / "second" / "config.json").read_text())["init"]
    assert init["weights"] == model_directory.describe(model)["weights"]["sha256"]


def test_an_imported_model_brings_its_discriminator_and_its_licence(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "network.pkl").write_bytes(torch_pickle(Published(size=32, clamp=256.0)))
    model = tmp_path / "model"
    import_weights([str(model), "--stylegan", str(tmp_path / "network.pkl"), "--license", "for research"])
    options = capsys.readouterr().out.splitlines()[-1].partition(f"--run.init {model}")[2].split()
    run = {"--run.name": "second", "--run.storage": str(tmp_path), "--run.workers": "0", "--run.steps": "1"}
    given = {"--data.images": str(scenes / "a"), "--run.batch": "4", "--optimization.learning-rate": "1e-12", **run}
    train(["stylegan", "--run.init", str(model), *options, *itertools.chain.from_iterable(given.items())])
    assert "begins anew" not in capsys.readouterr().out
    found = newest(tmp_path / "second")
    brought = model_directory.read_training_weights(model, model_directory.describe(model))
    assert brought
    for name, tensor in brought.items():
        torch.testing.assert_close(found[f"network.{name}"], tensor, rtol=0, atol=1e-6)
    assert "| license | for research |" in (tmp_path / "second" / "model" / "README.md").read_text()


def test_other_architectures_and_families_are_refused_before_anything_starts(
    digits: Path, scenes: Path, first_vae: Path, tmp_path: Path
) -> None:
    config = vae_config(digits, name="second", storage=str(tmp_path), init=str(first_vae))
    wider = dataclasses.replace(config, model=VAEArchitecture(channels=(4, 8), hidden=9))
    message = r"another architecture: vae.encoder\.\S+ is 8 there and 9 here; \d+ tensors differ"
    with pytest.raises(ConfigError, match=message):
        make_plan("vae", wider)
    with pytest.raises(ConfigError, match=r"of family 'vae', and this run is of 'cyclegan'"):
        make_plan("cyclegan", cyclegan_config(scenes, name="x", storage=str(tmp_path), init=str(first_vae)))
    with pytest.raises(ConfigError, match=r"neither a run nor a model directory"):
        make_plan("vae", vae_config(digits, name="x", storage=str(tmp_path), init=str(tmp_path)))
    assert not (tmp_path / "second").exists()


def test_a_model_of_another_program_is_refused(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["UNet2DModel"]}')
    with pytest.raises(ConfigError, match=r"neither a run nor a model directory"):
        make_plan("vae", vae_config(digits, name="x", storage=str(tmp_path), init=str(tmp_path)))


def test_a_job_needs_an_absolute_path(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB_ENV, "{}")
    with pytest.raises(ConfigError, match=r"run\.init='runs/first' is a relative path"):
        make_plan("vae", vae_config(digits, name="x", storage=str(tmp_path), init="runs/first"))


def test_weights_of_another_dtype_are_not_cast_without_a_word(digits: Path, first_vae: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    half = model_directory.load(first_vae / "model").to(torch.bfloat16)
    model_directory.save(model, half, model_directory.Provenance(str(first_vae), 12, 72, {}, {}, {}))
    config = vae_config(digits, name="second", storage=str(tmp_path), init=str(model))
    with pytest.raises((ConfigError, RunError), match=r"bfloat16"):
        make_plan("vae", config)


def test_weights_that_changed_since_the_run_began_are_refused(digits: Path, first_vae: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    loaded = model_directory.load(first_vae / "model")
    provenance = model_directory.Provenance(str(first_vae), 12, 72, {}, {}, {})
    model_directory.save(model, loaded, provenance)
    config = vae_config(digits, name="second", storage=str(tmp_path), init=str(model))
    start_or_resume(make_plan("vae", config))
    with torch.no_grad():
        next(loaded.parameters()).add_(1)
    model_directory.save(model, loaded, provenance)
    with pytest.raises(RunError, match=r"holds other weights than those that this run began with"):
        launch("vae", config)
