"""Presets: many options of a family by one name."""

from pathlib import Path
from typing import Any

import pytest

from genlab.cli.describe import main as describe
from genlab.cli.family_options import read_family_options, read_options
from genlab.cli.train import main as train
from genlab.cli.verify_resume import ResumeOptions
from genlab.core.config import override, to_dict
from genlab.core.errors import ConfigError
from genlab.core.storage import locate, write_json
from genlab.recipes.recipe import preset_values
from genlab.recipes.stylegan import PRESETS, StyleGANConfig
from genlab.recipes.vae import VAEConfig
from genlab.sweeps.space import Space


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_its_options_and_no_others(name: str) -> None:
    expected = override(StyleGANConfig(), preset_values("stylegan", name))
    for words in (["--preset", name], [f"--preset={name}"]):
        assert read_family_options("stylegan", words) == expected
    assert expected != StyleGANConfig()


def test_other_options_change_a_preset_whatever_their_order() -> None:
    expected = override(StyleGANConfig(), dict(PRESETS["F"]) | {"objective.mixing": 0.5, "run.steps": 3})
    words = ["--objective.mixing", "0.5", "--run.steps", "3"]
    for arguments in (["--preset", "F", *words], [*words, "--preset", "F"], [*words[:2], "--preset=F", *words[2:]]):
        assert read_family_options("stylegan", arguments) == expected


def test_a_preset_changes_a_saved_config_and_goes_to_the_family_of_a_command(tmp_path: Path) -> None:
    config = override(StyleGANConfig(), {"run.batch": 8, "objective.mixing": 0.25})
    write_json(locate(tmp_path / "config.json"), {"family": "stylegan", "config": to_dict(config)})
    options, load = read_options(ResumeOptions, [str(tmp_path), "--preset", "F", "--kills", "1"], "genlab try")
    assert options.kills == 1
    assert load(str(tmp_path)) == ("stylegan", override(config, PRESETS["F"]))


def test_a_sweep_may_vary_presets() -> None:
    space = Space("stylegan", {"preset": ["E", "F"], "run.seed": [0, 1]}, "val/kid", "min")
    options = [space.options(point) for point in space.grid()]
    assert options[0] == dict(PRESETS["E"]) | {"run.seed": 0}
    assert options[3] == dict(PRESETS["F"]) | {"run.seed": 1}
    with pytest.raises(ConfigError, match="preset 'G': no such preset of stylegan; choose from "):
        space.options({"preset": "G"})


@pytest.mark.parametrize(
    ("family", "words", "message"),
    [
        ("stylegan", ["--preset", "G"], "preset 'G': no such preset of stylegan; choose from "),
        ("stylegan", ["--preset="], "--preset: give the name of a preset after it"),
        ("stylegan", ["--preset"], "--preset: give the name of a preset after it"),
        ("stylegan", ["--preset", "--run.steps", "3"], "--preset: give the name of a preset after it"),
        ("vae", ["--preset", "F"], "preset 'F': no such preset of vae; there are none"),
    ],
)
def test_a_preset_that_there_is_not_is_said_in_one_line(
    family: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (train, describe):
        with pytest.raises(SystemExit) as ended:
            command([family, *words])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {message}")
        assert said.count("\n") == 1


def test_help_names_the_presets_of_a_family_that_has_some(capsys: pytest.CaptureFixture[str]) -> None:
    shown: dict[str, Any] = {}
    for family, kind in (("stylegan", StyleGANConfig), ("vae", VAEConfig)):
        with pytest.raises(SystemExit) as ended:
            train([family, "--help"])
        assert not ended.value.code
        shown[family] = " ".join(capsys.readouterr().out.split())
        assert (kind.__doc__ or "").split("\n")[0] in shown[family]
    assert f"--preset NAME: {', '.join(PRESETS)}" in shown["stylegan"]
    assert "--preset" not in shown["vae"]
