"""Files of StyleGAN2's published programs: the same images, or one clear message, and nothing in them is run."""

import argparse
import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from genlab.cli import describe, sample
from genlab.cli.import_weights import main
from genlab.models.pixels import from_signed
from genlab.models.stylegan import StyleGAN
from genlab.models.stylegan_discriminator import Discriminator
from genlab.store import model_directory
from tests.store.stylegan_files import (
    SOURCE,
    Published,
    Reduced,
    drawn,
    judged,
    mapped,
    named,
    rosinality_checkpoint,
    tensorflow_pickle,
    torch_pickle,
)

LICENSE = ("--license", "Nvidia Source Code License-NC")


def imported(root: Path, content: bytes, *arguments: str) -> Path:
    file = root / "network.pkl"
    file.write_bytes(content)
    main([str(root / "out"), "--stylegan", str(file), *(arguments or LICENSE)])
    return root / "out"


CONDITIONAL = Published(classes=3)
CASES: dict[str, tuple[Callable[[Published], bytes], Published]] = {
    "ada": (torch_pickle, Published()),
    "ada, residual": (torch_pickle, Published(form="resnet", judged="skip", colours=1)),
    "ada, classes": (torch_pickle, CONDITIONAL),
    "ada, clamped": (torch_pickle, Published(clamp=0.8, rate=0.1)),
    "ada, the mapping learns as fast": (torch_pickle, Published(rate=1.0)),
    "tensorflow": (tensorflow_pickle, Published(size=32, layers=3)),
    "tensorflow, residual": (tensorflow_pickle, Published(form="resnet", clamp=0.8, rate=0.02)),
    "tensorflow, classes": (tensorflow_pickle, replace(CONDITIONAL, joint=True)),
    "tensorflow ada, classes": (tensorflow_pickle, CONDITIONAL),
    "rosinality": (rosinality_checkpoint, Published(size=32)),
    "rosinality, before zip files": (lambda what: rosinality_checkpoint(what, zipped=False), Published()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_networks_of_a_file_give_the_same_outputs(case: str, tmp_path: Path) -> None:
    write, what = CASES[case]
    out = imported(tmp_path, write(what))
    model = cast("StyleGAN", model_directory.load(out))
    weights = what.generator()
    z = torch.randn(4, what.latent, generator=torch.Generator().manual_seed(2))
    label = torch.tensor([0, 1, 2, 1]) if what.classes else None
    one_hot = torch.eye(max(1, what.classes))[label if label is not None else torch.zeros(4, dtype=torch.int64)]
    noise = [weights[name][None, None].expand(4, -1, -1, -1) for name in weights if name.endswith("noise_const")]
    with torch.inference_mode():
        w = mapped(what, weights, z, one_hot)
        torch.testing.assert_close(model.map_latents(z, label), w, rtol=0, atol=1e-4)
        expected = drawn(what, weights, w)
        found = model.synthesis(w[:, None].expand(-1, model.synthesis.styles, -1), noise)
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        truncated = model.truncate(w, 0.5)
        torch.testing.assert_close(truncated, (w + weights["mapping.w_avg"]) / 2, rtol=0, atol=1e-5)

        beside = model_directory.read_training_weights(out, model_directory.describe(out))
        form: Any = "residual" if what.judged == "resnet" else "skip"
        network = Discriminator(
            model.image_shape, model.architecture, form, "bilinear", 4, what.classes, model.architecture.clamp
        )
        network.load_state_dict({name.removeprefix("discriminator."): one for name, one in beside.items()})
        scores = judged(what, what.discriminator(), expected, one_hot)
        assert scores.abs().min() > 1e-2
        torch.testing.assert_close(network(expected, label), scores, rtol=0, atol=1e-4)


def test_an_imported_model_is_one_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = imported(tmp_path, torch_pickle(Published(clamp=256)))
    printed = capsys.readouterr().out
    assert "a generator of 16x16x3, with its discriminator" in printed
    assert f"genlab train stylegan --run.init {out} --model.channel-base 32 --model.channel-max 8" in printed
    assert "--model.clamp 256" in printed
    card = (out / "README.md").read_text()
    assert "| license | Nvidia Source Code License-NC |" in card
    assert "imported by genlab" in card
    sample.main([str(out), str(tmp_path / "sheet.png"), "--count", "4", "--truncation", "0.7"])
    assert (tmp_path / "sheet.png").exists()
    describe.main([str(out)])
    assert "to_colours" in capsys.readouterr().out


def test_a_file_without_a_mean_style_gets_that_of_latents(tmp_path: Path) -> None:
    """A checkpoint of rosinality's training has none; its options are an object that is not made."""
    what = Published()
    content = rosinality_checkpoint(what, mean=False, args=argparse.Namespace(size=16), ada_aug_p=0.1)
    model = cast("StyleGAN", model_directory.load(imported(tmp_path, content)))
    z = torch.randn(20_000, what.latent, generator=torch.Generator().manual_seed(3))
    expected = mapped(what, what.generator(), z, torch.ones(1))
    torch.testing.assert_close(model.mean_style, expected.mean(0), rtol=0, atol=6 * float(expected.std()) / 100)


def test_a_discriminator_of_another_form_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = imported(tmp_path, torch_pickle(Published(judged="orig")))
    assert "without a discriminator, as the file has another one than genlab's: it is of the architecture orig" in (
        capsys.readouterr().out
    )
    assert model_directory.read_training_weights(out, model_directory.describe(out)) == {}
    alone = tmp_path / "alone"
    alone.mkdir()
    imported(alone, torch_pickle(Published(), D=None))
    assert "without a discriminator, as the file has none" in capsys.readouterr().out


def refused(root: Path, capsys: pytest.CaptureFixture[str], content: bytes, *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        imported(root, content, *arguments)
    assert end.value.code == 2
    assert not (root / "out").exists()
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert len(printed) < 600
    return printed


def touching(trace: Path) -> dict[str, Any]:
    """What a pickle may try to run, each leaving ``trace``."""

    def stored(value: object) -> bytes:
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=False)
        return file.getvalue()

    touch = Reduced(Path.touch, trace)
    command, program = f"touch {trace}", f"__import__('pathlib').Path({str(trace)!r}).touch()"
    with named("torch_utils.persistence._reconstruct_persistent_obj") as names:
        nested = Reduced(
            names["torch_utils.persistence._reconstruct_persistent_obj"], {"state": Reduced(eval, program)}
        )
        held = pickle.dumps({"G_ema": nested})
    load = torch.storage._load_from_bytes
    return {
        "system": pickle.dumps(Reduced(os.system, command)),
        "system, old protocol": pickle.dumps(Reduced(os.system, command), protocol=0),
        "eval": pickle.dumps({"G_ema": Reduced(eval, program)}),
        "exec in a state": pickle.dumps(Reduced(set, state=Reduced(exec, program))),
        "nested": held,
        "getattr": pickle.dumps(Reduced(getattr, Reduced(__import__, "os"), "system")),
        "a storage": torch_pickle(Published(), augment_pipe=Reduced(load, stored({"a": touch}))),
        "a storage that is a pickle": torch_pickle(Published(), augment_pipe=Reduced(load, pickle.dumps(touch))),
        "a checkpoint": rosinality_checkpoint(Published(), args=touch),
        "a name that is a list": b"](l" + b"\x93.",
        "a very long name": b"c" + b"o" * 100_000 + b"\nsystem\n.",
        "an instance": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "an extension": b"\x82\x01.",
        "a persistent id": b"Pos.system\n.",
    }


@pytest.mark.parametrize("name", touching(Path("trace")))
def test_a_file_that_would_run_code_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "ran"
    printed = refused(tmp_path, capsys, touching(trace)[name])
    assert not trace.exists()
    assert any(word in printed for word in ("names", "weights alone", "instruction", "no text"))


@pytest.mark.parametrize("write", [torch_pickle, tensorflow_pickle])
def test_the_program_in_a_file_is_not_run(write: Any, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    source = SOURCE.format(str(trace))
    out = imported(tmp_path, write(Published(), source))
    assert not trace.exists()
    assert not any(source.encode() in file.read_bytes() for file in out.iterdir()), "nor kept"


def bomb() -> bytes:
    """A checkpoint whose weights are a thousandth of their size in the file."""
    small, file = zipfile.ZipFile(io.BytesIO(rosinality_checkpoint(Published()))), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in small.infolist():
            bomb.writestr(entry.filename, small.read(entry))
        bomb.writestr("archive/data/999", bytes(50_000_000))
    return file.getvalue()


def repeated() -> bytes:
    """A pickle that holds one array and has it for a hundred layers."""
    one = Reduced(torch._utils._rebuild_parameter, torch.ones(100, 100), False, OrderedDict())
    content = torch_pickle(Published(), changes={f"mapping.fc{number}.weight": one for number in range(100)})
    assert len(content) < 200_000
    return content


def overrun() -> bytes:
    """A pickle of a tensor whose storage has fewer numbers."""
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
    )
    tensor = Reduced(torch._utils._rebuild_tensor_v2, storage, 0, (6,), (1,), False, OrderedDict())
    return torch_pickle(Published(), changes={"mapping.w_avg": tensor})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb, "torch.save compresses nothing"),
        (overrun, "a tensor of more numbers than the file has of it"),
        (repeated, "it unpacks to more numbers than it has bytes"),
        (lambda: b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"short", "a damaged one"),
        (lambda: b"", "a damaged one"),
        (lambda: b"not a pickle", "a damaged one"),
        (lambda: b"(" * 100_000 + b".", "holds neither"),
        (lambda: torch_pickle(Published())[:-100], "a damaged one"),
        (lambda: rosinality_checkpoint(Published())[:-100], "damaged"),
        (lambda: pickle.dumps({"G_ema": 3}), "holds neither"),
        (lambda: rosinality_checkpoint(Published(), g_ema=[1]), "has no g_ema"),
        (lambda: torch_pickle(Published(form="orig")), "its generator is of the architecture orig"),
        (lambda: torch_pickle(Published(), attributes={"activation": "relu"}), "its activation is not lrelu"),
        (lambda: torch_pickle(Published(), attributes={"conv_clamp": float("nan")}), "conv_clamp is no finite number"),
        (lambda: torch_pickle(Published(), changes={"synthesis.b8.conv0.bias": None}), "is missing"),
        (lambda: torch_pickle(Published(), changes={"synthesis.b8.more": torch.ones(1)}), "b8.more has no place"),
        (lambda: torch_pickle(Published(), changes={"mapping.w_avg": torch.ones(5)}), "mapping.w_avg is 5 "),
        (lambda: torch_pickle(Published(), changes={"synthesis.b4.const": torch.full((8, 4, 4), torch.nan)}), "finite"),
        (lambda: torch_pickle(Published(), changes={"synthesis.b4.const": torch.tensor(1.0)}), "has no layers"),
        (lambda: tensorflow_pickle(Published(), resample_kernel=[1, 2, 1]), "resample_kernel is not [1, 3, 3, 1]"),
        (lambda: tensorflow_pickle(Published(), normalize_latents=False), "normalize_latents is not True"),
        (lambda: tensorflow_pickle(Published(), nonlinearity="relu"), "its activation is not lrelu"),
    ],
)
def test_other_files_are_refused_in_one_message(
    content: Callable[[], bytes], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = refused(tmp_path, capsys, content())
    assert "network.pkl: " in printed
    assert message in " ".join(printed.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--stylegan needs --license NAME"),
        (("--license", " "), "--stylegan needs --license NAME"),
        ((*LICENSE, "--size", "64"), "--stylegan stands alone"),
        ((*LICENSE, "--a-to-b", "a.pth"), "--stylegan stands alone"),
    ],
)
def test_its_options(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["out", "--stylegan", "network.pkl", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_damaged_discriminator_of_a_model_is_noticed(tmp_path: Path) -> None:
    out = imported(tmp_path, torch_pickle(Published()))
    description = json.loads((out / "genlab.json").read_text())
    file = out / description["training"]["file"]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(Exception, match="damaged"):
        model_directory.read_training_weights(out, description)


def test_pixels_are_those_of_the_reference(tmp_path: Path) -> None:
    """Without noise, which differs from picture to picture."""
    what = Published()
    model = cast("StyleGAN", model_directory.load(imported(tmp_path, torch_pickle(what))))
    weights = {name: one * 0 if name.endswith("noise_strength") else one for name, one in what.generator().items()}
    w = 0.1 * torch.randn(2, what.latent, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        found, expected = from_signed(model.synthesise(w, None)), from_signed(drawn(what, weights, w))
    assert (found.int() - expected.int()).abs().max() <= 1
