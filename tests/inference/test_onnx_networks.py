"""Networks by ONNX Runtime: what they give is what PyTorch gives, and they are exported once."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.inference import onnx_networks
from genlab.inference.batch_sizes import DECISIVE
from genlab.inference.engine import Engine
from genlab.inference.kinds import Draw, Encode
from genlab.models.cvae import CVAE, CVAEArchitecture
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.model import Model
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from tests.inference.support import PROVENANCE

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "onnx"


def saved(model: Model, root: Path) -> Path:
    model_directory.save(root, model, PROVENANCE)
    return root


def test_pictures_are_those_of_pytorch_within_a_level(tmp_path: Path) -> None:
    torch.manual_seed(0)
    models: Mapping[str, Model] = {
        "vae": VAE((16, 16, 3), VAEArchitecture(channels=(8, 8))),
        "cvae": CVAE((28, 28, 1), CVAEArchitecture(classes=3)),
    }
    for name, model in models.items():
        directory = saved(model, tmp_path / name)
        torch_engine, onnx = Engine(directory, "cpu"), Engine(directory, "cpu", runtime="onnx")
        label = "2" if name == "cvae" else None
        drawn = onnx.sample(9, 5, label)
        assert np.abs(drawn.astype(int) - torch_engine.sample(9, 5, label)).max() <= 1
        assert np.abs(onnx.encode(list(drawn), label) - torch_engine.encode(list(drawn), label)).max() < 1e-4
        assert onnx.bytes == torch_engine.bytes > 0
        rows = Draw(onnx.info.options("sample", {}))
        assert onnx.exact(rows)
        alone = [onnx.sample(1, seed, label)[0] for seed in range(DECISIVE)]
        task = [onnx.sample_task(1, seed, onnx.info.class_number(label), {}).rows[0] for seed in range(DECISIVE)]
        np.testing.assert_array_equal(onnx.compute(rows, task), alone, "whatever a picture is computed with")
        assert onnx.exact(Encode(onnx.info.options("encode", {})))


@pytest.mark.parametrize("generator", ["unet", "resnet-6"])
def test_pictures_of_any_size_are_translated(generator: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = CycleGANArchitecture(generator=generator, width=4)  # type: ignore[arg-type]
    directory = saved(CycleGAN((16, 24, 3), architecture), tmp_path / "m")
    torch_engine, onnx = Engine(directory, "cpu"), Engine(directory, "cpu", runtime="onnx")
    for height, width in ((16, 24), (33, 50), (70, 16)):
        picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        for direction in ("a_to_b", "b_to_a"):
            difference = onnx.translate(picture, direction).astype(int) - torch_engine.translate(picture, direction)
            assert np.abs(difference).max() <= 1


def test_nothing_is_reported_to_the_makers_of_onnx_runtime(tmp_path: Path, cache: Path) -> None:
    """Before it reports, it writes a file with the number of the session."""
    torch.manual_seed(0)
    Engine(saved(VAE((16, 16, 1), VAEArchitecture(channels=(8,))), tmp_path / "m"), "cpu", runtime="onnx")
    folder = tmp_path / "temporary"
    folder.mkdir()
    program = "import sys; from genlab.inference.engine import Engine; Engine(sys.argv[1], 'cpu', runtime='onnx')"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"TMPDIR": str(folder), "GENLAB_CACHE": str(cache.parent)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "m")], env=environment, check=True)
    assert not list(folder.iterdir())


def test_a_model_is_exported_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    directory = saved(VAE((16, 16, 1), VAEArchitecture(channels=(8,))), tmp_path / "m")
    first = Engine(directory, "cpu", runtime="onnx").sample(3, 1)
    assert len(list(cache.iterdir())) == 2, "encoder and decoder"
    monkeypatch.setattr(onnx_networks, "onnx_model", None)
    np.testing.assert_array_equal(Engine(directory, "cpu", runtime="onnx").sample(3, 1), first)


def test_a_damaged_file_is_exported_anew(tmp_path: Path, cache: Path) -> None:
    torch.manual_seed(0)
    directory = saved(VAE((16, 16, 1), VAEArchitecture(channels=(8,))), tmp_path / "m")
    first = Engine(directory, "cpu", runtime="onnx").sample(3, 1)
    whole = {file: file.read_bytes() for file in cache.iterdir()}
    for file, data in whole.items():
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        file.write_bytes(changed)
    np.testing.assert_array_equal(Engine(directory, "cpu", runtime="onnx").sample(3, 1), first)
    assert {file: file.read_bytes() for file in cache.iterdir()} == whole


def test_what_cannot_be_exported_is_computed_by_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    directory = saved(VAE((16, 16, 1), VAEArchitecture(channels=(8,))), tmp_path / "m")

    def fail(graph: object) -> None:
        raise RuntimeError("no operator")

    monkeypatch.setattr(onnx_networks, "onnx_model", fail)
    engine = Engine(directory, "cpu", runtime="onnx")
    np.testing.assert_array_equal(engine.sample(3, 1), Engine(directory, "cpu").sample(3, 1))
    assert "decoder is computed by PyTorch" in caplog.text
