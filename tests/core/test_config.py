"""Configs: one set of dotted names for the command line, sweeps and files; faults named before anything starts."""

import ast
import dataclasses
import inspect
import itertools
import re
import shlex
import textwrap
from typing import cast, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genlab.core.config import as_arguments, differences, from_dict, operational_names, override, parse, to_dict
from genlab.core.errors import ConfigError
from genlab.core.families import families
from genlab.recipes.cyclegan import CycleGANConfig
from genlab.recipes.options import Optimization
from genlab.recipes.recipe import recipe_type
from genlab.recipes.vae import VAEConfig


def docstrings(config: type, prefix: str = "") -> dict[str, str]:
    """Dotted name → the string under the field in the source, for all fields of a config; "" where there is none."""
    found: dict[str, str] = {}
    for owner in reversed([kind for kind in config.__mro__ if dataclasses.is_dataclass(kind)]):
        body = cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]).body
        for line, below in itertools.pairwise([*body, ast.Pass()]):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[prefix + line.target.id] = text
                    case _:
                        found[prefix + line.target.id] = ""
    for name, hint in get_type_hints(config).items():
        if dataclasses.is_dataclass(hint):
            del found[prefix + name]
            found |= docstrings(cast("type", hint), f"{prefix}{name}.")
    return found


@pytest.mark.parametrize("family", families())
def test_help_explains_every_field(
    family: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        parse(recipe_type(family).config_type, ["--help"])
    assert ended.value.code == 0
    # The boxes and line breaks of the help are not part of what it says.
    shown = "".join(re.sub(r"[│╭╮╰╯─|]", " ", capsys.readouterr().out).split())
    explained = docstrings(recipe_type(family).config_type)
    assert {"run.batch", "run.keep", "optimization.learning_rate", "data.split"} <= explained.keys()
    assert [name for name, text in explained.items() if not text] == []
    missing = [
        name
        for name, text in explained.items()
        if f"--{name.replace('_', '-')}" not in shown.replace(".no-", ".")
        or "".join(text.replace("|", " ").replace("`", "").split()) not in shown.replace("`", "")
    ]
    assert missing == []


def test_dotted_overrides_in_either_spelling() -> None:
    config = parse(CycleGANConfig, ["--objective.lambda_cycle", "3", "--run.batch", "2", "--run.no-exact"])
    assert (config.objective.lambda_cycle, config.run.batch, config.run.exact) == (3.0, 2, False)
    assert config.optimization.beta1 == 0.5, "a family's defaults stay"
    assert override(config, {"objective.lambda_cycle": 4}).objective.lambda_cycle == 4.0


def test_a_value_out_of_range_is_refused_with_name_value_and_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"objective\.lambda_cycle = -1\.0: should be greater than or equal to 0"):
        parse(CycleGANConfig, ["--objective.lambda-cycle", "-1"])
    with pytest.raises(ConfigError, match=r"run\.batch = 0"):
        override(VAEConfig(), {"run.batch": 0})
    for endless in ("inf", "nan"):
        with pytest.raises(ConfigError, match=rf"run\.epochs = {endless}: should be"):
            parse(VAEConfig, ["--run.epochs", endless])


def test_an_unknown_option_names_its_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(VAEConfig, ["--model.latent-dimm", "3"])
    assert ended.value.code == 2
    assert "--model.latent-dim" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"model\.latent_dimm: no such option; did you mean model\.latent_dim"):
        override(VAEConfig(), {"model.latent_dimm": 3})
    values = to_dict(VAEConfig())
    values["model"]["latent"] = 3
    with pytest.raises(ConfigError, match=r"model\.latent: no such option"):
        from_dict(VAEConfig, values)


@given(
    latent=st.integers(1, 64),
    channels=st.lists(st.integers(1, 99), min_size=1, max_size=3),
    beta=st.floats(0, 10),
    exact=st.booleans(),
    name=st.none() | st.text("abc '\"$-", min_size=1).filter(lambda text: text[0] not in "-"),
)
@settings(max_examples=25)  # a command line takes tens of milliseconds to read
def test_a_config_survives_files_and_the_command_line(
    latent: int, channels: list[int], beta: float, exact: bool, name: str | None
) -> None:
    config = override(
        VAEConfig(),
        {
            "model.latent_dim": latent,
            "model.channels": channels,
            "objective.beta": beta,
            "run.exact": exact,
            "run.name": name,
        },
    )
    assert from_dict(VAEConfig, to_dict(config)) == config
    assert parse(VAEConfig, shlex.split(as_arguments(config))) == config


def test_differences_leave_operational_fields_aside() -> None:
    assert {"run.workers", "run.keep", "data.images"} <= operational_names(VAEConfig)
    old = VAEConfig()
    new = override(old, {"run.workers": 4, "run.keep": 9, "run.seed": 7, "objective.beta": 2})
    assert differences(old, new) == {"run.seed": (0, 7), "objective.beta": (1.0, 2.0)}


def test_the_learning_rate_is_a_function_of_the_images_seen() -> None:
    assert Optimization(learning_rate=1).rate(500, 1000) == 1
    linear = Optimization(learning_rate=2, schedule="linear", decay_from=0.5)
    assert [linear.rate(images, 1000) for images in (0, 500, 750, 1000)] == [2, 2, 1, 0]
    cosine = Optimization(learning_rate=2, schedule="cosine")
    assert [cosine.rate(images, 1000) for images in (0, 500, 1000)] == pytest.approx([2, 1, 0])
    warm = Optimization(learning_rate=1, warmup_images=100)
    assert warm.rate(49, 1000) == pytest.approx(0.5)
    assert warm.rate(100, 1000) == 1
