"""Probes: the same weights make the same pictures, and a model that makes others is refused with the difference."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.core.errors import RunError
from genlab.core.storage import sha256
from genlab.models import cpu
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.model import Model
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from genlab.store.probes import ODD_SIZE, Probes, check, make, probe_pictures

PROVENANCE = model_directory.Provenance(run="/runs/x", step=1, images=1, data={}, config={}, metrics={})
FAMILIES = ["digits", "classes", "monet", "resnet", "faces"]


def saved(directory: Path, model: Model) -> Path:
    model_directory.save(directory, model, PROVENANCE, make(model))
    return directory


@pytest.fixture
def probed(model_runs: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Make a copy of the model of one of ``model_runs``, with probes."""

    def copy(name: str) -> Path:
        return saved(tmp_path / name, model_directory.load(model_runs / name / "model"))

    return copy


def change(directory: Path, do: Callable[[dict[str, Any]], object]) -> None:
    file = directory / "genlab.json"
    description = json.loads(file.read_text())
    do(description["probes"])
    file.write_text(json.dumps(description))


def test_the_pictures_of_probes_never_change() -> None:
    pictures = probe_pictures(0, 2, *ODD_SIZE, 3)
    assert sha256(pictures.tobytes()) == "80bc80949d66c9cf278345064d6aa2a307968e011a3848c04226ebd3cbcfbd48"
    assert (pictures.shape, pictures.dtype) == ((2, *ODD_SIZE, 3), np.uint8)
    assert pictures.min() < 20 < 235 < pictures.max()
    assert pictures.std() > 40
    assert not np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(probe_pictures(0, 1, *ODD_SIZE, 3)[0], pictures[0])
    assert probe_pictures(5, 1, 1, 1, 1).item() == 133


@pytest.mark.parametrize("name", FAMILIES)
def test_a_loaded_model_makes_the_same_bytes_of_every_probe(name: str, probed: Callable[[str], Path]) -> None:
    directory = probed(name)
    model = model_directory.load(directory)
    report = check(directory, model)
    assert report is not None
    assert report.same
    assert str(report) == f"{len(report.results)} probes: the same bytes"
    assert {result.probe.operation for result in report.results} == set(model.operations) - {"decode", "encode"}
    for result in report.results:
        picture = np.asarray(Image.open(directory / result.probe.file))
        assert sha256(picture.tobytes()) == result.probe.sha256, "the picture shows what the operation made"


def test_translators_are_probed_in_each_direction_and_at_another_size_than_that_of_training(
    probed: Callable[[str], Path],
) -> None:
    found = Probes.read(probed("monet"))
    assert found is not None
    inputs = [(probe.arguments["direction"], probe.shape[1:3]) for probe in found.cases]
    assert inputs == [("a_to_b", (8, 12)), ("a_to_b", ODD_SIZE), ("b_to_a", ODD_SIZE)]


def test_conditional_models_are_probed_in_several_classes(probed: Callable[[str], Path]) -> None:
    found = Probes.read(probed("classes"))
    assert found is not None
    assert [probe.arguments["label"] for probe in found.cases] == [[0, 1, 2, 0], [2], [0, 1], [0, 1], [0, 1]]


def test_a_model_that_makes_other_pictures_is_refused_with_the_difference(probed: Callable[[str], Path]) -> None:
    directory = probed("monet")
    model = model_directory.load(directory)
    assert isinstance(model, CycleGAN)
    with torch.no_grad():
        for parameter in model.b_to_a.parameters():
            parameter.mul_(1.2)
    message = (
        r"its probe translate-2 \(translate of pixels .*'height': 45.* direction b_to_a\) differs from what training's "
        r"own model made by [\d.]+ levels of 255 in the mean and \d+ at most; 0.01 and 2 are allowed; on the same kind"
    )
    with pytest.raises(RunError, match=message):
        check(directory, model)


def test_weights_rounded_to_half_precision_are_refused(probed: Callable[[str], Path]) -> None:
    directory = probed("resnet")
    model = model_directory.load(directory)
    for parameter in model.parameters():
        parameter.data = parameter.bfloat16().float()
    with pytest.raises(RunError, match="differs from what training's own model made"):
        check(directory, model)


def test_what_only_rounds_otherwise_passes_and_the_report_says_by_how_much(tmp_path: Path) -> None:
    """PyTorch's own convolutions in place of Winograd's."""
    torch.manual_seed(0)
    directory = saved(tmp_path / "resnet", CycleGAN((64, 64, 3), CycleGANArchitecture("resnet-9", width=16)))
    model = model_directory.load(directory)
    change(directory, lambda probes: probes["machine"].update(processor="Other", threads=64))
    with cpu.kernels(False):
        report = check(directory, model)
    assert report is not None
    assert not report.same
    assert 0 < max(result.mean for result in report.results) < 1e-3
    assert "levels of 255 in the mean and 1 at most; machine: processor 'Other' then, " in str(report)


def test_making_probes_leaves_training_as_it_was() -> None:
    model = CycleGAN((32, 32, 3), CycleGANArchitecture(width=4, dropout=0.5)).train()
    model.b_to_a.eval()
    torch.manual_seed(3)
    torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.allow_tf32 = True
    try:
        first = make(model)
        assert torch.get_deterministic_debug_mode() == 2
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_deterministic_debug_mode("default")
        torch.backends.cudnn.allow_tf32 = False
    assert torch.initial_seed() == 3
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    assert all(module.training for module in model.a_to_b.modules())
    assert not any(module.training for module in model.b_to_a.modules())
    assert first == make(model.eval()), "without dropout, as a loaded model translates"


def test_probes_of_large_pictures_are_few_and_their_pictures_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VAE((256, 512, 1), VAEArchitecture(latent_dim=2, channels=(2, 2, 2, 2), hidden=4))
    directory = saved(tmp_path / "large", model)
    for probe in make(model).cases:
        picture = Image.open(directory / probe.file)
        assert np.prod(probe.shape) <= 3 * 256 * 512
        assert np.prod(picture.size) <= 2**16 * 1.02
    translator = CycleGAN((512, 256, 3), CycleGANArchitecture("resnet-6", width=1))
    assert make(translator).cases[0].shape == (1, 256, 128, 3)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(3)
    with pytest.raises(RunError, match="differs"):
        check(directory, model)


def test_an_operation_that_a_model_refuses_has_no_probe() -> None:
    architecture = StyleGANArchitecture(
        channel_base=32, channel_max=8, latent_dim=8, mapping_layers=2, styles="none", constant=False
    )
    assert {probe.operation for probe in make(StyleGAN((8, 8, 1), architecture)).cases} == {
        "sample",
        "interpolate_draws",
    }


def test_a_directory_without_probes_is_told_apart(model_runs: Path) -> None:
    directory = model_runs / "digits" / "model"
    assert Probes.read(directory) is None
    assert check(directory, model_directory.load(directory)) is None


def test_options_are_those_of_the_time_when_the_probe_was_made(probed: Callable[[str], Path]) -> None:
    directory = probed("faces")
    assert check(directory, model_directory.load(directory))
    change(directory, lambda probes: probes["cases"][0]["options"].update(truncation=0.5))
    with pytest.raises(RunError, match=r"probe sample-0 .* differs"):
        check(directory, model_directory.load(directory))


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a newer format": (lambda probes: probes.update(version=2), "probes of format 2; this genlab reads format 1"),
    "no case": (lambda probes: probes.pop("cases"), r"genlab\.json: probes are damaged"),
    "another type": (lambda probes: probes["cases"][0].update(shape="a"), r"probes are damaged \(shape = 'a'"),
    "an operation": (
        lambda probes: probes["cases"][1].update(operation="dream"),
        "probe sample-1 .* cannot be replayed: this genlab's vae model has no such operation",
    ),
    "an argument": (lambda probes: probes["cases"][0]["arguments"].pop("seed"), "sample-0 .* cannot be replayed: 'see"),
    "an option": (
        lambda probes: probes["cases"][0]["options"].update(psi=1),
        "sample-0 .* cannot be replayed: psi: no such option",
    ),
    "a size": (
        lambda probes: probes["cases"][2]["arguments"]["pixels"].update(height=20),
        "reconstruct-0 .* cannot be replayed",
    ),
    "a count": (
        lambda probes: probes["cases"][0]["arguments"].update(count=3),
        r"sample-0 .* gives pixels of shape \[3, 8, 12, 1\], where \[4, 8, 12, 1\] were kept",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_list_of_probes_is_named(damage: str, probed: Callable[[str], Path]) -> None:
    do, message = DAMAGES[damage]
    directory = probed("digits")
    change(directory, do)
    with pytest.raises(RunError, match=message):
        check(directory, model_directory.load(directory))


def test_a_damaged_or_missing_picture_is_named(probed: Callable[[str], Path]) -> None:
    directory = probed("digits")
    model = model_directory.load(directory)
    picture = directory / "probes" / "sample-0.png"
    shutil.copy(directory / "probes" / "sample-1.png", picture)
    with pytest.raises(RunError, match=r"sample-0\.png: damaged"):
        check(directory, model)
    picture.unlink()
    with pytest.raises(RunError, match=r"sample-0\.png: no such file"):
        check(directory, model)
