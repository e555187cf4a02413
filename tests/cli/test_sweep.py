"""``genlab sweep``: its help is enough to write a search space."""

from pathlib import Path

import pytest

from genlab.cli.sweep import EXAMPLE, main
from genlab.core.config import override
from genlab.recipes.recipe import recipe_type
from genlab.sweeps.space import load_space


def test_help_shows_a_space_that_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    assert "usage: genlab sweep SPACE [OPTIONS]" in shown
    assert all(line in shown for line in EXAMPLE.splitlines())
    (tmp_path / "latent.py").write_text(EXAMPLE)
    space = load_space(str(tmp_path / "latent.py"))
    for point in space.grid():
        override(recipe_type(space.family).config_type(), point)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the file of a search space first"),
        (["--run.epochs", "1"], "give the file of a search space first"),
        (["nowhere.py"], "nowhere.py: no such file"),
    ],
)
def test_what_is_no_space_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize("option", ["--model.latent-dim=4", "--run.no-exact"])
def test_an_option_that_the_space_varies_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vary = {"model.latent_dim": [2, 8], "run.exact": [True, False]}
    (tmp_path / "s.py").write_text(
        f'from genlab.sweeps.space import Space\nSPACE = Space("vae", {vary!r}, "val/kl", "min")'
    )
    with pytest.raises(SystemExit):
        main([str(tmp_path / "s.py"), "--run.batch", "8", option])
    assert f"{option.partition('=')[0]}: the space varies" in capsys.readouterr().err


def test_a_file_without_a_space_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "empty.py")])
    assert "declares no SPACE = Space(...)" in capsys.readouterr().err
