"""A model as files for other runtimes: equal to the model's operations, at sizes it was not traced at."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from genlab.cli.export import main
from genlab.core.errors import RunError
from genlab.inference import graph_export as module
from genlab.inference.graph_export import export_graphs
from genlab.models.cyclegan import CycleGAN
from genlab.models.graph import Graph, TensorSpec
from genlab.models.noise import Noise
from genlab.models.vae import VAE
from genlab.store import model_directory

FORMATS: dict[module.Format, str] = {"onnx": ".onnx", "torch-export": ".pt2"}


def graph(file: Path) -> Callable[..., list[Tensor]]:
    """An exported graph, as a user loads it."""
    if file.suffix == ".pt2":
        traced = torch.export.load(file).module()

        def run_traced(*inputs: Tensor) -> list[Tensor]:
            outputs = traced(*inputs)
            return list(outputs) if isinstance(outputs, tuple) else [outputs]

        return run_traced
    session = module.onnx_session(Path(file).read_bytes())

    def run(*inputs: Tensor) -> list[Tensor]:
        named = {entry.name: tensor.numpy() for entry, tensor in zip(session.get_inputs(), inputs, strict=True)}
        return [torch.tensor(output) for output in session.run(None, named)]

    return run


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def assert_pixels(outputs: list[Tensor], expected: Tensor) -> None:
    [found] = outputs
    assert found.dtype == torch.uint8
    assert found.shape == expected.shape
    assert expected.int().amax() - expected.int().amin() > 50, "a flat picture proves nothing"
    assert (found.int() - expected.int()).abs().max() <= 1


@pytest.fixture(scope="module")
def exported(model_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, module.Format], Path]:
    """The folder that a run was exported to, by its name and the format; once for all tests, for it takes seconds."""

    @cache
    def folder(run: str, to: module.Format) -> Path:
        out = tmp_path_factory.mktemp("exported") / run
        export_graphs(str(model_runs / run), str(out), to)
        return out

    return folder


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("run", ["digits", "classes"])
def test_a_latent_models_graphs_encode_and_decode_as_it_does(
    run: str, to: module.Format, model_runs: Path, exported: Callable[[str, module.Format], Path]
) -> None:
    model = cast("VAE", model_directory.load(model_runs / run / "model"))
    encode, decode = (graph(exported(run, to) / (name + FORMATS[to])) for name in ("encoder", "decoder"))
    for count in (1, 5):
        classes = torch.arange(count) % model.classes if model.classes else None
        label = [] if classes is None else [classes]
        images, latents = pixels(count, *model.image_shape), model.draw_latents(Noise(3, range(count)))
        for found, expected in zip(encode(images, *label), model.encode(images, classes), strict=True):
            torch.testing.assert_close(found, expected.clone(), rtol=1e-4, atol=1e-5)
        assert_pixels(decode(latents, *label), model.decode(latents, classes))


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("run", ["resnet", "monet"])
def test_a_translators_graphs_take_pictures_of_any_size(
    run: str, to: module.Format, model_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (run, to) != ("monet", "torch-export"):  # tracing takes seconds
        graphs = CycleGAN.graphs
        monkeypatch.setattr(CycleGAN, "graphs", lambda self: {"b_to_a": graphs(self)["b_to_a"]})
    export_graphs(str(model_runs / run / "model"), str(tmp_path), to)
    model = cast("CycleGAN", model_directory.load(model_runs / run / "model"))
    for direction in model.graphs():
        translate = graph(tmp_path / (direction + FORMATS[to]))
        for size in ((1, 8, 12), (3, 5, 30), (1, 16, 8), (2, 2, 3)):
            images = pixels(*size, 3)
            assert_pixels(translate(images), model.translate(images, direction))


@pytest.mark.slow
def test_what_lies_beside_the_graphs_says_how_to_use_them(
    model_runs: Path, exported: Callable[[str, module.Format], Path]
) -> None:
    out = exported("classes", "onnx")
    description = json.loads((out / "export.json").read_text())
    weights = model_directory.describe(model_runs / "classes" / "model")["weights"]["sha256"]
    assert (description["format"], description["weights_sha256"]) == ("onnx", weights)
    assert {file.name for file in out.iterdir()} == {"encoder.onnx", "decoder.onnx", "export.json"}
    for entry in description["graphs"].values():
        session = module.onnx_session((out / entry["file"]).read_bytes())
        for told, found in ((entry["inputs"], session.get_inputs()), (entry["outputs"], session.get_outputs())):
            assert [(port["name"], port["shape"]) for port in told] == [(port.name, port.shape) for port in found]
        assert entry["opset"] >= 18
        assert set(entry["largest_difference"]) == {port["name"] for port in entry["outputs"]}
    assert description["graphs"]["decoder"]["inputs"][1] == {
        "name": "label", "dtype": "int64", "shape": ["N"], "below": 3
    }  # fmt: skip


@pytest.mark.slow
def test_the_command_says_what_each_graph_takes_and_how_near_it_is(
    model_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(model_runs / "digits"), str(tmp_path / "out"), "--format", "torch-export"])
    printed = capsys.readouterr().out
    assert "decoder.pt2: z float32 [N, 3] → pixels uint8 [N, 8, 12, 1]; " in printed
    assert "differs from the model by at most 0 of 255 levels\n" in printed


class Drifting(nn.Module):
    """What a trace cannot follow: it gives something else each time."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.calls = 0
        self.step = step

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return values + self.step * self.calls


@pytest.mark.parametrize(("step", "fails"), [(1e-3, True), (1e-7, False)])
def test_a_graph_that_gives_something_else_is_not_written(
    step: float, fails: bool, model_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = TensorSpec(torch.float32, ("N", 3))
    drifting = {"drift": Graph(Drifting(step), {"values": values}, {"moved": values}, {"N": (2, 1)})}
    monkeypatch.setattr(VAE, "graphs", lambda self: drifting)
    if fails:
        with pytest.raises(RunError, match=r"drift\.pt2: moved is 0\.00\d+ from the model's, allowed are 0\.0001"):
            export_graphs(str(model_runs / "digits"), str(tmp_path / "out"), "torch-export")
        assert not (tmp_path / "out").exists()
    else:
        export_graphs(str(model_runs / "digits"), str(tmp_path / "out"), "torch-export")
        assert (tmp_path / "out" / "drift.pt2").exists()


def test_what_cannot_be_exported_is_said_in_one_message(
    model_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        return capsys.readouterr().err

    model, out = str(model_runs / "digits"), str(tmp_path / "out")
    assert "is a model: say --format onnx or --format torch-export" in fails(model, out)
    assert "is a model: say" in fails(model, out, "--format", "files")
    assert "which has no splits" in fails(model, out, "--format", "onnx", "--split", "test")
    assert "neither a data set (there is no manifest.json), nor a model" in fails(str(tmp_path), out)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text("{}")
    assert "is a data set, which is written as files" in fails(str(tmp_path / "data"), out, "--format", "onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    assert "full: is not empty" in fails(model, str(tmp_path / "full"), "--format", "onnx")
    monkeypatch.setattr(VAE, "graphs", lambda self: {})
    assert "this vae model has no graphs to export" in fails(model, out, "--format", "onnx")
    assert not Path(out).exists()
