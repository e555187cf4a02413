"""A user's .pth files of the reference implementation: the same translations, or one clear message."""

import contextlib
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from genlab.cli import describe, translate
from genlab.cli.import_weights import main
from genlab.core.errors import RunError
from genlab.inference.operations import ModelInfo
from genlab.models.cyclegan import CycleGAN
from genlab.models.pixels import to_signed
from genlab.store import model_directory
from genlab.store.import_weights import import_weights
from tests.models.published import published_resnet

Weights = dict[str, Tensor]


def trained(width: int = 4, blocks: int = 9, channels: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = published_resnet(channels, width, blocks)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def saved(file: Path, weights: object) -> str:
    torch.save(weights, file)
    return str(file)


@pytest.mark.parametrize(("width", "blocks", "channels"), [(4, 9, 3), (4, 6, 1), (16, 9, 3)])
def test_the_model_translates_as_the_networks_of_the_files(
    width: int, blocks: int, channels: int, tmp_path: Path
) -> None:
    """With the kernels for a CPU, which round otherwise: small transposed ones, and from width 16 on Winograd's."""
    networks = {"a_to_b": trained(width, blocks, channels), "b_to_a": trained(width, blocks, channels, seed=1)}
    files = [saved(tmp_path / f"{name}.pth", network.state_dict()) for name, network in networks.items()]
    main([str(tmp_path / "out"), "--a-to-b", files[0], "--b-to-a", files[1], "--size", "64"])
    model = cast("CycleGAN", model_directory.load(tmp_path / "out"))
    assert (model.image_shape, model.architecture.generator) == ((64, 64, channels), f"resnet-{blocks}")
    pixels = torch.randint(0, 256, (2, 16, 24, channels), dtype=torch.uint8)
    for direction, network in networks.items():
        with torch.inference_mode():
            expected, found = network(to_signed(pixels)), getattr(model, direction)(to_signed(pixels))
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if width < 16 else 1e-4)
        levels = (((expected + 1) / 2 * 255).permute(0, 2, 3, 1) - model.translate(pixels, direction)).abs()
        assert levels.max() < 0.51


def test_the_card_and_the_layers_of_an_imported_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path / "latest_net_G_A.pth", trained().state_dict())
    main([str(tmp_path / "out"), "--a-to-b", file, "--b-to-a", file])
    assert "resnet-9 of width 4 for 3 channels, both directions" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "imported by genlab" in card
    assert "latest_net_G_A.pth" in card
    assert "trained" not in card
    describe.main([str(tmp_path / "out")])
    assert "model.10.conv_block.1" in capsys.readouterr().out


def test_files_of_data_parallel_and_of_old_versions_are_read(tmp_path: Path) -> None:
    weights = trained().state_dict()
    old = {f"module.{key}": value for key, value in weights.items()}
    for norm in ("model.2", "model.10.conv_block.2"):
        old |= {f"module.{norm}.running_mean": torch.zeros(4), f"module.{norm}.running_var": torch.ones(4)}
        old[f"module.{norm}.num_batches_tracked"] = torch.tensor(7)
    files = saved(tmp_path / "new.pth", weights), str(tmp_path / "old.pth")
    torch.save(old, files[1], _use_new_zipfile_serialization=False)
    main([str(tmp_path / "out"), "--a-to-b", files[0], "--b-to-a", files[1]])
    model = cast("CycleGAN", model_directory.load(tmp_path / "out"))
    for key, value in model.b_to_a.state_dict().items():
        assert torch.equal(value, weights[key])


@pytest.mark.parametrize(("direction", "other"), [("a_to_b", "b_to_a"), ("b_to_a", "a_to_b")])
def test_one_file_makes_a_model_of_one_direction(
    direction: str, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, out, option = trained(blocks=6), tmp_path / "out", f"--{direction.replace('_', '-')}"
    main([str(out), option, saved(tmp_path / "net.pth", network.state_dict()), "--size", "64"])
    assert f"resnet-6 of width 4 for 3 channels, {direction} alone" in capsys.readouterr().out
    assert f"| directions | {direction} |" in (out / "README.md").read_text()
    model = cast("CycleGAN", model_directory.load(out))
    assert model.directions == (direction,)
    assert not hasattr(model, other)

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(tmp_path / "in.png")
    translate.main([str(out), str(tmp_path / "in.png"), str(tmp_path / "translated.png")])
    with torch.inference_mode():
        expected = network(to_signed(torch.tensor(np.asarray(Image.open(tmp_path / "in.png")))[None]))
    levels = (
        np.asarray(Image.open(tmp_path / "translated.png")) - ((expected + 1) / 2 * 255)[0].permute(1, 2, 0).numpy()
    )
    assert np.abs(levels).max() < 0.51
    with pytest.raises(SystemExit):
        translate.main([str(out), str(tmp_path / "in.png"), str(tmp_path / "no.png"), "--direction", other])
    assert f"direction = '{other}': choose from {direction}\n" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"choose from {direction}"):
        model.translate(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), other)

    assert ModelInfo.read(out).directions == (direction,)
    assert list(model.graphs()) == [direction]
    describe.main([str(out)])
    shown = capsys.readouterr().out
    assert f"cyclegan.{direction}" in shown
    assert other not in shown
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert f"in all {parameters:,} parameters" in shown


def test_no_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "out")])
    assert end.value.code == 2
    assert "--a-to-b FILE, --b-to-a FILE, or both" in capsys.readouterr().err


def changed(**tensors: Tensor | None) -> Weights:
    """The weights of a ResNet-9 with some replaced, added or, for ``None``, left out; ``__`` stands for a dot."""
    weights: dict[str, Tensor | None] = dict(trained().state_dict())
    weights |= {key.replace("__", "."): value for key, value in tensors.items()}
    return {key: value for key, value in weights.items() if value is not None}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"model.model.0.weight": torch.ones(1)}, "model.1.weight, of a first convolution, is missing"),
        ({}, "model.1.weight, of a first convolution, is missing"),
        (trained(blocks=4).state_dict(), "has 4 residual blocks"),
        (changed(model__1__bias=None), "model.1.bias is missing, where 4 is needed"),
        (changed(model__26__weight=torch.ones(1, 4, 7, 7)), "model.26.weight is 1x4x7x7, where 3x4x7x7 is needed"),
        (changed(model__2__weight=torch.ones(4)), "model.2.weight has no place"),
        (trained().half().state_dict(), "model.1.weight is float16, where float32 is needed; cast the weights"),
        ({"epoch": 3, "model": {}}, "not a state dict"),
        ([torch.ones(1)], "not a state dict"),
    ],
)
def test_weights_of_another_architecture_are_refused_by_the_first_key_that_does_not_fit(
    weights: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = saved(tmp_path / "good.pth", trained().state_dict()), saved(tmp_path / "bad.pth", weights)
    for files in ((good, bad), (bad, good)):
        assert f"{bad}: {message}" in refused(capsys, tmp_path, *files)


def refused(capsys: pytest.CaptureFixture[str], root: Path, a_to_b: str, b_to_a: str, *more: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(root / "out"), "--a-to-b", a_to_b, "--b-to-a", b_to_a, *more])
    assert end.value.code == 2
    assert not (root / "out" / "genlab.json").exists()
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    return printed


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = saved(tmp_path / "good.pth", trained().state_dict())
    (tmp_path / "noise.pth").write_bytes(b"not weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.pth").write_bytes(Path(good).read_bytes()[:-100])
    for name, said in (("noise", "not a file of weights alone"), ("empty", "not a file"), ("cut", "a damaged file")):
        broken = str(tmp_path / f"{name}.pth")
        assert f"{broken}: {said}" in refused(capsys, tmp_path, good, broken)
    assert "none.pth: No such file" in refused(capsys, tmp_path, str(tmp_path / "none.pth"), good)
    smaller = saved(tmp_path / "smaller.pth", trained(blocks=6).state_dict())
    printed = refused(capsys, tmp_path, good, smaller)
    assert "smaller.pth: resnet-6 of width 4 for 3 channels, and" in printed
    assert "size = 30: 30x30 images do not suit the ResNet" in refused(capsys, tmp_path, good, good, "--size", "30")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    assert "out: is not empty" in refused(capsys, tmp_path, good, good)


def test_damaged_files_are_refused_whatever_is_damaged(tmp_path: Path) -> None:
    good = Path(saved(tmp_path / "good.pth", trained().state_dict())).read_bytes()
    random = np.random.default_rng(0)
    for number in range(60):
        damaged = bytearray(good)
        for place in random.integers(0, len(good), 2):
            damaged[place] ^= int(random.integers(1, 256))
        (tmp_path / "bad.pth").write_bytes(damaged)
        with contextlib.suppress(RunError):  # else the weights alone differ
            import_weights(str(tmp_path / f"out{number}"), {"a_to_b": str(tmp_path / "bad.pth")}, 32)


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (trace,)

    good, evil = saved(tmp_path / "good.pth", trained().state_dict()), saved(tmp_path / "evil.pth", {"a": Evil()})
    assert "evil.pth: not a file of weights alone" in refused(capsys, tmp_path, good, evil)
    assert not trace.exists()
