"""Options of a model's own on the command line: here those of the toy GAN."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.cli.evaluate import EvaluateConfig
from genlab.cli.interpolate import InterpolateConfig
from genlab.cli.mix import MixConfig
from genlab.cli.reconstruct import ReconstructConfig
from genlab.cli.sample import SampleConfig, main
from genlab.cli.translate import TranslateConfig
from genlab.models.model import OPERATIONS, RESERVED_NAMES
from genlab.store import model_directory


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command says that ends with status 2."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_an_option_of_the_model_changes_what_is_drawn(gan_run: Path, tmp_path: Path) -> None:
    model: Any = model_directory.load(gan_run / "model")
    kind = model.operations["sample"]
    for arguments, options in (([], kind()), (["--truncation", "0.25"], kind(truncation=0.25))):
        main([str(gan_run), str(tmp_path / "one.png"), "--count", "1", "--seed", "3", *arguments])
        expected = model.sample(1, 3, options=options)[0, :, :, 0]
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "one.png")), expected)


def test_a_value_out_of_range_and_an_unknown_option_are_refused(
    gan_run: Path, model_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    message = refused(capsys, gan_run, out, "--truncation", "1.5")
    assert message.strip() == "error: truncation = 1.5: should be less than or equal to 1"
    assert "--truncation" in refused(capsys, gan_run, out, "--truncatoin", "0.5"), "the nearest name"
    assert "--truncation" in refused(capsys, model_runs / "digits", out, "--truncation", "0.5"), "a VAE has none"
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("truncation", "nan", "truncation = nan: "),
        ("truncation", "2.5", "truncation = 2.5: should be less than or equal to 2"),
        ("truncation", "-3", "truncation = -3.0: should be greater than or equal to -2"),
        ("latents", "0", "latents = 0: should be greater than or equal to 1"),
        ("latents", "9", "latents = 9: should be less than or equal to 8"),
    ],
)
def test_styles_that_cannot_be_drawn_are_refused_in_one_line(
    option: str, value: str, message: str, model_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, model_runs / "faces", tmp_path / "out.png", f"--{option}", value)
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_a_job_takes_its_words_from_the_command_line(
    gan_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["jobs/sample.py", str(gan_run), str(tmp_path / "one.png"), "--truncation", "0.5"])
    main()
    assert (tmp_path / "one.png").exists()


def test_help_of_a_model_lists_its_options(gan_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], [str(gan_run), "--help"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert not end.value.code
    general, special = capsys.readouterr().out.split("usage:")[1:]
    assert "--truncation" not in general
    assert "Scale of the latent vectors" in " ".join(special.split())


def test_no_option_of_a_model_can_be_called_like_one_of_a_command() -> None:
    configs = EvaluateConfig, InterpolateConfig, MixConfig, ReconstructConfig, SampleConfig, TranslateConfig
    assert {field.name for config in configs for field in dataclasses.fields(config)} <= RESERVED_NAMES
    for operation in OPERATIONS.values():
        assert not {field.name for field in dataclasses.fields(operation.options)} & RESERVED_NAMES
